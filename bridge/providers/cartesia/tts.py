"""Cartesia's voices, over sockets that all calls share."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from cartesia import AsyncCartesia
from cartesia.lib._tts import AsyncTTSResourceConnection, AsyncTTSResourceConnectionManager

from bridge.providers.base import SpeechChunk
from bridge.providers.beforehand import beforehand
from bridge.providers.cartesia.failures import failure
from bridge.providers.cartesia.settings import BASE_URL, SOCKET_URL, CartesiaSettings, CartesiaTtsSettings
from bridge.providers.cartesia.socket import CartesiaSocket, Context, SpokenText
from bridge.providers.registry import KINDS
from bridge.providers.sdk_sockets import connection_options, open_sdk_socket
from bridge.providers.sockets import tls
from bridge.providers.tts_audio import WireFormat, wire_format
from bridge.providers.tts_pool import Lease, PoolLimits, SocketPool
from bridge.providers.tts_source import Deadlines, Leave, Source, Utterance, speak, tried

__all__ = ["CartesiaSettings", "CartesiaTts"]

LINEAR_RATES = (16000, 22050, 24000, 44100, 48000)

CONTEXT_S = 0.5
"""A turn goes on in its context so long after the last audio; the server forgets contexts after 1 s."""

_ANY = "any"
"""All voices, rates and languages go over the same sockets."""


@dataclass(slots=True)
class _Turn:
    """Where the last text of a turn was spoken."""

    lease: Lease[str, CartesiaSocket]
    context: Context
    how: Mapping[str, Any]


class CartesiaTts:
    """A `Tts`. One for all calls: they share its connections.

    Texts of the same `turn` go on in one context, which keeps the melody: each is flushed, and complete with the
    server's `flush_done`. A text that comes when the server has forgotten the context (a second after its last audio)
    gets a new one.

    Closing the iterator cancels the context; what still comes of it is dropped by its id."""

    def __init__(self, name: str, settings: CartesiaSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        key_env = KINDS["cartesia"].key_env
        self._name = name
        self._settings = settings.tts
        self._connect_s = settings.connect_s
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._base_url = settings.base_url or BASE_URL
        self._model = self._settings.model
        self._deadlines = Deadlines(self._settings.first_audio_s, self._settings.between_audio_s)
        self._socket_url = settings.socket_url(SOCKET_URL)
        self._client = AsyncCartesia(
            api_key=self._key,
            base_url=self._base_url,
            # It does not follow from the other for the SDK.
            websocket_base_url=self._socket_url,
            max_retries=0,
        )
        limits = PoolLimits(
            self._settings.texts_per_socket,
            self._settings.sockets,
            self._settings.idle_socket_s,
            self._settings.first_audio_s / 2,
        )
        self._pool: SocketPool[str, CartesiaSocket] = SocketPool(name, self._connect, limits)
        self._turns: OrderedDict[str, _Turn] = OrderedDict()

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what the SDK would load in the first call."""
        await beforehand(lambda: self._client.tts, lambda: tls(self._socket_url))

    async def probe(self) -> str:
        """Speak, as in a call. Raises ProviderError."""
        took_ms = await tried(self)
        return f"{self._model}, voice {self._settings.voice}, at {self._base_url}: first audio after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection, if none has room."""
        self._pool.warm(_ANY)

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._client.close()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak `text`. Raises ProviderError."""
        wire = wire_format(sample_rate, LINEAR_RATES)
        how = self._how(voice or self._settings.voice, wire, language)

        first: _SocketText | None = None

        async def begin(again: bool) -> Source:
            nonlocal first
            # It may be that the context alone has expired.
            fresh = again and (first is None or not first.socket.alive)
            first = await self._say(text, Utterance(text, wire, sample_rate), how, turn, again=again, fresh=fresh)
            return first

        async with aclosing(speak(self._name, text, self._deadlines, begin)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _how(self, voice: str, wire: WireFormat, language: str) -> dict[str, Any]:
        """What all texts of a context must have in common."""
        encoding = "pcm_mulaw" if wire.encoding == "mulaw" else "pcm_s16le"
        how: dict[str, Any] = {
            "model_id": self._model,
            "voice": {"mode": "id", "id": voice},
            "output_format": {"container": "raw", "encoding": encoding, "sample_rate": wire.rate_hz},
            "add_timestamps": True,
            # Texts come as whole clauses: there is nothing to wait for.
            "max_buffer_delay_ms": 0,
        }
        if language not in ("", "auto"):
            how["language"] = language.partition("-")[0].lower()
        if generation := _generation(self._settings):
            how["generation_config"] = generation
        if self._settings.pronunciation_dict:
            how["pronunciation_dict_id"] = self._settings.pronunciation_dict
        return how

    async def _say(
        self, text: str, utterance: Utterance, how: Mapping[str, Any], turn: str, *, again: bool, fresh: bool
    ) -> "_SocketText":
        lease, context = (None, None) if again else self._going_on(turn, how)
        if lease is None:
            lease = await self._pool.take(_ANY, fresh=fresh)
        try:
            spoken = await lease.socket.begin(utterance, text, how, context=context, more=bool(turn))
        except BaseException:
            lease.retire()
            raise
        if turn:
            self._turns[turn] = _Turn(lease, spoken.context, how)
        return _SocketText(lease, spoken)

    def _going_on(
        self, turn: str, how: Mapping[str, Any]
    ) -> tuple[Lease[str, CartesiaSocket] | None, Context | None]:
        """Where the turn was spoken last, if another text may follow there."""
        now = asyncio.get_running_loop().time()
        before = self._turns.pop(turn, None)
        for other, old in list(self._turns.items()):
            if old.context.text is None and now - old.context.spoken_at > CONTEXT_S:
                del self._turns[other]
        if before is None or before.how != how or now - before.context.spoken_at > CONTEXT_S:
            return None, None
        if not before.lease.socket.goes_on(before.context):
            return None, None
        lease = before.lease.another()
        return lease, None if lease is None else before.context

    async def _connect(self, _: str) -> CartesiaSocket:
        manager = self._client.tts.websocket_connect(
            websocket_connection_options=connection_options(self._socket_url)
        )
        socket = await open_sdk_socket(
            self._name,
            _Opening(manager),
            connect_s=self._connect_s,
            secrets=(self._key,),
            refused=partial(failure, self._name, key_from=self._key_from),
        )
        return CartesiaSocket(socket, self._name, key_from=self._key_from, key=self._key)


@dataclass(frozen=True, slots=True)
class _Opening:
    """An `SdkManager`."""

    manager: AsyncTTSResourceConnectionManager

    async def enter(self) -> "_Connection":
        return _Connection(await self.manager.enter())


class _Connection:
    """An `SdkConnection`. The SDK's own `send` opens a lost connection anew, and takes JSON apart that is made."""

    def __init__(self, sdk: AsyncTTSResourceConnection) -> None:
        self._sdk = sdk
        self._connection = sdk._connection

    async def send_raw(self, data: bytes | str) -> None:
        await self._connection.send(data)

    async def recv_bytes(self) -> bytes:
        return await self._sdk.recv_bytes()

    async def close(self) -> None:
        await self._sdk.close()


class _SocketText:
    """A `Source`: a text on a leased socket."""

    __slots__ = ("_lease", "_spoken")

    def __init__(self, lease: Lease[str, CartesiaSocket], spoken: SpokenText) -> None:
        self._lease = lease
        self._spoken = spoken

    @property
    def socket(self) -> CartesiaSocket:
        return self._lease.socket

    async def next(self) -> SpeechChunk | None:
        return await self._spoken.delivery.fetch()

    async def leave(self, how: Leave) -> None:
        try:
            await self._lease.socket.cancel(self._spoken)
        finally:
            if how is Leave.STALLED:
                self._lease.retire()
            else:
                self._lease.release()


def _generation(settings: CartesiaTtsSettings) -> dict[str, Any]:
    asked = {"speed": settings.speed, "volume": settings.volume, "emotion": settings.emotion or None}
    return {name: value for name, value in asked.items() if value is not None}
