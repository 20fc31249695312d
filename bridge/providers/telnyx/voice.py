"""Telnyx's voice socket: one text after another, each to its final frame (`protocols/telnyx.md` 5)."""

import asyncio
import binascii
import json
from collections.abc import Mapping
from typing import Any

from bridge.providers.base import ProviderError, ProviderUnavailableError
from bridge.providers.scrub import scrubbed
from bridge.providers.sdk_sockets import SdkSocket
from bridge.providers.tts_source import Delivery, SocketLostError, Utterance
from bridge.providers.voice_link import VoiceLink

MORE_S = 0.6
"""Wait for more after a final frame that does not cover the whole text: a server may end each sentence for itself."""

NEXT_S = 0.1
"""The same where that can't be told, as frames do not say which text they are of."""


class SpokenText:
    """One text, as it comes."""

    __slots__ = ("covered", "delivery", "heard", "letters", "text", "utterance")

    def __init__(self, text: str, utterance: Utterance) -> None:
        self.text = text
        self.utterance = utterance
        self.delivery = Delivery()
        self.letters = _letters(text)
        self.covered = 0
        """Letters of the text that the server has said to be spoken."""
        self.heard = False


class TelnyxSocket:
    """A `VoiceSocket`, of one voice and format. It speaks one text at a time: frames carry no id, so what is spoken
    can't be told apart, and to interrupt it (`force`) leaves frames behind that would pass for the next text's."""

    def __init__(self, socket: SdkSocket, provider: str, voice: str, key: str) -> None:
        self._socket = socket
        self._provider = provider
        self._voice = voice
        self._key = key
        self._text: SpokenText | None = None
        self._problem: ProviderError | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._link = VoiceLink(socket, socket.objects(), take=self._take, lost=self._lost)

    @property
    def alive(self) -> bool:
        return self._link.alive

    @property
    def problem(self) -> ProviderError | None:
        return self._problem

    def ready(self, now: float) -> bool:
        return self._text is None

    async def greet(self, voice_settings: Mapping[str, Any]) -> None:
        """What a server wants first. Raises ProviderError."""
        hello: dict[str, Any] = {"text": " "}
        if voice_settings:
            hello["voice_settings"] = dict(voice_settings)
        await self._socket.send(json.dumps(hello))

    async def begin(self, text: str, utterance: Utterance) -> SpokenText:
        """Have `text` spoken. Raises SocketLostError."""
        self._link.must_live()
        spoken = self._text = SpokenText(text, utterance)
        # Unflushed, a text that does not end as a sentence does would wait for more.
        await self._link.send({"text": text, "flush": True})
        return spoken

    def forget(self, spoken: SpokenText) -> None:
        """Nobody listens to it any more. If it goes on, the socket is of no more use."""
        if self._text is spoken:
            self._link.alive = self._link.alive and spoken.delivery.over
            self._text = None
        spoken.delivery.finish()

    async def aclose(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        await self._link.aclose()
        self._lost("the connection was closed")

    def _lost(self, why: str) -> None:
        if self._text is not None:
            self._text.delivery.fail(SocketLostError(why))

    def _take(self, message: Mapping[str, Any]) -> None:
        spoken = self._text
        if message.get("error") or message.get("errors"):
            # It closes the connection after this.
            self._link.alive = False
            wrong = message.get("error") or json.dumps(message["errors"])
            error = ProviderError(self._provider, scrubbed(wrong, self._key))
            if spoken is not None:
                spoken.delivery.fail(error)
            else:
                self._problem = error
            return
        if spoken is None:
            return
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        text = message.get("text")
        if isinstance(text, str):
            spoken.covered += _letters(text)
        if message.get("audio"):
            self._sound(spoken, message["audio"])
        if message.get("isFinal") is True:
            self._final(spoken)

    def _sound(self, spoken: SpokenText, audio: object) -> None:
        try:
            data = binascii.a2b_base64(audio) if isinstance(audio, str) else b""
        except ValueError:
            return
        if not spoken.heard and (container := _container(data)):
            spoken.delivery.fail(
                ProviderUnavailableError(
                    self._provider, f"{self._voice} gives {container}, not bare audio: choose another voice or format"
                )
            )
            self._link.alive = False
            return
        spoken.heard = spoken.heard or bool(data)
        spoken.delivery.sound(spoken.utterance, data)

    def _final(self, spoken: SpokenText) -> None:
        if spoken.covered >= spoken.letters:
            self._end(spoken)
            return
        wait_s = MORE_S if spoken.covered else NEXT_S
        self._ending = asyncio.get_running_loop().call_later(wait_s, self._end_unsure, spoken)

    def _end_unsure(self, spoken: SpokenText) -> None:
        # Should more come after all, it must not pass for the next text's.
        self._link.alive = False
        self._end(spoken)

    def _end(self, spoken: SpokenText) -> None:
        self._ending = None
        spoken.delivery.complete(spoken.utterance)
        if self._text is spoken:
            self._text = None


def _letters(text: str) -> int:
    return sum(char.isalnum() for char in text)


def _container(data: bytes) -> str:
    """What audio begins with that is no bare PCM; empty: nothing that is known."""
    if data.startswith(b"RIFF"):
        return "WAV"
    if data.startswith(b"OggS"):
        return "Ogg"
    sync = len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0
    # Layer III, with a bit rate and a sample rate that exist.
    layer3 = sync and data[1] & 0x06 == 0x02 and data[2] & 0xF0 not in (0, 0xF0) and data[2] & 0x0C != 0x0C
    return "MP3" if data.startswith(b"ID3") or layer3 else ""
