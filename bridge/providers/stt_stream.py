"""A streaming recogniser's ear over a connection: audio in chunks through a bounded queue, messages back, deadlines.

One class for all vendors: a vendor brings a `Wire` (its connection, perhaps over its SDK) and a `Dialect` (what its
messages mean, without I/O). Nothing here knows a vendor.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import structlog

from bridge.providers.base import ProviderError, SttEvent, SttFailed
from bridge.providers.stt_turn import Act, Dialect, Item, SttTurn

log = structlog.get_logger(__name__)

QUEUE_S = 20.0
"""Audio that may wait for the network: a reopened stream is given up to 15 s of the turn at once (`agents.ear`)."""

COMMANDS_WAITING = 64
"""Room for commands besides the audio."""

CLOSE_S = 1.5


class Wire(Protocol):
    """An open connection to a recogniser. Its methods raise ProviderError, without a key in it."""

    async def send(self, item: Item) -> None: ...

    def messages(self) -> AsyncIterator[Any]:
        """What the vendor says, as the dialect takes it. Ends when it closes properly."""
        ...

    async def aclose(self) -> None:
        """Say goodbye and close, soon, whatever the far end does."""
        ...


class StreamingSttStream:
    """Implements `SttStream`. Closing it closes the wire."""

    def __init__(
        self,
        wire: Wire,
        dialect: Dialect,
        emit: Callable[[SttEvent], None],
        *,
        sample_rate: int,
        encode: Callable[[bytes], bytes],
        chunk_ms: int,
        settle_s: float,
        least_chunk_ms: int = 0,
        keep_alive_s: float = 0.0,
        speed: float = 0.0,
    ) -> None:
        """`encode` turns int16 PCM at `sample_rate` into the wire's format; it is called for `chunk_ms` at a time.
        `least_chunk_ms`: what is shorter is not sent ahead of a command, but with what follows. `keep_alive_s`:
        `Dialect.idle` is asked after nothing was sent for so long; 0: never. `speed`: audio that has waited is sent
        no faster than this many times real time; 0: as fast as the network takes it."""
        self._wire = wire
        self._dialect = dialect
        self._sink = emit
        self._turn = SttTurn(self._emit, settle_s=settle_s)
        self._encode = encode
        self._chunk = bytearray()
        self._chunk_bytes = sample_rate * chunk_ms // 1000 * 2
        self._least_bytes = sample_rate * least_chunk_ms // 1000 * 2
        self._bytes_per_s = sample_rate * 2
        self._pushed = 0
        self._settle_s = settle_s
        self._keep_alive_s = keep_alive_s
        self._speed = speed
        self._chunk_s = chunk_ms / 1000
        self._loop = asyncio.get_running_loop()
        chunks = int(QUEUE_S / self._chunk_s)
        self._queue: asyncio.Queue[Item] = asyncio.Queue(chunks + COMMANDS_WAITING)
        self._put_at = self._loop.time()
        self._closed = False
        self._over = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks = [self._loop.create_task(self._write()), self._loop.create_task(self._read())]
        if keep_alive_s:
            self._at("keep alive", self._put_at + keep_alive_s, self._keep_alive)

    # -- the contract -------------------------------------------------------------------------------------------

    def push(self, pcm: bytes) -> None:
        if self._over:
            return
        self._chunk += pcm
        self._pushed += len(pcm)
        if len(self._chunk) >= self._chunk_bytes:
            self._flush()

    def speech_started(self) -> None:
        if self._over:
            return
        self._turn.speech_started()
        self._ask(self._dialect.started(self._position_s))

    def speech_paused(self) -> None:
        if self._over:
            return
        now = self._loop.time()
        backlog_s = self._queue.qsize() * self._chunk_s / self._speed if self._speed else 0.0
        pause = self._turn.speech_paused(now, backlog_s)
        self._ask(self._dialect.paused(pause, self._position_s))
        self._at("overdue", now + backlog_s + self._settle_s / 2, lambda: self._overdue(pause))
        self._at("settle", now + backlog_s + self._settle_s, self._expire)

    def want_partial(self) -> None:
        """Partial texts come by themselves."""

    def commit(self) -> None:
        if self._over:
            return
        speaking = self._turn.speaking
        self._turn.commit()
        self._ask(self._dialect.committed(self._position_s, speaking))

    async def aclose(self) -> None:
        self._closed = True
        self._stop()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            # Whoever closes may have a deadline too: the connection must not outlive it.
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._wire.aclose()
            except (TimeoutError, ProviderError):
                pass  # It is broken or hangs, and has been cut off.

    # -- out ----------------------------------------------------------------------------------------------------

    @property
    def _position_s(self) -> float:
        return self._pushed / self._bytes_per_s

    def _flush(self) -> None:
        if self._chunk:
            self._put(self._encode(bytes(self._chunk)))
            self._chunk.clear()

    def _ask(self, acts: Sequence[Act]) -> None:
        for act in acts:
            if isinstance(act, bytes | str):
                if len(self._chunk) >= self._least_bytes:
                    self._flush()
                self._put(act)
            else:
                self._turn.apply(act, self._loop.time())

    def _put(self, item: Item) -> None:
        if not item:
            return  # A resampler has yet to say something; an empty message would end some vendors' streams.
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            self._fail(f"takes no audio: {QUEUE_S:g} s of it are waiting")
        self._put_at = self._loop.time()

    async def _write(self) -> None:
        free_at = 0.0
        try:
            while True:
                item = await self._queue.get()
                if self._speed and isinstance(item, bytes):
                    now = self._loop.time()
                    if free_at > now:
                        await asyncio.sleep(free_at - now)
                    free_at = max(free_at, now) + self._chunk_s / self._speed
                await self._wire.send(item)
        except ProviderError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: a bug must not leave the caller unheard
            self._broke(error)

    # -- in -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            async for message in self._wire.messages():
                now = self._loop.time()
                self._turn.heard_from(now)
                for sign in self._dialect.take(message):
                    self._turn.apply(sign, now)
                if self._turn.failed:
                    self._stop()
                    return
            self._fail("closed the connection")
        except ProviderError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: a bug must not leave the caller unheard
            self._broke(error)

    def _emit(self, event: SttEvent) -> None:
        if not self._closed:
            self._sink(event)

    # -- time ---------------------------------------------------------------------------------------------------

    def _at(self, name: str, when: float, do: Callable[[], None]) -> None:
        """A timer; one of the same name is replaced."""
        before = self._timers.pop(name, None)
        if before is not None:
            before.cancel()
        self._timers[name] = self._loop.call_at(when, do)

    def _keep_alive(self) -> None:
        due = self._put_at + self._keep_alive_s
        if self._loop.time() >= due:
            self._ask(self._dialect.idle())
            due = self._loop.time() + self._keep_alive_s
        if not self._over:
            self._at("keep alive", due, self._keep_alive)

    def _overdue(self, pause: int) -> None:
        if self._turn.waiting and pause == self._turn.pauses:
            self._ask(self._dialect.overdue(pause))

    def _expire(self) -> None:
        if self._turn.expire(self._loop.time()):
            self._stop()
        elif (deadline := self._turn.deadline) is not None:
            # A timer may come a hair early.
            self._at("settle", deadline, self._expire)

    # -- the end ------------------------------------------------------------------------------------------------

    def _fail(self, error: ProviderError | str) -> None:
        if not self._over:
            self._stop()
            self._turn.apply(SttFailed(str(error), fatal=True), self._loop.time())

    def _broke(self, error: Exception) -> None:
        log.error("a recogniser's stream broke", exc_info=error)
        self._fail(f"{type(error).__name__} in its stream")

    def _stop(self) -> None:
        """Nothing more is sent or timed; `aclose` does the rest."""
        self._over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
