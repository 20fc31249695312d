"""Speech to text by Telnyx: its transcription socket, through the SDK (`protocols/telnyx.md` 5)."""

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from bridge.audio.codec import PCMU
from bridge.audio.resample import Resampler
from bridge.providers.base import ProviderError, SttEvent, SttStream
from bridge.providers.beforehand import beforehand
from bridge.providers.registry import KINDS
from bridge.providers.sdk_sockets import SdkSocket, connection_options, open_sdk_socket
from bridge.providers.sockets import tls
from bridge.providers.stt_stream import StreamingSttStream
from bridge.providers.stt_turn import Item
from bridge.providers.telnyx.link import client_and_key, query
from bridge.providers.telnyx.settings import BASE_URL, TelnyxSettings, stt_model
from bridge.providers.telnyx.transcript import TelnyxDialect

KEEP_ALIVE_S = 4.0
"""The engine behind closes a stream that sends nothing for 10 s."""

ENDPOINTING_MS = 300
"""Deepgram's, where nothing is configured."""

TELEPHONE_RATE = 8000

WIDEBAND_RATE = 16_000
"""Hz; engines use no more."""

CLOSE_STREAM = "CloseStream"


class TelnyxStt:
    """An `Stt`. One for all calls; each call has a connection of its own."""

    def __init__(self, name: str, settings: TelnyxSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.stt
        self._model = stt_model(settings.stt)
        self._connect_s = settings.connect_s
        self._client, self._key = client_and_key(name, settings, environ)
        self._key_from = settings.key_from(KINDS["telnyx"].key_env)
        self._url = settings.socket_url("ws" + BASE_URL.removeprefix("http"))
        self._finalises = self._settings.engine == "Deepgram"

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what the SDK would load in the first call, for seconds."""
        await beforehand(lambda: self._client.speech_to_text, lambda: tls(self._url))

    async def probe(self) -> str:
        """Open a stream and close it: the key is taken. Raises ProviderError."""
        socket = await self._connect(TELEPHONE_RATE, "auto")
        await socket.close()
        return f"{' '.join(part for part in (self._settings.engine, self._model) if part)} takes a stream"

    async def warm(self) -> None:
        """Nothing to open: a stream is a connection, and is opened while the phone rings."""

    async def aclose(self) -> None:
        await self._client.close()

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        """Raises ProviderError."""
        socket = await self._connect(sample_rate, language)
        return StreamingSttStream(
            TelnyxWire(socket, finalises=self._finalises),
            TelnyxDialect(self._name, self._key, finalises=self._finalises),
            emit,
            sample_rate=sample_rate,
            encode=self._encoder(sample_rate),
            chunk_ms=self._settings.chunk_ms,
            settle_s=self._settings.settle_s,
            keep_alive_s=KEEP_ALIVE_S,
        )

    async def _connect(self, sample_rate: int, language: str) -> SdkSocket:
        settings = self._settings
        asked = {
            "transcription_engine": settings.engine,
            "model": self._model,
            "input_format": settings.input_format,
            "sample_rate": _wire_rate(sample_rate),
            "language": self._language(language),
            "interim_results": True,
            "endpointing": self._endpointing(),
            "keyterm": list(settings.keyterms),
            **settings.parameters,
        }
        manager = self._client.speech_to_text.transcribe(
            extra_query=query(asked), websocket_connection_options=connection_options(self._url)
        )
        return await open_sdk_socket(
            self._name, manager, connect_s=self._connect_s, secrets=(self._key,), key_from=self._key_from
        )

    def _endpointing(self) -> str:
        """Empty: the engine's own."""
        given = self._settings.endpointing_ms
        if given is None:
            return str(ENDPOINTING_MS) if self._finalises else ""
        return str(given) if given else "false"

    def _language(self, language: str) -> str:
        if language != "auto":
            return language
        return "multi" if self._finalises else "auto_detect" if self._settings.engine == "Telnyx" else ""

    def _encoder(self, sample_rate: int) -> Callable[[bytes], bytes]:
        encode = PCMU.encoder() if self._settings.input_format == "mulaw" else bytes
        rate = _wire_rate(sample_rate)
        if rate == sample_rate:
            return encode
        resampler = Resampler(sample_rate, rate)
        return lambda pcm: encode(resampler.process(pcm))


class TelnyxWire:
    """Implements `stt_stream.Wire`."""

    def __init__(self, socket: SdkSocket, *, finalises: bool) -> None:
        self._socket = socket
        self._finalises = finalises

    async def send(self, item: Item) -> None:
        await self._socket.send(item if isinstance(item, bytes) else json.dumps({"type": item}))

    def messages(self) -> AsyncIterator[Any]:
        return self._socket.objects()

    async def aclose(self) -> None:
        try:
            if self._finalises:
                with suppress(ProviderError):
                    await self.send(CLOSE_STREAM)
        finally:
            await self._socket.close()


def _wire_rate(sample_rate: int) -> int:
    return TELEPHONE_RATE if sample_rate == TELEPHONE_RATE else WIDEBAND_RATE
