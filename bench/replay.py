"""A call in virtual time: a recorded line through the real voice activity, detectors and conversation, on a leg in
memory, with engines that know their text. What went over the wire, and when, is kept."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.barge_corpus import EchoPath
from bench.vad_signals import RATE, Samples, frames
from bridge.agents.base import CallSession
from bridge.agents.conversation import ConversationAgent
from bridge.agents.settings import ConversationSettings
from bridge.audio.frames import FRAME_MS, FRAME_S, FrameSink, Unsubscribe, frame_bytes
from bridge.audio.playout import Playout
from bridge.audio.vad import VoiceActivity
from bridge.events import AgentEvent, Cause, LegEnded, LegEvent
from bridge.legs.base import Capability, LegInfo, LegState, MediaQuality
from bridge.providers.base import (
    Heard,
    LlmEvent,
    LlmRequest,
    Message,
    ReplyDone,
    SpeechChunk,
    SttEvent,
    TextDelta,
    WordTiming,
)

LLM_FIRST_S = 0.3
TTS_FIRST_S = 0.1
"""For what it has no recording of."""

ECHO_SAMPLES = {False: (48, 10), True: (800, 120)}
"""In a room or not: length and decay of what an echo is smeared by."""


class ReplayLeg:
    """Fulfils `Leg`: the caller's line is a recording, and our own voice may come back on it."""

    capabilities = Capability.NONE

    def __init__(self, line: Samples, echo: EchoPath | None = None, *, name: str = "replay") -> None:
        self.info = LegInfo("replay", "inbound", "caller", "agent", "bench", name, "127.0.0.1:5060")
        self.state = LegState.UP
        self.sample_rate = RATE
        self.playout = Playout(RATE)
        self.quality = MediaQuality()
        self.sent: list[tuple[float, bool]] = []
        """Each tick's time, and whether the agent's voice was in what it sent."""
        self.heard_s = 0.0
        """How much of the line has come."""
        self._line = deque(frames(line))
        self._echo = _Echo(echo) if echo is not None else None
        self._sinks: list[FrameSink] = []
        self._handlers: list[Callable[[LegEvent], None]] = []
        self._pulled = (0, 0.0)

    def tick(self, now: float) -> None:
        frame = self._line.popleft() if self._line else bytes(frame_bytes(RATE))
        if self._echo is not None:
            frame = self._echo.onto(frame)
        self.heard_s += FRAME_S
        for sink in list(self._sinks):
            sink(frame, now)
        sent = self.playout.take(now)
        pulled = (self.playout.generation, self.playout.sent_ms)
        self.sent.append((now, pulled != self._pulled and pulled[1] > 0))
        self._pulled = pulled
        if self._echo is not None:
            self._echo.sent(sent)

    def listen(self, sink: FrameSink) -> Unsubscribe:
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink)

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        self._handlers.append(handler)
        return lambda: self._handlers.remove(handler)

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        self.state = LegState.ENDED
        for handler in list(self._handlers):
            handler(LegEnded(cause, detail))

    async def ringing(self) -> None: ...

    async def answer(self) -> None: ...

    async def transfer(self, target: str) -> None: ...

    def stop_transfer(self) -> None: ...

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None: ...

    async def hold(self, on: bool) -> None: ...


class _Echo:
    """What comes back of what we sent."""

    def __init__(self, path: EchoPath) -> None:
        rng = np.random.default_rng(21)
        count, decay = ECHO_SAMPLES[path.room]
        response = rng.normal(0, 1, count) * np.exp(-np.arange(count) / decay)
        response[0] = 8 if path.room else 1
        self._response = response / np.sqrt((response**2).sum()) * 10 ** (path.gain_db / 20)
        size = RATE * FRAME_MS // 1000
        self._tail = np.zeros(count + size - 1)
        self._size = size
        self._coming: deque[Samples] = deque(np.zeros(size) for _ in range(path.delay_ms // FRAME_MS))

    def sent(self, pcm: bytes) -> None:
        made = np.convolve(np.frombuffer(pcm, np.int16).astype(np.float64), self._response)
        self._tail[: len(made)] += made
        self._coming.append(self._tail[: self._size].copy())
        self._tail = np.concatenate([self._tail[self._size :], np.zeros(self._size)])

    def onto(self, frame: bytes) -> bytes:
        line = np.frombuffer(frame, np.int16).astype(np.float64)
        if self._coming:
            line = line + self._coming.popleft()
        return np.clip(line, -32768, 32767).astype(np.int16).tobytes()


@dataclass(frozen=True, slots=True)
class Recogniser:
    """How the stand-in recogniser answers."""

    settled_ms: float = 300.0
    """From the pause to its text: the embedded engine's time for a short utterance."""
    streams: bool = False
    """It sends what it has every 200 ms by itself, `lag_ms` behind the voice; else only when it is asked to."""
    lag_ms: float = 300.0


class ReplayStt:
    """Knows what is said on the line, and when each word ends (s of the line)."""

    name = "replay-stt"

    def __init__(self, leg: ReplayLeg, words: Sequence[tuple[str, float]], how: Recogniser) -> None:
        self.leg = leg
        self.words = words
        self.how = how

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return ""

    async def warm(self) -> None: ...

    async def aclose(self) -> None: ...

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> "ReplayStream":
        return ReplayStream(self, emit)


class ReplayStream:
    def __init__(self, stt: ReplayStt, emit: Callable[[SttEvent], None]) -> None:
        self._stt = stt
        self._emit = emit
        self._from_s = 0.0
        self._pauses = 0
        self._frames = 0
        self._said = ""
        self._closed = False

    def push(self, pcm: bytes) -> None:
        self._frames += 1
        how = self._stt.how
        if how.streams and self._frames % 10 == 0:
            text = self._text(self._stt.leg.heard_s - how.lag_ms / 1000)
            if text != self._said:
                self._said = text
                self._emit(Heard(text, False, 0))

    def speech_started(self) -> None: ...

    def speech_paused(self) -> None:
        self._pauses += 1
        self._answer(True, self._pauses)

    def want_partial(self) -> None:
        if not self._stt.how.streams:
            self._answer(False, 0)

    def _answer(self, settled: bool, pause: int) -> None:
        text, since, how = self._text(self._stt.leg.heard_s), self._from_s, self._stt.how

        def answer() -> None:
            if since == self._from_s and not self._closed:
                self._emit(Heard(text, settled, pause))

        asyncio.get_running_loop().call_later(how.settled_ms / 1000, answer)

    def _text(self, until_s: float) -> str:
        return " ".join(word for word, end in self._stt.words if self._from_s < end <= until_s)

    def commit(self) -> None:
        self._from_s = self._stt.leg.heard_s
        self._said = ""

    async def aclose(self) -> None:
        self._closed = True


class ReplayLlm:
    """Says one thing."""

    name = "replay-llm"
    follows_instructions = False

    def __init__(self, reply: str, first_s: float) -> None:
        self.text = reply
        self.first_s = first_s
        self.requests = 0
        self.memory: Sequence[Message] = ()
        """Of the conversation, as the newest request had it."""

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return ""

    async def warm(self) -> None: ...

    async def aclose(self) -> None: ...

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        self.requests += 1
        self.memory = request.messages
        await asyncio.sleep(self.first_s)
        yield TextDelta(self.text)
        yield ReplyDone()


class ReplayTts:
    """Speaks each text it knows by its recording, everything else by 60 ms of hum a character."""

    name = "replay-tts"

    def __init__(
        self, recordings: dict[str, Samples], first_s: float, timings: Mapping[str, tuple[WordTiming, ...]]
    ) -> None:
        """`timings`: what it tells of the words in its recordings."""
        self.recordings = recordings
        self.first_s = first_s
        self.timings = timings

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return ""

    async def warm(self) -> None: ...

    async def aclose(self) -> None: ...

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[SpeechChunk]:
        samples = self.recordings.get(text)
        if samples is None:
            await asyncio.sleep(self.first_s)
            t = np.arange(int(len(text) * 0.06 * RATE)) / RATE
            samples = 3000 * np.sin(2 * np.pi * 180 * t)
        pcm = np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
        yield SpeechChunk(pcm, self.timings.get(text, ()))


def spread_words(text: str, onset_s: float, end_s: float) -> list[tuple[str, float]]:
    """The words of `text` with their ends (s), by their share of the characters."""
    found, total, done = [], max(1, len(text.replace(" ", ""))), 0
    for word in text.split():
        done += len(word)
        found.append((word, onset_s + (end_s - onset_s) * done / total))
    return found


class Replay:
    """One call. `run` takes it through its line; `events` and `leg.sent` tell what came of it."""

    def __init__(
        self,
        activity: VoiceActivity,
        line: Samples,
        settings: ConversationSettings,
        *,
        words: Sequence[tuple[str, float]] = (),
        how: Recogniser | None = None,
        echo: EchoPath | None = None,
        voice: dict[str, Samples] | None = None,
        timings: Mapping[str, tuple[WordTiming, ...]] | None = None,
        reply: str = "I see.",
        name: str = "replay",
    ) -> None:
        loop = asyncio.get_running_loop()
        self.leg = ReplayLeg(line, echo, name=name)
        self.events: list[AgentEvent] = []
        self.line_s = len(line) / RATE
        self.stt = ReplayStt(self.leg, words, how or Recogniser())
        self.llm = ReplayLlm(reply, LLM_FIRST_S)
        agent = ConversationAgent(
            "bench",
            settings,
            stt=self.stt,
            llm=self.llm,
            tts=ReplayTts(voice or {}, TTS_FIRST_S, timings or {}),
        )
        self.answered_at = loop.time()
        session = CallSession(name, self.leg, self.events.append, activity.open, loop.time, self.answered_at)
        self._run = agent.run(session)
        self._task: asyncio.Task[object] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run)

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error


async def play(activity: VoiceActivity, calls: Sequence[Replay], seconds: float) -> None:
    """Take `calls` through `seconds` of their lines, all on one clock."""
    loop = asyncio.get_running_loop()
    for call in calls:
        call.start()
    await asyncio.sleep(0)
    begun = loop.time()
    for step in range(1, int(seconds / FRAME_S) + 1):
        await asyncio.sleep(begun + step * FRAME_S - loop.time())
        now = loop.time()
        for call in calls:
            call.leg.tick(now)
        activity.after_tick(now)
    for call in calls:
        await call.stop()
