"""Barge-in: whether a caller who makes a sound over the agent means to stop it. A state machine without I/O or clock.

The voice's onset pauses the agent at once; words, or speech that goes on, confirm; a cough, a backchannel or an echo
lets it go on. Each pause is answered within `decide_ms`. Words that come too late for that still stop the agent; and
where speech that went on turns out to be nothing but a backchannel or an echo, its words are forgotten, and the agent
takes up what it was saying. Length alone does not count for a voice far below the caller's own (a television), nor in
a gap of the voice: our voice activity ends a while after a "mhm" does.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf

from bridge.agents.settings import BargeInSettings
from bridge.agents.words import ECHO_WORDS, Phrases, echoes, words
from bridge.audio.voice import VoiceSound

PARTIAL_INTERVAL_S = 0.6
"""Between requests for partial text while the caller goes on speaking over an agent that was let go on."""

LATE_TEXT_S = 4.0
"""Text that has not come this long after the voice stopped is not waited for."""

GAP_S = 0.04
"""Voice that is further back than this is over, or in a gap: stops inside speech ("t", "k") take 40 to 120 ms.
Looking again until the time to decide is over finds the end of most of them (`bench/turns.py`)."""

LOOK_S = 0.02
"""Between looks whether a gap is over."""

USUAL_LEVEL_DB = -23.0
"""What a caller's voice is taken for before it has been heard (dBFS, of its loud half)."""

LEVEL_SHARE = 0.5
"""Of a caller's newest turn in what counts as their usual level, once there were others."""

LONG_LOOK_S = 0.1
"""The same while the agent goes on."""

LONG_S = 1.0
"""Speech that has gone on this long stops an agent that was let go on in a gap of it."""

LOG_SIZE = 200


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the playout now, keeping the tail."""

    reason: str = field(default="the voice set in", compare=False)


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


@dataclass(frozen=True, slots=True)
class BargeInEntry:
    """One decision in the detector's log."""

    at: float
    what: BargeInOutput


class _Phase(Enum):
    IDLE = auto()
    PAUSED = auto()
    """The agent is paused, a decision is due."""
    WATCHING = auto()
    """The agent goes on (or may not be stopped); the words of the candidate are still awaited."""
    STOPPED = auto()
    """Length stopped the agent; the words that justify it are still awaited."""


class _Kind(Enum):
    NOTHING = auto()
    BACKCHANNEL = auto()
    ECHO = auto()
    FEW = auto()
    ENOUGH = auto()


class BargeInDetector:
    """One call's decisions. `now` is in seconds and never goes back."""

    def __init__(self, settings: BargeInSettings, told: Callable[[BargeInEntry], None] = lambda _: None) -> None:
        """`told` gets every entry of the log, as it is made."""
        self.log: deque[BargeInEntry] = deque(maxlen=LOG_SIZE)
        """The last decisions, each with its reason."""
        self._told = told
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
        self._look_at: float | None = None
        self._kind = _Kind.NOTHING
        self._sound: VoiceSound | None = None
        self._usual_db = USUAL_LEVEL_DB
        self._heard_before = False

    def speak(self, settings: BargeInSettings) -> None:
        """Take the word lists of these from now on: the caller speaks another language."""
        self._backchannels = Phrases(settings.backchannels)
        self._stop_words = Phrases(settings.stop_words)

    @property
    def paused(self) -> bool:
        """A pause waits for its decision."""
        return self._phase is _Phase.PAUSED

    @property
    def deciding(self) -> bool:
        """There is a voice, or words to come of one, that may yet stop the agent or let it go on."""
        return self._phase in (_Phase.PAUSED, _Phase.WATCHING)

    # -- inputs ---------------------------------------------------------------------------------------------

    def sounding(self, sound: VoiceSound) -> None:
        """How the voice is at this moment. Without it a voice that has not stopped is taken to sound, and to be the
        caller's."""
        self._sound = sound

    def caller_spoke(self, level_db: float) -> None:
        """The caller's turn was over, with words, at this level (dBFS)."""
        if level_db > -inf:
            share = LEVEL_SHARE if self._heard_before else 1.0
            self._usual_db += share * (level_db - self._usual_db)
            self._heard_before = True
        if self._phase is _Phase.STOPPED:
            self._phase = _Phase.IDLE

    def allow(self, interruptible: bool) -> None:
        """Whether the agent may be interrupted from now on (a protected phrase began or is over)."""
        if self._phase is _Phase.WATCHING:
            self._may_stop = interruptible and self._settings.enabled

    def voice_started(
        self, now: float, at: float, *, interruptible: bool, remaining_ms: float, audible: bool = True
    ) -> list[BargeInOutput]:
        """The caller's voice set in at `at` while the agent has the floor. `remaining_ms`: what the agent has left to
        say, infinite while that is unknown. Not `audible`: it still thinks, and one word continues the caller's turn.
        """
        self._voice = True
        self._sound = None
        if self._phase is _Phase.PAUSED:
            return self._evaluate(now, [])
        self._may_stop = interruptible and self._settings.enabled
        self._answering = remaining_ms <= self._settings.answer_window_ms
        self._onset = min(at, now)
        self._needed_words = self._min_words if audible else 1
        self._kind = _Kind.NOTHING
        self._partial_at = max(now, self._onset + self._settings.partial_after_ms / 1000)
        self._look_at = None
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
        if self._phase is _Phase.STOPPED:
            if kind in (_Kind.BACKCHANNEL, _Kind.ECHO) and settled and not self._answering:
                self._say(now, ForgetWords(f"{kind.name.lower()} after all: {text.strip()}"), out)
            if settled or kind is _Kind.ENOUGH:
                self._phase = _Phase.IDLE
            return out
        if kind is _Kind.ENOUGH:
            if self._may_stop:
                self._confirm(now, f"words: {text.strip()}", out)
            elif settled:
                self._phase = _Phase.IDLE
        elif kind is _Kind.ECHO:
            self._let_go_on(now, f"echo: {text.strip()}", out)
            self._say(now, ForgetWords(f"echo: {text.strip()}"), out)
            self._phase = _Phase.WATCHING if self._voice else _Phase.IDLE
        elif settled:
            reason = "no words" if kind is _Kind.NOTHING else f"{kind.name.lower()}: {text.strip()}"
            self._let_go_on(now, reason, out)
            if kind is _Kind.NOTHING or (kind is _Kind.BACKCHANNEL and not self._answering):
                self._say(now, ForgetWords(reason), out)
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
            if self._may_confirm_by_length():
                due.append(self._look_at or self._paused_at + self._confirm_s)
        elif self._phase in (_Phase.WATCHING, _Phase.STOPPED) and not self._voice:
            due.append(self._stopped_at + LATE_TEXT_S)
        elif self._long_speech_stops():
            due.append(self._look_at or self._onset + LONG_S)
        return min(due, default=None)

    # -- decisions ------------------------------------------------------------------------------------------

    def _evaluate(self, now: float, out: list[BargeInOutput]) -> list[BargeInOutput]:
        if self._phase is _Phase.IDLE:
            return out
        if self._partial_at is not None and now >= self._partial_at:
            self._partial_at = now + PARTIAL_INTERVAL_S
            self._say(now, WantPartial(), out)
        if self._phase is _Phase.PAUSED:
            if now >= self._paused_at + self._decide_s:
                why = self._why_not_by_length(now)
                if why is None:
                    self._confirm(now, "speech still went on", out, by_length=True)
                else:
                    self._reject(now, f"no words in time, {why}", out)
            elif self._may_confirm_by_length() and now >= self._paused_at + self._confirm_s:
                self._look(now, "speech went on", out)
        elif not self._voice:
            if now >= self._stopped_at + LATE_TEXT_S:
                self._phase = _Phase.IDLE
        elif self._long_speech_stops() and now >= self._onset + LONG_S:
            self._look(now, "speech went on for long", out)
        return out

    def _long_speech_stops(self) -> bool:
        return self._phase is _Phase.WATCHING and self._may_stop and self._may_confirm_by_length()

    def _look(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        """Confirm by length, or look again."""
        if self._why_not_by_length(now) is None:
            self._confirm(now, reason, out, by_length=True)
        else:
            self._look_at = now + (LOOK_S if self._phase is _Phase.PAUSED else LONG_LOOK_S)

    def _may_confirm_by_length(self) -> bool:
        return self._voice and self._kind is not _Kind.BACKCHANNEL

    def _why_not_by_length(self, now: float) -> str | None:
        """Why the length of the voice tells nothing; None: it does."""
        if not self._voice:
            return "the voice had stopped"
        if self._sound is None:
            return None
        if now - self._sound.last_at > GAP_S:
            return "the voice is over or in a gap"
        if self._sound.certainty < self._settings.certain_speech:
            return f"it is hardly speech ({self._sound.certainty:.2f})"
        below_db = self._usual_db - self._sound.level_db
        if below_db > self._settings.background_below_db:
            return f"the voice is {below_db:.0f} dB below the caller's"
        return None

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
        self._look_at = None
        self._say(now, Pause(), out)

    def _confirm(self, now: float, reason: str, out: list[BargeInOutput], *, by_length: bool = False) -> None:
        if self._phase is not _Phase.PAUSED:
            self._pause(now, out)
        self._phase = _Phase.STOPPED if by_length else _Phase.IDLE
        self._may_stop = False
        self._partial_at = None
        self._say(now, Confirmed(self._paused_at, (now - self._paused_at) * 1000, reason), out)

    def _let_go_on(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        if self._phase is _Phase.PAUSED:
            self._say(now, Rejected(self._paused_at, (now - self._paused_at) * 1000, reason), out)

    def _reject(self, now: float, reason: str, out: list[BargeInOutput]) -> None:
        """Let the agent go on without having seen all the words."""
        self._let_go_on(now, reason, out)
        self._phase = _Phase.WATCHING
        self._look_at = None

    def _say(self, now: float, what: BargeInOutput, out: list[BargeInOutput]) -> None:
        out.append(what)
        entry = BargeInEntry(now, what)
        self.log.append(entry)
        self._told(entry)
