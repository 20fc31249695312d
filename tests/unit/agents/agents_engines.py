"""Engines that are told what to do, at the provider contracts' edge: they keep time, and count what is open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from agents_loopback import WordCode

from bridge.audio.frames import FRAME_MS, duration_ms
from bridge.providers.base import (
    Heard,
    LlmEvent,
    LlmRequest,
    ProviderError,
    ReplyDone,
    SpeechChunk,
    SttEvent,
    SttFailed,
    TextDelta,
    ToolCall,
    WordTiming,
)

WORD_MS = 240
"""Length of every spoken word."""

MIN_WORD_FRAMES = 6


class CodeStt:
    """Recognises the words of a `WordCode`, `latency_s` after it was asked."""

    name = "code-stt"

    def __init__(self, code: WordCode) -> None:
        self.code = code
        self.latency_s = 0.25
        self.open_s = 0.1
        self.warm_s = 0.0
        self.warmed = 0
        self.refuse_opens = 0
        self.answers = True
        self.language = ""
        """What it takes the caller's language for."""
        self.opened = 0
        self.opened_in: list[str] = []
        self.streams: list[CodeStream] = []

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return "it is there"

    async def warm(self) -> None:
        self.warmed += 1
        await asyncio.sleep(self.warm_s)

    async def aclose(self) -> None: ...

    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> "CodeStream":
        self.opened += 1
        self.opened_in.append(language)
        await asyncio.sleep(self.open_s)
        if self.refuse_opens:
            self.refuse_opens -= 1
            raise ProviderError(self.name, "no ear free")
        stream = CodeStream(self, emit)
        self.streams.append(stream)
        return stream


class CodeStream:
    def __init__(self, stt: CodeStt, emit: Callable[[SttEvent], None]) -> None:
        self._stt = stt
        self.emit = emit
        self.frames = 0
        self.pauses = 0
        self.commits = 0
        self.partials = 0
        self.closed = False
        self._words: list[str] = []
        self._run: tuple[str | None, int] = (None, 0)
        self._epoch = 0

    def push(self, pcm: bytes) -> None:
        self.frames += 1
        word = self._stt.code.word(pcm)
        same, count = self._run
        count = count + 1 if word == same else 1
        self._run = (word, count)
        if word is not None and count % (WORD_MS // FRAME_MS) == MIN_WORD_FRAMES:
            self._words.append(word)

    def speech_started(self) -> None: ...

    def speech_paused(self) -> None:
        self.pauses += 1
        self._answer(True, self.pauses)

    def want_partial(self) -> None:
        self.partials += 1
        self._answer(False, 0)

    def _answer(self, settled: bool, pause: int) -> None:
        text, epoch = " ".join(self._words), self._epoch

        def answer() -> None:
            if epoch == self._epoch and not self.closed:
                self.emit(Heard(text, settled, pause, self._stt.latency_s * 1000, self._stt.language))

        if self._stt.answers:
            asyncio.get_running_loop().call_later(self._stt.latency_s, answer)

    def commit(self) -> None:
        self.commits += 1
        self._epoch += 1
        self._words.clear()

    def fail(self, *, fatal: bool) -> None:
        self.emit(SttFailed("it broke", fatal))

    async def aclose(self) -> None:
        self.closed = True


Step = str | float | ToolCall | ProviderError


class ScriptedLlm:
    """Replies as `script` says to a request: text is streamed, a number is waited (s), an error is raised."""

    name = "scripted-llm"

    def __init__(self, script: Callable[[LlmRequest], Sequence[Step]]) -> None:
        self.script = script
        self.follows_instructions = False
        self.requests: list[LlmRequest] = []
        self.open = 0
        self.completed = 0
        self.warmed = 0

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return "it is there"

    async def warm(self) -> None:
        self.warmed += 1

    async def aclose(self) -> None: ...

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        self.requests.append(request)
        self.open += 1
        try:
            calls: list[ToolCall] = []
            for step in self.script(request):
                match step:
                    case str():
                        yield TextDelta(step)
                    case float():
                        await asyncio.sleep(step)
                    case ToolCall():
                        calls.append(step)
                    case ProviderError():
                        raise step
            self.completed += 1
            yield ReplyDone(tuple(calls), "scripted-llm/model")
        finally:
            self.open -= 1


class CodeTts:
    """Speaks in a `WordCode`. `prepared` texts come at once, others after `latency_s`."""

    name = "code-tts"

    def __init__(self, code: WordCode) -> None:
        self.code = code
        self.latency_s = 0.2
        self.chunk_s = 0.0
        self.prepared: set[str] = set()
        self.aligned = False
        self.failing: Callable[[str], ProviderError | None] = lambda text: None
        self.asked: list[str] = []
        self.asked_as: list[tuple[str, str, str]] = []
        self.open = 0
        self.warmed = 0

    async def start(self) -> None: ...

    async def probe(self) -> str:
        return "it is there"

    async def warm(self) -> None:
        self.warmed += 1

    async def aclose(self) -> None: ...

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[SpeechChunk]:
        self.asked.append(text)
        self.asked_as.append((text, voice, language))
        self.open += 1
        try:
            if (error := self.failing(text)) is not None:
                raise error
            if text not in self.prepared:
                await asyncio.sleep(self.latency_s)
            at_ms = 0.0
            for word in text.split():
                pcm = self.code.pcm(word, WORD_MS)
                end_ms = at_ms + duration_ms(len(pcm), sample_rate)
                yield SpeechChunk(pcm, (WordTiming(word, at_ms, end_ms),) if self.aligned else ())
                at_ms = end_ms
                if self.chunk_s:
                    await asyncio.sleep(self.chunk_s)
        finally:
            self.open -= 1
