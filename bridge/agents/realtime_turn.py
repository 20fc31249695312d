"""One turn of an agent whose model speaks by itself: its audio on the way to the playout, and its words by time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.agents.agent_turn import Timing
from bridge.agents.base import AgentDone
from bridge.agents.record import TurnSlot
from bridge.agents.speech import CHAR_MS, HEARD_SHARE, Speech
from bridge.agents.words import Phrase, words
from bridge.audio.frames import duration_ms
from bridge.audio.playout import Playout
from bridge.events import TurnDelays
from bridge.providers.base import Message


class Reply:
    """What the model says: text and audio as they come, both ahead of their playing. Before `release` the audio waits
    here."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._waiting: list[bytes] = []
        self._text = ""
        self._generation: int | None = None
        self._complete = False
        self.audio_ms = 0.0
        """All that came."""

    def add_text(self, text: str) -> None:
        self._text += text

    def add_audio(self, pcm: bytes) -> None:
        self.audio_ms += duration_ms(len(pcm), self._playout.sample_rate)
        if self._generation is None:
            self._waiting.append(pcm)
        else:
            self._playout.write(self._generation, pcm)

    def finish(self) -> None:
        """Nothing more comes."""
        self._complete = True
        if self._generation is not None:
            self._playout.end(self._generation)

    def break_off(self) -> None:
        """Nothing more comes, though it is not complete: of its text only what the audio reaches was said."""
        self._text = self.heard(self.audio_ms)
        self.finish()

    def release(self) -> None:
        """Play."""
        self._generation = self._playout.begin()
        for pcm in self._waiting:
            self._playout.write(self._generation, pcm)
        self._waiting.clear()
        if self._complete:
            self._playout.end(self._generation)

    def drop(self) -> None:
        """Stop at once."""
        self._waiting.clear()
        if self._generation is not None and self._generation == self._playout.generation:
            self._playout.drop()

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def generation(self) -> int | None:
        return self._generation

    @property
    def heard_ms(self) -> float:
        """How much of it the caller has heard."""
        if self._generation is None or self._generation != self._playout.generation:
            return 0.0
        return self._playout.heard_ms

    @property
    def queued_ms(self) -> float:
        return self._playout.queued_ms if self._generation == self._playout.generation else 0.0

    @property
    def remaining_ms(self) -> float:
        """What is left to play; infinite while more may come."""
        return self.queued_ms if self._complete else float("inf")

    def said(self) -> str:
        """All the text so far."""
        return " ".join(self._text.split())

    def heard(self, heard_ms: float) -> str:
        """The words that were played in the first `heard_ms`: no provider tells their times, so by their share of the
        characters."""
        return " ".join(word for word, start, end in self._spans() if start + HEARD_SHARE * (end - start) <= heard_ms)

    def between(self, from_ms: float, to_ms: float) -> str:
        """The words whose playing overlaps this time."""
        return " ".join(word for word, start, end in self._spans() if end > from_ms and start < to_ms)

    def still_to_play(self, phrases: Sequence[Phrase]) -> bool:
        """Whether one of these rows of words stands in it that has not been played to its end."""
        if not phrases:
            return False
        said = [(word, end) for text, _, end in self._spans() for word in words(text)]
        heard_ms = self.heard_ms
        return any(
            said[at + len(phrase) - 1][1] > heard_ms
            for phrase in phrases
            for at in range(len(said) - len(phrase) + 1)
            if tuple(word for word, _ in said[at : at + len(phrase)]) == phrase
        )

    def _spans(self) -> list[tuple[str, float, float]]:
        texts = self._text.split()
        length = len(" ".join(texts))
        # Until all of it is there, the text is ahead of the audio by an unknown part.
        lasts_ms = self.audio_ms if self._complete else max(self.audio_ms, length * CHAR_MS)
        per_char = lasts_ms / max(1, length)
        spans, at = [], 0.0
        for text in texts:
            end = at + len(text) * per_char
            spans.append((text, at, end))
            at = end + per_char
        return spans


@dataclass(eq=False, slots=True)
class RealtimeTurn:
    """A reply of the model, or fixed words by a voice of our own."""

    speech: Reply | Speech
    item: str = ""
    """The reply's id at the provider; empty for a voice of our own."""
    mark: str = ""
    by: str = ""
    """The provider whose model says it."""
    interruptible: bool = True
    ends: AgentDone | None = None
    """The call ends with this once the turn was played out."""
    timing: Timing = field(default_factory=Timing)
    asked_at: float | None = None
    """When the model knew that it was to speak (s)."""
    first_at: float | None = None
    """When its first audio came (s)."""
    last_at: float = 0.0
    """When its newest piece came (s)."""
    started_at: float | None = None
    """When its first audio went out (s)."""
    slot: TurnSlot | None = None
    created_at: float = 0.0
    """When its first sign came (s)."""
    place: list[Message] | None = None
    """Where it stands in the history already."""
    stop: Callable[[], object] = lambda: None
    """Ends the work for it."""

    @property
    def model(self) -> bool:
        """The model says it."""
        return isinstance(self.speech, Reply)

    def delays(self) -> TurnDelays:
        reply_ms = llm_ms = None
        if self.timing.voice_ended_at is not None and self.started_at is not None:
            reply_ms = (self.started_at - self.timing.voice_ended_at) * 1000
        if self.asked_at is not None and self.first_at is not None:
            llm_ms = max(0.0, self.first_at - self.asked_at) * 1000
        playout_ms = None
        first_at = self.speech.first_at if isinstance(self.speech, Speech) else self.first_at
        if first_at is not None and self.started_at is not None:
            playout_ms = max(0.0, self.started_at - first_at) * 1000
        own = self.speech if isinstance(self.speech, Speech) else None
        return TurnDelays(
            endpoint_ms=self.timing.endpoint_ms,
            llm_ms=llm_ms,
            tts_ms=None if own is None else own.tts_ms,
            reply_ms=reply_ms,
            llm=self.by,
            playout_ms=playout_ms,
            tts="" if own is None else own.by,
        )
