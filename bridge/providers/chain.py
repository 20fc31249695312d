"""What the chains of every role share: their members, the order in which a call asks them, and their deadlines."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from bridge.providers.base import Provider, ProviderError, ProviderTimeoutError
from bridge.providers.breaker import BreakerSettings
from bridge.providers.health import Health
from bridge.settings import Section

P = TypeVar("P", bound=Provider)
P_co = TypeVar("P_co", bound=Provider, covariant=True)
T = TypeVar("T")

Seconds = Annotated[float, Field(gt=0)]

CLOSE_S = 1.0
"""A provider that does not let go of its work in this time is left to itself: a caller waits for the next one."""


class FallbackSettings(Section):
    """When a call leaves a provider for the next of its chain. The last of a chain gets as long as the agent's own
    limits allow."""

    stt_open_s: Seconds = 1.5
    """For a recogniser's stream to open."""
    stt_settle_s: Seconds = 1.5
    """From the caller's pause to the settled text."""
    llm_first_s: Seconds = 3.0
    """From the request to the first text or tool call."""
    llm_next_s: Seconds = 2.5
    """Between two pieces of a reply."""
    tts_first_s: Seconds = 1.5
    """From a clause to its first audio."""
    tts_next_s: Seconds = 1.5
    """Between two pieces of its audio."""
    breaker: BreakerSettings = BreakerSettings()
    """When calls don't even try a provider any more."""


@dataclass(frozen=True, slots=True)
class Member(Generic[P_co]):
    """One provider of a chain. Chains share providers and their health; they neither start nor close them."""

    provider: P_co
    health: Health
    voice: str = ""
    """Of a chain of voices: the provider's own name of the voice; empty for its default."""
    voice_in: Mapping[str, str] = field(default_factory=dict)
    """The same by language (BCP 47), where it has one of its own."""

    @property
    def name(self) -> str:
        return self.provider.name


@dataclass(slots=True)
class Course(Generic[P]):
    """Which member one call uses: the first that works, and from then on that one until it fails."""

    members: Sequence[Member[P]]
    present: Member[P] = field(init=False)

    def __post_init__(self) -> None:
        self.present = self.members[0]

    def order(self) -> list[Member[P]]:
        """Whom to ask: the present one, then the others as configured; those that breakers keep from us come last,
        for when nothing else is left."""
        others = [member for member in self.members if member is not self.present]
        return sorted([self.present, *others], key=lambda member: not member.health.usable)


async def within(stream: AsyncIterator[T], seconds: float | None, provider: str, what: str) -> T:
    """The stream's next item. Raises StopAsyncIteration at its end, and ProviderTimeoutError when `what` did not come
    in time (None: there is no limit)."""
    try:
        async with asyncio.timeout(seconds if seconds is None else max(0.0, seconds)):
            return await anext(stream)
    except TimeoutError:
        raise ProviderTimeoutError(provider, f"no {what} within {seconds or 0:.1f} s") from None


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`stream`, closed on the way out if it can be (an async generator can): that cancels the provider's work. One
    that does not let go within `CLOSE_S` is left to itself."""
    try:
        yield stream
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await aclose()


async def warm_first(course: Course[P]) -> None:
    """Have the member that the next request goes to open its connection."""
    await course.order()[0].provider.warm()


async def probe_all(members: Sequence[Member[P]]) -> str:
    """What the first working member's probe says. Raises the first one's ProviderError when none works."""
    errors: list[ProviderError] = []
    for member in members:
        try:
            return f"{member.name}: {await member.provider.probe()}"
        except ProviderError as error:
            errors.append(error)
    raise errors[0]
