"""A voice's socket as the texts on it need it: messages go out while it lives, come in in order; its end is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from bridge.providers.base import ProviderError
from bridge.providers.tts_source import SocketLostError

M = TypeVar("M")


class Socket(Protocol):
    async def send(self, message: str) -> None:
        """Raises ProviderError."""
        ...

    async def close(self) -> None:
        """Never raises."""
        ...


class VoiceLink(Generic[M]):
    """Reads from its making on."""

    def __init__(
        self,
        socket: Socket,
        messages: AsyncIterator[M],
        *,
        take: Callable[[M], None],
        lost: Callable[[str], None],
    ) -> None:
        """`messages` end with a ProviderError; `take` gets each, `lost` is told once why there are no more."""
        self.alive = True
        """Texts can be spoken on it; whoever finds that they can't, says so here."""
        self._socket = socket
        self._messages = messages
        self._take = take
        self._lost = lost
        self._reader = asyncio.create_task(self._read())

    async def send(self, message: Mapping[str, Any]) -> None:
        """As JSON. Raises SocketLostError."""
        self.must_live()
        try:
            await self._socket.send(json.dumps(message, ensure_ascii=False))
        except ProviderError as error:
            self.alive = False
            raise SocketLostError(error.said) from None

    def must_live(self) -> None:
        """Raises SocketLostError."""
        if not self.alive:
            raise SocketLostError("the connection was lost")

    async def aclose(self) -> None:
        self.alive = False
        self._reader.cancel()
        await asyncio.wait([self._reader])
        # A reader that had no time to begin has closed nothing.
        await self._socket.close()

    async def _read(self) -> None:
        why = "the connection was closed"
        try:
            async for message in self._messages:
                self._take(message)
        except ProviderError as error:
            why = error.said
        finally:
            self.alive = False
            self._lost(why)
            await self._socket.close()
