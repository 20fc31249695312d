"""Providers that are told how to fail, and chains over them, in fake time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from bridge.providers.base import (
    Heard,
    LlmEvent,
    LlmRequest,
    Message,
    Provider,
    ProviderError,
    ReplyDone,
    Role,
    SpeechChunk,
    SttEvent,
    SttFailed,
    Switched,
    TextDelta,
    ToolCall,
    WordTiming,
)
from bridge.providers.breaker import BreakerSettings
from bridge.providers.brief import Brief
from bridge.providers.chain import FallbackSettings, Member
from bridge.providers.health import Health

P = TypeVar("P", bound=Provider)

RATE = 8000
WORD_MS = 300
NEVER = 1e6

SETTINGS = FallbackSettings(breaker=BreakerSettings(failures=3, cool_down_s=10, fatal_cool_down_s=30))


class Peer:
    """What all of them have."""

    role: Role = "llm"

    def __init__(self, name: str) -> None:
        self._name = name
        self.busy = 0
        """Requests or streams that are not closed."""
        self.warmed = 0

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return "there"

    async def warm(self) -> None:
        self.warmed += 1

    async def aclose(self) -> None: ...


Took = tuple[Role, str, float]
"""What the metrics are told: role, provider, seconds."""


def members(*peers: P, voices: Sequence[str] = (), took: list[Took] | None = None) -> list[Member[P]]:
    """`took` collects how long requests took."""
    loop = asyncio.get_running_loop()
    voices = voices or ("",) * len(peers)
    told: list[Took] = [] if took is None else took

    def health(peer: P) -> Health:
        settings, observe = SETTINGS.breaker, lambda *request: told.append(request)
        return Health(peer.role, peer.name, settings, now=loop.time, observe=observe)  # type: ignore[attr-defined]

    return [Member(peer, health(peer), voice) for peer, voice in zip(peers, voices, strict=True)]


Step = str | float | ToolCall | ProviderError


class ModelPeer(Peer):
    """Replies by `steps`: text is streamed, a number is waited (s), an error raised. Else it breaks off."""

    role: Role = "llm"

    def __init__(self, name: str, *steps: Step, ends: bool = True, follows_instructions: bool = True) -> None:
        super().__init__(name)
        self.steps: Sequence[Step] = steps
        self.ends = ends
        self.follows_instructions = follows_instructions
        self.requests: list[LlmRequest] = []

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        self.requests.append(request)
        self.busy += 1
        calls: list[ToolCall] = []
        try:
            for step in self.steps:
                match step:
                    case str():
                        yield TextDelta(step)
                    case float() | int():
                        await asyncio.sleep(step)
                    case ToolCall():
                        calls.append(step)
                    case ProviderError():
                        raise step
            if self.ends:
                yield ReplyDone(tuple(calls))
        finally:
            self.busy -= 1


def asking(*texts: str) -> LlmRequest:
    said = [Message("user", text) for text in texts or ("Hello?",)]
    return LlmRequest(Brief(), said, (), datetime(2026, 11, 21, tzinfo=UTC))


class VoicePeer(Peer):
    """Speaks `WORD_MS` a word, each word a chunk with a sample value of its own; after `words` of them it waits
    `stalls_s`, or raises `error`."""

    role: Role = "tts"

    def __init__(
        self,
        name: str,
        *,
        first_s: float = 0.1,
        words: int | None = None,
        error: ProviderError | None = None,
        stalls_s: float = 0.0,
        aligned: bool = True,
        value: int = 1000,
    ) -> None:
        super().__init__(name)
        self.first_s, self.words, self.error, self.stalls_s = first_s, words, error, stalls_s
        self.aligned, self.value = aligned, value
        self.asked: list[tuple[str, str]] = []
        """Texts and voices."""

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[SpeechChunk]:
        self.asked.append((text, voice))
        self.busy += 1
        try:
            await asyncio.sleep(self.first_s)
            at_ms = 0.0
            for number, word in enumerate(text.split()):
                if number == self.words:
                    if self.error is not None:
                        raise self.error
                    await asyncio.sleep(self.stalls_s)
                pcm = self.value.to_bytes(2, "little") * (sample_rate * WORD_MS // 1000)
                timing = (WordTiming(word, at_ms, at_ms + WORD_MS),) if self.aligned else ()
                at_ms += WORD_MS
                yield SpeechChunk(pcm, timing)
        finally:
            self.busy -= 1


class SttPeer(Peer):
    """Hears how many frames were pushed to it since the last commit, `latency_s` after it was asked."""

    role: Role = "stt"

    def __init__(self, name: str, *, open_s: float = 0.1, latency_s: float = 0.3) -> None:
        super().__init__(name)
        self.open_s, self.latency_s = open_s, latency_s
        self.refuses: ProviderError | None = None
        self.answers = True
        self.streams: list[EarStream] = []

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> "EarStream":
        await asyncio.sleep(self.open_s)
        if self.refuses is not None:
            raise self.refuses
        self.busy += 1
        self.streams.append(EarStream(self, emit))
        return self.streams[-1]


class EarStream:
    def __init__(self, peer: SttPeer, emit: Callable[[SttEvent], None]) -> None:
        self.peer, self.emit = peer, emit
        self.frames: list[bytes] = []
        self.told: list[str] = []
        self.pauses = 0
        self.closed = False

    def push(self, pcm: bytes) -> None:
        self.frames.append(pcm)

    def speech_started(self) -> None:
        self.told.append("started")

    def speech_paused(self) -> None:
        self.told.append("paused")
        self.pauses += 1
        text, pause = f"{self.peer.name} heard {len(self.frames)}", self.pauses
        if self.peer.answers:
            asyncio.get_running_loop().call_later(
                self.peer.latency_s, lambda: self.closed or self.emit(Heard(text, True, pause))
            )

    def want_partial(self) -> None:
        self.told.append("partial")

    def commit(self) -> None:
        self.told.append("commit")
        self.frames.clear()

    def fail(self, *, fatal: bool = True) -> None:
        self.emit(SttFailed("it broke", fatal))

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


def text_of(events: Sequence[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def switches(events: Sequence[Any]) -> list[tuple[str, str]]:
    return [(event.from_, event.to) for event in events if isinstance(event, Switched)]
