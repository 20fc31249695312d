"""Deepgram's voices (Aura), over sockets that all calls share."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import urlencode

from bridge.providers.base import SpeechChunk
from bridge.providers.beforehand import beforehand
from bridge.providers.deepgram.settings import SOCKET_URL, DeepgramSettings
from bridge.providers.deepgram.speak_socket import DeepgramSpeakSocket, SpokenText
from bridge.providers.registry import KINDS
from bridge.providers.sockets import open_socket, tls
from bridge.providers.tts_audio import TELEPHONE_RATE, WireFormat, wire_format
from bridge.providers.tts_pool import Lease, PoolLimits, SocketPool
from bridge.providers.tts_source import Deadlines, Leave, Source, Utterance, speak, tried

__all__ = ["DeepgramSettings", "DeepgramTts"]

LINEAR_RATES = (16000, 24000, 32000, 48000)

TEXTS_PER_SOCKET = 1
"""Nothing on the wire says which text some audio is of."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What stands in a socket's URL."""

    voice: str
    wire: WireFormat


class DeepgramTts:
    """A `Tts`. One for all calls: a text takes a connection for as long as it is spoken, then another may have it;
    one that has used up its flushes for the minute rests. The voice is the model, e.g. `aura-2-thalia-en`, and speaks
    its own language. There is no alignment, and each text is spoken for itself.

    Closing the iterator clears the connection, which is used again once that is acknowledged."""

    def __init__(self, name: str, settings: DeepgramSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.tts
        self._connect_s = settings.connect_s
        key_env = KINDS["deepgram"].key_env
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._url = settings.socket_url(SOCKET_URL)
        self._deadlines = Deadlines(self._settings.first_audio_s, self._settings.between_audio_s)
        limits = PoolLimits(
            TEXTS_PER_SOCKET,
            self._settings.sockets,
            self._settings.idle_socket_s,
            self._settings.first_audio_s / 2,
        )
        self._pool: SocketPool[_Kind, DeepgramSpeakSocket] = SocketPool(name, self._connect, limits)
        self._clearing: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Read the system's certificates, which would hold up the first call."""
        await beforehand(lambda: tls(self._url))

    async def probe(self) -> str:
        """Speak, as in a call. Raises ProviderError."""
        took_ms = await tried(self)
        return f"{self._settings.voice} at {self._url}: first audio after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection, if none is free: for the voices used last, else for the configured one."""
        self._pool.warm(_Kind(self._settings.voice, wire_format(TELEPHONE_RATE, LINEAR_RATES)))

    async def aclose(self) -> None:
        for task in self._clearing:
            task.cancel()
        if self._clearing:
            await asyncio.wait(self._clearing)
        await self._pool.aclose()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak `text`. Raises ProviderError."""
        kind = _Kind(voice or self._settings.voice, wire_format(sample_rate, LINEAR_RATES))

        async def begin(again: bool) -> Source:
            lease = await self._pool.take(kind, fresh=again)
            try:
                spoken = await lease.socket.begin(Utterance(text, kind.wire, sample_rate), text)
            except BaseException:
                lease.retire()
                raise
            return _SocketText(self, lease, spoken)

        async with aclosing(speak(self._name, text, self._deadlines, begin)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _connect(self, kind: _Kind) -> DeepgramSpeakSocket:
        query = {"model": kind.voice, "encoding": kind.wire.encoding, "sample_rate": kind.wire.rate_hz}
        if self._settings.speed is not None:
            query["speed"] = self._settings.speed
        socket = await open_socket(
            self._name,
            f"{self._url}/v1/speak?{urlencode(query)}",
            headers={"Authorization": f"Token {self._key}"},
            connect_s=self._connect_s,
            secrets=(self._key,),
            key_from=self._key_from,
        )
        return DeepgramSpeakSocket(socket, self._name, self._key)

    def clear(self, lease: Lease[_Kind, DeepgramSpeakSocket]) -> None:
        """Have the connection stop speaking, and give it back if it does."""

        async def clear() -> None:
            usable = False
            try:
                usable = await lease.socket.clear()
            finally:
                if usable:
                    lease.release()
                else:
                    lease.retire()

        task = asyncio.create_task(clear())
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)


class _SocketText:
    """A `Source`: a text on a leased socket."""

    __slots__ = ("_lease", "_spoken", "_voice")

    def __init__(self, voice: DeepgramTts, lease: Lease[_Kind, DeepgramSpeakSocket], spoken: SpokenText) -> None:
        self._voice = voice
        self._lease = lease
        self._spoken = spoken

    async def next(self) -> SpeechChunk | None:
        return await self._spoken.delivery.fetch()

    async def leave(self, how: Leave) -> None:
        over = self._spoken.delivery.over
        self._lease.socket.forget(self._spoken)
        if how is Leave.CANCELLED and not over:
            self._voice.clear(self._lease)
        elif how is Leave.DONE or over:
            self._lease.release()
        else:
            self._lease.retire()
