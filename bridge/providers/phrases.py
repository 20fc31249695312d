"""Fixed phrases of any voice, synthesised once: kept on disk over restarts and in memory while the bridge runs.

What is prepared is spoken at once and without the network: the greeting, and the apology when every provider is down.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from bridge.providers.base import (
    ProviderError,
    ProviderTimeoutError,
    SpeechChunk,
    Switched,
    Tts,
    TtsEvent,
    WordTiming,
)
from bridge.providers.chain import closing
from bridge.providers.local.phrases import PhraseFiles, phrase_key

log = structlog.get_logger(__name__)

FORMAT = "cloud-1"
"""Part of every phrase's name; changes with what a file holds."""

CHUNK_S = 10.0
"""Longest wait for a voice's next audio, where no caller waits for it."""

AT_ONCE = 2
"""Phrases synthesised at the same time: vendors count connections, and calls need them more."""

FIRST_RETRY_S = 5.0
MAX_RETRY_S = 300.0
"""Pauses between attempts to prepare what could not be: they double."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Texts that one agent says by rote, as its voice will be asked for them, the most urgent first."""

    texts: tuple[str, ...]
    voice: str
    sample_rate: int
    language: str


class PhraseTts:
    """A `Tts` that has some texts ready. Everything else goes to `tts`, which its owner starts and closes."""

    def __init__(self, tts: Tts, directory: Path, *, sounds_by: str, first_retry_s: float = FIRST_RETRY_S) -> None:
        """`directory` keeps the phrases; `sounds_by` changes with whatever the sound depends on besides the voice:
        the model, its settings."""
        self._tts = tts
        self._files = PhraseFiles(directory)
        self._sounds_by = sounds_by
        self._first_retry_s = first_retry_s
        self._ready: dict[str, SpeechChunk] = {}
        self._keeping: dict[Phrases, asyncio.Task[None]] = {}

    @property
    def name(self) -> str:
        return self._tts.name

    async def start(self) -> None:
        await self._tts.start()

    async def probe(self) -> str:
        return await self._tts.probe()

    async def warm(self) -> None:
        await self._tts.warm()

    async def aclose(self) -> None:
        """End what is prepared in the background, and close the voice."""
        tasks = list(self._keeping.values())
        self._keeping.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tts.aclose()

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[TtsEvent]:
        """From memory if it is there, else by the voice. Raises ProviderError."""
        ready = self.prepared(text, voice=voice, sample_rate=sample_rate, language=language)
        if ready is not None:
            yield ready
            return
        stream = self._tts.synthesize(text, voice=voice, sample_rate=sample_rate, language=language, turn=turn)
        async with closing(stream) as events:
            async for event in events:
                yield event

    def prepared(self, text: str, *, voice: str, sample_rate: int, language: str) -> SpeechChunk | None:
        """The whole speech of `text`, None where it is not there."""
        return self._ready.get(self._key(text, voice, sample_rate, language))

    async def load(self, phrases: Phrases) -> tuple[str, ...]:
        """Take what is on disk into memory; returns the texts that are not there."""
        missing = []
        for text in phrases.texts:
            key = self._key(text, phrases.voice, phrases.sample_rate, phrases.language)
            if key in self._ready:
                continue
            content = await asyncio.to_thread(self._files.read, key)
            speech = None if content is None else unpack(content)
            if speech is None:
                missing.append(text)
            else:
                self._ready[key] = speech
        return tuple(missing)

    async def prepare(self, phrases: Phrases) -> None:
        """Have the speech of `phrases` ready, from disk or synthesised and put on disk. Raises ProviderError."""
        missing = await self.load(phrases)
        at_once = asyncio.Semaphore(AT_ONCE)

        async def prepare(text: str) -> None:
            async with at_once:
                await self._synthesize(text, phrases)

        try:
            async with asyncio.TaskGroup() as group:
                for text in missing:
                    group.create_task(prepare(text))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def keep_preparing(self, phrases: Phrases, on_trouble: Callable[[ProviderError], None]) -> "asyncio.Task[None]":
        """Prepare them in the background, again and again until they are there. `on_trouble` is told the first time
        that it did not work; the task is done when it did, and ends with the voice."""
        task = self._keeping.get(phrases)
        if task is None or task.done():
            task = asyncio.create_task(self._keep_preparing(phrases, on_trouble), name=f"phrases of {self.name}")
            self._keeping[phrases] = task
        return task

    async def _keep_preparing(self, phrases: Phrases, on_trouble: Callable[[ProviderError], None]) -> None:
        pause_s, told = self._first_retry_s, False
        while True:
            try:
                await self.prepare(phrases)
            except ProviderError as error:
                if not told:
                    on_trouble(error)
                told = True
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, MAX_RETRY_S)
            else:
                if told:
                    log.info("fixed phrases are ready", provider=self.name, phrases=len(phrases.texts))
                return

    async def _synthesize(self, text: str, phrases: Phrases) -> None:
        rate = phrases.sample_rate
        pcm, words = bytearray(), list[WordTiming]()
        stream = self._tts.synthesize(text, voice=phrases.voice, sample_rate=rate, language=phrases.language)
        async with closing(stream) as events:
            while True:
                try:
                    async with asyncio.timeout(CHUNK_S):
                        event = await anext(events)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise ProviderTimeoutError(self.name, f"no audio within {CHUNK_S:.0f} s") from None
                if not isinstance(event, Switched):
                    pcm += event.pcm
                    words += event.words
        if not pcm:
            raise ProviderError(self.name, "it ended without any audio")
        key = self._key(text, phrases.voice, rate, phrases.language)
        self._ready[key] = SpeechChunk(bytes(pcm), tuple(words))
        await asyncio.to_thread(self._files.write, key, pack(bytes(pcm), words))

    def _key(self, text: str, voice: str, sample_rate: int, language: str) -> str:
        sound = json.dumps([FORMAT, self.name, self._sounds_by, voice, language])
        return phrase_key(text, voice=sound, sample_rate=sample_rate)


def pack(pcm: bytes, words: Sequence[WordTiming]) -> bytes:
    """What a phrase's file holds: one line of JSON with its words, then its audio."""
    timings = [[word.word, round(word.start_ms, 1), round(word.end_ms, 1)] for word in words]
    return json.dumps(timings, ensure_ascii=False).encode() + b"\n" + pcm


def unpack(content: bytes) -> SpeechChunk | None:
    """None if it is none of ours."""
    head, _, pcm = content.partition(b"\n")
    try:
        words = tuple(WordTiming(str(word), float(start), float(end)) for word, start, end in json.loads(head))
    except (ValueError, TypeError):
        return None
    return SpeechChunk(pcm, words)
