"""One session of a speech-to-speech provider, as a test drives it: what was told, and speaking into it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from realtime_standin import spoken

from bridge.providers.base import Tool
from bridge.providers.realtime import (
    AgentAudio,
    AgentText,
    Realtime,
    RealtimeEvent,
    RealtimeSession,
    RealtimeSetup,
    ReplyEnded,
)

E = TypeVar("E", bound=RealtimeEvent)

TOOL = Tool("look_up", "Look it up", {"type": "object", "properties": {"what": {"type": "string"}}})
LOUD = spoken("a")[:320]


class Caller:
    def __init__(self, session: RealtimeSession, events: list[RealtimeEvent]) -> None:
        self.session = session
        self.events = events

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object], within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)

    async def ended(self, count: int = 1) -> list[ReplyEnded]:
        """Wait until so many replies have ended."""
        await self.until(lambda: len(self.of(ReplyEnded)) >= count)
        return self.of(ReplyEnded)

    def speak(self, *, ms: int = 400, then_silent_ms: int = 600, frame: bytes = LOUD) -> None:
        """All at once, faster than anybody speaks."""
        for _ in range(ms // 20):
            self.session.push(frame)
        for _ in range(then_silent_ms // 20):
            self.session.push(bytes(len(frame)))

    def said(self, item: str) -> str:
        return "".join(event.text for event in self.of(AgentText) if event.item == item)

    def audio_ms(self, item: str, rate: int = 8000) -> float:
        return sum(len(event.pcm) for event in self.of(AgentAudio) if event.item == item) * 500 / rate


async def a_caller_on(provider: Realtime, **setup: Any) -> Caller:
    """A session with one tool, at 8 kHz; the caller closes it."""
    events: list[RealtimeEvent] = []
    whole = RealtimeSetup(**{"instructions": "Be brief.", "tools": [TOOL], "sample_rate": 8000, **setup})
    return Caller(await provider.open(whole, events.append), events)


@asynccontextmanager
async def a_session(provider: Realtime, **setup: Any) -> AsyncIterator[Caller]:
    """A session, and its provider, closed at the end."""
    try:
        caller = await a_caller_on(provider, **setup)
        try:
            yield caller
        finally:
            await caller.session.aclose()
    finally:
        await provider.aclose()
