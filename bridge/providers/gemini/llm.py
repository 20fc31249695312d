"""A language model of Gemini, by the interface of Google's own SDK."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar

import httpx2
from google import genai
from google.genai import errors, types

from bridge.providers.base import LlmEvent, LlmRequest, Message, ProviderError
from bridge.providers.beforehand import rehearsed
from bridge.providers.dialogue import dialogue
from bridge.providers.gemini.contents import content_config, content_pieces, contents, is_content_token
from bridge.providers.gemini.settings import BASE_URL, GeminiSettings
from bridge.providers.registry import KINDS
from bridge.providers.replies import Closeable, Pieces, Refusals, Sdk, again_in_s, paced, replied, tried
from bridge.providers.scrub import scrubbed

CONNECTIONS = 200
"""Kept open at most, one for each reply that is under way at the same time."""

_responses: ContextVar[list[httpx2.Response] | None] = ContextVar("gemini_responses", default=None)
"""Where the HTTP responses of the present request go: the SDK has no way to close one that is being read."""


_REHEARSAL = {
    "/models/m": b'{"name": "models/m"}',
    ":streamGenerateContent": b'data: {"candidates": [{"content": {"parts": [{"text": "-"}], "role": "model"}}]}\n\n',
}


class GeminiLlm:
    """An `Llm`. One for all calls: they share its connections."""

    def __init__(self, name: str, settings: GeminiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.llm
        self._base_url = settings.base_url or BASE_URL
        usual = KINDS["gemini"].key_env
        self._key = settings.key(name, usual, environ).get_secret_value()
        self._refusals = Refusals(name, self._base_url, self._settings.model, settings.key_from(usual))
        self._sdk = Sdk((errors.APIError, httpx2.HTTPError), self._mapped, _again_in_s)
        self._connect_s = settings.connect_s
        # The deadlines are ours; these only stop what would outlive them.
        slack_s = max(self._settings.first_token_s, self._settings.between_tokens_s) + 1
        self._timeout = httpx2.Timeout(slack_s, connect=settings.connect_s)
        limits = httpx2.Limits(
            max_keepalive_connections=CONNECTIONS, keepalive_expiry=self._settings.idle_connection_s
        )
        self._http = httpx2.AsyncClient(
            limits=limits, event_hooks={"request": [self._limit], "response": [_keep_response]}
        )
        self._client = genai.Client(
            api_key=self._key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=self._base_url,
                api_version=self._settings.api_version,
                httpx_async_client=self._http,
            ),
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
            options = types.HttpOptions(base_url="http://rehearsal", httpx_async_client=http)
            client = genai.Client(api_key="none", vertexai=False, http_options=options)
            await client.aio.models.get(model="m")
            async for _ in await client.aio.models.generate_content_stream(model="m", contents="-"):
                pass

        await rehearsed(requests, _REHEARSAL)

    async def probe(self) -> str:
        """Have the model say a word: that the key, the settings and the model are taken."""
        took_ms = await tried(self)
        return f"{self._settings.model} at {self._base_url}: first token after {took_ms:.0f} ms"

    async def warm(self) -> None:
        """Open a connection; that it is answered at all is enough."""
        with suppress(errors.APIError, httpx2.HTTPError, TimeoutError, ValueError):
            async with asyncio.timeout(self._connect_s):
                await self._client.aio.models.get(model=self._settings.model)

    async def aclose(self) -> None:
        await self._client.aio.aclose()
        await self._http.aclose()
        self._client.close()

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply. Closing the iterator closes the HTTP response. Raises ProviderError."""

        def pieces(messages: Sequence[Message]) -> Pieces:
            return self._ask(request, messages)

        by = f"{self._name}/{self._settings.model}"
        async with aclosing(replied(self._name, by, request.messages, pieces)) as events:
            async for event in events:
                yield event

    async def _ask(self, request: LlmRequest, messages: Sequence[Message]) -> Pieces:
        content = dialogue(request, messages)
        model = self._settings.model
        turns = contents(self._name, model, content.messages)
        config = content_config(self._settings, request, content)

        async def open_stream() -> Closeable[types.GenerateContentResponse]:
            kept: list[httpx2.Response] = []
            token = _responses.set(kept)
            try:
                chunks = await self._client.aio.models.generate_content_stream(
                    model=model, contents=list(turns), config=config
                )
                # The SDK sends the request when the first chunk is asked for.
                first = await anext(chunks, None)
            except BaseException:
                await _close(kept)
                raise
            finally:
                _responses.reset(token)
            return Closeable(_after(first, chunks), lambda: _close(kept))

        async with (
            aclosing(paced(self._name, self._sdk, self._settings, open_stream, is_content_token)) as chunks,
            aclosing(content_pieces(self._name, chunks)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def _limit(self, request: httpx2.Request) -> None:
        """The SDK overrides a client's own timeouts with none."""
        request.extensions["timeout"] = self._timeout.as_dict()

    def _mapped(self, error: Exception, in_reply: bool) -> ProviderError:
        match error:
            case errors.APIError():
                return self._refused(error)
            case httpx2.TimeoutException():
                return self._refusals.silent()
            case httpx2.HTTPError():
                said = scrubbed(error, self._key)
                return self._refusals.broke_off(said) if in_reply else self._refusals.unreachable(said)
        return ProviderError(self._name, scrubbed(error, self._key))

    def _refused(self, error: errors.APIError) -> ProviderError:
        said = scrubbed(error.message or error, self._key)
        # A wrong key is answered with 400 here.
        if error.code == 400 and "api key" in said.lower():
            return self._refusals.of(401, said)
        return self._refusals.of(error.code or 500, said)


async def _keep_response(response: httpx2.Response) -> None:
    kept = _responses.get()
    if kept is not None:
        kept.append(response)


async def _close(responses: Sequence[httpx2.Response]) -> None:
    for response in responses:
        await response.aclose()


async def _after(
    first: types.GenerateContentResponse | None, chunks: AsyncIterator[types.GenerateContentResponse]
) -> AsyncIterator[types.GenerateContentResponse]:
    if first is not None:
        yield first
        async for chunk in chunks:
            yield chunk


def _again_in_s(error: Exception) -> float | None:
    match error:
        case httpx2.TimeoutException():
            return None
        case httpx2.HTTPError():
            return 0.0
        case errors.APIError():
            response = error.response
            return again_in_s(error.code or 0, response.headers if isinstance(response, httpx2.Response) else {})
    return None
