"""Telnyx's voices, over sockets that all calls share (`protocols/telnyx.md` 5)."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from bridge.providers.base import SpeechChunk
from bridge.providers.beforehand import beforehand
from bridge.providers.registry import KINDS
from bridge.providers.sdk_sockets import connection_options, open_sdk_socket
from bridge.providers.sockets import tls
from bridge.providers.telnyx.link import client_and_key, query
from bridge.providers.telnyx.settings import BASE_URL, TelnyxSettings
from bridge.providers.telnyx.voice import SpokenText, TelnyxSocket
from bridge.providers.tts_audio import TELEPHONE_RATE, WireFormat
from bridge.providers.tts_pool import Lease, PoolLimits, SocketPool
from bridge.providers.tts_source import Deadlines, Leave, Source, Utterance, speak, tried

FIXED_RATE = 24_000
"""Hz: the only one that some models have."""

FIXED_RATE_MODELS = ("kokorotts", "qwen3tts", "ultra")

RATES = (8000, 16_000, 24_000, 48_000)
"""Hz; of those that Natural and NaturalHD have, the ones of calls."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the texts of one socket have in common: it stands in the socket's URL."""

    voice: str
    wire: WireFormat
    language: str


class TelnyxTts:
    """A `Tts`. One for all calls: they share its connections, each of which speaks one text at a time.

    Closing the iterator closes the connection if it is still speaking; `warm` and the next text open another."""

    def __init__(self, name: str, settings: TelnyxSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.tts
        self._connect_s = settings.connect_s
        self._client, self._key = client_and_key(name, settings, environ)
        self._key_from = settings.key_from(KINDS["telnyx"].key_env)
        self._url = settings.socket_url("ws" + BASE_URL.removeprefix("http"))
        self._deadlines = Deadlines(self._settings.first_audio_s, self._settings.between_audio_s)
        limits = PoolLimits(1, self._settings.sockets, self._settings.idle_socket_s, self._settings.first_audio_s / 2)
        self._pool: SocketPool[_Kind, TelnyxSocket] = SocketPool(name, self._connect, limits)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what the SDK would load in the first call, for seconds."""
        await beforehand(lambda: self._client.text_to_speech, lambda: tls(self._url))

    async def probe(self) -> str:
        """Speak, as in a call. Raises ProviderError."""
        took_ms = await tried(self)
        return f"voice {self._settings.voice}: first audio after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection, if none is free: for the voices used last, else for the configured one."""
        self._pool.warm(self._kind("", TELEPHONE_RATE, ""))

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._client.close()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak `text`. Raises ProviderError."""
        begin = partial(self._say, text, self._kind(voice, sample_rate, language), sample_rate)
        async with aclosing(speak(self._name, text, self._deadlines, begin)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _kind(self, voice: str, sample_rate: int, language: str) -> _Kind:
        voice = voice or self._settings.voice
        provider, _, rest = voice.lower().partition(".")
        rate = self._settings.rate_hz
        if not rate:
            fixed = provider == "telnyx" and rest.partition(".")[0] in FIXED_RATE_MODELS
            rate = FIXED_RATE if fixed else sample_rate if sample_rate in RATES else FIXED_RATE
        mulaw = self._settings.audio_format == "mulaw"
        wire = WireFormat("mulaw", TELEPHONE_RATE) if mulaw else WireFormat("linear16", rate)
        # Telnyx's own voices have one language each; others may be told.
        return _Kind(voice, wire, "" if provider == "telnyx" or language == "auto" else language)

    async def _connect(self, kind: _Kind) -> TelnyxSocket:
        asked: dict[str, Any] = {
            "voice": kind.voice,
            "audio_format": self._settings.audio_format,
            "sample_rate": kind.wire.rate_hz,
            "language": kind.language,
            "disable_cache": None if self._settings.cached else True,
        }
        manager = self._client.text_to_speech.stream(
            extra_query=query(asked), websocket_connection_options=connection_options(self._url)
        )
        opened = await open_sdk_socket(
            self._name, manager, connect_s=self._connect_s, secrets=(self._key,), key_from=self._key_from
        )
        socket = TelnyxSocket(opened, self._name, kind.voice, self._key)
        try:
            await socket.greet(self._settings.voice_settings)
        except BaseException:
            await socket.aclose()
            raise
        return socket

    async def _say(self, text: str, kind: _Kind, sample_rate: int, fresh: bool) -> Source:
        lease = await self._pool.take(kind, fresh=fresh)
        try:
            spoken = await lease.socket.begin(text, Utterance(text, kind.wire, sample_rate))
        except BaseException:
            lease.retire()
            raise
        return _SocketText(lease, spoken)


class _SocketText:
    """A `Source`: a text on a leased socket."""

    __slots__ = ("_lease", "_spoken")

    def __init__(self, lease: Lease[_Kind, TelnyxSocket], spoken: SpokenText) -> None:
        self._lease = lease
        self._spoken = spoken

    async def next(self) -> SpeechChunk | None:
        return await self._spoken.delivery.fetch()

    async def leave(self, how: Leave) -> None:
        self._lease.socket.forget(self._spoken)
        if how is Leave.STALLED or not self._lease.socket.alive:
            self._lease.retire()
        else:
            self._lease.release()
