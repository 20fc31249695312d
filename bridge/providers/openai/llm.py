"""A language model behind any OpenAI-compatible endpoint: Chat Completions, streamed, with the forms as tools.

`protocols/llm.md` 1, 2 and 7: base URLs, error bodies, how tool calls are cut into pieces, what other servers do
differently.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpx2Client
from openai.types.chat import ChatCompletionChunk

from bridge.providers.base import (
    LlmEvent,
    LlmRequest,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
)
from bridge.providers.brief import render_prompt
from bridge.providers.openai.chat import JoinedCalls, chat_messages, chat_tools, repair_messages
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed

__all__ = ["OpenAiLlm", "OpenAiSettings"]

REPAIRS = 1
"""Times in one reply that the model may correct a tool call whose arguments can't be read."""

ATTEMPTS = 2
"""Requests for one reply while nothing of it has come: a kept connection may be dead, a server busy for a moment."""

FIRST_BACKOFF_S = 0.2


class OpenAiLlm:
    """An `Llm`. One for all calls: they share its connections."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.llm
        self._connect_s = settings.connect_s
        self._base_url = settings.base_url or BASE_URL
        kind = KINDS[settings.kind or name] if (settings.kind or name) in KINDS else KINDS["openai"]
        self._key_env = settings.api_key_env or kind.key_env
        # Servers of one's own want no key.
        wants_key = self._key_env or settings.api_key_file
        self._key = settings.key(name, kind.key_env, environ).get_secret_value() if wants_key else "none"
        # The deadlines are ours; these only stop what would outlive them.
        slack_s = max(self._settings.first_token_s, self._settings.between_tokens_s) + 1
        timeout = httpx2.Timeout(slack_s, connect=self._connect_s)
        limits = httpx2.Limits(max_keepalive_connections=100, keepalive_expiry=self._settings.idle_connection_s)
        self._client = AsyncOpenAI(
            api_key=self._key,
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
        """Nothing to load."""

    async def probe(self) -> str:
        """See that the server is there and takes the key. Raises ProviderError."""
        name = self._name
        try:
            async with asyncio.timeout(self._connect_s + self._settings.first_token_s):
                await self._client.models.retrieve(self._settings.model)
        except openai.APIStatusError as error:
            # Not every server has this path or lists its models; only a refused key is certain to stay so.
            if error.status_code in (401, 403):
                raise self._mapped(error) from None
            return f"{self._base_url} answers, but does not tell whether it has {self._settings.model}"
        except openai.APIError as error:
            raise self._mapped(error) from None
        except TimeoutError:
            raise ProviderTimeoutError(name, f"no answer from {self._base_url}") from None
        except ValueError:
            return f"{self._base_url} answers, but not with a model"
        return f"{self._settings.model} at {self._base_url}"

    async def warm(self) -> None:
        """Open the connection before it is needed, e.g. while the phone rings."""
        with contextlib.suppress(ProviderError):
            await self.probe()

    async def aclose(self) -> None:
        await self._client.close()

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply. Closing the iterator closes the HTTP response. Raises ProviderError."""
        prompt = request.instructions or render_prompt(request.brief, request.now, request.language)
        messages = chat_messages(prompt, request.messages)
        for _ in range(REPAIRS + 1):
            joined = JoinedCalls()
            said = ""
            async with aclosing(self._chunks(self._body(messages, request))) as chunks:
                async for chunk in chunks:
                    delta = chunk.choices[0].delta
                    for piece in delta.tool_calls or ():
                        joined.add(piece)
                    text = delta.content or delta.refusal or ""
                    if text:
                        said += text
                        yield TextDelta(text)
            if not joined.unreadable:
                yield ReplyDone(joined.calls())
                return
            messages += repair_messages(said, joined)
        names = ", ".join(joined.unreadable)
        raise ProviderError(self._name, f"the model wrote arguments that are not JSON for {names}, twice")

    def _body(self, messages: list[dict[str, Any]], request: LlmRequest) -> dict[str, Any]:
        """The request, with only what is set: servers differ in what they refuse."""
        settings = self._settings
        body: dict[str, Any] = {"model": settings.model, "messages": messages, "stream": True}
        if request.tools:
            body["tools"] = chat_tools(request.tools)
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.reasoning_effort:
            body["reasoning_effort"] = settings.reasoning_effort
        if settings.max_reply_tokens is not None:
            body["max_completion_tokens"] = settings.max_reply_tokens
        return body

    async def _chunks(self, body: dict[str, Any]) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The chunks that hold a choice, each within its deadline."""
        now = asyncio.get_running_loop().time
        deadline = now() + self._settings.first_token_s
        stream = await self._open(body, deadline)
        waiting, finished = True, ""
        try:
            while True:
                limit = deadline if waiting else now() + self._settings.between_tokens_s
                chunk = await self._next(stream, limit, "first token" if waiting else "next token")
                if chunk is None:
                    break
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                finished = choice.finish_reason or finished
                # Some servers end with a choice that has no delta.
                if choice.delta is not None:
                    waiting = waiting and not (choice.delta.content or choice.delta.tool_calls)
                    yield chunk
        finally:
            await stream.close()
        if not finished:
            raise ProviderError(self._name, "the stream broke off before the reply was complete")
        if finished == "content_filter" and waiting:
            raise ProviderError(self._name, "the reply was withheld by the content filter")

    async def _next(
        self, stream: AsyncStream[ChatCompletionChunk], limit: float, what: str
    ) -> ChatCompletionChunk | None:
        try:
            async with asyncio.timeout_at(limit):
                return await anext(stream)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise ProviderTimeoutError(self._name, f"no {what} in time") from None
        except openai.APIConnectionError as error:
            raise ProviderError(
                self._name, f"the connection broke off in the reply: {self._scrubbed(error)}"
            ) from None
        except openai.APIError as error:
            raise self._mapped(error) from None
        except ValueError as error:
            raise ProviderError(self._name, f"the stream has something in it that is not JSON: {error}") from None

    async def _open(self, body: dict[str, Any], deadline: float) -> AsyncStream[ChatCompletionChunk]:
        """Send the request, again if that may help and there is time."""
        now = asyncio.get_running_loop().time
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout_at(deadline):
                    stream: AsyncStream[ChatCompletionChunk] = await self._client.chat.completions.create(**body)
                    return stream
            except TimeoutError:
                raise ProviderTimeoutError(self._name, "no answer before the first token was due") from None
            except openai.APIError as error:
                wait_s = _retry_after_s(error)
                if attempt == ATTEMPTS or wait_s is None or now() + wait_s >= deadline:
                    raise self._mapped(error) from None
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _mapped(self, error: openai.APIError) -> ProviderError:
        """The SDK's error as ours, without the key."""
        said = self._scrubbed(error)
        settings = self._settings
        match error:
            case openai.APITimeoutError():
                return ProviderTimeoutError(self._name, f"no answer from {self._base_url} in time")
            case openai.APIConnectionError():
                return ProviderUnavailableError(self._name, f"can't connect to {self._base_url}: {said}")
            case openai.APIStatusError(status_code=401 | 403 as status):
                return ProviderUnavailableError(
                    self._name, f"the key was refused ({status}): check {self._key_env or 'api_key_file'}. {said}"
                )
            case openai.APIStatusError(status_code=404):
                return ProviderUnavailableError(
                    self._name,
                    f"no model {settings.model!r} at {self._base_url} (404): "
                    f"check providers.{self._name}.llm.model. {said}",
                )
            case openai.APIStatusError(status_code=429):
                return ProviderBusyError(self._name, f"too many requests, or no credit left (429): {said}")
            case openai.APIStatusError(status_code=status):
                return ProviderError(self._name, f"HTTP {status}: {said}")
        return ProviderError(self._name, said)

    def _scrubbed(self, error: openai.APIError) -> str:
        """The error's message, short and without anything that looks like a key."""
        said: object = error.body.get("message") if isinstance(error.body, dict) else None
        if isinstance(said, str):
            # Without "Error code: 503 - ", which ours says already.
            return scrubbed(said, self._key)
        cause = error.__cause__
        broken = isinstance(error, openai.APIConnectionError) and cause is not None
        return scrubbed(f"{error.message} {cause}" if broken else error.message, self._key)


def _retry_after_s(error: openai.APIError) -> float | None:
    """How long to wait before the request is sent again; None if that can't help."""
    if isinstance(error, openai.APITimeoutError):
        return None
    if isinstance(error, openai.APIConnectionError):
        return 0.0
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (408, 409, 429, 500, 502, 503, 504):
        return None
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return FIRST_BACKOFF_S
