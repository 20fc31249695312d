"""One stream of the Deepgram stand-in's `/v2/listen` (protocols/stt.md 3)."""

import asyncio
import json
from typing import Any

from standin import Exchange, Socket
from standin_ear import Heard, ScriptedEar

REQUEST_ID = "6f1f8e2c-1b6e-4d7e-9d0d-8a7c1f4a2b11"

UPDATE_MS = 250
"""Of audio, between two messages."""

EAGER_MS = 160
"""Silence after which a turn is probably over..."""

END_MS = 400
"""...and after which it is."""


class FluxStream:
    def __init__(self, exchange: Exchange, socket: Socket, ear: ScriptedEar, *, language: str, idle_s: float) -> None:
        self._ask = exchange
        self._socket = socket
        self._ear = ear
        self._language = language
        self._idle_s = idle_s
        self._sequence = 0
        self._turn = 0
        self._turn_from_ms = 0
        self._base = 0
        """Words of the utterance that were in turns before."""
        self._open = False
        self._eager = False
        self._told_ms = 0
        self._eager_wanted = bool(exchange.asked("eager_eot_threshold"))
        self._ends_turns = float(exchange.asked("eot_threshold") or "0.7") < 1.0
        self._timeout_ms = int(exchange.asked("eot_timeout_ms") or "5000")

    async def run(self) -> None:
        await self._say(type="Connected", request_id=REQUEST_ID)
        try:
            while True:
                async with asyncio.timeout(self._idle_s):
                    message = await self._socket.receive()
                if message is None:
                    return
                if isinstance(message, bytes):
                    await self._audio(message)
                elif not await self._command(message):
                    return
        except TimeoutError:
            await self._socket.close(1011, "NET-0001")

    # -- what comes -----------------------------------------------------------------------------------------------

    async def _audio(self, audio: bytes) -> None:
        for heard in self._ear.feed(audio):
            await self._heard(heard)
        quiet_ms = self._ear.quiet_ms if self._ear.speaking else END_MS
        if self._eager and quiet_ms == 0:
            self._eager = False
            await self._info("TurnResumed", 0.2)
        if self._open and self._eager_wanted and not self._eager and quiet_ms >= EAGER_MS:
            self._ear.finalise()
            self._eager = True
            await self._info("EagerEndOfTurn", 0.6)
        if self._open and self._ends_turns and quiet_ms >= END_MS:
            self._ear.finalise()
            await self._end("model", 0.86)
        if self._open and self._ear.at_ms - self._ear.loud_to_ms >= self._timeout_ms:
            await self._end("timeout", 0.3)
        if self._ear.at_ms - self._told_ms >= UPDATE_MS:
            await self._info("Update", 0.1 if self._open else 0.01)

    async def _heard(self, heard: Heard) -> None:
        if heard.what == "began":
            self._base = 0
        elif not self._open and len(heard.text.split()) > self._base:
            self._open = True
            await self._info("StartOfTurn", 0.05)

    async def _command(self, text: str) -> bool:
        try:
            command = json.loads(text)
        except json.JSONDecodeError:
            command = {}
        match command.get("type"):
            case "ForceEndTurn":
                self._ear.finalise()
                if self._open:
                    await self._end("manual", 0.4)
            case "Configure":
                await self._configure(command)
            case "CloseStream":
                if self._open:
                    await self._end("model", 0.8)
                return False
            case _:
                await self._say(
                    type="Error", code="UNPARSABLE_CLIENT_MESSAGE", description=f"Unknown message: {text[:80]}"
                )
                await self._socket.close(1008, "UNPARSABLE_CLIENT_MESSAGE")
                return False
        return True

    async def _configure(self, command: dict[str, Any]) -> None:
        thresholds = command.get("thresholds") or {}
        if any(not isinstance(value, int | float) for value in thresholds.values()):
            await self._say(
                type="ConfigureFailure",
                request_id=REQUEST_ID,
                code="INVALID_THRESHOLDS",
                description="Thresholds are numbers.",
            )
            return
        await self._say(
            type="ConfigureSuccess",
            request_id=REQUEST_ID,
            thresholds=thresholds,
            keyterms=command.get("keyterms") or [],
        )

    # -- what goes ------------------------------------------------------------------------------------------------

    async def _end(self, trigger: str, confidence: float) -> None:
        await self._info("EndOfTurn", confidence, trigger=trigger)
        self._base = len(self._ear.text.split())
        self._turn += 1
        self._turn_from_ms = self._ear.at_ms
        self._open = self._eager = False

    async def warn(self, code: str, description: str) -> None:
        await self._say(type="Warning", request_id=REQUEST_ID, code=code, description=description)

    async def _info(self, event: str, confidence: float, **more: Any) -> None:
        words = self._ear.text.split()[self._base :] if self._open else []
        self._told_ms = self._ear.at_ms
        if self._ask.asked("model").endswith("multi"):
            more["languages"] = [self._language] if self._language and words else []
            more["languages_hinted"] = self._ask.query.get("language_hint", [])
        await self._say(
            type="TurnInfo",
            request_id=REQUEST_ID,
            event=event,
            turn_index=self._turn,
            audio_window_start=self._turn_from_ms / 1000,
            audio_window_end=self._ear.at_ms / 1000,
            transcript=" ".join(words),
            words=[{"word": word, "confidence": 0.97} for word in words],
            end_of_turn_confidence=confidence,
            **more,
        )

    async def _say(self, **message: Any) -> None:
        await self._socket.json({**message, "sequence_id": self._sequence})
        self._sequence += 1
