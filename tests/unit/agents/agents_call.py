"""One call of a conversation agent in fake time: a caller who speaks, and what went over the wire."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from agents_engines import WORD_MS, CodeStt, CodeTts, ScriptedLlm, Step
from agents_fake_time import in_fake_time
from agents_loopback import FrameVoiceDetector, LoopbackLeg, WordCode, noise

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.conversation import ConversationAgent
from bridge.agents.settings import ConversationSettings
from bridge.audio.voice import VoiceEvent
from bridge.events import AgentEvent, TurnEnded
from bridge.providers.base import LlmRequest

E = TypeVar("E", bound=AgentEvent)

NOW = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)


HEARD_FRAMES = 8
"""Of the 12 of a word: the share that counts as heard."""


def echo_script(request: LlmRequest) -> Sequence[Step]:
    return [0.1, f"You said {request.messages[-1].content}."]


class Call:
    """`settings` are keyword arguments of `ConversationSettings`; the greeting is "Hello there." by default."""

    def __init__(
        self,
        script: Callable[[LlmRequest], Sequence[Step]] = echo_script,
        *,
        leg: LoopbackLeg | None = None,
        **settings: Any,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.code = WordCode()
        self.settings = ConversationSettings(**{"greeting": "Hello there.", **settings})
        self.leg = leg or LoopbackLeg()
        self.stt = CodeStt(self.code)
        self.llm = ScriptedLlm(script)
        self.tts = CodeTts(self.code)
        self.tts.prepared |= set(self.settings.fixed_phrases())
        self.events: list[AgentEvent] = []
        self.detectors: list[FrameVoiceDetector] = []
        self.agent = ConversationAgent(
            "agent", self.settings, stt=self.stt, llm=self.llm, tts=self.tts, wall_clock=lambda: NOW
        )
        self.answered_at = self.loop.time()
        self.session = CallSession(
            "call-1", self.leg, self.events.append, self._open_voice, self.loop.time, self.answered_at
        )

    def _open_voice(self, sample_rate: int, handler: Callable[[VoiceEvent], None]) -> FrameVoiceDetector:
        detector = FrameVoiceDetector(handler)
        self.detectors.append(detector)
        return detector

    async def __aenter__(self) -> "Call":
        self._clock = asyncio.create_task(self.leg.run_clock())
        self.task = asyncio.create_task(self.agent.run(self.session))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
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
        """Let time pass until `condition` holds."""
        end = self.now + limit_s
        while not condition():
            assert self.now < end, f"did not happen within {limit_s} s; events: {self.events}"
            await self.wait(0.01)

    async def say(self, text: str, *, gap_ms: int = 0) -> float:
        """The caller speaks; returns when the last word was said, as the time (s since the answer)."""
        for word in text.split():
            self.leg.hear(self.code.pcm(word, WORD_MS) + bytes(gap_ms * 16))
        await self.until(lambda: not self.leg.incoming)
        return self.now

    async def make_noise(self, length_ms: int) -> None:
        self.leg.hear(noise(length_ms))
        await self.until(lambda: not self.leg.incoming)

    async def agent_silent(self) -> None:
        """Wait until the agent has spoken and finished."""
        await self.until(lambda: self.leg.playout.speaking and self.leg.playout.sent_ms > 0)
        await self.until(lambda: not self.leg.playout.speaking)

    async def agent_speaks(self, words: int = 1) -> None:
        """Wait until the agent's present utterance has this many words on the wire."""
        playout = self.leg.playout
        await self.until(lambda: playout.speaking and playout.sent_ms >= words * WORD_MS)

    async def ended(self, limit_s: float = 600) -> AgentDone:
        await self.until(self.task.done, limit_s=limit_s)
        return self.task.result()

    async def hang_up(self) -> float:
        """The caller hangs up; returns how long the agent took to stop (s)."""
        started = self.now
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        return self.now - started

    def wire(self, since: float = 0.0, leg: LoopbackLeg | None = None) -> list[tuple[float, str]]:
        """The words of which most was sent, and when each began (s since the answer)."""
        words: list[tuple[float, str]] = []
        last: str | None = None
        begun, frames = 0.0, 0
        for at, frame in (leg or self.leg).sent:
            word = self.code.word(frame)
            if word is None:
                continue
            if word != last or frames >= WORD_MS // 20:
                last, begun, frames = word, at - self.answered_at, 0
            frames += 1
            if frames == HEARD_FRAMES and begun >= since:
                words.append((begun, word))
        return words

    def heard(self, since: float = 0.0) -> str:
        """What the caller heard."""
        return " ".join(word for _, word in self.wire(since))

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def said(self, speaker: str) -> list[str]:
        return [turn.heard_text for turn in self.of(TurnEnded) if turn.speaker == speaker]

    def assert_nothing_left(self) -> None:
        """Everything the call opened is closed."""
        assert self.task.done()
        assert self.leg.sinks == [] and self.leg.handlers == []
        assert self.leg.playout._sinks == [] and self.leg.playout._handlers == []
        assert not self.leg.playout.speaking and not self.leg.playout.paused
        assert all(detector.closed for detector in self.detectors)
        assert all(stream.closed for stream in self.stt.streams)
        assert self.llm.open == 0 and self.tts.open == 0
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert len(names) <= 2, names


def conversing(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Decorates a coroutine test to run in fake time."""

    def run() -> None:
        async def main() -> None:
            await test()

        in_fake_time(main)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
