"""A language model of OpenAI, or behind any compatible endpoint: Chat Completions or Responses, streamed.

`protocols/llm.md` 1, 2, 3 and 7: base URLs, error bodies, retries.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpx2Client
from openai.types.responses import ResponseStreamEvent

from bridge.providers.base import LlmEvent, LlmRequest, Message, ProviderError, ProviderUnavailableError
from bridge.providers.dialogue import dialogue
from bridge.providers.models_table import default_model
from bridge.providers.openai.access import api_key, is_openai
from bridge.providers.openai.chat import chat_body, chat_pieces, is_chat_token
from bridge.providers.openai.rehearsal import chat, rehearse, responses
from bridge.providers.openai.responses import is_response_token, response_body, response_pieces
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.replies import Pieces, Refusals, Sdk, again_in_s, paced, replied, tried
from bridge.providers.scrub import scrubbed

__all__ = ["OpenAiLlm", "OpenAiSettings"]

CONNECTIONS = 200
"""Kept open at most, one for each reply that is under way at the same time."""


class OpenAiLlm:
    """An `Llm`. One for all calls: they share its connections."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key, or no model is named where there is no default."""
        self._name = name
        model = settings.llm.model or default_model(settings.kind or name, "llm")
        if not model:
            raise ProviderUnavailableError(name, f"no model is named: set providers.{name}.llm.model")
        self._settings = settings.llm.model_copy(update={"model": model})
        self._base_url = settings.base_url or BASE_URL
        self._key, key_from = api_key(name, settings, environ)
        self._cached = self._settings.prompt_cache
        if self._cached is None:
            self._cached = is_openai(self._base_url)
        self._refusals = Refusals(name, self._base_url, self._settings.model, key_from)
        self._sdk = Sdk((openai.APIError,), self._mapped, _again_in_s)
        self._connect_s = settings.connect_s
        # The deadlines are ours; these only stop what would outlive them.
        slack_s = max(self._settings.first_token_s, self._settings.between_tokens_s) + 1
        timeout = httpx2.Timeout(slack_s, connect=settings.connect_s)
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

    @property
    def follows_instructions(self) -> bool:
        return True

    async def start(self) -> None:
        """Load what the SDK would load in the first call."""
        await rehearse(responses if self._settings.api == "responses" else chat)

    async def probe(self) -> str:
        """Have the model say a word: that the server is there, takes the key and the settings, and has the model."""
        took_ms = await tried(self)
        return f"{self._settings.model} at {self._base_url}: first token after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection. Not every server knows this path; that it answers at all is enough."""
        with suppress(openai.APIError, TimeoutError, ValueError):
            async with asyncio.timeout(self._connect_s):
                await self._client.models.retrieve(self._settings.model)

    async def aclose(self) -> None:
        await self._client.close()

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply. Closing the iterator closes the HTTP response. Raises ProviderError."""
        ask = self._ask_responses if self._settings.api == "responses" else self._ask_chat

        def pieces(messages: Sequence[Message]) -> Pieces:
            return ask(request, messages)

        by = f"{self._name}/{self._settings.model}"
        async with aclosing(replied(self._name, by, request.messages, pieces)) as events:
            async for event in events:
                yield event

    async def _ask_chat(self, request: LlmRequest, messages: Sequence[Message]) -> Pieces:
        body = chat_body(self._settings, request, dialogue(request, messages), cached=bool(self._cached))

        async def open_stream() -> AsyncStream[object]:
            # Not by `chat.completions.create`: to check a body that is right and to make an object of each chunk
            # takes half of all the CPU time of a reply.
            return await self._client.post(
                "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object]
            )

        async with (
            aclosing(paced(self._name, self._sdk, self._settings, open_stream, is_chat_token)) as chunks,
            aclosing(chat_pieces(self._name, chunks)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def _ask_responses(self, request: LlmRequest, messages: Sequence[Message]) -> Pieces:
        content = dialogue(request, messages)
        body = response_body(self._name, self._settings, request, content, cached=bool(self._cached))

        async def open_stream() -> AsyncStream[ResponseStreamEvent]:
            stream: AsyncStream[ResponseStreamEvent] = await self._client.responses.create(**body)
            return stream

        async with (
            aclosing(paced(self._name, self._sdk, self._settings, open_stream, is_response_token)) as events,
            aclosing(response_pieces(self._name, events)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _mapped(self, error: Exception, in_reply: bool) -> ProviderError:
        said = self._scrubbed(error)
        match error:
            case openai.APITimeoutError():
                return self._refusals.silent()
            case openai.APIConnectionError():
                return self._refusals.broke_off(said) if in_reply else self._refusals.unreachable(said)
            case openai.APIStatusError(status_code=status):
                return self._refusals.of(status, said)
        return ProviderError(self._name, said)

    def _scrubbed(self, error: Exception) -> str:
        """The error's message, short and without anything that looks like a key."""
        if not isinstance(error, openai.APIError):
            return scrubbed(error, self._key)
        said: object = error.body.get("message") if isinstance(error.body, dict) else None
        if isinstance(said, str):
            # Without "Error code: 503 - ", which ours says already.
            return scrubbed(said, self._key)
        cause = error.__cause__
        broken = isinstance(error, openai.APIConnectionError) and cause is not None
        return scrubbed(f"{error.message} {cause}" if broken else error.message, self._key)


def _again_in_s(error: Exception) -> float | None:
    if isinstance(error, openai.APITimeoutError):
        return None
    if isinstance(error, openai.APIConnectionError):
        return 0.0
    if isinstance(error, openai.APIStatusError):
        return again_in_s(error.status_code, error.response.headers)
    return None
