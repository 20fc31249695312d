"""A stand-in for Deepgram's voices, `/v1/speak`: alone, or added to another stand-in.

Wire format: `protocols/tts.md` 6 and the SDK's types. Texts become tones (`standin_voice`).
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import standin_voice
from standin import Exchange, Reply, Socket, Standin, until_gone

KEY = "dg-stand-in-key-5f1c"
REQUEST_ID = "52cc0efe-fa77-4aa7-b79c-0dda09de2f14"


class DeepgramSpeak:
    """The path, on `server`."""

    def __init__(
        self,
        server: Standin,
        *,
        chunk_chars: int = 6,
        pace: float = 0.0,
        most_flushes: int = 20,
        window_s: float = 60,
    ) -> None:
        """A message of audio has `chunk_chars` characters and takes `pace` of its own length to make."""
        self.chunk_chars = chunk_chars
        self.pace = pace
        self.most_flushes = most_flushes
        self.window_s = window_s
        self.spoken: list[str] = []
        self.cleared = 0
        self.warnings = 0
        server.socket("/v1/speak", self._talk)

    async def _talk(self, exchange: Exchange, socket: Socket) -> None:
        now = asyncio.get_running_loop().time
        await socket.json(
            {
                "type": "Metadata",
                "request_id": REQUEST_ID,
                "model_name": exchange.asked("model"),
                "model_version": "2026-01-01.0",
                "model_uuid": REQUEST_ID,
            }
        )
        text, sequence = "", 0
        flushed: list[float] = []
        speaking: asyncio.Task[None] | None = None
        try:
            async for raw in socket:
                message = json.loads(raw)
                match message["type"]:
                    case "Speak":
                        if len(message["text"]) > 2000:
                            await socket.close(1009, "BIG-0001")
                            return
                        text += message["text"]
                    case "Flush":
                        flushed = [at for at in flushed if now() - at < self.window_s]
                        if len(flushed) >= self.most_flushes:
                            self.warnings += 1
                            await socket.json(
                                {
                                    "type": "Warning",
                                    "description": "Too many flushes sent.",
                                    "code": "EXCESSIVE_FLUSH",
                                }
                            )
                            continue
                        flushed.append(now())
                        before = speaking
                        speaking = asyncio.create_task(self._speak(exchange, socket, text, sequence, before))
                        text, sequence = "", sequence + 1
                    case "Clear":
                        if speaking is not None:
                            speaking.cancel()
                            await asyncio.wait([speaking])
                        text, self.cleared = "", self.cleared + 1
                        await socket.json({"type": "Cleared", "sequence_id": sequence})
                    case "Close":
                        return
        finally:
            if speaking is not None:
                speaking.cancel()

    @until_gone
    async def _speak(
        self, exchange: Exchange, socket: Socket, text: str, sequence: int, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        self.spoken.append(text)
        encoding, rate = exchange.asked("encoding"), int(exchange.asked("sample_rate"))
        data = standin_voice.on_wire(text, encoding, rate)
        per_char = rate * standin_voice.CHAR_MS // 1000 * (1 if encoding == "mulaw" else 2)
        for at, part in standin_voice.pieces(text, self.chunk_chars):
            await asyncio.sleep(self.pace * standin_voice.spoken_ms(part) / 1000)
            await socket.send(data[at * per_char : (at + len(part)) * per_char])
        await socket.json({"type": "Flushed", "sequence_id": sequence})


class DeepgramVoices(Standin):
    """A server that has voices alone."""

    def __init__(self, *, key: str = KEY, **speak: Any) -> None:
        super().__init__()
        self.key = key
        self.speak = DeepgramSpeak(self, **speak)
        self.route("GET", "/v1/models", self._models)

    async def _models(self, exchange: Exchange, reply: Reply) -> None:
        thalia = {
            "name": "thalia",
            "canonical_name": "aura-2-thalia-en",
            "architecture": "aura-2",
            "languages": ["en", "en-US"],
            "version": "2026-01-01.0",
            "uuid": REQUEST_ID,
        }
        await reply.json({"stt": [], "tts": [thalia]})

    def refusal(self, exchange: Exchange) -> tuple[int, Mapping[str, Any]] | None:
        given = exchange.headers.get("authorization")
        if given != f"Token {self.key}":
            return 401, {"err_code": "INVALID_AUTH", "err_msg": f"Invalid credentials {given}."}
        if exchange.is_socket and not exchange.asked("model").startswith("aura"):
            return 400, {"err_code": "Bad Request", "err_msg": "No such model."}
        return None
