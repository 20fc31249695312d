"""Text to speech through `/audio/speech`: OpenAI's, or a server's that has the same."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

from bridge.providers.base import (
    ProviderError,
    ProviderUnavailableError,
    SpeechChunk,
)
from bridge.providers.models_table import default_model
from bridge.providers.openai.access import api_key
from bridge.providers.openai.rehearsal import rehearse, speech
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.replies import Refusals
from bridge.providers.scrub import scrubbed
from bridge.providers.tts_audio import WireFormat
from bridge.providers.tts_source import Deadlines, Leave, SocketLostError, Source, Utterance, parts, speak, tried

__all__ = ["OpenAiSettings", "OpenAiTts"]

REQUEST_CHARS = 4000
"""The vendor takes 4096."""

CHUNK_MS = 100
"""Audio given out at a time: the small pieces of the network cost more to convert than they bring forward."""

CONNECTIONS = 200

OWN_VOICE = "voice_"
"""How the ids of an account's own voices begin; the others are names."""


class OpenAiTts:
    """A `Tts`. One for all calls: they share its connections. There is no alignment, no mu-law, and each text is
    spoken for itself; the language is that of the text.

    Closing the iterator closes the request's answer."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key, or no model is named where there is no default."""
        self._name = name
        self._settings = settings.tts
        self._model = settings.tts.model or default_model(settings.kind or name, "tts")
        if not self._model:
            raise ProviderUnavailableError(name, f"no model is named: set providers.{name}.tts.model")
        self._connect_s = settings.connect_s
        self._base_url = settings.base_url or BASE_URL
        self._key, key_from = api_key(name, settings, environ)
        self._refusals = Refusals(name, self._base_url, self._model, key_from, "tts")
        self._deadlines = Deadlines(self._settings.first_audio_s, self._settings.between_audio_s)
        # The deadlines are ours; these only stop what would outlive them.
        slack_s = max(self._deadlines.first_audio_s, self._deadlines.between_audio_s) + 1
        timeout = httpx2.Timeout(slack_s, connect=self._connect_s)
        limits = httpx2.Limits(
            max_keepalive_connections=CONNECTIONS, keepalive_expiry=self._settings.idle_connection_s
        )
        self._client = AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=timeout,
            http_client=DefaultAsyncHttpx2Client(limits=limits, timeout=timeout),
        )

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Load what the SDK would load in the first call."""
        await rehearse(speech)

    async def probe(self) -> str:
        """Speak, as in a call. Raises ProviderError."""
        took_ms = await tried(self)
        return f"{self._model}, voice {self._settings.voice}, at {self._base_url}: first audio after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection. Not every server knows this path; that it answers at all is enough."""
        with suppress(openai.APIError, TimeoutError, ValueError):
            async with asyncio.timeout(self._connect_s):
                await self._client.models.retrieve(self._model)

    async def aclose(self) -> None:
        await self._client.close()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak `text`. Raises ProviderError."""
        for part in parts(text, REQUEST_CHARS):

            async def begin(again: bool, part: str = part) -> Source:
                return _Answer(self, self._request(part, voice), part, sample_rate)

            async with aclosing(speak(self._name, part, self._deadlines, begin)) as chunks:
                async for chunk in chunks:
                    yield chunk

    @property
    def rate_hz(self) -> int:
        """Of the PCM that comes."""
        return self._settings.rate_hz

    async def _request(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        """The PCM of one request."""
        settings = self._settings
        asked: dict[str, Any] = {}
        if settings.instructions:
            asked["instructions"] = settings.instructions
        if settings.speed is not None:
            asked["speed"] = settings.speed
        chosen = voice or settings.voice
        asking = self._client.audio.speech.with_streaming_response.create(
            input=text,
            model=self._model,
            voice={"id": chosen} if chosen.startswith(OWN_VOICE) else chosen,
            response_format="pcm",
            **asked,
        )
        try:
            async with asking as answer:
                kind = answer.headers.get("content-type", "")
                if kind.startswith(("application/json", "text/")):
                    said = scrubbed((await answer.read())[:1000].decode("utf-8", "replace"), self._key)
                    raise ProviderError(self._name, f"answered {kind} in place of audio: {said}")
                async for data in answer.iter_bytes(settings.rate_hz * 2 * CHUNK_MS // 1000):
                    yield data
        except openai.APIError as error:
            raise self._mapped(error) from None
        except httpx2.TransportError as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise SocketLostError(f"the connection broke off: {said}") from None

    def _mapped(self, error: openai.APIError) -> Exception:
        said = self._scrubbed(error)
        match error:
            case openai.APITimeoutError():
                return self._refusals.silent()
            case openai.APIConnectionError():
                if isinstance(error.__cause__, httpx2.ConnectError):
                    return self._refusals.unreachable(said)
                return SocketLostError(f"the connection broke off: {said}")
            case openai.APIStatusError(status_code=status):
                return self._refusals.of(status, said)
        return ProviderError(self._name, said)

    def _scrubbed(self, error: openai.APIError) -> str:
        """The error's message, short and without anything that looks like a key."""
        said: object = error.body.get("message") if isinstance(error.body, dict) else None
        if isinstance(said, str):
            # Without "Error code: 503 - ", which ours says already.
            return scrubbed(said, self._key)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
        return scrubbed(f"{error.message} {cause or ''}", self._key)


class _Answer:
    """A `Source`: one request's answer."""

    __slots__ = ("_data", "_ended", "_utterance")

    def __init__(self, voice: OpenAiTts, data: AsyncGenerator[bytes, None], text: str, sample_rate: int) -> None:
        self._data = data
        self._utterance = Utterance(text, WireFormat("linear16", voice.rate_hz), sample_rate)
        self._ended = False

    async def next(self) -> SpeechChunk | None:
        while not self._ended:
            data = await anext(self._data, None)
            if data is None:
                self._ended = True
                return self._utterance.last()
            if (chunk := self._utterance.chunk(data)) is not None:
                return chunk
        return None

    async def leave(self, how: Leave) -> None:
        await self._data.aclose()
