"""A call of a realtime agent on a leg in memory, with any provider against its stand-in: minutes of it in seconds, as
time passes only when neither sockets nor tasks have anything to do."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

sys.path.append(str(Path(__file__).parents[1] / "unit" / "agents"))

import numpy as np
from agents_desk import Desk
from agents_engines import CodeTts
from agents_fake_time import in_fake_time
from agents_loopback import RATE, FrameVoiceDetector, LoopbackLeg, WordCode

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.realtime import RealtimeAgent
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.audio.voice import VoiceEvent
from bridge.events import AgentEvent, TurnEnded
from bridge.providers.base import Tts
from bridge.providers.breaker import BreakerSettings
from bridge.providers.chain import Member
from bridge.providers.health import Health
from bridge.providers.realtime import Realtime

__all__ = ["CodeTts", "Desk", "RealtimeCall", "WordCode", "calling", "voice"]

E = TypeVar("E", bound=AgentEvent)

NOW = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)

VOICE = 999
"""The caller's voice: a level that survives mu-law and is loud for every ear."""


def voice(length_ms: int) -> bytes:
    """The caller's voice at 8 kHz: DC for our detector, a tone on top for the others."""
    time = np.arange(RATE * length_ms // 1000) / RATE
    return (VOICE * 4 + np.sin(2 * np.pi * 400 * time) * VOICE * 3).astype(np.int16).tobytes()


class RealtimeCall:
    """`settings` are keyword arguments of `RealtimeSettings`; the greeting is "Good evening." by default."""

    def __init__(
        self,
        providers: Sequence[Realtime],
        *,
        leg: LoopbackLeg | None = None,
        tts: Tts | None = None,
        **settings: Any,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = RealtimeSettings(**{"greeting": "Good evening.", **settings})
        self.leg = leg or LoopbackLeg()
        self.events: list[AgentEvent] = []
        self.detectors: list[FrameVoiceDetector] = []
        self.healths = [
            Health("realtime", provider.name, BreakerSettings(), now=self.loop.time) for provider in providers
        ]
        members = [Member(provider, health) for provider, health in zip(providers, self.healths, strict=True)]
        self.agent = RealtimeAgent("agent", self.settings, members=members, tts=tts, wall_clock=lambda: NOW)
        self.answered_at = self.loop.time()
        self.session = CallSession(
            "call-1", self.leg, self.events.append, self._open_voice, self.loop.time, self.answered_at
        )

    def _open_voice(self, sample_rate: int, handler: Callable[[VoiceEvent], None]) -> FrameVoiceDetector:
        detector = FrameVoiceDetector(handler)
        self.detectors.append(detector)
        return detector

    async def __aenter__(self) -> "RealtimeCall":
        self._clock = asyncio.create_task(self.leg.run_clock())
        self.task = asyncio.create_task(self.agent.run(self.session))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self._clock.cancel()
        with suppress(asyncio.CancelledError):
            await self._clock

    @property
    def now(self) -> float:
        """Seconds since the answer."""
        return self.loop.time() - self.answered_at

    async def wait(self, seconds: float) -> None:
        """Let time pass; a call that ended with an exception raises it here."""
        await asyncio.sleep(seconds)
        if self.task.done() and not self.task.cancelled():
            self.task.result()

    async def until(self, condition: Callable[[], object], *, limit_s: float = 60) -> None:
        end = self.now + limit_s
        while not condition():
            assert self.now < end, f"did not happen within {limit_s} s; events: {self.events}"
            await self.wait(0.01)

    async def speak(self, length_ms: int = 600) -> float:
        """The caller speaks; returns when that ended (s since the answer)."""
        self.leg.hear(voice(length_ms))
        await self.until(lambda: not self.leg.incoming)
        return self.now

    async def agent_speaks(self, sent_ms: float = 20) -> None:
        """Wait until so much of the agent's present utterance is on the wire."""
        playout = self.leg.playout
        await self.until(lambda: playout.speaking and playout.sent_ms >= sent_ms)

    async def agent_silent(self) -> None:
        """Wait until the agent has spoken and finished."""
        await self.agent_speaks()
        await self.until(lambda: not self.leg.playout.speaking)

    async def turn(self, count: int) -> TurnEnded:
        """The `count`-th turn on record."""
        await self.until(lambda: len(self.of(TurnEnded)) >= count)
        return self.of(TurnEnded)[count - 1]

    async def ended(self, limit_s: float = 600) -> AgentDone:
        await self.until(self.task.done, limit_s=limit_s)
        return self.task.result()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def said(self, speaker: str) -> list[str]:
        return [turn.heard_text for turn in self.of(TurnEnded) if turn.speaker == speaker]

    def sound_ms(self, since: float = 0.0) -> float:
        """Frames with sound that were sent since then (s since the answer), in ms."""
        sent = [frame for at, frame in self.leg.sent if at - self.answered_at >= since]
        return 20.0 * sum(np.abs(np.frombuffer(frame, np.int16)).max() > 100 for frame in sent)

    def assert_nothing_left(self) -> None:
        """Everything the call opened is closed."""
        assert self.task.done()
        assert self.leg.sinks == [] and self.leg.handlers == []
        assert self.leg.playout._sinks == [] and self.leg.playout._handlers == []
        assert not self.leg.playout.speaking and not self.leg.playout.paused
        assert all(detector.closed for detector in self.detectors)


def calling(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Decorates a coroutine test to run in fake time; what it leaves behind is an error."""

    def run() -> None:
        async def main() -> None:
            await test()

        in_fake_time(main)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
