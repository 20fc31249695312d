"""Timers as data: each owner has named deadlines, one heap knows the next of all of them."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimerValues:
    """RFC 3261's base values (17.1.1.1, table 4), in seconds."""

    t1: float = 0.5
    """Estimate of the round trip; the first retransmission interval."""
    t2: float = 4.0
    """The longest interval between retransmissions of non-INVITE requests and INVITE responses."""
    t4: float = 5.0
    """How long a message may stay in the network."""

    @property
    def give_up(self) -> float:
        """64*T1: timers B, D, F, H, J, L and M, and the wait for an ACK."""
        return 64 * self.t1


class Timers:
    """The running timers of one owner. `fire(name, now)` is called when one is due, after it was removed."""

    def __init__(self, queue: "TimerQueue", fire: Callable[[str, float], None]) -> None:
        self._queue = queue
        self._fire = fire
        self._deadlines: dict[str, float] = {}

    def set(self, name: str, at: float) -> None:
        """Start the timer, or move it."""
        if name not in self._deadlines:
            self._queue.running += 1
        self._deadlines[name] = at
        self._queue.push(at, self, name)

    def stop(self, *names: str) -> None:
        """Stop these timers; one that does not run is no mistake."""
        for name in names:
            if self._deadlines.pop(name, None) is not None:
                self._queue.running -= 1

    def stop_all(self) -> None:
        self._queue.running -= len(self._deadlines)
        self._deadlines.clear()

    def snapshot(self) -> dict[str, float]:
        """The running timers and when each is due."""
        return dict(self._deadlines)

    def is_due(self, name: str, at: float) -> bool:
        return self._deadlines.get(name) == at

    def fire(self, name: str, now: float) -> None:
        self.stop(name)
        self._fire(name, now)


class TimerQueue:
    """All timers of an agent. Stopped or moved ones stay in the heap until they are met there."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timers, str]] = []
        self._serial = 0
        self.running = 0
        """Timers that are set; the heap may hold more entries, never more than about twice as many."""

    def push(self, at: float, timers: Timers, name: str) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, timers, name))
        if len(self._heap) > 2 * self.running + 64:
            # Most timers are stopped long before they are due: without this, a busy agent would keep
            # half a minute's worth of ended transactions alive through the heap.
            self._heap = [entry for entry in self._heap if entry[2].is_due(entry[3], entry[0])]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """When the next timer is due (seconds, monotonic), None if none runs."""
        heap = self._heap
        while heap:
            at, _, timers, name = heap[0]
            if timers.is_due(name, at):
                return at
            heapq.heappop(heap)
        return None

    def run(self, now: float) -> None:
        """Fire everything that is due at `now`, in order."""
        while (at := self.next()) is not None and at <= now:
            _, _, timers, name = heapq.heappop(self._heap)
            timers.fire(name, now)
