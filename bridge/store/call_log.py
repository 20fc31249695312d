"""The way onto the record: events are taken at once, in memory, and written behind by one task in batches."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bridge.events import CallAnswered, CallEnded, CallEvent, CallStarted, FormCompleted
from bridge.store.records import Recorded

ESSENTIAL = (CallStarted, CallAnswered, CallEnded, FormCompleted)
"""Kept as long as memory allows: that a call was, how it ended, and what the caller ordered."""

_REMEMBERED_ENDED = 1000
"""Ended calls whose numbering is kept for events that come late."""
_WARN_EVERY_S = 30.0
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0

log = structlog.stdlib.get_logger(__name__)


class BatchWriter(Protocol):
    """What `CallLog` needs of the store."""

    async def write(self, batch: Sequence[Recorded]) -> None: ...


@dataclass(frozen=True, slots=True)
class CallLogStats:
    """Counters since start, for the metrics."""

    queued: int
    """Events that wait to be written, now."""
    written: int
    dropped: int
    """Lost because the queue was full, or recorded after the close."""
    rejected: int
    """Refused by the database for what they hold: a bug, logged each time."""
    failures: int
    """Attempts to write that failed; what they held was tried again."""


class CallLog:
    """Puts events on the record without ever making the caller wait.

    While the database fails, events wait in memory, at most `max_events`; then the oldest that are not ESSENTIAL
    go first, and essential ones are refused only at twice that number. `problem` says what is wrong meanwhile."""

    def __init__(
        self,
        store: BatchWriter,
        *,
        max_events: int = 10_000,
        batch_events: int = 100,
        interval_s: float = 0.1,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Write at most `batch_events` in one transaction, `interval_s` after the first of them came.
        `wall_clock` gives Unix time (s)."""
        self._store = store
        self._max_events = max_events
        self._hard_cap = 2 * max_events
        self._batch_events = batch_events
        self._interval_s = interval_s
        self._wall_clock = wall_clock
        self._handlers: list[Callable[[Recorded], None]] = []
        self._next_seq: dict[str, int] = {}
        self._ended: deque[str] = deque()
        self._unrecorded: set[str] = set()
        """Calls whose start was refused: the rest of them has no row to hang on."""
        # Keyed by a running serial, in order; `_droppable` names those that may go, oldest first.
        self._queue: OrderedDict[int, Recorded] = OrderedDict()
        self._droppable: deque[int] = deque()
        self._batch: list[Recorded] = []
        self._serial = 0
        self._settled = 0
        """Every serial up to here is written, dropped or rejected."""
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._written = self._dropped = self._rejected = self._failures = 0
        self._warned_at = -_WARN_EVERY_S

    def start(self) -> None:
        """Start writing. Events recorded before are written too."""
        self._task = asyncio.create_task(self._run(), name="record writer")

    # -- for the calls' code ------------------------------------------------------------------------------

    def record(self, call_id: str, event: CallEvent) -> None:
        """Put `event` on the record of the call. Returns at once and never raises for the database's sake.
        Called on the event loop's thread; a call's `CallStarted` comes first."""
        seq = self._next_seq.get(call_id, 0)
        self._next_seq[call_id] = seq + 1
        item = Recorded(call_id, seq, self._wall_clock(), event)
        self._enqueue(item)
        if isinstance(event, CallEnded):
            self._forget_later(call_id)
        for handler in tuple(self._handlers):
            handler(item)

    def subscribe(self, handler: Callable[[Recorded], None]) -> Callable[[], None]:
        """Give `handler` every event as it is recorded, synchronously, whether or not it can be written.
        Returns the way to stop that."""
        self._handlers.append(handler)

        def unsubscribe() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return unsubscribe

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at present; None when all is well. `readyz` shows it."""
        return self._problem

    @property
    def stats(self) -> CallLogStats:
        return CallLogStats(
            queued=len(self._queue) + len(self._batch),
            written=self._written,
            dropped=self._dropped,
            rejected=self._rejected,
            failures=self._failures,
        )

    async def settle(self, timeout_s: float = 1.0) -> bool:
        """Wait until everything recorded so far is in the database, so that a query finds it.
        False at once while there is a `problem`, or after `timeout_s`."""
        if self._settled >= self._serial:
            return True
        if self._problem is not None or self._task is None or self._task.done():
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._serial, waiter))
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters = [entry for entry in self._waiters if entry[1] is not waiter]
        return self._problem is None

    async def flush_and_close(self, deadline_s: float = 10.0) -> int:
        """Write what is queued, trying for at most `deadline_s`, and stop. Returns the number of events lost."""
        self._stop.set()
        self._work.set()
        self._hurry.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=deadline_s)
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task})
        self._closed = True
        lost = len(self._queue) + len(self._batch)
        if lost:
            log.error("events lost at the stop", events=lost, problem=self._problem)
            self._dropped += lost
            self._queue.clear()
            self._batch.clear()
        return lost

    # -- the queue ----------------------------------------------------------------------------------------

    def _enqueue(self, item: Recorded) -> None:
        event = item.event
        if item.call_id in self._unrecorded or self._closed:
            self._dropped += 1
            if isinstance(event, CallEnded):
                self._unrecorded.discard(item.call_id)
            return
        if len(self._queue) + len(self._batch) >= self._max_events and not self._make_room(event):
            self._dropped += 1
            if isinstance(event, CallStarted):
                self._unrecorded.add(item.call_id)
            return
        self._serial += 1
        self._queue[self._serial] = item
        if not isinstance(event, ESSENTIAL):
            self._droppable.append(self._serial)
        self._work.set()
        if len(self._queue) >= self._batch_events:
            self._hurry.set()

    def _make_room(self, event: CallEvent) -> bool:
        """Drop the oldest event that may go. False: there is none, and `event` itself must."""
        if self._problem is None:
            self._warn("record falls behind, the oldest events are dropped")
        while self._droppable:
            if self._queue.pop(self._droppable.popleft(), None) is not None:
                self._dropped += 1
                return True
        return isinstance(event, ESSENTIAL) and len(self._queue) + len(self._batch) < self._hard_cap

    def _forget_later(self, call_id: str) -> None:
        self._ended.append(call_id)
        if len(self._ended) > _REMEMBERED_ENDED:
            self._next_seq.pop(self._ended.popleft(), None)

    # -- the writer ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not (self._stop.is_set() and not self._queue):
            await self._work.wait()
            self._work.clear()
            await _wait(self._hurry, self._interval_s)
            self._hurry.clear()
            while self._queue:
                last = self._take()
                await self._deliver()
                self._settled = last
                self._wake_waiters()
            self._settled = self._serial
            self._wake_waiters()

    def _take(self) -> int:
        """Move the next batch out of the queue; returns the serial of its last event."""
        last = self._settled
        while self._queue and len(self._batch) < self._batch_events:
            last, item = self._queue.popitem(last=False)
            self._batch.append(item)
        while self._droppable and self._droppable[0] <= last:
            self._droppable.popleft()
        return last

    async def _deliver(self) -> None:
        """Write the batch, however long it takes; an event that the database won't have is left out."""
        retry_s = _FIRST_RETRY_S
        alone = False
        while self._batch:
            # One by one after a refusal, so that one bad event does not take the others with it.
            chunk = self._batch[:1] if alone else self._batch[:]
            try:
                await self._store.write(chunk)
            except Exception as error:  # noqa: BLE001 - the writer's outermost edge: no event may end it
                if _transient(error):
                    await self._wait_to_retry(error, retry_s)
                    retry_s = min(2 * retry_s, _LAST_RETRY_S)
                    continue
                if not alone:
                    alone = True
                    continue
                self._reject(chunk[0], error)
            else:
                self._written += len(chunk)
            del self._batch[: len(chunk)]
        if self._problem is not None:
            log.info("record written again", waiting=len(self._queue))
            self._problem = None

    def _reject(self, item: Recorded, error: Exception) -> None:
        self._rejected += 1
        log.error("event not recorded", call=item.call_id, event_name=type(item.event).__name__, error=str(error))

    async def _wait_to_retry(self, error: Exception, retry_s: float) -> None:
        self._failures += 1
        self._problem = f"the record can't be written: {getattr(error, 'orig', None) or error}"
        self._warn("record not written")
        self._wake_waiters(everyone=True)
        if self._stop.is_set():
            await asyncio.sleep(_FIRST_RETRY_S)
        else:
            await _wait(self._stop, retry_s)

    def _warn(self, event: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            log.warning(event, problem=self._problem, waiting=self.stats.queued, dropped=self._dropped)

    def _wake_waiters(self, *, everyone: bool = False) -> None:
        for serial, waiter in self._waiters:
            if (everyone or serial <= self._settled) and not waiter.done():
                waiter.set_result(None)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait `seconds`, or less when `event` is set before."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _transient(error: Exception) -> bool:
    """Whether the same write may succeed later: the disk is full, the file locked, the server gone. Otherwise it is
    the events themselves that the database won't have."""
    if isinstance(error, IntegrityError | DataError | ProgrammingError):
        return False
    return isinstance(error, DatabaseError | InterfaceError | PoolTimeoutError | OSError)
