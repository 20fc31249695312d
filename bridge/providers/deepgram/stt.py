"""Speech to text by Deepgram: Nova on `/v1/listen`, Flux on `/v2/listen`, through the SDK's socket clients.

The connection under them is ours: the SDK opens sockets by a deprecated client, which can't be cut off within a
deadline, and hides why a handshake was refused (protocols/stt.md 1).
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast
from urllib.parse import urlencode

from deepgram.listen.v1.socket_client import AsyncV1SocketClient
from deepgram.listen.v2.socket_client import AsyncV2SocketClient

from bridge.audio.codec import PCMU
from bridge.providers.base import ProviderError, ProviderUnavailableError, SttEvent, SttStream
from bridge.providers.beforehand import beforehand
from bridge.providers.deepgram.flux import FORCE_END, SILENCE, SILENCE_S, FluxDialect
from bridge.providers.deepgram.nova import FINALIZE, KEEP_ALIVE, NovaDialect
from bridge.providers.deepgram.settings import SOCKET_URL, DeepgramSettings
from bridge.providers.registry import KINDS
from bridge.providers.sockets import ProviderSocket, open_socket, tls
from bridge.providers.stt_audio import wire_encoder
from bridge.providers.stt_stream import StreamingSttStream
from bridge.providers.stt_turn import Item

GOODBYE_S = 0.5
"""For what a peer that reads nothing is told at the end."""

KEEP_ALIVE_S = 4.0
"""Deepgram closes a stream that sends nothing for 10 s, and recommends 3 to 5."""

MAX_RATE = 24_000
"""Hz; above it audio is taken down to 16 kHz, which is all that the models use."""

# fmt: off
REGIONS = frozenset((
    "en-us", "en-gb", "en-au", "en-nz", "en-in", "es-419", "fr-ca", "pt-br", "pt-pt", "de-ch", "nl-be", "da-dk",
    "sv-se", "ko-kr", "th-th", "zh-cn", "zh-tw", "zh-hk", "zh-hans", "zh-hant",
))
# fmt: on
"""Languages with a region that Nova's models know."""

PROBE_RATE = 8000

SAMPLE_RATES = (8000, 16000, 24000, 48000)


class DeepgramStt:
    """Implements `Stt`. One for all calls; each call has a connection of its own."""

    def __init__(self, name: str, settings: DeepgramSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.stt
        self._connect_s = settings.connect_s
        self._url = settings.socket_url(SOCKET_URL)
        key_env = KINDS["deepgram"].key_env
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Read the system's certificates, which would hold up the first call."""
        await beforehand(lambda: tls(self._url))

    async def probe(self) -> str:
        socket = await self._connect(PROBE_RATE, "auto")
        await socket.close()
        return f"{self._settings.model} takes a stream"

    async def warm(self) -> None:
        """Nothing to open: a stream is a connection, and is opened while the phone rings."""

    async def aclose(self) -> None:
        """Nothing to do: streams are closed by whom they were opened for."""

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        """Raises ProviderUnavailableError for a rate that there is not, and what `sockets.open_socket` raises."""
        if sample_rate not in SAMPLE_RATES:
            raise ProviderUnavailableError(self._name, f"{sample_rate} Hz; known: {SAMPLE_RATES}")
        socket = await self._connect(sample_rate, language)
        flux = self._is_flux
        return StreamingSttStream(
            FluxWire(socket, _silence(sample_rate)) if flux else NovaWire(socket),
            FluxDialect() if flux else NovaDialect(),
            emit,
            sample_rate=sample_rate,
            encode=wire_encoder(sample_rate, _wire_rate(sample_rate)),
            chunk_ms=self._settings.chunk_ms,
            settle_s=self._settings.settle_s,
            keep_alive_s=KEEP_ALIVE_S,
        )

    @property
    def _is_flux(self) -> bool:
        return self._settings.model.startswith("flux")

    async def _connect(self, sample_rate: int, language: str) -> ProviderSocket:
        query = self._flux_query(language) if self._is_flux else self._nova_query(language)
        query |= _format(sample_rate)
        if self._settings.keyterms:
            query["keyterm"] = list(self._settings.keyterms)
        if self._settings.numerals:
            query["numerals"] = True
        query |= self._settings.parameters
        path = "/v2/listen" if self._is_flux else "/v1/listen"
        return await open_socket(
            self._name,
            f"{self._url}{path}?{_encoded(query)}",
            headers={"Authorization": f"Token {self._key}"},
            connect_s=self._connect_s,
            secrets=(self._key,),
            key_from=self._key_from,
        )

    def _nova_query(self, language: str) -> dict[str, Any]:
        settings = self._settings
        query: dict[str, Any] = {
            "model": settings.model,
            "language": _nova_language(language),
            "interim_results": True,
            "punctuate": True,
            "endpointing": settings.endpointing_ms or False,
        }
        if settings.smart_format:
            query["smart_format"] = True
        if settings.utterance_end_ms:
            query["utterance_end_ms"] = settings.utterance_end_ms
        return query

    def _flux_query(self, language: str) -> dict[str, Any]:
        settings = self._settings
        model = settings.model
        base = language.partition("-")[0].lower()
        if model == "flux-general-en" and base not in ("en", "auto"):
            model = "flux-general-multi"
        query: dict[str, Any] = {"model": model}
        if model.endswith("multi") and base != "auto":
            query["language_hint"] = [base]
        for name in ("eot_threshold", "eager_eot_threshold", "eot_timeout_ms"):
            if (value := getattr(settings, name)) is not None:
                query[name] = value
        return query


class NovaWire:
    """Implements `stt_stream.Wire`. Audio and results, many a second, go past the SDK: to make its objects of them
    takes more than all else that is done with them."""

    def __init__(self, socket: ProviderSocket) -> None:
        self._socket = socket
        self._client = AsyncV1SocketClient(websocket=cast(Any, socket))

    async def send(self, item: Item) -> None:
        if isinstance(item, bytes):
            await self._socket.send(item)
        elif item == FINALIZE:
            await self._client.send_finalize()
        elif item == KEEP_ALIVE:
            await self._client.send_keep_alive()

    async def messages(self) -> AsyncIterator[Any]:
        async for raw in self._socket:
            try:
                message = json.loads(raw)
            except ValueError:
                continue  # A deadline tells of the answer that it may have been.
            if isinstance(message, dict):
                yield message

    async def aclose(self) -> None:
        await _goodbye(self._client, self._socket)


class FluxWire:
    """Implements `stt_stream.Wire`."""

    def __init__(self, socket: ProviderSocket, silence: bytes) -> None:
        self._socket = socket
        self._client = AsyncV2SocketClient(websocket=cast(Any, socket))
        self._silence = silence

    async def send(self, item: Item) -> None:
        if isinstance(item, bytes):
            await self._client.send_media(item)
        elif item == FORCE_END:
            await self._client.send_force_end_turn()
        elif item == SILENCE:
            await self._client.send_media(self._silence)

    async def messages(self) -> AsyncIterator[Any]:
        async for message in self._client:
            yield message

    async def aclose(self) -> None:
        await _goodbye(self._client, self._socket)


async def _goodbye(client: AsyncV1SocketClient | AsyncV2SocketClient, socket: ProviderSocket) -> None:
    try:
        async with asyncio.timeout(GOODBYE_S):
            await client.send_close_stream()
    except (ProviderError, TimeoutError):
        pass  # It is gone already, or reads nothing more.
    finally:
        await socket.close()


def _nova_language(language: str) -> str:
    """A region that Nova does not tell apart would be refused; the language alone is not."""
    if language == "auto":
        return "multi"
    return language if language.lower() in REGIONS else language.partition("-")[0].lower()


def _format(sample_rate: int) -> dict[str, Any]:
    if sample_rate == PCMU.sample_rate:
        return {"encoding": "mulaw", "sample_rate": sample_rate}
    return {"encoding": "linear16", "sample_rate": _wire_rate(sample_rate)}


def _silence(sample_rate: int) -> bytes:
    return wire_encoder(sample_rate, _wire_rate(sample_rate))(bytes(int(sample_rate * SILENCE_S) * 2))


def _encoded(query: Mapping[str, Any]) -> str:
    """As the SDK writes it: lists repeat the name, truth is `true`."""
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return urlencode(texts, doseq=True)


def _wire_rate(sample_rate: int) -> int:
    return sample_rate if sample_rate <= MAX_RATE else 16_000
