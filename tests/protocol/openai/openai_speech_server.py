"""A stand-in for `/audio/speech`: PCM at 24 kHz, streamed (`protocols/tts.md` 7). Texts become tones."""

import asyncio
from typing import Any

import standin_voice
from standin import Exchange, Reply, Standin

KEY = "sk-proj-0123456789abcdefghijkl"
MODEL = "gpt-4o-mini-tts"
RATE_HZ = 24000


class SpeechServer(Standin):
    """`key` is the one that it takes."""

    def __init__(self, *, key: str = KEY, piece_bytes: int = 4001, pace: float = 0.0) -> None:
        """A piece of the body has `piece_bytes`, wherever that cuts, and takes `pace` of its length to make."""
        super().__init__()
        self.key = key
        self.piece_bytes = piece_bytes
        self.pace = pace
        self.route("POST", "/v1/audio/speech", self._speak)
        self.route("GET", "/v1/models/{model}", self._model)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests for speech."""
        return [exchange.json() for exchange in self.at("/v1/audio/speech")]

    async def _speak(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        body = exchange.json()
        if body["model"] != MODEL:
            await _problem(reply, 404, f"The model `{body['model']}` does not exist", "model_not_found")
            return
        assert body["response_format"] == "pcm"
        if len(body["input"]) > 4096:
            await _problem(reply, 400, "String too long", "string_above_max_length")
            return
        data = standin_voice.tone(body["input"], RATE_HZ)
        await reply.begin("audio/pcm")
        for at in range(0, len(data), self.piece_bytes):
            piece = data[at : at + self.piece_bytes]
            await asyncio.sleep(self.pace * len(piece) / 2 / RATE_HZ)
            await reply.piece(piece)
        await reply.end()

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        if await self._known(exchange, reply):
            await reply.json({"id": exchange.params["model"], "object": "model", "created": 1, "owned_by": "openai"})

    async def _known(self, exchange: Exchange, reply: Reply) -> bool:
        given = exchange.headers.get("authorization", "")
        if given == f"Bearer {self.key}":
            return True
        await _problem(reply, 401, f"Incorrect API key provided: {given}.", "invalid_api_key")
        return False


async def _problem(reply: Reply, status: int, message: str, code: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    await reply.json({"error": error}, status)
