"""Speech to text by AssemblyAI, streaming v3, with the SDK's types on a connection of our own.

The SDK's transcriber queues without bound, takes up to seven seconds to close, and tells of a refusal only by a
handler; its parameters and messages are what is used of it (protocols/stt.md 5).
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from assemblyai.streaming.v3.models import (
    BeginEvent,
    Encoding,
    ErrorEvent,
    HeartbeatEvent,
    RealTimeParameters,
    SpeechStartedEvent,
    TurnEvent,
)
from pydantic import BaseModel, ValidationError

from bridge.audio.codec import PCMU
from bridge.providers.assemblyai.settings import SOCKET_URL, AssemblyAiSettings
from bridge.providers.assemblyai.turns import FORCE_ENDPOINT, KEEP_ALIVE, AssemblyAiDialect
from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEvent,
    SttStream,
)
from bridge.providers.beforehand import beforehand
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed
from bridge.providers.sockets import ProviderSocket, open_socket, tls
from bridge.providers.stt_audio import wire_encoder
from bridge.providers.stt_stream import StreamingSttStream
from bridge.providers.stt_turn import Item

API_VERSION = "2025-05-12"
"""Which version of the protocol the SDK asks for (`assemblyai.streaming.v3._base`)."""

ENGLISH_MODEL = "universal-streaming-english"
MULTILINGUAL_MODEL = "universal-streaming-multilingual"

LEAST_CHUNK_MS = 60
"""Chunks under 50 ms are an error (3007)."""

KEEP_ALIVE_S = 5.0

GOODBYE_S = 0.5
"""For what a peer that reads nothing is told at the end."""

MAX_RATE = 24_000
"""Hz; above it audio is taken down to 16 kHz, which is all that the models use."""

SAMPLE_RATES = (8000, 16000, 24000, 48000)

PROBE_RATE = 8000

_COMMANDS = {FORCE_ENDPOINT: '{"type": "ForceEndpoint"}', KEEP_ALIVE: '{"type": "KeepAlive"}'}
_TERMINATE = '{"type": "Terminate"}'

_EVENTS: Mapping[str, type[BaseModel]] = {
    "Begin": BeginEvent,
    "Turn": TurnEvent,
    "SpeechStarted": SpeechStartedEvent,
    "Heartbeat": HeartbeatEvent,
    "Error": ErrorEvent,
}


class AssemblyAiStt:
    """Implements `Stt`. One for all calls; each call has a connection of its own."""

    def __init__(self, name: str, settings: AssemblyAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.stt
        self._connect_s = settings.connect_s
        self._url = settings.socket_url(SOCKET_URL)
        key_env = KINDS["assemblyai"].key_env
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Raises ProviderUnavailableError for a model or a parameter that the SDK does not know."""
        unknown = set(self._settings.parameters) - set(RealTimeParameters.model_fields)
        if unknown:
            known = ", ".join(sorted(RealTimeParameters.model_fields))
            raise ProviderUnavailableError(
                self._name, f"stt.parameters: {', '.join(sorted(unknown))} unknown; there are {known}"
            )
        self._query(PROBE_RATE, "en")
        await beforehand(lambda: tls(self._url))

    async def probe(self) -> str:
        socket = await self._connect(PROBE_RATE, "en")
        await AssemblyAiWire(socket).aclose()
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
        return StreamingSttStream(
            AssemblyAiWire(socket),
            AssemblyAiDialect(formatted=self._settings.format_turns),
            emit,
            sample_rate=sample_rate,
            encode=wire_encoder(sample_rate, _wire_rate(sample_rate)),
            chunk_ms=self._settings.chunk_ms,
            least_chunk_ms=LEAST_CHUNK_MS,
            settle_s=self._settings.settle_s,
            keep_alive_s=KEEP_ALIVE_S,
            speed=self._settings.catch_up,
        )

    async def _connect(self, sample_rate: int, language: str) -> ProviderSocket:
        """A session that has begun: AssemblyAI refuses after the handshake, by a close code."""
        try:
            async with asyncio.timeout(self._connect_s):
                socket = await open_socket(
                    self._name,
                    f"{self._url}/v3/ws?{self._query(sample_rate, language)}",
                    headers={"Authorization": self._key, "AssemblyAI-Version": API_VERSION},
                    connect_s=self._connect_s,
                    secrets=(self._key,),
                    key_from=self._key_from,
                )
                await self._begun(socket)
        except TimeoutError:
            raise ProviderTimeoutError(self._name, f"no session within {self._connect_s:g} s") from None
        return socket

    async def _begun(self, socket: ProviderSocket) -> None:
        begun = False
        try:
            async for message in socket:
                match _event(message):
                    case BeginEvent():
                        begun = True
                        return
                    case ErrorEvent() as event:
                        raise ProviderUnavailableError(self._name, scrubbed(event.error, self._key))
            raise ProviderUnavailableError(self._name, "closed the connection before the session began")
        except ProviderError as error:
            raise self._refusal(error, socket.close_code) from None
        finally:
            if not begun:
                await socket.close()

    def _refusal(self, error: ProviderError, code: int | None) -> ProviderError:
        """The error for a session that was closed before it began (protocols/stt.md 5)."""
        text = error.said
        if code in (1008, 4001, 4002, 4003):
            return ProviderUnavailableError(self._name, f"the key is refused, check {self._key_from}: {text}")
        if code in (1013, 3009, 4029, 4102):
            return ProviderBusyError(self._name, f"takes no more at present: {text}")
        return ProviderUnavailableError(self._name, text)

    def _query(self, sample_rate: int, language: str) -> str:
        """As the SDK writes it: lists as JSON, truth as `True`. Raises ProviderUnavailableError."""
        settings = self._settings
        model, base = settings.model, language.partition("-")[0].lower()
        if model == ENGLISH_MODEL and base != "en":
            model = MULTILINGUAL_MODEL
        mulaw = sample_rate == PCMU.sample_rate
        given: dict[str, Any] = {
            "sample_rate": _wire_rate(sample_rate),
            "encoding": Encoding.pcm_mulaw if mulaw else Encoding.pcm_s16le,
            "speech_model": model,
            "format_turns": settings.format_turns,
            # So that a recogniser that hears no words is told from one that is dead.
            "session_heartbeat": True,
            "keyterms_prompt": list(settings.keyterms) or None,
            "end_of_turn_confidence_threshold": settings.end_of_turn_confidence,
            "min_turn_silence": settings.min_turn_silence_ms,
            "max_turn_silence": settings.max_turn_silence_ms,
            "vad_threshold": settings.vad_threshold,
        }
        if base == "auto":
            given["language_detection"] = True
        elif not model.startswith("universal-streaming"):
            given["language_codes"] = [base]
        try:
            parameters = RealTimeParameters(**(given | settings.parameters))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProviderUnavailableError(self._name, f"stt: {where}: {first['msg']}") from None
        dumped = parameters.model_dump(mode="json", exclude_none=True)
        return urlencode(
            {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in dumped.items()}
        )


class AssemblyAiWire:
    """Implements `stt_stream.Wire`."""

    def __init__(self, socket: ProviderSocket) -> None:
        self._socket = socket

    async def send(self, item: Item) -> None:
        await self._socket.send(item if isinstance(item, bytes) else _COMMANDS[item])

    async def messages(self) -> AsyncIterator[Any]:
        async for message in self._socket:
            yield _event(message)

    async def aclose(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._socket.send(_TERMINATE)
        except (ProviderError, TimeoutError):
            pass  # It is gone already, or reads nothing more.
        finally:
            await self._socket.close()


def _event(message: str | bytes) -> Any:
    """A message as the SDK's type; None: nothing of which we know."""
    try:
        data = json.loads(message)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    kind = "Error" if "type" not in data and "error" in data else data.get("type")
    event = _EVENTS.get(kind) if isinstance(kind, str) else None
    try:
        return event.model_validate(data) if event is not None else None
    except ValidationError:
        return None


def _wire_rate(sample_rate: int) -> int:
    return sample_rate if sample_rate <= MAX_RATE else 16_000
