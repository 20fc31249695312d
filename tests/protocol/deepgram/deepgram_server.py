"""A stand-in for Deepgram: streaming recognition, `/v1/listen` (Nova) and `/v2/listen` (Flux).

The wire format is that of protocols/stt.md 2 and 3, checked against the SDK's own types. What is "recognised" comes
from a script: the n-th utterance in the audio is its n-th text. Further paths (speak, agent) are added with
`server.route` and `server.socket`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deepgram_flux import FluxStream
from deepgram_nova import NovaStream
from standin import Exchange, Socket, Standin
from standin_ear import ScriptedEar

KEY = "dg-stand-in-key-5f1c"
REQUEST_ID = "52cc0efe-fa77-4aa7-b79c-0dda09de2f14"

IDLE_S = 10.0
"""Without audio for so long a stream is closed; KeepAlive counts only after the first audio."""


class DeepgramServer(Standin):
    """Every stream hears the same script from its beginning."""

    def __init__(self, script: Sequence[str] = (), *, key: str = KEY) -> None:
        super().__init__()
        self.script = list(script)
        self.key = key
        self.language = ""
        """What Nova's `language=multi` and Flux's multi model detect; empty: they tell nothing."""
        self.answers_finalize = True
        """Deepgram does not promise to."""
        self.idle_s = IDLE_S
        self.hang_ms = 600
        """Silence that ends an utterance of the script."""
        self.word_ms = 240
        self.socket("/v1/listen", self._nova)
        self.socket("/v2/listen", self._flux)

    def refusal(self, exchange: Exchange) -> tuple[int, Mapping[str, Any]] | None:
        if exchange.headers.get("authorization") not in (f"Token {self.key}", f"Bearer {self.key}"):
            return 401, error("INVALID_AUTH", "Invalid credentials.")
        if exchange.is_socket and not exchange.asked("model"):
            return 400, error("Bad Request", "Bad Request: model is missing")
        return None

    def ear(self, exchange: Exchange) -> ScriptedEar:
        """Hearing for one stream."""
        return ScriptedEar(
            self.script,
            encoding=exchange.asked("encoding") or "linear16",
            sample_rate=int(exchange.asked("sample_rate") or "8000"),
            hang_ms=self.hang_ms,
            word_ms=self.word_ms,
        )

    async def _nova(self, exchange: Exchange, socket: Socket) -> None:
        stream = NovaStream(
            exchange,
            socket,
            self.ear(exchange),
            language=self.language,
            answers_finalize=self.answers_finalize,
            idle_s=self.idle_s,
        )
        await stream.run()

    async def _flux(self, exchange: Exchange, socket: Socket) -> None:
        stream = FluxStream(exchange, socket, self.ear(exchange), language=self.language, idle_s=self.idle_s)
        await stream.run()


def error(code: str, message: str) -> dict[str, str]:
    """The body of a refusal (REST, and handshakes)."""
    return {"err_code": code, "err_msg": message, "request_id": REQUEST_ID}
