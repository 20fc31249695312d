"""What sessions of speech-to-speech models share: an orderly way out for messages, and connections opened ahead."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from bridge.providers.base import ProviderError, ProviderTimeoutError, Tool
from bridge.providers.realtime import RealtimeEvent, RealtimeFailed
from bridge.providers.scrub import scrubbed

T = TypeVar("T")
M = TypeVar("M")

MAX_WAITING = 500
"""Messages not sent yet, 20 s of audio: a server that reads no faster is as good as gone."""

SPARE_S = 30.0
"""How long a connection that was opened ahead waits for its call: as long as a phone rings."""

MAX_SPARES = 16

PIECE_FRAMES = 2
"""Frames of the caller sent at a time: each message costs a system call and a task's turn, and a millisecond of delay
in the model's ear is a millisecond of the caller's."""

PING_S = 5.0
"""A line that answers no keep-alive for so long is dead: a caller is waiting."""


class Pump(Generic[T, M]):
    """What a session's socket and its protocol's state have between them: messages go out in order by one task, those
    that come in are taken by another, and what fails is told once."""

    def __init__(
        self,
        provider: str,
        *,
        send: Callable[[T], Awaitable[None]],
        messages: Callable[[], AsyncIterator[M]],
        emit: Callable[[RealtimeEvent], None],
        secrets: tuple[str, ...],
        ping: T | None = None,
        ping_s: float = 5.0,
    ) -> None:
        """`ping` goes out when nothing else did for `ping_s`."""
        self._provider = provider
        self._send = send
        self._messages = messages
        self._told = emit
        self._secrets = secrets
        self._ping = ping
        self._ping_s = ping_s
        self._waiting: deque[T] = deque()
        self._more = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self._closing: Callable[[], None] = lambda: None

    def run(self, take: Callable[[M], None], *, closing: Callable[[], None] = lambda: None) -> None:
        """Begin. `take` raises KeyError, TypeError, ValueError or AttributeError for what is not in the protocol.
        `closing` may `emit` what is left to tell when the session fails."""
        self._closing = closing
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._guard(self._write)),
            loop.create_task(self._guard(lambda: self._read(take))),
        ]

    def emit(self, event: RealtimeEvent) -> None:
        """Tell it, unless the session is over; with a fatal failure it is."""
        if not self._over:
            self._over = isinstance(event, RealtimeFailed) and event.fatal
            self._told(event)

    def put(self, message: T) -> None:
        """Send it, after those before it."""
        if self._over:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._fail(ProviderTimeoutError(self._provider, "it reads nothing any more"))
            return
        self._waiting.append(message)
        self._more.set()

    async def aclose(self) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _fail(self, error: ProviderError) -> None:
        if not self._over:
            self._closing()
        self.emit(RealtimeFailed(error, fatal=True))

    async def _write(self) -> None:
        while True:
            while self._waiting:
                await self._send(self._waiting.popleft())
            self._more.clear()
            try:
                async with asyncio.timeout(None if self._ping is None else self._ping_s):
                    await self._more.wait()
            except TimeoutError:
                assert self._ping is not None
                self._waiting.append(self._ping)

    async def _read(self, take: Callable[[M], None]) -> None:
        async for message in self._messages():
            take(message)
        raise ProviderError(self._provider, "the session was closed")

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ProviderError as error:
            self._fail(error)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = scrubbed(repr(error), *self._secrets)
            self._fail(ProviderError(self._provider, f"sent what is not in its protocol: {said}"))


class Spares(Generic[T]):
    """Connections opened while phones ring, each for whichever call answers first."""

    def __init__(
        self, connect: Callable[[], Coroutine[Any, Any, T]], close: Callable[[T], Coroutine[Any, Any, None]]
    ) -> None:
        self._connect = connect
        self._close = close
        self._spares: deque[tuple[T, asyncio.TimerHandle]] = deque()
        self._opening: deque[asyncio.Task[T]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def warm(self) -> None:
        """Open one more. Never raises."""
        if len(self._spares) + len(self._opening) >= MAX_SPARES or self._closed:
            return
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.append(task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # The call that was to come is over, unless another one has taken what is being opened.
            if task in self._opening:
                task.cancel()
            raise
        finally:
            ours = task in self._opening
            if ours:
                self._opening.remove(task)
        if ours and not task.cancelled() and task.exception() is None:
            if self._closed:
                await self._close(task.result())
                return
            timer = asyncio.get_running_loop().call_later(SPARE_S, self._expire)
            self._spares.append((task.result(), timer))

    async def take(self) -> tuple[T, bool]:
        """A connection, and whether it was a spare, which may be dead by now. Raises ProviderError."""
        if self._spares:
            made, timer = self._spares.pop()
            timer.cancel()
            return made, True
        if self._opening:
            return await self._opening.popleft(), False
        return await self._connect(), False

    def _expire(self) -> None:
        made, _ = self._spares.popleft()
        task = asyncio.get_running_loop().create_task(self._close(made))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        self._closed = True
        for task in self._opening:
            task.cancel()
        for made, timer in self._spares:
            timer.cancel()
            await self._close(made)
        self._spares.clear()
        if self._closing:
            await asyncio.wait(self._closing)


class Pieces:
    """Joins frames of encoded audio into messages' worth."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []

    def add(self, frame: bytes) -> bytes | None:
        """One 20 ms frame; returns what is to be sent now."""
        self._frames.append(frame)
        if len(self._frames) < PIECE_FRAMES:
            return None
        piece = b"".join(self._frames)
        self._frames.clear()
        return piece


def verbatim(text: str) -> str:
    """The instruction to speak `text` and nothing else, for a model that can only be asked."""
    return f'Say these very words to the caller, in their language, adding nothing and leaving nothing out: "{text}"'


def function(tool: Tool) -> dict[str, Any]:
    """A tool's name, description and parameters, as every vendor wants them."""
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
