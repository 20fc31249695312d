"""A language model of Anthropic, by the Messages interface of its own SDK."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress

import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAsyncHttpxClient
from anthropic.types import RawMessageStreamEvent

from bridge.providers.anthropic.messages import is_message_token, message_body, message_pieces
from bridge.providers.anthropic.settings import BASE_URL, AnthropicSettings
from bridge.providers.base import LlmEvent, LlmRequest, Message, ProviderError
from bridge.providers.beforehand import rehearsed
from bridge.providers.dialogue import dialogue
from bridge.providers.registry import KINDS
from bridge.providers.replies import Pieces, Refusals, Sdk, again_in_s, paced, replied, tried
from bridge.providers.scrub import scrubbed

CONNECTIONS = 200
"""Kept open at most, one for each reply that is under way at the same time."""

_STATUS_OF = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}
"""Errors that come in the middle of a stream have a type, and the status 200."""


_REHEARSAL = {
    "/models/m": b'{"id": "m", "type": "model", "created_at": "2026-01-01T00:00:00Z", "display_name": ""}',
    "/messages": b"""event: message_start
data: {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "-"}}

event: message_stop
data: {"type": "message_stop"}

""",
}


class AnthropicLlm:
    """An `Llm`. One for all calls: they share its connections."""

    def __init__(self, name: str, settings: AnthropicSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.llm
        self._base_url = settings.base_url or BASE_URL
        usual = KINDS["anthropic"].key_env
        self._key = settings.key(name, usual, environ).get_secret_value()
        self._refusals = Refusals(name, self._base_url, self._settings.model, settings.key_from(usual))
        self._sdk = Sdk((anthropic.APIError, httpx2.HTTPError), self._mapped, _again_in_s)
        self._connect_s = settings.connect_s
        # The deadlines are ours; these only stop what would outlive them.
        slack_s = max(self._settings.first_token_s, self._settings.between_tokens_s) + 1
        timeout = httpx2.Timeout(slack_s, connect=settings.connect_s)
        limits = httpx2.Limits(
            max_keepalive_connections=CONNECTIONS, keepalive_expiry=self._settings.idle_connection_s
        )
        self._client = AsyncAnthropic(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            timeout=timeout,
            http_client=DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def follows_instructions(self) -> bool:
        return True

    async def start(self) -> None:
        """Load what the SDK would load in the first call."""

        async def requests(http: httpx2.AsyncClient) -> None:
            client = AsyncAnthropic(api_key="none", base_url="http://rehearsal", max_retries=0, http_client=http)
            await client.models.retrieve("m")
            async for _ in await client.messages.create(model="m", max_tokens=1, messages=[], stream=True):
                pass

        await rehearsed(requests, _REHEARSAL)

    async def probe(self) -> str:
        """Have the model say a word: that the key, the settings and the model are taken."""
        took_ms = await tried(self)
        return f"{self._settings.model} at {self._base_url}: first token after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection; that it is answered at all is enough."""
        with suppress(anthropic.APIError, httpx2.HTTPError, TimeoutError, ValueError):
            async with asyncio.timeout(self._connect_s):
                await self._client.models.retrieve(self._settings.model)

    async def aclose(self) -> None:
        await self._client.close()

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply. Closing the iterator closes the HTTP response. Raises ProviderError."""

        def pieces(messages: Sequence[Message]) -> Pieces:
            return self._ask(request, messages)

        by = f"{self._name}/{self._settings.model}"
        async with aclosing(replied(self._name, by, request.messages, pieces)) as events:
            async for event in events:
                yield event

    async def _ask(self, request: LlmRequest, messages: Sequence[Message]) -> Pieces:
        body = message_body(self._name, self._settings, request, dialogue(request, messages))

        async def open_stream() -> AsyncStream[RawMessageStreamEvent]:
            stream: AsyncStream[RawMessageStreamEvent] = await self._client.messages.create(**body)
            return stream

        async with (
            aclosing(paced(self._name, self._sdk, self._settings, open_stream, is_message_token)) as events,
            aclosing(message_pieces(self._name, events)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _mapped(self, error: Exception, in_reply: bool) -> ProviderError:
        match error:
            case anthropic.APIStatusError():
                said = scrubbed(error.api_message or error.message, self._key)
                return self._refusals.of(_status(error), said)
            case anthropic.APITimeoutError() | httpx2.TimeoutException():
                return self._refusals.silent()
            case anthropic.APIConnectionError() | httpx2.HTTPError():
                said = scrubbed(f"{error} {error.__cause__ or ''}", self._key)
                return self._refusals.broke_off(said) if in_reply else self._refusals.unreachable(said)
        return ProviderError(self._name, scrubbed(error, self._key))


def _status(error: anthropic.APIStatusError) -> int:
    if error.status_code != 200:
        return error.status_code
    return _STATUS_OF.get(error.type or "", 500)


def _again_in_s(error: Exception) -> float | None:
    match error:
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            return None
        case anthropic.APIConnectionError() | httpx2.HTTPError():
            return 0.0
        case anthropic.APIStatusError():
            return again_in_s(_status(error), error.response.headers)
    return None
