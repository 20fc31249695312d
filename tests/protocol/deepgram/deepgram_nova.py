"""One stream of the Deepgram stand-in's `/v1/listen` (protocols/stt.md 2)."""

import asyncio
import json
from typing import Any

from standin import Exchange, Socket
from standin_ear import Heard, ScriptedEar

REQUEST_ID = "52cc0efe-fa77-4aa7-b79c-0dda09de2f14"
MODEL_UUID = "30089e05-99d1-4376-b32e-c263170674af"

ENCODINGS = ("linear16", "linear32", "mulaw", "alaw", "flac", "opus", "ogg-opus", "speex", "g729", "amr-nb", "amr-wb")

EMPTY_MS = 5000
"""Of silence, after which a result says that there was nothing."""


class NovaStream:
    def __init__(
        self,
        exchange: Exchange,
        socket: Socket,
        ear: ScriptedEar,
        *,
        language: str,
        answers_finalize: bool,
        idle_s: float,
    ) -> None:
        self._ask = exchange
        self._socket = socket
        self._ear = ear
        self._language = language
        self._answers_finalize = answers_finalize
        self._idle_s = idle_s
        self._interims = exchange.asked("interim_results") == "true"
        endpointing = exchange.asked("endpointing") or "10"
        self._endpointing_ms = 0 if endpointing == "false" else int(endpointing)
        self._utterance_end_ms = int(exchange.asked("utterance_end_ms") or "0")
        self._final_words = 0
        """Of the present utterance, those that are in final results."""
        self._final_ms = 0
        """Audio that is in final results."""
        self._endpointed = True
        self._utterance_ended = True

    async def run(self) -> None:
        if self._ask.asked("encoding") not in ENCODINGS:
            await self._socket.close(1008, "DATA-0000: The payload could not be decoded as audio.")
            return
        heard_audio = False
        try:
            while True:
                # KeepAlive alone does not save a stream that never got audio.
                async with asyncio.timeout(self._idle_s):
                    message = await self._socket.receive()
                    while isinstance(message, str) and not heard_audio and self._is("KeepAlive", message):
                        message = await self._socket.receive()
                if message is None:
                    return
                if message == b"" or (isinstance(message, str) and self._is("CloseStream", message)):
                    await self._finish()
                    return
                if isinstance(message, bytes):
                    heard_audio = True
                    await self._audio(message)
                else:
                    await self._command(message)
        except TimeoutError:
            await self._socket.close(
                1011,
                "NET-0001: Deepgram did not receive audio data or a text message within the timeout window.",
            )

    # -- what comes -----------------------------------------------------------------------------------------------

    async def _audio(self, audio: bytes) -> None:
        for heard in self._ear.feed(audio):
            await self._heard(heard)
        quiet_ms = self._ear.quiet_ms
        if self._ear.speaking and not self._endpointed and 0 < self._endpointing_ms <= quiet_ms:
            self._endpointed = True
            self._ear.finalise()
            await self._results(final=True, speech_final=True)
        if not self._ear.speaking and self._ear.at_ms - self._final_ms >= EMPTY_MS:
            await self._results(final=True)
        since_word_ms = self._ear.at_ms - self._ear.loud_to_ms
        if not self._utterance_ended and 0 < self._utterance_end_ms <= since_word_ms and self._final_words:
            self._utterance_ended = True
            await self._say(type="UtteranceEnd", channel=[0, 1], last_word_end=self._ear.loud_to_ms / 1000)

    async def _heard(self, heard: Heard) -> None:
        match heard.what:
            case "began":
                if self._final_ms < heard.began_ms:
                    self._final_ms = heard.began_ms
                self._final_words = 0
                self._endpointed = self._utterance_ended = False
                if self._ask.asked("vad_events") == "true":
                    await self._say(type="SpeechStarted", channel=[0], timestamp=heard.began_ms / 1000)
            case "words" if self._interims:
                await self._results(final=False)
            case "ended" if self._final_words < len(heard.text.split()):
                await self._results(final=True)
            case _:
                pass
        if self._ear.quiet_ms == 0:
            self._endpointed = False

    async def _command(self, text: str) -> None:
        try:
            command = json.loads(text)
        except json.JSONDecodeError:
            command = {}
        match command.get("type"):
            case "KeepAlive":
                pass
            case "Finalize":
                self._ear.finalise()
                pending = self._final_words < len(self._ear.text.split())
                if pending or self._answers_finalize:
                    await self._results(final=True, speech_final=True, from_finalize=self._answers_finalize)
            case "Configure":
                await self._configure(command)
            case _:
                await self._say(
                    type="Error",
                    variant="SchemaError",
                    description="Could not deserialize last text message.",
                    message=text,
                )

    async def _configure(self, command: dict[str, Any]) -> None:
        if not self._ask.asked("model").startswith("nova-3"):
            await self._say(
                type="ConfigureFailure",
                request_id=REQUEST_ID,
                code="CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                description="Only Nova-3 models take keyterms.",
            )
            return
        await self._say(type="ConfigureSuccess", request_id=REQUEST_ID, keyterms=command.get("keyterms"))

    async def _finish(self) -> None:
        for heard in self._ear.end():
            await self._heard(heard)
        await self._say(
            type="Metadata",
            transaction_key="deprecated",
            request_id=REQUEST_ID,
            sha256="ab" * 32,
            created="2026-11-21T10:00:00.000Z",
            duration=self._ear.at_ms / 1000,
            channels=1,
        )
        await self._socket.close(1000)

    # -- what goes ------------------------------------------------------------------------------------------------

    async def _results(self, *, final: bool, speech_final: bool = False, from_finalize: bool = False) -> None:
        spoken = self._ear.text.split()
        words = [self._word(at, word, len(spoken)) for at, word in enumerate(spoken)][self._final_words :]
        start_ms = self._final_ms
        best: dict[str, Any] = {
            "transcript": " ".join(word["punctuated_word"] for word in words),
            "confidence": 0.98 if words else 0.0,
            "words": words,
        }
        if self._ask.asked("language") == "multi":
            best["languages_hinted"] = []
            if self._language and words:
                best["languages"] = [self._language]
        more: dict[str, Any] = {"from_finalize": from_finalize} if final else {}
        if final:
            self._final_words = len(spoken)
            self._final_ms = self._ear.at_ms
        await self._say(
            type="Results",
            channel_index=[0, 1],
            duration=(self._ear.at_ms - start_ms) / 1000,
            start=start_ms / 1000,
            is_final=final,
            speech_final=speech_final,
            channel={"alternatives": [best]},
            metadata={
                "request_id": REQUEST_ID,
                "model_info": {"name": "general-nova-3", "version": "2025-04-17.21547", "arch": "nova-3"},
                "model_uuid": MODEL_UUID,
            },
            **more,
        )

    def _word(self, at: int, word: str, count: int) -> dict[str, Any]:
        """The words share the utterance evenly."""
        began_ms, step_ms = self._ear.began_ms, (self._ear.loud_to_ms - self._ear.began_ms) / count
        told: dict[str, Any] = {
            "word": word.strip(".,!?").lower(),
            "start": round((began_ms + at * step_ms) / 1000, 3),
            "end": round((began_ms + (at + 0.9) * step_ms) / 1000, 3),
            "confidence": 0.98,
            "punctuated_word": word,
        }
        if self._language and self._ask.asked("language") == "multi":
            told["language"] = self._language
        return told

    async def _say(self, **message: Any) -> None:
        await self._socket.json(message)

    @staticmethod
    def _is(kind: str, text: str) -> bool:
        try:
            return bool(json.loads(text).get("type") == kind)
        except json.JSONDecodeError:
            return False
