"""Deepgram's socket for voices (`/v1/speak`), which speaks one text at a time (`protocols/tts.md` 6)."""

import asyncio
from collections import deque
from typing import Any, cast

from deepgram.speak.v1.socket_client import AsyncV1SocketClient
from deepgram.speak.v1.types import SpeakV1Text

from bridge.providers.base import ProviderBusyError, ProviderError
from bridge.providers.scrub import scrubbed
from bridge.providers.sockets import ProviderSocket
from bridge.providers.tts_source import Delivery, SocketLostError, Utterance, parts

FLUSHES = 20
WINDOW_S = 60.0
"""The vendor takes so many flushes in so long on one connection; one more is not answered."""

MESSAGE_CHARS = 1800
"""The vendor refuses longer texts than 2000; several may stand before one flush."""

CLEAR_S = 1.0
"""Longest wait for a text to be cleared; beyond it the connection is given up."""


class FlushBudget:
    """How many flushes may still be sent. Times are seconds of any monotonic clock."""

    def __init__(self, flushes: int = FLUSHES, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._sent: deque[float] = deque(maxlen=flushes)

    def ready(self, now: float) -> bool:
        full = len(self._sent) == self._sent.maxlen
        return not full or now - self._sent[0] >= self._window_s

    def spend(self, now: float) -> None:
        self._sent.append(now)


class SpokenText:
    """One text, flushed."""

    __slots__ = ("delivery", "utterance")

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.delivery = Delivery()


class DeepgramSpeakSocket:
    """A `VoiceSocket`, of one voice and format. The SDK's messages over a connection of ours: its own client for
    connecting is deprecated, and can't be cut off within a deadline."""

    def __init__(self, socket: ProviderSocket, provider: str, key: str) -> None:
        self._socket = socket
        self._client = AsyncV1SocketClient(websocket=cast(Any, socket))
        self._provider = provider
        self._key = key
        self._budget = FlushBudget()
        self._speaking: SpokenText | None = None
        self._cleared: asyncio.Future[None] | None = None
        self._alive = True
        self._reader = asyncio.create_task(self._read())

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def problem(self) -> ProviderError | None:
        return None

    def ready(self, now: float) -> bool:
        return self._budget.ready(now)

    async def begin(self, utterance: Utterance, text: str) -> SpokenText:
        """Have `text` spoken; the one before must be complete or cleared. Raises SocketLostError."""
        spoken = SpokenText(utterance)
        self._speaking = spoken
        self._budget.spend(asyncio.get_running_loop().time())
        try:
            for part in parts(text, MESSAGE_CHARS):
                await self._client.send_text(SpeakV1Text(type="Speak", text=part))
            await self._client.send_flush()
        except ProviderError as error:
            self._alive = False
            raise SocketLostError(error.said) from None
        return spoken

    def forget(self, spoken: SpokenText) -> None:
        if self._speaking is spoken:
            self._speaking = None
        spoken.delivery.finish()

    async def clear(self) -> bool:
        """Stop speaking. True: nothing more of the text will come, and the connection may be used again."""
        self._cleared = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CLEAR_S):
                await self._client.send_clear()
                await self._cleared
        except (ProviderError, TimeoutError):
            return False
        finally:
            self._cleared = None
        return self._alive

    async def aclose(self) -> None:
        self._alive = False
        self._reader.cancel()
        await asyncio.wait([self._reader])
        # A reader that had no time to begin has closed nothing.
        await self._socket.close()

    async def _read(self) -> None:
        why = "the connection was closed"
        try:
            while True:
                try:
                    self._take(await self._client.recv())
                except ValueError:
                    continue  # It is not JSON; the deadline of the text sees to it if that was all.
        except ProviderError as error:
            why = error.said
        finally:
            self._alive = False
            if self._speaking is not None:
                self._speaking.delivery.fail(SocketLostError(why))
            if self._cleared is not None and not self._cleared.done():
                self._cleared.set_result(None)
            await self._socket.close()

    def _take(self, message: Any) -> None:
        spoken = self._speaking
        if isinstance(message, bytes):
            if spoken is not None:
                spoken.delivery.sound(spoken.utterance, message)
            return
        match getattr(message, "type", None):
            case "Flushed" if spoken is not None:
                self._speaking = None
                spoken.delivery.complete(spoken.utterance)
            case "Cleared" if self._cleared is not None and not self._cleared.done():
                self._cleared.set_result(None)
            case "Warning" if spoken is not None:
                self._warned(spoken, str(getattr(message, "description", "")))

    def _warned(self, spoken: SpokenText, said: str) -> None:
        """A flush that is one too many gets no other answer."""
        if "flush" in said.lower():
            self._alive = False
            spoken.delivery.fail(ProviderBusyError(self._provider, scrubbed(said, self._key)))
