"""What can go wrong with a conversation's engines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

from bridge.providers.base import ProviderError, ProviderTimeoutError

Role = Literal["stt", "llm", "tts"]
T = TypeVar("T")


class EngineError(Exception):
    """The engine of `role` failed and no retry is left; the call ends with an apology."""

    def __init__(self, role: Role, error: ProviderError) -> None:
        super().__init__(f"{role}: {error}")
        self.role: Role = role
        self.error = error


class StreamEndedError(ProviderError):
    """A provider's stream ended before it said that it was complete."""


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`stream`, closed on the way out if it can be (an async generator can): that cancels the provider's work."""
    try:
        yield stream
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            await aclose()


async def next_within(stream: AsyncIterator[T], seconds: float, provider: str, what: str) -> T:
    """The stream's next item. Raises StopAsyncIteration at its end, and ProviderTimeoutError when `what` did not come
    within `seconds`."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await anext(stream)
    except TimeoutError:
        raise ProviderTimeoutError(provider, f"no {what} within {seconds * 1000:.0f} ms") from None
