"""A chain of voices: when one fails, the next speaks on from the word at which it stopped."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, runtime_checkable

from bridge.audio.frames import duration_ms
from bridge.providers.base import (
    ProviderError,
    ProviderTimeoutError,
    SpeechChunk,
    Switched,
    Tts,
    TtsEvent,
    WordTiming,
)
from bridge.providers.chain import Course, FallbackSettings, Member, closing, probe_all, warm_first, within

CHAR_MS = 65.0
"""How long a character lasts in speech, where the voice does not say."""

LAST_SHARE = 0.95
"""The last voice fails this much before the conversation would give up by itself."""


@runtime_checkable
class Prepared(Protocol):
    """A voice that has some texts' speech ready, without asking anybody."""

    def prepared(self, text: str, *, voice: str, sample_rate: int, language: str) -> SpeechChunk | None:
        """The whole speech of `text`, None where it is not there."""
        ...


class ChainTts:
    """A `Tts` over `members`. `for_call` makes one that stays with the voice that works."""

    def __init__(
        self,
        members: Sequence[Member[Tts]],
        settings: FallbackSettings,
        *,
        chunk_s: float,
        now: Callable[[], float],
    ) -> None:
        """`chunk_s` is how long the conversation waits for audio, whatever the chain does."""
        self._members = tuple(members)
        self._settings = settings
        self._chunk_s = chunk_s
        self._now = now
        self._course: Course[Tts] = Course(self._members)

    def for_call(self) -> "ChainTts":
        return ChainTts(self._members, self._settings, chunk_s=self._chunk_s, now=self._now)

    @property
    def name(self) -> str:
        """Of the voice that speaks at present."""
        return self._course.present.name

    async def start(self) -> None:
        """Nothing to do: who made the members starts them."""

    async def probe(self) -> str:
        return await probe_all(self._members)

    async def warm(self) -> None:
        await warm_first(self._course)

    async def aclose(self) -> None:
        """Nothing to do: who made the members closes them."""

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[TtsEvent]:
        """Speak `text`. `voice` is the first provider's; the others have theirs.

        Raises the last voice's ProviderError when none is left."""
        order = self._course.order()
        spoken = _Spoken(text, sample_rate)
        if not order[0].health.usable:
            # Nobody can be asked: better the words as another voice has them ready than none.
            order.sort(key=lambda member: self._ready(member, text, voice, sample_rate, language) is None)
        for place, member in enumerate(order):
            rest = order[place + 1 :]
            ready = self._ready(member, spoken.rest, voice, sample_rate, language)
            if ready is not None:
                yield spoken.add(ready)
                return
            try:
                ask = self._ask(member, spoken, voice, sample_rate, language, turn, last=not rest)
                async with aclosing(ask) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except ProviderError as error:
                if not rest:
                    raise
                member.health.switched()
                spoken.broke_off()
                self._course.present = rest[0]
                yield Switched("tts", member.name, rest[0].name, error)
                if not spoken.rest:
                    return
            else:
                self._course.present = member
                return

    def _ready(
        self, member: Member[Tts], text: str, voice: str, sample_rate: int, language: str
    ) -> SpeechChunk | None:
        """The speech of `text` as the member has it prepared."""
        provider = member.provider
        if not isinstance(provider, Prepared):
            return None
        own = self._voice(member, voice, language)
        return provider.prepared(text, voice=own, sample_rate=sample_rate, language=language)

    def _voice(self, member: Member[Tts], voice: str, language: str) -> str:
        own = member.voice_in.get(language) or member.voice
        return own or (voice if member is self._members[0] else "")

    async def _ask(
        self,
        member: Member[Tts],
        spoken: "_Spoken",
        voice: str,
        sample_rate: int,
        language: str,
        turn: str,
        *,
        last: bool,
    ) -> AsyncGenerator[SpeechChunk, None]:
        health, settings = member.health, self._settings
        # One that a breaker keeps from us is asked as a last resort: with little patience.
        patient_s = self._chunk_s * LAST_SHARE
        hurried = not last or not health.usable
        first_s = min(settings.tts_first_s, patient_s) if hurried else patient_s
        next_s = min(settings.tts_next_s, patient_s) if hurried else patient_s
        begun = asked = health.began()
        waiting = open_ = True
        stream = member.provider.synthesize(
            spoken.rest,
            voice=self._voice(member, voice, language),
            sample_rate=sample_rate,
            language=language,
            turn=turn,
        )
        try:
            async with closing(stream) as events:
                while True:
                    asked = self._now()
                    try:
                        chunk = await within(events, first_s if waiting else next_s, member.name, "audio")
                    except StopAsyncIteration:
                        break
                    if isinstance(chunk, Switched):
                        continue
                    if waiting and chunk.pcm:
                        waiting = False
                        health.answered(begun)
                    yield spoken.add(chunk)
            open_ = False
            if waiting and any(char.isalnum() for char in spoken.rest):
                raise _failed(member, ProviderError(member.name, "it ended without any audio"))
            health.succeeded()
        except ProviderError as error:
            if open_:
                open_ = False
                health.failed(error)
            raise
        finally:
            if open_:
                self._given_up(member, asked, waiting)

    def _given_up(self, member: Member[Tts], asked: float, waiting: bool) -> None:
        """The audio is not wanted any more. Nobody knows whether it would have come, unless it was long overdue."""
        if waiting and self._now() - asked >= self._settings.tts_first_s:
            member.health.failed(ProviderTimeoutError(member.name, "no audio until it was given up"))
        else:
            member.health.gave_up()


def _failed(member: Member[Tts], error: ProviderError) -> ProviderError:
    member.health.failed(error)
    return error


class _Spoken:
    """How much of one text was given out as audio, over all the voices that speak it."""

    def __init__(self, text: str, sample_rate: int) -> None:
        self.rest = text
        """What the next voice has to say."""
        self._sample_rate = sample_rate
        self._offset_ms = 0.0
        """Audio of the voices before."""
        self._ms = 0.0
        """Audio of the present voice."""
        self._words: list[WordTiming] = []

    def add(self, chunk: SpeechChunk) -> SpeechChunk:
        """The next audio of the present voice; returns it as part of the whole text."""
        self._ms += duration_ms(len(chunk.pcm), self._sample_rate)
        self._words += chunk.words
        if not self._offset_ms:
            return chunk
        offset_ms = self._offset_ms
        words = (
            replace(word, start_ms=word.start_ms + offset_ms, end_ms=word.end_ms + offset_ms) for word in chunk.words
        )
        return SpeechChunk(chunk.pcm, tuple(words))

    def broke_off(self) -> None:
        """The present voice said no more than was added: the next one begins with the first word that was not said
        to its end."""
        words = self.rest.split()
        self.rest = " ".join(words[self._complete(words) :])
        self._offset_ms += self._ms
        self._ms = 0.0
        self._words = []

    def _complete(self, words: Sequence[str]) -> int:
        """How many of `words` were said."""
        if self._words:
            # A voice that says when each word ends; timings may run ahead of the audio.
            return min(len(words), sum(word.end_ms <= self._ms for word in self._words))
        at_ms = 0.0
        for count, word in enumerate(words):
            at_ms += (len(word) + 1) * CHAR_MS
            if at_ms > self._ms:
                return count
        return len(words)
