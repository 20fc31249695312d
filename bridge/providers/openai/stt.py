"""Speech to text over OpenAI's protocols: a realtime transcription session, or a file for each pause.

`protocols/stt.md` 4; the SDK's `types/realtime/realtime_transcription_session_*`.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

from bridge.providers.base import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEvent,
    SttStream,
)
from bridge.providers.beforehand import beforehand
from bridge.providers.models_table import default_model
from bridge.providers.openai.access import api_key
from bridge.providers.openai.realtime_dialogue import failure
from bridge.providers.openai.rehearsal import rehearse, session, transcription
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.openai.stt_file import file_stream
from bridge.providers.openai.stt_session import (
    CHUNK_MS,
    SETUP_ID,
    TranscriptionDialect,
    TranscriptionWire,
    session_update,
)
from bridge.providers.replies import Refusals, again_in_s
from bridge.providers.scrub import scrubbed
from bridge.providers.sdk_sockets import SdkSocket, connection_options, open_sdk_socket
from bridge.providers.sockets import tls
from bridge.providers.stt_audio import wire_encoder
from bridge.providers.stt_stream import StreamingSttStream

FILE_MODEL = "gpt-transcribe"
"""OpenAI's for files; the model of sessions does not take them."""

PROBE_S = 5.0

ATTEMPTS = 2
"""Requests for one file: a kept connection may be dead, a server busy for a moment."""

SESSION_RATE = 24000
"""Hz of linear audio in a session."""

IDLE_CONNECTION_S = 120.0
"""How long an unused connection is kept open for the next pause."""


class OpenAiStt:
    """An `Stt`. One for all calls: files share its connections, each call has a session of its own."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.stt
        self._connect_s = settings.connect_s
        self._base_url = settings.base_url or BASE_URL
        self._socket_url = settings.socket_url("ws" + BASE_URL.removeprefix("http"))
        kind = settings.kind or name
        self._key, self._key_from = api_key(name, settings, environ)
        self._realtime = self._settings.mode == "realtime" or (not self._settings.mode and kind == "openai")
        default = FILE_MODEL if kind == "openai" and not self._realtime else default_model(kind, "stt")
        self._model = self._settings.model or default
        self._refusals = Refusals(name, self._base_url, self._model, self._key_from, "stt")
        timeout = httpx2.Timeout(self._settings.settle_s + 1, connect=self._connect_s)
        limits = httpx2.Limits(max_keepalive_connections=100, keepalive_expiry=IDLE_CONNECTION_S)
        self._client = AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            websocket_base_url=self._socket_url,
            max_retries=0,
            timeout=timeout,
            http_client=DefaultAsyncHttpx2Client(limits=limits, timeout=timeout),
        )

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what the SDK would load in the first call.

        Raises ProviderUnavailableError where no model is configured for a server that has no usual one."""
        if not self._model:
            raise ProviderUnavailableError(
                self._name, f"set providers.{self._name}.stt.model: {self._base_url} has no usual one"
            )
        await rehearse(session if self._realtime else transcription)
        if self._realtime:
            await beforehand(lambda: tls(self._socket_url))

    async def probe(self) -> str:
        """See that the server is there and takes the key. Raises ProviderError."""
        try:
            async with asyncio.timeout(self._connect_s + PROBE_S):
                await self._client.models.retrieve(self._model)
        except openai.APIStatusError as error:
            # Not every server has this path or lists its models; only a refused key is certain to stay so.
            if error.status_code in (401, 403):
                raise self._mapped(error) from None
            return f"{self._base_url} answers, but does not tell whether it has {self._model}"
        except openai.APIError as error:
            raise self._mapped(error) from None
        except TimeoutError:
            raise ProviderTimeoutError(self._name, f"no answer from {self._base_url}") from None
        except ValueError:
            return f"{self._base_url} answers, but not with a model"
        return f"{self._model} at {self._base_url}"

    async def warm(self) -> None:
        """Open the connection that files go over; a session is opened by `open`, before it is needed."""
        if not self._realtime:
            with contextlib.suppress(ProviderError):
                await self.probe()

    async def aclose(self) -> None:
        await self._client.close()

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        """Raises ProviderError."""
        language = "" if language == "auto" else language.partition("-")[0].lower()
        if self._realtime:
            return await self._open_session(sample_rate, language, emit)

        async def transcribe(file: bytes) -> str:
            return await self._transcribe(file, language)

        return file_stream(
            transcribe,
            sample_rate=sample_rate,
            turn_max_s=self._settings.turn_max_s,
            partials=self._settings.partials,
            emit=emit,
        )

    async def _open_session(self, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        detects = self._settings.turn_detection != "none"
        setup = session_update(self._settings, self._model, language, sample_rate)
        manager = self._client.realtime.connect(
            extra_query={"intent": "transcription"},
            websocket_connection_options=connection_options(self._socket_url),
        )
        secrets = (self._key,)
        due = asyncio.get_running_loop().time() + self._connect_s
        socket = await open_sdk_socket(self._name, manager, connect_s=self._connect_s, secrets=secrets)
        try:
            async with asyncio.timeout_at(due):
                await self._set_up(socket, setup)
        except TimeoutError:
            await socket.close()
            raise ProviderTimeoutError(self._name, f"no session within {self._connect_s:g} s") from None
        except BaseException:
            await socket.close()
            raise
        return StreamingSttStream(
            TranscriptionWire(socket, gated=not detects),
            TranscriptionDialect(self._name, self._key, detects=detects),
            emit,
            sample_rate=sample_rate,
            encode=wire_encoder(sample_rate, SESSION_RATE),
            chunk_ms=CHUNK_MS,
            settle_s=self._settings.settle_s,
        )

    async def _set_up(self, socket: SdkSocket, setup: Mapping[str, Any]) -> None:
        """Raises ProviderError."""
        # A server that has closed already has said before why.
        with contextlib.suppress(ProviderError):
            await socket.send(json.dumps(setup))
        async for event in socket.objects():
            error = event.get("error")
            if event.get("type") == "error" and isinstance(error, dict):
                if error.get("event_id") in (None, SETUP_ID):
                    raise failure(self._name, error, self._key, self._key_from or "api_key_file")
            elif event.get("type") == "session.updated":
                return

    async def _transcribe(self, file: bytes, language: str) -> str:
        """The text of a WAV. Raises ProviderError."""
        now = asyncio.get_running_loop().time
        deadline = now() + self._settings.settle_s
        given = {"language": language, "prompt": self._settings.prompt, "keywords": list(self._settings.keywords)}
        options: dict[str, Any] = {name: value for name, value in given.items() if value}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout_at(deadline):
                    result = await self._client.audio.transcriptions.create(
                        file=("turn.wav", file, "audio/wav"), model=self._model, response_format="json", **options
                    )
            except TimeoutError:
                wait = f"{self._settings.settle_s:g} s"
                raise ProviderTimeoutError(self._name, f"no text within {wait}") from None
            except openai.APIError as error:
                wait_s = _again_in_s(error)
                if attempt == ATTEMPTS or wait_s is None or now() + wait_s >= deadline:
                    raise self._mapped(error) from None
                await asyncio.sleep(wait_s)
            except ValueError:
                break
            else:
                text = getattr(result, "text", None)
                if isinstance(text, str):
                    return text
                break
        raise ProviderError(self._name, f"{self._base_url} answered with something that is no transcription")

    def _mapped(self, error: openai.APIError) -> ProviderError:
        said: object = error.body.get("message") if isinstance(error.body, dict) else None
        said = scrubbed(said if isinstance(said, str) else error.message, self._key)
        name = self._name
        match error:
            case openai.APITimeoutError():
                return self._refusals.silent()
            case openai.APIConnectionError():
                said = scrubbed(f"{error.message} {error.__cause__ or ''}", self._key)
                return self._refusals.unreachable(said)
            case openai.APIStatusError(status_code=status):
                return self._refusals.of(status, said)
        return ProviderError(name, str(said))


def _again_in_s(error: openai.APIError) -> float | None:
    if isinstance(error, openai.APITimeoutError):
        return None
    if isinstance(error, openai.APIConnectionError):
        return 0.0
    if isinstance(error, openai.APIStatusError):
        return again_in_s(error.status_code, error.response.headers)
    return None
