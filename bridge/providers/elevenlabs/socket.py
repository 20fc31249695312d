"""ElevenLabs' multi-context socket: up to five texts at once, each in a context of its own (`protocols/tts.md` 3)."""

import asyncio
import binascii
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bridge.providers.base import ProviderError
from bridge.providers.elevenlabs.failures import detail, failure
from bridge.providers.sockets import ProviderSocket
from bridge.providers.tts_source import Delivery, SocketLostError, Utterance
from bridge.providers.tts_words import times_ms
from bridge.providers.voice_link import VoiceLink

CONTEXTS = 5
"""The vendor's limit for one socket."""

DRAIN_S = 5.0
"""How long a context that nobody listens to any more still counts as open, if the server does not end it."""


class SpokenText:
    """One text in its context. A `Source`, but for leaving it."""

    __slots__ = ("context_id", "delivery", "utterance")

    def __init__(self, context_id: str, utterance: Utterance) -> None:
        self.context_id = context_id
        self.utterance = utterance
        self.delivery = Delivery()


class MultiContextSocket:
    """A `VoiceSocket`, of one voice, model, format and language.

    Each text is a context: opened, told the text, flushed and closed at once, upon which the server speaks all of it
    and ends with `isFinal`. Several texts in one context would keep the melody going, but then nothing on the wire
    tells the end of the first: a flush is not acknowledged, and the alignment of what follows may begin with the
    words before."""

    def __init__(self, socket: ProviderSocket, provider: str, *, key_from: str, key: str) -> None:
        self._provider = provider
        self._key_from = key_from
        self._key = key
        self._numbers = itertools.count(1)
        self._texts: dict[str, SpokenText] = {}
        self._ended: dict[str, asyncio.Future[None]] = {}
        """Contexts that the server has yet to end."""
        self._problem: ProviderError | None = None
        self._link = VoiceLink(socket, _received(socket), take=self._take, lost=self._lost)

    @property
    def alive(self) -> bool:
        return self._link.alive

    @property
    def problem(self) -> ProviderError | None:
        return self._problem

    def ready(self, now: float) -> bool:
        return True

    async def begin(self, utterance: Utterance, text: str, voice_settings: Mapping[str, Any]) -> SpokenText:
        """Have `text` spoken. Raises SocketLostError."""
        context_id = str(next(self._numbers))
        spoken = SpokenText(context_id, utterance)
        self._texts[context_id] = spoken
        self._ended[context_id] = asyncio.get_running_loop().create_future()
        opening: dict[str, Any] = {"text": " ", "context_id": context_id}
        if voice_settings:
            opening["voice_settings"] = voice_settings
        try:
            await self._link.send(opening)
            # A word is taken for complete by the space behind it.
            await self._link.send({"text": f"{text.strip()} ", "context_id": context_id, "flush": True})
            await self._link.send({"context_id": context_id, "close_context": True})
        except BaseException:
            self.forget(spoken)
            raise
        return spoken

    def forget(self, spoken: SpokenText) -> None:
        """Drop whatever still comes of it: the server has been told all there is to tell, and can't be stopped."""
        self._texts.pop(spoken.context_id, None)
        if spoken.delivery.over:
            self._ended.pop(spoken.context_id, None)
        spoken.delivery.finish()

    async def ended(self, spoken: SpokenText) -> None:
        """Wait until the server has ended the context, or may be taken to have."""
        ended = self._ended.get(spoken.context_id)
        if ended is not None:
            await asyncio.wait([ended], timeout=DRAIN_S)
            self._ended.pop(spoken.context_id, None)

    async def aclose(self) -> None:
        await self._link.aclose()

    def _lost(self, why: str) -> None:
        for spoken in list(self._texts.values()):
            spoken.delivery.fail(SocketLostError(why))
        self._texts.clear()
        for ended in self._ended.values():
            _done(ended)

    def _take(self, raw: str | bytes) -> None:
        try:
            message = json.loads(raw)
            if not isinstance(message, dict):
                raise ValueError("no object")
        except ValueError:
            # Whose it was can't be told: the deadline of the text that it was for will see to it.
            return
        context_id = str(message.get("contextId") or message.get("context_id") or "")
        if message.get("error") or (message.get("message") and message.get("audio") is None):
            self._refused(message, context_id)
            return
        spoken = self._texts.get(context_id)
        if spoken is not None and message.get("audio"):
            _sound(spoken, message)
        if message.get("isFinal") or message.get("is_final"):
            if spoken is not None:
                spoken.delivery.complete(spoken.utterance)
                del self._texts[spoken.context_id]
            if (ended := self._ended.pop(context_id, None)) is not None:
                _done(ended)

    def _refused(self, message: Mapping[str, Any], context_id: str) -> None:
        code, said = detail(message)
        code = str(message.get("error") or code)
        if "input_timeout" in code:
            # It was idle for too long; a close follows, after which texts are sent again elsewhere.
            self._link.alive = False
            return
        error = failure(self._provider, 0, code, said, key_from=self._key_from, key=self._key)
        concerned = [self._texts[context_id]] if context_id in self._texts else list(self._texts.values())
        for spoken in concerned:
            spoken.delivery.fail(error)
        if context_id not in self._texts:
            self._link.alive, self._problem = False, error


def _sound(spoken: SpokenText, message: Mapping[str, Any]) -> None:
    """Take the audio of a message, if it can be read."""
    try:
        data = binascii.a2b_base64(message["audio"])
    except (ValueError, TypeError):
        return
    alignment = message.get("alignment")
    if isinstance(alignment, dict):
        found = alignment.get("chars")
        characters = found if isinstance(found, list) else []
        starts = times_ms(alignment.get("charStartTimesMs") or alignment.get("charsStartTimesMs"))
        lengths = times_ms(alignment.get("charDurationsMs") or alignment.get("charsDurationsMs"))
        ends = [start + length for start, length in zip(starts, lengths, strict=False)]
        spoken.utterance.align_characters([str(char) for char in characters], starts, ends)
    spoken.delivery.sound(spoken.utterance, data)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _received(socket: ProviderSocket) -> AsyncIterator[str | bytes]:
    """Ends with the error, whatever way the connection is closed."""
    while True:
        yield await socket.recv()
