"""What sessions of speech-to-speech models share: an orderly way out for messages, and connections opened ahead."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from bridge.providers.base import ProviderError, Tool

T = TypeVar("T")

MAX_WAITING = 500
"""Messages not sent yet, 10 s of audio: a server that reads no faster is as good as gone."""

SPARE_S = 30.0
"""How long a connection that was opened ahead waits for its call: as long as a phone rings."""

MAX_SPARES = 16

PING_S = 5.0
"""A line that answers no keep-alive for so long is dead: a caller is waiting."""


class Outgoing(Generic[T]):
    """Messages on their way out, in order. `put` returns at once, `run` sends."""

    def __init__(self, send: Callable[[T], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: deque[T] = deque()
        self._more = asyncio.Event()

    def put(self, message: T) -> bool:
        """False: too much waits already, the message was not taken."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(message)
        self._more.set()
        return True

    async def run(self) -> None:
        """Send until cancelled. Raises what sending raises."""
        while True:
            while self._waiting:
                await self._send(self._waiting.popleft())
            self._more.clear()
            await self._more.wait()


class Spares(Generic[T]):
    """Connections opened while phones ring, each for whichever call answers first."""

    def __init__(self, connect: Callable[[], Awaitable[T]], close: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        self._connect = connect
        self._close = close
        self._spares: deque[tuple[T, asyncio.TimerHandle]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def warm(self) -> None:
        """Open one more. Never raises."""
        if len(self._spares) >= MAX_SPARES or self._closed:
            return
        with suppress(ProviderError):
            made = await self._connect()
            if self._closed:
                await self._close(made)
            else:
                timer = asyncio.get_running_loop().call_later(SPARE_S, self._expire)
                self._spares.append((made, timer))

    async def take(self) -> tuple[T, bool]:
        """A connection, and whether it was a spare, which may be dead by now. Raises ProviderError."""
        if self._spares:
            made, timer = self._spares.pop()
            timer.cancel()
            return made, True
        return await self._connect(), False

    def _expire(self) -> None:
        made, _ = self._spares.popleft()
        task = asyncio.get_running_loop().create_task(self._close(made))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        self._closed = True
        for made, timer in self._spares:
            timer.cancel()
            await self._close(made)
        self._spares.clear()
        if self._closing:
            await asyncio.wait(self._closing)


async def stop(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def verbatim(text: str) -> str:
    """The instruction to speak `text` and nothing else, for a model that can only be asked."""
    return f'Say these very words to the caller, in their language, adding nothing and leaving nothing out: "{text}"'


def function(tool: Tool) -> dict[str, Any]:
    """A tool's name, description and parameters, as every vendor wants them."""
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
