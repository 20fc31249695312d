"""The events of live calls, kept in memory so that anybody who follows a call sees it from its start.

A follower has a place in the call's history instead of a queue of its own: a slow one costs nothing but its lateness.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.events import CallEnded, CallStarted
from bridge.store.records import Recorded

KEPT_EVENTS = 2000
"""Of one call; older ones are let go, and a follower that has not read them yet is told how many it missed."""
CHUNK = 100


@dataclass(frozen=True, slots=True)
class Chunk:
    """What has happened since a follower last looked."""

    events: Sequence[Recorded]
    missed: int
    """Events before these that are no longer kept."""
    over: bool
    """Nothing will come after these."""


class CallHistory:
    """One call's events so far."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._events: list[Recorded] = []
        self._over = False
        self._changed = asyncio.Event()

    def add(self, item: Recorded) -> None:
        self._events.append(item)
        if len(self._events) >= 2 * self._keep:
            del self._events[: -self._keep]
        self._over = isinstance(item.event, CallEnded)
        self._wake()

    def close(self) -> None:
        """End every follower's stream though the call goes on: the bridge stops."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, seq: int, timeout_s: float) -> Chunk:
        """The events numbered above `seq`, at most CHUNK; waits for one, at most `timeout_s` (then it is empty)."""
        if not self._over and (not self._events or self._events[-1].seq <= seq):
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if not self._events:
            return Chunk((), 0, self._over)
        first = self._events[0].seq
        start = max(0, seq + 1 - first)
        found = self._events[start : start + CHUNK]
        reached_end = start + CHUNK >= len(self._events)
        return Chunk(found, max(0, first - seq - 1), self._over and reached_end)


class LiveEvents:
    """The histories of all live calls. `CallLog.subscribe(live.publish)` feeds it."""

    def __init__(self, *, keep: int = KEPT_EVENTS) -> None:
        self._keep = keep
        self._calls: dict[str, CallHistory] = {}
        self._closed = False
        self.followers = 0
        """Streams that are open now."""

    def publish(self, item: Recorded) -> None:
        """Take one event. A call's history begins with its `CallStarted` and ends with its `CallEnded`; who follows
        it at that time reads it to the end, later ones find the call on the record."""
        if isinstance(item.event, CallStarted) and not self._closed:
            self._calls[item.call_id] = CallHistory(self._keep)
        history = self._calls.get(item.call_id)
        if history is None:
            return
        history.add(item)
        if isinstance(item.event, CallEnded):
            del self._calls[item.call_id]

    def find(self, call_id: str) -> CallHistory | None:
        """The history of a live call."""
        return self._calls.get(call_id)

    def close(self) -> None:
        """End all streams, so that the HTTP server can stop."""
        self._closed = True
        for history in self._calls.values():
            history.close()
        self._calls.clear()
