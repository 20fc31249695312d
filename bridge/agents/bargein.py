"""Barge-in: whether a caller who makes a sound over the agent means to stop it. A state machine without I/O or clock.

The voice's onset pauses the agent at once; words, or speech that goes on, confirm; a cough, a backchannel or an echo
lets it go on. Each pause is answered within `decide_ms`. Words that come too late for that still stop the agent.
"""

from dataclasses import dataclass
from enum import Enum, auto

from bridge.agents.settings import BargeInSettings
from bridge.agents.words import ECHO_WORDS, Phrases, echoes, words

PARTIAL_INTERVAL_S = 0.6
"""Between requests for partial text while the caller goes on speaking over an agent that was let go on."""

LATE_TEXT_S = 4.0
"""Text that has not come this long after the voice stopped is not waited for."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the playout now, keeping the tail."""


@dataclass(frozen=True, slots=True)
class WantPartial:
    """Ask the recogniser for what it has so far."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The caller has the floor: drop the tail."""

    paused_at: float
    """When the pause began (s), the time of the decision where there was none."""
    pause_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A false alarm: resume the playout."""

    paused_at: float
    pause_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class ForgetWords:
    """What was said is not to become a turn."""

    reason: str


BargeInOutput = Pause | WantPartial | Confirmed | Rejected | ForgetWords


class _Phase(Enum):
    IDLE = auto()
    PAUSED = auto()
    """The agent is paused, a decision is due."""
    WATCHING = auto()
    """The agent goes on (or may not be stopped); the words of the candidate are still awaited."""


class _Kind(Enum):
    NOTHING = auto()
    BACKCHANNEL = auto()
    ECHO = auto()
    FEW = auto()
    ENOUGH = auto()


class BargeInDetector:
    """One call's decisions. `now` is in seconds and never goes back."""

    def __init__(self, settings: BargeInSettings) -> None:
        self._settings = settings
        self._backchannels = Phrases(settings.backchannels)
        self._stop_words = Phrases(settings.stop_words)
        self._min_words = settings.min_words
        self._needed_words = settings.min_words
        self._confirm_s = settings.confirm_speech_ms / 1000
        match settings.sensitivity:
            case "high":
                self._min_words = 1
                self._confirm_s *= 2 / 3
            case "low":
                self._min_words += 1
                self._confirm_s = settings.decide_ms / 1000
            case "normal":
                pass
        self._decide_s = settings.decide_ms / 1000
        self._phase = _Phase.IDLE
        self._may_stop = False
        self._answering = False
        self._voice = False
        self._onset = 0.0
        self._stopped_at = 0.0
        self._paused_at = 0.0
        self._partial_at: float | None = None
        self._kind = _Kind.NOTHING
        self._texts = 0

    def speak(self, settings: BargeInSettings) -> None:
        """Take the word lists of these from now on: the caller speaks another language."""
        self._backchannels = Phrases(settings.backchannels)
        self._stop_words = Phrases(settings.stop_words)

    @property
    def paused(self) -> bool:
        """A pause waits for its decision."""
        return self._phase is _Phase.PAUSED

    # -- inputs ---------------------------------------------------------------------------------------------

    def voice_started(
        self, now: float, at: float, *, interruptible: bool, remaining_ms: float, audible: bool = True
    ) -> list[BargeInOutput]:
        """The caller's voice set in at `at` while the agent has the floor. `remaining_ms`: what the agent has left to
        say, infinite while that is unknown. Not `audible`: it still thinks, and one word continues the caller's turn.
        """
        self._voice = True
        if self._phase is _Phase.PAUSED:
            return self._evaluate(now, [])
        self._may_stop = interruptible and self._settings.enabled
        self._answering = remaining_ms <= self._settings.answer_window_ms
        self._onset = min(at, now)
        self._needed_words = self._min_words if audible else 1
        self._kind = _Kind.NOTHING
        self._partial_at = max(now, self._onset + self._settings.partial_after_ms / 1000)
        out: list[BargeInOutput] = []
        if self._may_stop:
            self._pause(now, out)
        else:
            self._phase = _Phase.WATCHING
        return self._evaluate(now, out)

    def voice_stopped(self, now: float, at: float) -> list[BargeInOutput]:
        """The voice was last heard at `at`."""
        out: list[BargeInOutput] = []
        if self._voice:
            self._voice = False
            self._stopped_at = now
            self._partial_at = None
            if self._phase is _Phase.PAUSED and (at - self._onset) * 1000 < self._settings.click_ms:
                self._reject(now, "a click", out)
        return self._evaluate(now, out)

    def heard(self, now: float, text: str, *, settled: bool, saying: str = "") -> list[BargeInOutput]:
        """Text of the caller's present turn came. `settled`: it answers the voice's last stop. `saying`: what the
        agent spoke in the seconds around the voice's onset."""
        if self._phase is _Phase.IDLE:
            return []
        out: list[BargeInOutput] = []
        settled = settled and not self._voice
        self._kind = kind = self._judge(text, saying)
        if kind is _Kind.ENOUGH:
            if self._may_stop:
                self._confirm(now, f"words: {text.strip()}", out)
            elif settled:
                self._phase = _Phase.IDLE
        elif kind is _Kind.ECHO:
            self._let_go_on(now, f"echo: {text.strip()}", out)
            out.append(ForgetWords(f"echo: {text.strip()}"))
            self._phase = _Phase.WATCHING if self._voice else _Phase.IDLE
        elif settled:
            reason = "no words" if kind is _Kind.NOTHING else f"{kind.name.lower()}: {text.strip()}"
            self._let_go_on(now, reason, out)
            if kind is _Kind.NOTHING or (kind is _Kind.BACKCHANNEL and not self._answering):
                out.append(ForgetWords(reason))
            self._phase = _Phase.IDLE
        return self._evaluate(now, out)

    def key(self, now: float) -> list[BargeInOutput]:
        """The caller pressed a key while the agent, which may be interrupted, has the floor."""
        out: list[BargeInOutput] = []
        if self._settings.enabled:
            self._confirm(now, "key", out)
        return out

    def agent_stopped(self, now: float) -> list[BargeInOutput]:
        """The agent has no floor any more, or the caller is on hold: there is nothing to decide."""
        out: list[BargeInOutput] = []
        if self._phase is _Phase.PAUSED:
            self._let_go_on(now, "the agent had finished", out)
            self._phase = _Phase.WATCHING
        self._may_stop = False
        return out

    def abandon(self, now: float) -> list[BargeInOutput]:
        """Forget the candidate: what was heard is not the caller (music on hold)."""
        out = self.agent_stopped(now)
        self._phase = _Phase.IDLE
        self._voice = False
        self._partial_at = None
        return out

    def tick(self, now: float) -> list[BargeInOutput]:
        """Time has come: call it at `deadline()`."""
        return self._evaluate(now, [])

    def deadline(self) -> float | None:
        """When something happens by time alone (s)."""
        due = [self._partial_at] if self._partial_at is not None and self._phase is not _Phase.IDLE else []
        if self._phase is _Phase.PAUSED:
            due.append(self._paused_at + self._decide_s)
            if self._length_counts():
                due.append(self._paused_at + self._confirm_s)
        elif self._phase is _Phase.WATCHING and not self._voice:
            due.append(self._stopped_at + LATE_TEXT_S)
        return min(due, default=None)

    # -- decisions ------------------------------------------------------------------------------------------

    def _evaluate(self, now: float, out: list[BargeInOutput]) -> list[BargeInOutput]:
        if self._phase is _Phase.IDLE:
            return out
        if self._partial_at is not None and now >= self._partial_at:
            self._partial_at = now + PARTIAL_INTERVAL_S
            out.append(WantPartial())
        if self._phase is _Phase.PAUSED:
            if now >= self._paused_at + self._confirm_s and self._length_counts():
                self._confirm(now, "speech went on", out)
            elif now >= self._paused_at + self._decide_s:
                if self._voice:
                    self._confirm(now, "speech still went on", out)
                else:
                    self._reject(now, "no words in time", out)
        elif not self._voice and now >= self._stopped_at + LATE_TEXT_S:
            self._phase = _Phase.IDLE
        return out

    def _length_counts(self) -> bool:
        return self._voice and self._kind is not _Kind.BACKCHANNEL

    def _judge(self, text: str, saying: str) -> _Kind:
        said = words(text)
        if not said:
            return _Kind.NOTHING
        if echoes(said, words(saying)) and not (self._answering and len(said) < ECHO_WORDS):
            return _Kind.ECHO
        if self._stop_words.anywhere(said):
            return _Kind.ENOUGH
        content = self._backchannels.without(said)
        if not content:
            return _Kind.BACKCHANNEL
        return _Kind.ENOUGH if len(content) >= self._needed_words else _Kind.FEW

    def _pause(self, now: float, out: list[BargeInOutput]) -> None:
        self._phase = _Phase.PAUSED
        self._paused_at = now
        out.append(Pause())

    def _confirm(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        if self._phase is not _Phase.PAUSED:
            self._pause(now, out)
        self._phase = _Phase.IDLE
        self._may_stop = False
        out.append(Confirmed(self._paused_at, (now - self._paused_at) * 1000, reason))

    def _let_go_on(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        if self._phase is _Phase.PAUSED:
            out.append(Rejected(self._paused_at, (now - self._paused_at) * 1000, reason))

    def _reject(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        """Let the agent go on without having seen all the words."""
        self._let_go_on(now, reason, out)
        self._phase = _Phase.WATCHING
