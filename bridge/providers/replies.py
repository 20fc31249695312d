"""A language model's streamed reply, whatever its interface: deadlines, one more try, tool calls repaired, and errors
that say what to do."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import structlog

from bridge.providers.base import (
    Llm,
    LlmEvent,
    LlmRequest,
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
)
from bridge.providers.brief import Brief
from bridge.providers.calls import CallPiece, JoinedCalls

REPAIRS = 1
"""Times in one reply that the model may correct a tool call whose arguments can't be read."""

ATTEMPTS = 2
"""Requests for one reply while nothing of it has come: a kept connection may be dead, a server busy for a moment."""

FIRST_BACKOFF_S = 0.2

LONGEST_REPLY = 100_000
"""Characters, of text and of the arguments of tools. Nobody listens that long: the model or its server repeats
itself."""

_NONSENSE = (AttributeError, TypeError, LookupError, ValueError)
"""What reading a reply raises that is not as its protocol has it: SDKs don't check what they are sent."""

log = structlog.get_logger(__name__)

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
Pieces = AsyncGenerator[str | CallPiece, None]


class Deadlines(Protocol):
    """The settings of every language model have these."""

    @property
    def first_token_s(self) -> float: ...

    @property
    def between_tokens_s(self) -> float: ...


class Stream(Protocol[E_co]):
    """What an SDK gives: events one by one, and a way to stop them."""

    def __anext__(self) -> Awaitable[E_co]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Closeable(Generic[E]):
    """A `Stream` of an iterator and what stops it."""

    events: AsyncIterator[E]
    stop: Callable[[], Awaitable[None]]

    def __anext__(self) -> Awaitable[E]:
        return anext(self.events)

    async def close(self) -> None:
        await self.stop()


@dataclass(frozen=True, slots=True)
class Sdk:
    """How an SDK's errors read."""

    errors: tuple[type[Exception], ...]
    """Everything that it and its transport raise."""
    mapped: Callable[[Exception, bool], ProviderError]
    """The error as ours, without keys; True: in the middle of the reply."""
    again_in_s: Callable[[Exception], float | None]
    """How long to wait before the request is sent again; None if that can't help."""


async def paced(
    name: str,
    sdk: Sdk,
    deadlines: Deadlines,
    open_stream: Callable[[], Awaitable[Stream[E]]],
    is_token: Callable[[E], bool],
) -> AsyncGenerator[E, None]:
    """The events of a stream, each within its deadline; `is_token` tells those that the caller can hear of. The
    stream is closed at the end, however it comes. Raises ProviderError."""
    now = asyncio.get_running_loop().time
    deadline = now() + deadlines.first_token_s
    stream = await _opened(name, sdk, open_stream, deadline)
    waiting = True
    try:
        while True:
            # Between tokens a model may think again, as long as at first; events that say nothing don't prolong it.
            limit = deadline if waiting else min(now() + deadlines.between_tokens_s, deadline)
            try:
                async with asyncio.timeout_at(limit):
                    event = await stream.__anext__()
            except StopAsyncIteration:
                return
            except TimeoutError:
                what = "first token" if waiting else "next token"
                raise ProviderTimeoutError(name, f"no {what} in time") from None
            except sdk.errors as error:
                raise sdk.mapped(error, True) from None
            except ValueError as error:
                raise ProviderError(name, f"the stream has something in it that is not JSON: {error}") from None
            token = _is_sense(name, is_token, event)
            waiting = waiting and not token
            yield event
            if token:
                deadline = now() + max(deadlines.first_token_s, deadlines.between_tokens_s)
    finally:
        await stream.close()


def _is_sense(name: str, is_token: Callable[[E], bool], event: E) -> bool:
    try:
        return is_token(event)
    except _NONSENSE as error:
        raise _senseless(name, error) from None


def _senseless(name: str, error: Exception) -> ProviderError:
    log.warning("a reply could not be read", provider=name, exc_info=error)
    return ProviderError(name, f"the reply makes no sense ({type(error).__name__})")


async def _opened(name: str, sdk: Sdk, open_stream: Callable[[], Awaitable[Stream[E]]], deadline: float) -> Stream[E]:
    """Send the request, again if that may help and there is time."""
    now = asyncio.get_running_loop().time
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with asyncio.timeout_at(deadline):
                return await open_stream()
        except TimeoutError:
            raise ProviderTimeoutError(name, "no answer before the first token was due") from None
        except sdk.errors as error:
            wait_s = sdk.again_in_s(error)
            if attempt == ATTEMPTS or wait_s is None or now() + wait_s >= deadline:
                raise sdk.mapped(error, False) from None
            await asyncio.sleep(wait_s)
        except ValueError as error:
            raise ProviderError(name, f"the answer is not JSON: {error}") from None
    raise AssertionError("unreachable")


async def replied(
    name: str, by: str, memory: Sequence[Message], ask: Callable[[Sequence[Message]], Pieces]
) -> AsyncGenerator[LlmEvent, None]:
    """The events of a reply to `memory`, of what `ask` streams. Raises ProviderError."""
    messages = list(memory)
    names = ""
    for _ in range(REPAIRS + 1):
        joined = JoinedCalls(f"call-{len(messages)}")
        said = ""
        length = 0
        async with aclosing(_sensible(name, ask(messages))) as pieces:
            async for piece in pieces:
                length += len(piece.arguments if isinstance(piece, CallPiece) else piece)
                if length > LONGEST_REPLY:
                    raise ProviderError(name, f"the reply does not end within {LONGEST_REPLY} characters")
                if isinstance(piece, CallPiece):
                    joined.add(piece)
                elif piece:
                    said += piece
                    yield TextDelta(piece)
        if not joined.unreadable:
            yield ReplyDone(joined.calls(), by)
            return
        names = ", ".join(joined.unreadable)
        messages += joined.repair(said)
    raise ProviderError(name, f"the model wrote arguments that are not JSON for {names}, twice")


async def _sensible(name: str, pieces: Pieces) -> Pieces:
    """`pieces`, as long as they are what they should be. Raises ProviderError."""
    async with aclosing(pieces):
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except _NONSENSE as error:
                raise _senseless(name, error) from None
            whole = (piece.id, piece.name, piece.arguments) if isinstance(piece, CallPiece) else (piece,)
            if not all(isinstance(part, str) for part in whole):
                raise ProviderError(name, "the reply makes no sense: something in it is no text")
            yield piece


async def tried(llm: Llm) -> float:
    """Ask for a word, and return how long its first token took (ms). Raises ProviderError."""
    now = asyncio.get_running_loop().time
    asked = now()
    hello = LlmRequest(
        brief=Brief(),
        messages=[Message("user", "Hello")],
        tools=(),
        now=datetime.now(UTC),
        instructions="Answer with one word.",
    )
    events = llm.reply(hello)
    try:
        await anext(events)
    finally:
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            await aclose()
    return (now() - asked) * 1000


@dataclass(frozen=True, slots=True)
class Refusals:
    """What an HTTP status means to an operator."""

    provider: str
    base_url: str
    model: str
    key_from: str
    """Where the key was taken from."""
    role: str = "llm"

    def of(self, status: int, said: str) -> ProviderError:
        """The error for `status`; `said` is what the server wrote, without keys."""
        name = self.provider
        match status:
            case 401 | 403:
                where = self.key_from or f"providers.{name}.api_key_env"
                return ProviderUnavailableError(name, f"the key was refused ({status}): check {where}. {said}")
            case 402:
                return ProviderUnavailableError(name, f"no credit left (402): {said}")
            case 404:
                where = f"providers.{name}.{self.role}.model"
                return ProviderUnavailableError(
                    name, f"no model {self.model!r} at {self.base_url} (404): check {where}. {said}"
                )
            case 429:
                return ProviderBusyError(name, f"too many requests, or no credit left (429): {said}")
            case 529:
                return ProviderBusyError(name, f"overloaded (529): {said}")
        return ProviderError(name, f"HTTP {status}: {said}")

    def unreachable(self, said: str) -> ProviderError:
        return ProviderUnavailableError(self.provider, f"can't connect to {self.base_url}: {said}")

    def broke_off(self, said: str) -> ProviderError:
        return ProviderError(self.provider, f"the connection broke off in the reply: {said}")

    def silent(self) -> ProviderError:
        return ProviderTimeoutError(self.provider, f"no answer from {self.base_url} in time")


def again_in_s(status: int, headers: Mapping[str, str]) -> float | None:
    """How long to wait before a request that met `status` is sent again; None if that can't help."""
    if status not in (408, 409, 429, 500, 502, 503, 504, 529):
        return None
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return FIRST_BACKOFF_S
