"""Speech to text by ElevenLabs: Scribe's realtime socket.

The socket is ours. The SDK's class opens it without a deadline, prints what goes wrong in a handler to the standard
output, and passes over messages that it does not know, errors among them (`elevenlabs/realtime/connection.py`).
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from bridge.audio.codec import PCMU
from bridge.providers.base import ProviderError, ProviderTimeoutError, SttEvent, SttStream
from bridge.providers.beforehand import beforehand
from bridge.providers.elevenlabs.scribe import COMMIT, ERRORS, SILENCE, ScribeDialect, refused
from bridge.providers.elevenlabs.settings import SOCKET_URL, ElevenLabsSettings
from bridge.providers.models_table import default_model
from bridge.providers.registry import KINDS
from bridge.providers.sockets import ProviderSocket, open_socket, tls
from bridge.providers.stt_audio import wire_encoder
from bridge.providers.stt_stream import StreamingSttStream
from bridge.providers.stt_turn import Item

KEEP_ALIVE_S = 5.0
"""The server closes a socket that gets no audio for some 10 s."""

SILENCE_MS = 100

LINEAR_RATES = (16_000, 24_000)
"""Hz of linear audio; other rates are taken to the first."""

PROBE_RATE = 8000


class ElevenLabsStt:
    """An `Stt`. One for all calls; each call has a connection of its own."""

    def __init__(self, name: str, settings: ElevenLabsSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        key_env = KINDS["elevenlabs"].key_env
        self._name = name
        self._settings = settings.stt
        self._connect_s = settings.connect_s
        self._url = settings.socket_url(SOCKET_URL)
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._model = self._settings.model or default_model("elevenlabs", "stt")

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Read the system's certificates, which would hold up the first call."""
        await beforehand(lambda: tls(self._url))

    async def probe(self) -> str:
        """Open a session and close it: the key is taken, the model is there. Raises ProviderError."""
        socket = await self._connect(PROBE_RATE, "auto")
        await socket.close()
        return f"{self._model} takes a session"

    async def warm(self) -> None:
        """Nothing to open: a session is a connection, and is opened while the phone rings."""

    async def aclose(self) -> None:
        """Nothing to do: streams are closed by whom they were opened for."""

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        """Raises ProviderError."""
        socket = await self._connect(sample_rate, language)
        dialect = ScribeDialect(
            self._name,
            key_from=self._key_from,
            key=self._key,
            detects=self._settings.commit == "vad",
            tells_language=language == "auto",
        )
        return StreamingSttStream(
            ScribeWire(socket, _wire_rate(sample_rate)),
            dialect,
            emit,
            sample_rate=sample_rate,
            encode=wire_encoder(sample_rate, _wire_rate(sample_rate)),
            chunk_ms=self._settings.chunk_ms,
            settle_s=self._settings.settle_s,
            keep_alive_s=KEEP_ALIVE_S,
        )

    async def _connect(self, sample_rate: int, language: str) -> ProviderSocket:
        due = asyncio.get_running_loop().time() + self._connect_s
        socket = await open_socket(
            self._name,
            f"{self._url}/v1/speech-to-text/realtime?{urlencode(self._query(sample_rate, language), doseq=True)}",
            headers={"xi-api-key": self._key},
            connect_s=self._connect_s,
            secrets=(self._key,),
            key_from=self._key_from,
        )
        try:
            async with asyncio.timeout_at(due):
                await self._started(socket)
        except TimeoutError:
            await socket.close()
            raise ProviderTimeoutError(self._name, f"no session within {self._connect_s:g} s") from None
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _started(self, socket: ProviderSocket) -> None:
        """Wait until the session has begun. Raises ProviderError."""
        async for message in objects(socket):
            kind = str(message.get("message_type"))
            if kind == "session_started":
                return
            if kind in ERRORS:
                raise refused(self._name, message, key_from=self._key_from, key=self._key)
        raise ProviderError(self._name, "closed the connection before the session began")

    def _query(self, sample_rate: int, language: str) -> dict[str, Any]:
        settings = self._settings
        rate = _wire_rate(sample_rate)
        query: dict[str, Any] = {
            "model_id": self._model,
            "audio_format": "ulaw_8000" if rate == PCMU.sample_rate else f"pcm_{rate}",
            "commit_strategy": settings.commit,
        }
        if language == "auto":
            query["include_language_detection"] = "true"
        else:
            query["language_code"] = language.partition("-")[0].lower()
        if settings.commit == "vad" and settings.vad_silence_s is not None:
            query["vad_silence_threshold_secs"] = settings.vad_silence_s
        if settings.keyterms:
            query["keyterms"] = list(settings.keyterms)
        flags = {
            "no_verbatim": settings.no_verbatim,
            "filter_background_audio": settings.filter_background_audio,
        }
        query |= {name: "true" for name, wanted in flags.items() if wanted}
        if settings.zero_retention:
            query["enable_logging"] = "false"
        return query


class ScribeWire:
    """Implements `stt_stream.Wire`."""

    def __init__(self, socket: ProviderSocket, rate: int) -> None:
        self._socket = socket
        self._rate = rate
        self._silence = wire_encoder(rate, rate)(bytes(rate * SILENCE_MS // 1000 * 2))

    async def send(self, item: Item) -> None:
        if isinstance(item, bytes):
            await self._chunk(item)
        elif item == COMMIT:
            await self._chunk(b"", commit=True)
        elif item == SILENCE:
            await self._chunk(self._silence)

    async def _chunk(self, audio: bytes, *, commit: bool = False) -> None:
        chunk = {
            "message_type": "input_audio_chunk",
            "audio_base_64": base64.b64encode(audio).decode(),
            "commit": commit,
            "sample_rate": self._rate,
        }
        await self._socket.send(json.dumps(chunk))

    def messages(self) -> AsyncIterator[Any]:
        return objects(self._socket)

    async def aclose(self) -> None:
        await self._socket.close()


async def objects(socket: ProviderSocket) -> AsyncIterator[dict[str, Any]]:
    """The messages that are JSON objects; others mean nothing."""
    async for message in socket:
        try:
            content = json.loads(message)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content


def _wire_rate(sample_rate: int) -> int:
    known = sample_rate == PCMU.sample_rate or sample_rate in LINEAR_RATES
    return sample_rate if known else LINEAR_RATES[0]
