"""A stand-in for AssemblyAI's streaming recognition, v3.

The wire format is that of protocols/stt.md 5, checked against the SDK's own types. What is "recognised" comes from a
script: the n-th utterance in the audio is its n-th text.
"""

import json
from collections.abc import Sequence
from typing import Any

from standin import Exchange, Socket, Standin
from standin_ear import Heard, ScriptedEar

KEY = "aai-stand-in-key-77b2"

LEAST_MS, MOST_MS = 50, 1000
"""Of audio in a frame."""

END_MS = 400
"""Of silence that ends a turn which is confidently over."""

HEARTBEAT_MS = 1000
"""Of audio, between two heartbeats."""


class AssemblyAiServer(Standin):
    """Every session hears the same script from its beginning."""

    def __init__(self, script: Sequence[str] = (), *, key: str = KEY) -> None:
        super().__init__()
        self.script = list(script)
        self.key = key
        self.language = ""
        """What the multilingual model detects; empty: it tells nothing."""
        self.hang_ms = 600
        """Silence that ends an utterance of the script."""
        self.word_ms = 240
        self.begins = True
        """Sessions begin; else they are accepted and nothing is said."""
        self.closes: tuple[int, str] | None = None
        """With which a session is closed in place of its beginning."""
        self.socket("/v3/ws", self._session)

    async def _session(self, exchange: Exchange, socket: Socket) -> None:
        if exchange.headers.get("authorization") != self.key:
            await socket.close(1008, "Unauthorized Connection: invalid API key")
        elif self.closes is not None:
            await socket.close(*self.closes)
        else:
            ear = ScriptedEar(
                self.script,
                encoding=exchange.asked("encoding"),
                sample_rate=int(exchange.asked("sample_rate")),
                hang_ms=self.hang_ms,
                word_ms=self.word_ms,
            )
            await _Session(exchange, socket, ear, self.language).run(begins=self.begins)


class _Session:
    def __init__(self, exchange: Exchange, socket: Socket, ear: ScriptedEar, language: str) -> None:
        self._socket = socket
        self._ear = ear
        self._language = language
        bytes_a_sample = 1 if "law" in exchange.asked("encoding") else 2
        self._bytes_a_ms = int(exchange.asked("sample_rate")) * bytes_a_sample / 1000
        self._formats = exchange.asked("format_turns") == "True"
        self._heartbeats = exchange.asked("session_heartbeat") == "True"
        self._model = exchange.asked("speech_model")
        self._turn = 0
        self._base = 0
        """Words of the utterance that were in turns before."""
        self._open = False
        self._beat_ms = 0

    async def run(self, *, begins: bool) -> None:
        if begins:
            await self._say(
                type="Begin",
                id="cfd280c7-5a9b-4dd6-8c05-235ad09f8e2c",
                expires_at=1_795_000_000,
                configuration={"model": self._model, "api_version": "2025-05-12"},
            )
        async for message in self._socket:
            if isinstance(message, bytes):
                if not LEAST_MS <= len(message) / self._bytes_a_ms <= MOST_MS:
                    await self._socket.close(3007, "Input Duration Error: must be between 50 and 1000 ms")
                    return
                await self._audio(message)
            elif not await self._command(message):
                return

    async def _audio(self, audio: bytes) -> None:
        for heard in self._ear.feed(audio):
            await self._heard(heard)
        if self._open and (self._ear.quiet_ms >= END_MS or not self._ear.speaking):
            self._ear.finalise()
            await self._end(0.92)
        if self._heartbeats and self._ear.at_ms - self._beat_ms >= HEARTBEAT_MS:
            self._beat_ms = self._ear.at_ms
            await self._say(
                type="Heartbeat",
                total_audio_received_ms=self._ear.at_ms,
                total_duration_ms=self._ear.at_ms,
                realtime_factor=1.0,
                max_speech_probability=0.5,
            )

    async def _heard(self, heard: Heard) -> None:
        if heard.what == "began":
            self._base = 0
            await self._say(type="SpeechStarted", timestamp=heard.began_ms)
        elif len(heard.text.split()) > self._base:
            self._open = True
            await self._tell(end=False, formatted=False, confidence=0.05)

    async def _command(self, text: str) -> bool:
        try:
            command = json.loads(text)
        except json.JSONDecodeError:
            command = {}
        match command.get("type"):
            case "ForceEndpoint":
                self._ear.finalise()
                self._open = self._open or len(self._ear.text.split()) > self._base
                if self._open:
                    await self._end(0.3)
            case "KeepAlive" | "UpdateConfiguration":
                pass
            case "Terminate":
                if self._open:
                    await self._end(0.5)
                seconds = self._ear.at_ms // 1000
                await self._say(type="Termination", audio_duration_seconds=seconds, session_duration_seconds=seconds)
                return False
            case _:
                await self._say(type="Error", error_code=3006, error="Invalid message")
                await self._socket.close(3006, "Invalid message")
                return False
        return True

    async def _end(self, confidence: float) -> None:
        await self._tell(end=True, formatted=False, confidence=confidence)
        if self._formats:
            await self._tell(end=True, formatted=True, confidence=confidence)
        self._base = len(self._ear.text.split())
        self._turn += 1
        self._open = False

    async def _tell(self, *, end: bool, formatted: bool, confidence: float) -> None:
        spoken = self._ear.text.split()
        step_ms = (self._ear.loud_to_ms - self._ear.began_ms) / max(len(spoken), 1)
        words = [
            {
                "start": int(self._ear.began_ms + at * step_ms),
                "end": int(self._ear.began_ms + (at + 1) * step_ms),
                "confidence": 0.97,
                "text": word if formatted else word.strip(".,!?").lower(),
                "word_is_final": end or at < len(spoken) - 1,
            }
            for at, word in enumerate(spoken)
        ][self._base :]
        # Words that are not final are in `words` alone.
        final = [str(word["text"]) for word in words if word["word_is_final"]]
        detected = {"language_code": self._language, "language_confidence": 0.9} if self._language else {}
        await self._say(
            type="Turn",
            turn_order=self._turn,
            turn_is_formatted=formatted,
            end_of_turn=end,
            transcript=" ".join(final),
            end_of_turn_confidence=confidence,
            words=words,
            **detected,
        )

    async def _say(self, **message: Any) -> None:
        await self._socket.json(message)
