"""A whole call of an agent made from a configuration, over providers whose servers are stand-ins, in real time."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from agents_loopback import FrameVoiceDetector, LoopbackLeg
from failures_vendors import KEY, SPARE_KEY, SPARES, Vendor
from standin import Standin
from standin_ear import tone

from bridge.agents.base import AgentDone, CallSession
from bridge.api.metrics import Metrics
from bridge.config import Config
from bridge.events import AgentEvent, ProviderFailed, TurnEnded
from bridge.providers.base import Role
from bridge.talkers import Talkers

KEY_ENV = "FAILING_API_KEY"
SPARE_ENV = "SPARE_API_KEY"
SPARE = "spare"
UTTERANCE_MS = 700
LOUD = 100

ROLES: tuple[Role, ...] = ("stt", "llm", "tts")

PATIENT: Mapping[Role, Mapping[str, float]] = {
    "stt": {"settle_s": 20},
    "llm": {"first_token_s": 20, "between_tokens_s": 20},
    "tts": {"first_audio_s": 20, "between_audio_s": 20},
}
"""What a provider that works is given: on a machine that does much else it may take its time."""

DEADLINES = dict.fromkeys(
    ("stt_open_s", "stt_settle_s", "llm_first_s", "llm_next_s", "tts_first_s", "tts_next_s"), 2.5
)
"""Of a chain. Those of its last member too, once the call is with it."""

WATCH_S = 0.01


def configuration(
    vendor: Vendor | None, server: Standin | None, spares: Mapping[Role, Standin], data_dir: Path, **agent: Any
) -> Config:
    """An agent whose chain in the vendor's role begins with it; who else works is the spare, which is given time."""
    providers = {}
    for role in ROLES:
        entry = SPARES[role].entry(spares[role], SPARE_ENV)
        providers[f"{SPARE}-{role}"] = {**entry, "connect_s": 20, role: {**entry[role], **PATIENT[role]}}
    chains = {role: [f"{SPARE}-{role}"] for role in ROLES}
    if vendor is not None and server is not None:
        providers[vendor.kind] = vendor.entry(server, KEY_ENV)
        chains[vendor.role].insert(0, vendor.kind)
    return Config(
        data_dir=data_dir,
        providers=providers,
        fallback={**DEADLINES, "breaker": {"cool_down_s": 1.0, "fatal_cool_down_s": 1.0}},
        agents={"a": {"kind": "conversation", "greeting": "Hello there.", **chains, **agent}},
    )


@dataclass
class FailingCall:
    """One call; `talkers` has the agent `a`."""

    talkers: Talkers
    leg: LoopbackLeg = field(default_factory=LoopbackLeg)
    events: list[AgentEvent] = field(default_factory=list)
    answered_at: float = field(default_factory=time.monotonic)
    task: "asyncio.Task[AgentDone]" = field(init=False)
    late: list[tuple[float, float]] = field(default_factory=list)
    """When the loop was held up, and for how long (s): a machine that does much else is no silence of ours."""
    covered_after: float | None = None
    """From the caller's question to the agent's first sound, where a test notes it."""

    @asynccontextmanager
    async def up(self) -> AsyncIterator["FailingCall"]:
        loop = asyncio.get_running_loop()
        self.answered_at = loop.time()
        session = CallSession(
            "call-1",
            self.leg,
            self.events.append,
            lambda rate, handler: FrameVoiceDetector(handler),
            loop.time,
            self.answered_at,
        )
        clock = asyncio.create_task(self.leg.run_clock())
        watch = asyncio.create_task(self._watch())
        self.task = asyncio.create_task(self.talkers["a"].agent.run(session))
        try:
            yield self
        finally:
            for task in (self.task, clock, watch):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _watch(self) -> None:
        while True:
            asleep = self.now
            await asyncio.sleep(WATCH_S)
            self.late.append((self.now, self.now - asleep - WATCH_S))

    def held_up(self, since: float, until: float) -> float:
        """How much of that time the loop was late (s)."""
        return sum(late for at, late in self.late if since < at <= until)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def until(self, condition: Any, within_s: float, what: str) -> None:
        end = self.now + within_s
        while not condition():
            assert self.now < end, f"{what}: not within {within_s} s"
            await asyncio.sleep(0.01)

    async def says(self) -> float:
        """The caller's next utterance; returns when it ended."""
        self.leg.hear(tone(UTTERANCE_MS))
        await self.until(lambda: not self.leg.incoming, 30, "the caller's audio")
        return self.now

    async def turn(self, number: int, within_s: float = 60) -> str:
        """Wait until the agent's turn of this number (from 0, the greeting) is over; what was heard of it."""
        await self.until(lambda: len(self.said) > number or self.task.done(), within_s, f"turn {number}")
        return self.said[number] if len(self.said) > number else ""

    async def answer_or_end(self, since: float, within_s: float) -> None:
        """Wait until the agent has spoken after `since` and finished, or the call is over."""
        await self.until(lambda: self.task.done() or self.sound_since(since), within_s, "a word of the agent")
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until the agent has nothing left to say."""
        await self.until(lambda: not self.leg.playout.speaking, 30, "the end of the agent's turn")

    @property
    def said(self) -> list[str]:
        return [
            event.heard_text for event in self.events if isinstance(event, TurnEnded) and event.speaker == "agent"
        ]

    @property
    def failures(self) -> list[ProviderFailed]:
        return [event for event in self.events if isinstance(event, ProviderFailed)]

    def sound_since(self, since: float) -> float | None:
        """How long after `since` the caller heard something, as it would be on a machine with time to spare."""
        at = next((at for at, frame in self.leg.sent if at > since and _loud(frame)), None)
        return None if at is None else at - since - self.held_up(since, at)

    def longest_silence(self, since: float, until: float) -> float:
        """...of the agent, in that time (s)."""
        longest, last = 0.0, since
        for at, frame in self.leg.sent:
            if since < at <= until and _loud(frame):
                longest, last = max(longest, at - last - self.held_up(last, at)), at
        return max(longest, until - last - self.held_up(last, until))


def _loud(frame: bytes) -> bool:
    return bool(np.abs(np.frombuffer(frame, np.int16)).max() > LOUD)


def no_key(text: str) -> None:
    assert KEY not in text and SPARE_KEY not in text, "a key was told"


def metrics_of(talkers: Talkers) -> str:
    metrics = Metrics()
    metrics.register(talkers.readings)
    return metrics.render().decode()
