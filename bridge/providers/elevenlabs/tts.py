"""ElevenLabs' voices, over sockets that all calls share or over HTTP."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import httpx2

from bridge.providers.base import SpeechChunk
from bridge.providers.beforehand import beforehand
from bridge.providers.elevenlabs.http import HttpText, SpokenBefore
from bridge.providers.elevenlabs.settings import BASE_URL, SOCKET_URL, ElevenLabsSettings, ElevenLabsTtsSettings
from bridge.providers.elevenlabs.socket import CONTEXTS, MultiContextSocket, SpokenText
from bridge.providers.registry import KINDS
from bridge.providers.sockets import open_socket, tls
from bridge.providers.tts_audio import TELEPHONE_RATE, WireFormat, wire_format
from bridge.providers.tts_pool import Lease, PoolLimits, SocketPool
from bridge.providers.tts_source import Deadlines, Leave, Source, Utterance, speak, tried

__all__ = ["ElevenLabsSettings", "ElevenLabsTts"]

LINEAR_RATES = (16000, 24000)
"""Hz; higher ones are in the dearer plans alone."""

INACTIVITY_S = 180
"""What we ask the vendor to wait for input: its most."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the texts of one socket have in common: it stands in the socket's URL."""

    voice: str
    wire: WireFormat
    language: str


class ElevenLabsTts:
    """A `Tts`. One for all calls: they share its connections.

    Each text is spoken for itself in `mode: socket`: several texts of a turn in one context would keep the melody
    going, but the protocol does not tell then when the audio of one is complete (a flush is not acknowledged, and the
    alignment after it may begin with words before it). In `mode: http` a text is told what was said before it in its
    `turn` (`previous_text`).

    Closing the iterator drops what still comes by the context's id; its place on the socket is free again once the
    server has ended it."""

    def __init__(self, name: str, settings: ElevenLabsSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        key_env = KINDS["elevenlabs"].key_env
        self._name = name
        self._settings = settings.tts
        self._connect_s = settings.connect_s
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._base_url = settings.base_url or BASE_URL
        self._socket_url = settings.socket_url(SOCKET_URL)
        self._model = self._settings.model
        self._deadlines = Deadlines(self._settings.first_audio_s, self._settings.between_audio_s)
        self._voice_settings = _voice_settings(self._settings)
        limits = PoolLimits(
            CONTEXTS, self._settings.sockets, self._settings.idle_socket_s, self._settings.first_audio_s / 2
        )
        self._pool: SocketPool[_Kind, MultiContextSocket] = SocketPool(name, self._connect, limits)
        self._draining: set[asyncio.Task[None]] = set()
        self._before = SpokenBefore()
        self._http: httpx2.AsyncClient | None = None

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what would hold up the first call."""
        if self._settings.mode == "http":
            await beforehand(self._http_client)
        else:
            await beforehand(lambda: tls(self._socket_url))

    async def probe(self) -> str:
        """Speak, as in a call. Raises ProviderError."""
        took_ms = await tried(self)
        return f"{self._model}, voice {self._settings.voice}, at {self._base_url}: first audio after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection, if none has room: for the voices used last, else for the configured one."""
        if self._settings.mode == "socket":
            self._pool.warm(self._kind("", TELEPHONE_RATE, ""))
            return
        with suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(self._connect_s):
                # Any answer will do: the connection is then kept.
                await self._http_client().get("/v1/models")

    async def aclose(self) -> None:
        for task in self._draining:
            task.cancel()
        if self._draining:
            await asyncio.wait(self._draining)
        await self._pool.aclose()
        if self._http is not None:
            await self._http.aclose()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak `text`. Raises ProviderError."""
        kind = self._kind(voice, sample_rate, language)
        if self._settings.mode == "http":
            begin = partial(self._request, text, kind, sample_rate, self._before.get(turn))
            self._before.add(turn, text)
        else:
            begin = partial(self._say, text, kind, sample_rate)
        async with aclosing(speak(self._name, text, self._deadlines, begin)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _kind(self, voice: str, sample_rate: int, language: str) -> _Kind:
        spoken = "" if language == "auto" else language.partition("-")[0].lower()
        # The older models refuse to be told the language, or guess it better by themselves.
        told = spoken if "v2_5" in self._model or self._model.startswith(("eleven_v3", "eleven_v4")) else ""
        return _Kind(voice or self._settings.voice, wire_format(sample_rate, LINEAR_RATES), told)

    # -- socket ---------------------------------------------------------------------------------------------

    async def _connect(self, kind: _Kind) -> MultiContextSocket:
        settings = self._settings
        query = {
            "model_id": self._model,
            "output_format": _output_format(kind.wire),
            "inactivity_timeout": INACTIVITY_S,
            "auto_mode": "true",
            "sync_alignment": "true",
            "apply_text_normalization": settings.text_normalization,
        }
        if kind.language:
            query["language_code"] = kind.language
        if settings.zero_retention:
            query["enable_logging"] = "false"
        path = f"/v1/text-to-speech/{quote(kind.voice, safe='')}/multi-stream-input"
        socket = await open_socket(
            self._name,
            f"{self._socket_url}{path}?{urlencode(query)}",
            headers={"xi-api-key": self._key},
            connect_s=self._connect_s,
            secrets=(self._key,),
            key_from=self._key_from,
        )
        return MultiContextSocket(socket, self._name, key_from=self._key_from, key=self._key)

    async def _say(self, text: str, kind: _Kind, sample_rate: int, fresh: bool) -> Source:
        lease = await self._pool.take(kind, fresh=fresh)
        try:
            utterance = Utterance(text, kind.wire, sample_rate)
            spoken = await lease.socket.begin(utterance, text, self._voice_settings)
        except BaseException:
            lease.retire()
            raise
        return _SocketText(self, lease, spoken)

    def drain(self, lease: Lease[_Kind, MultiContextSocket], spoken: SpokenText) -> None:
        """Give a text's place back once the server has ended it."""

        async def wait() -> None:
            try:
                await lease.socket.ended(spoken)
            finally:
                lease.release()

        task = asyncio.create_task(wait())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    # -- HTTP -----------------------------------------------------------------------------------------------

    def _http_client(self) -> httpx2.AsyncClient:
        if self._http is None:
            # The deadlines are ours; these only stop what would outlive them.
            slack_s = max(self._deadlines.first_audio_s, self._deadlines.between_audio_s) + 1
            limits = httpx2.Limits(max_keepalive_connections=50, keepalive_expiry=self._settings.idle_socket_s)
            self._http = httpx2.AsyncClient(
                base_url=self._base_url,
                headers={"xi-api-key": self._key},
                timeout=httpx2.Timeout(slack_s, connect=self._connect_s),
                limits=limits,
            )
        return self._http

    async def _request(self, text: str, kind: _Kind, sample_rate: int, before: str, fresh: bool) -> Source:
        query = {"output_format": _output_format(kind.wire)}
        if self._settings.zero_retention:
            query["enable_logging"] = "false"
        asked: dict[str, Any] = {
            "text": text,
            "model_id": self._model,
            "apply_text_normalization": self._settings.text_normalization,
        }
        if kind.language:
            asked["language_code"] = kind.language
        if self._voice_settings:
            asked["voice_settings"] = self._voice_settings
        # The third generation refuses to be told.
        if before and "_v3" not in self._model:
            asked["previous_text"] = before
        client = self._http_client()
        path = f"/v1/text-to-speech/{quote(kind.voice, safe='')}/stream/with-timestamps"
        request = client.build_request("POST", path, params=query, json=asked)
        utterance = Utterance(text, kind.wire, sample_rate)
        return HttpText(self._name, client, request, utterance, key_from=self._key_from)


class _SocketText:
    """A `Source`: a text on a leased socket."""

    __slots__ = ("_lease", "_spoken", "_voice")

    def __init__(self, voice: ElevenLabsTts, lease: Lease[_Kind, MultiContextSocket], spoken: SpokenText) -> None:
        self._voice = voice
        self._lease = lease
        self._spoken = spoken

    async def next(self) -> SpeechChunk | None:
        return await self._spoken.delivery.fetch()

    async def leave(self, how: Leave) -> None:
        over = self._spoken.delivery.over
        self._lease.socket.forget(self._spoken)
        if how is Leave.STALLED:
            self._lease.retire()
        elif how is Leave.CANCELLED and not over:
            self._voice.drain(self._lease, self._spoken)
        else:
            self._lease.release()


def _output_format(wire: WireFormat) -> str:
    return f"{'ulaw' if wire.encoding == 'mulaw' else 'pcm'}_{wire.rate_hz}"


def _voice_settings(settings: ElevenLabsTtsSettings) -> dict[str, Any]:
    names = ("stability", "similarity_boost", "style", "use_speaker_boost", "speed")
    return {name: value for name in names if (value := getattr(settings, name)) is not None}
