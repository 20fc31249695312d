"""One agent turn's way to the wire: text, clause by clause, to the voice and into the playout, with the map from
played time back to words."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf

from bridge.agents.clauses import ClauseSplitter
from bridge.agents.errors import EngineError, closing, next_within
from bridge.agents.words import Phrase, words
from bridge.audio.frames import duration_ms
from bridge.audio.playout import Playout
from bridge.providers.base import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SpeechChunk,
    Switched,
    Tts,
    TtsEvent,
    WordTiming,
)

CHAR_MS = 65.0
"""How long a character lasts in speech, where the voice has not said it yet."""

HEARD_SHARE = 0.6
"""A word counts as heard once this share of it was played."""

ATTEMPTS = 2
POLL_S = 0.02

FILLER_S = 0.3
"""Longest wait for the filler phrase itself."""


@dataclass(slots=True)
class _Clause:
    text: str
    part: int
    start_ms: float = 0.0
    """Within the utterance."""
    audio_ms: float = 0.0
    """Given to the playout so far."""
    spoken: bool = False
    """All of its audio was given."""
    skipped: bool = False
    """No more of its audio is to be given."""
    words: list[WordTiming] = field(default_factory=list)

    def spans(self) -> list[tuple[str, float, float]]:
        """Its words with start and end in the utterance (ms): by the voice's alignment, else by their share of the
        characters."""
        texts = self.text.split()
        if self.words and len(self.words) == len(texts):
            return [
                (text, self.start_ms + word.start_ms, self.start_ms + word.end_ms)
                for text, word in zip(texts, self.words, strict=True)
            ]
        length = self.audio_ms if self.spoken else max(self.audio_ms, len(self.text) * CHAR_MS)
        per_char = length / max(1, len(" ".join(texts)))
        spans = []
        at = self.start_ms
        for text in texts:
            end = at + len(text) * per_char
            spans.append((text, at, end))
            at = end + per_char
        return spans


@dataclass(frozen=True, slots=True)
class VoiceOptions:
    """How a conversation's agent sounds, and how long its voice may take."""

    voice: str
    language: str
    chunk_s: float
    look_ahead_ms: float
    filler: str = ""
    """Said when a clause's audio does not come for `filler_s`; empty: nothing."""
    filler_s: float = 2.0


class Speech:
    """Speaks what it is given as one utterance of the playout. Before `release` the first clause is synthesised but
    not played, so that a reply prepared too early costs nothing but work."""

    def __init__(
        self,
        playout: Playout,
        tts: Tts,
        options: VoiceOptions,
        *,
        clock: Callable[[], float],
        failed: Callable[[ProviderError], None],
        switched: Callable[[Switched], None] = lambda _: None,
    ) -> None:
        self._switched = switched
        self._id = uuid.uuid4().hex
        """Of the utterance, for a voice that keeps its melody from text to text."""
        self._playout = playout
        self._tts = tts
        self._options = options
        self._clock = clock
        self._failed = failed
        self._splitter = ClauseSplitter()
        self._clauses: list[_Clause] = []
        self._next = 0
        self._part = 0
        self._finished = False
        self._busy = False
        self._more = asyncio.Event()
        self._released = asyncio.Event()
        self._generation: int | None = None
        self._prepared: list[bytes] = []
        self._written_ms = 0.0
        self._stale = False
        self._asked_at: float | None = None
        self.fed_clauses = 0
        """Clauses of streamed text given to the voice: they can't be taken back."""
        self.tts_ms: float | None = None
        """First clause given to the voice until its first audio; None before that."""
        self.first_at: float | None = None
        """When its first audio came (s)."""
        self.by = ""
        """The provider that it came from."""

    # -- text in --------------------------------------------------------------------------------------------

    def feed(self, text: str) -> None:
        """Add streamed text; whole clauses go to the voice."""
        self._queue_fed(self._splitter.feed(text))

    def flush(self) -> None:
        """The streamed text is over for now: speak what is left of it."""
        self._queue_fed(self._splitter.flush())
        self._splitter = ClauseSplitter()

    def take_back(self) -> None:
        """The streamed text broke off: forget the beginning of a clause that was not complete."""
        self._splitter = ClauseSplitter()

    def say(self, text: str) -> None:
        """Speak `text` in one piece, as it was prepared."""
        self._queue([text])

    def next_part(self) -> int:
        """What is given from now on belongs to a new part (`said`, `heard`); returns its number."""
        self.flush()
        self._part += 1
        return self._part

    def finish(self) -> None:
        """Nothing more comes: the utterance ends with what was given."""
        self.flush()
        self._finished = True
        self._more.set()

    def _queue_fed(self, texts: list[str]) -> None:
        self.fed_clauses += len(texts)
        self._queue(texts)

    def _queue(self, texts: list[str]) -> None:
        self._clauses += [_Clause(text, self._part) for text in texts if text.strip()]
        self._more.set()

    # -- audio out ------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int | None:
        """The playout's number of this utterance, None before `release`."""
        return self._generation

    def release(self) -> None:
        """Play: begins the utterance with what was prepared."""
        if self._generation is None:
            self._generation = self._playout.begin()
            for pcm in self._prepared:
                self._write(pcm)
            self._prepared.clear()
            self._released.set()

    def skip(self) -> None:
        """Leave out what was not played yet of what was given so far, as if it had never been meant to be said. What
        is given next follows."""
        if self._generation is None or self._generation != self._playout.generation:
            return
        self._playout.skip()
        at_ms = self._playout.sent_ms
        for number, clause in enumerate(self._clauses):
            whole = number < self._next and clause.spoken and clause.start_ms + clause.audio_ms <= at_ms
            if whole or clause.skipped:
                continue
            spans = clause.spans() if number < self._next else []
            heard = [text for text, start, end in spans if start + HEARD_SHARE * (end - start) <= at_ms]
            clause.text, clause.words = " ".join(heard), clause.words[: len(heard)]
            clause.audio_ms = max(0.0, min(clause.audio_ms, at_ms - clause.start_ms))
            clause.skipped = clause.spoken = True
        self._next = len(self._clauses)
        self._written_ms = at_ms

    def drop(self) -> None:
        """Stop at once: what was not played yet is never played."""
        self._stale = True
        if self._generation is not None and self._generation == self._playout.generation:
            self._playout.drop()

    async def run(self) -> None:
        """Synthesise what is given until it is finished or dropped. Raises EngineError."""
        while not self._stale:
            if self._next < len(self._clauses):
                clause = self._clauses[self._next]
                if self._next:
                    await self._released.wait()
                    await self._room()
                if clause.skipped:
                    continue
                self._busy = True
                self._next += 1
                await self._speak(clause)
                self._busy = False
            elif self._finished:
                await self._released.wait()
                assert self._generation is not None
                self._playout.end(self._generation)
                return
            else:
                self._more.clear()
                await self._more.wait()

    async def drained(self) -> None:
        """Return when all that was given so far has been played. It may be called once released."""
        # The playout tells no level: how long it lasts is known, unless it is paused meanwhile.
        while not self._stale and (self.waiting or self._playout.queued_ms > 0):  # noqa: ASYNC110
            await asyncio.sleep(max(POLL_S, self._playout.queued_ms / 1000))

    @property
    def asked_at(self) -> float | None:
        """When the first clause was given to the voice (s)."""
        return self._asked_at

    @property
    def waiting(self) -> bool:
        """Something given is not (wholly) synthesised yet."""
        return self._busy or self._next < len(self._clauses)

    @property
    def queued_ms(self) -> float:
        """Its audio that waits to be played."""
        return self._playout.queued_ms if self._generation == self._playout.generation else 0.0

    @property
    def remaining_ms(self) -> float:
        """What is left to play; infinite while more may come."""
        if self.waiting or not self._finished or self._generation != self._playout.generation:
            return float("inf")
        return self._playout.queued_ms

    async def _room(self) -> None:
        """Wait until little enough is queued."""
        while not self._stale and (ahead := self._playout.queued_ms - self._options.look_ahead_ms) > 0:  # noqa: ASYNC110
            await asyncio.sleep(max(POLL_S, ahead / 1000))

    async def _speak(self, clause: _Clause) -> None:
        clause.start_ms = self._written_ms
        if self._asked_at is None:
            self._asked_at = self._clock()
        async with self._covered(clause):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await self._synthesize(clause)
                except ProviderError as error:
                    self._failed(error)
                    hopeless = isinstance(error, ProviderTimeoutError | ProviderUnavailableError)
                    if attempt == ATTEMPTS or clause.audio_ms or hopeless:
                        raise EngineError("tts", error) from error
                else:
                    clause.spoken = True
                    return

    @asynccontextmanager
    async def _covered(self, clause: _Clause) -> AsyncIterator[None]:
        """Say the filler phrase before `clause` if its audio leaves the caller in silence."""
        covers: list[asyncio.Task[None]] = []

        def cover() -> None:
            covers.append(loop.create_task(self._fill(clause), name="filler"))

        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._options.filler_s, cover) if self._options.filler else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            for task in covers:
                task.cancel()
                await asyncio.wait([task])

    async def _fill(self, clause: _Clause) -> None:
        """It must be prepared: a voice that is being waited for is not asked for one thing more."""
        filler = _Clause(self._options.filler, clause.part)
        chunks: list[SpeechChunk] = []
        try:
            async with asyncio.timeout(FILLER_S), closing(self._ask(filler.text)) as stream:
                chunks = [chunk async for chunk in stream if isinstance(chunk, SpeechChunk)]
        except (TimeoutError, ProviderError):
            return
        silent = self._released.is_set() and not self._stale and not clause.audio_ms and not self.queued_ms
        if not silent or clause.text == filler.text:
            return
        self._clauses.insert(self._clauses.index(clause), filler)
        self._next += 1
        filler.start_ms, filler.spoken = self._written_ms, True
        for chunk in chunks:
            self._take(filler, chunk)
        clause.start_ms = self._written_ms

    async def _synthesize(self, clause: _Clause) -> None:
        options = self._options
        async with closing(self._ask(clause.text, self._id)) as chunks:
            while not self._stale and not clause.skipped:
                try:
                    chunk = await next_within(chunks, options.chunk_s, self._tts.name, "audio")
                except StopAsyncIteration:
                    return
                if isinstance(chunk, Switched):
                    self._switched(chunk)
                else:
                    self._take(clause, chunk)

    def _ask(self, text: str, turn: str = "") -> AsyncIterator[TtsEvent]:
        options, rate = self._options, self._playout.sample_rate
        return self._tts.synthesize(text, voice=options.voice, sample_rate=rate, language=options.language, turn=turn)

    def _take(self, clause: _Clause, chunk: SpeechChunk) -> None:
        if clause.skipped:
            return
        clause.words += chunk.words
        if not chunk.pcm:
            return
        if self.tts_ms is None and self._asked_at is not None:
            self.first_at, self.by = self._clock(), self._tts.name
            self.tts_ms = (self.first_at - self._asked_at) * 1000
        length_ms = duration_ms(len(chunk.pcm), self._playout.sample_rate)
        clause.audio_ms += length_ms
        self._written_ms += length_ms
        if self._generation is None:
            self._prepared.append(chunk.pcm)
        else:
            self._write(chunk.pcm)

    def _write(self, pcm: bytes) -> None:
        assert self._generation is not None
        if not self._playout.write(self._generation, pcm):
            self._stale = True

    # -- words out ------------------------------------------------------------------------------------------

    @property
    def heard_ms(self) -> float:
        """How much of it the caller has heard; while another utterance is in the playout, nothing is known: 0."""
        if self._generation is None or self._generation != self._playout.generation:
            return 0.0
        return self._playout.heard_ms

    def said(self, part: int | None = None) -> str:
        """All the text given so far (of `part`)."""
        return " ".join(clause.text for clause in self._clauses if clause.text and part in (None, clause.part))

    def heard(self, heard_ms: float, part: int | None = None) -> str:
        """The words (of `part`) that were played in the first `heard_ms`."""
        heard = []
        for clause in self._clauses[: self._next]:
            if part not in (None, clause.part) or clause.start_ms >= heard_ms or not clause.text:
                continue
            if clause.spoken and heard_ms >= clause.start_ms + clause.audio_ms:
                heard.append(clause.text)
                continue
            heard += [text for text, start, end in clause.spans() if start + HEARD_SHARE * (end - start) <= heard_ms]
        return " ".join(heard)

    def between(self, from_ms: float, to_ms: float) -> str:
        """The words whose playing overlaps this time of the utterance."""
        spans = [span for clause in self._clauses[: self._next] for span in clause.spans()]
        return " ".join(text for text, start, end in spans if end > from_ms and start < to_ms)

    def still_to_play(self, phrases: Sequence[Phrase]) -> bool:
        """Whether one of these rows of words stands in it that has not been played to its end."""
        if not phrases:
            return False
        said: list[str] = []
        ends: list[float] = []
        for number, clause in enumerate(self._clauses):
            for text, _, end in clause.spans():
                for word in words(text):
                    said.append(word)
                    ends.append(end if number < self._next else inf)
        heard_ms = self.heard_ms
        return any(
            ends[at + len(phrase) - 1] > heard_ms
            for phrase in phrases
            for at in range(len(said) - len(phrase) + 1)
            if tuple(said[at : at + len(phrase)]) == phrase
        )

    def divide(self, heard_ms: float) -> tuple[str, str]:
        """The clauses that were wholly heard, and the rest from the one on in which `heard_ms` lies."""
        texts = [clause.text for clause in self._clauses]
        whole = sum(clause.spoken and heard_ms >= clause.start_ms + clause.audio_ms for clause in self._clauses)
        return " ".join(texts[:whole]), " ".join(texts[whole:])
