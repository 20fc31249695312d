"""The turn detector: when the caller's turn is over. A state machine without I/O or clock.

Voice activity, recognised text, keys and the agent's floor go in with `now` (s, monotonic); decisions come out, and
`deadline()` says when to call `tick`. It counts its requests for settled text (`AskSettled`), and takes a `Heard` as
settled only when it answers the latest of them.
"""

from collections import deque
from dataclasses import dataclass

from bridge.agents.settings import TurnSettings
from bridge.agents.words import Ending, Endings

LOG_SIZE = 200


@dataclass(frozen=True, slots=True)
class AskSettled:
    """Tell the recogniser that speech paused (`SttStream.speech_paused`)."""

    pause: int
    """The number of this request, the `pause` of the `Heard` that answers it."""


@dataclass(frozen=True, slots=True)
class EagerStart:
    """The text is settled and the turn will be over with it unless the caller goes on: a reply may be prepared."""

    text: str


@dataclass(frozen=True, slots=True)
class EagerCancel:
    """What `EagerStart` allowed is void."""


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """The caller's turn is over; the recogniser's text starts anew (`SttStream.commit`)."""

    text: str
    """Words and keys. Empty: there was speech, but no text came in time."""
    started_at: float
    """When its voice set in, or its first key was pressed (s)."""
    ended_at: float
    """When its voice was last heard, or its last key pressed (s)."""
    endpoint_ms: float
    """From `ended_at` to the end of the silence that was waited for."""
    stt_ms: float
    """From then to the text; 0 when it was there before."""
    held: bool
    """It had to wait for the agent, which had the floor when it was due: the delays tell nothing about us."""
    why: str


@dataclass(frozen=True, slots=True)
class TurnForgotten:
    """Nothing was said: noise, or words that were to be ignored. The recogniser's text starts anew."""

    why: str


TurnOutput = AskSettled | EagerStart | EagerCancel | TurnComplete | TurnForgotten


@dataclass(frozen=True, slots=True)
class LogEntry:
    at: float
    what: TurnOutput


@dataclass(slots=True)
class _Turn:
    started_at: float
    ended_at: float
    voice: bool = False
    spoken: bool = False
    """There was voice in it, not only keys."""
    pause: int = 0
    asked_at: float = 0.0
    settled_pause: int = -1
    settled_at: float = 0.0
    text: str = ""
    eager: bool = False
    cut_at: float | None = None
    """Found too long then: it ends with the next settled text, voice or not."""
    failed: bool = False
    """The recogniser said that the asked text will not come."""
    keys: str = ""
    keys_at: float = 0.0
    keys_done: bool = False

    @property
    def cutting(self) -> bool:
        return self.cut_at is not None

    @property
    def settled(self) -> bool:
        return self.settled_pause == self.pause

    @property
    def words(self) -> str:
        return f"{self.text} {self.keys}".strip()


class TurnDetector:
    """One caller's turns. Inputs return what follows from them at once; `now` never goes back."""

    def __init__(self, settings: TurnSettings) -> None:
        self.pauses = 0
        """Settled texts asked for so far."""
        self.log: deque[LogEntry] = deque(maxlen=LOG_SIZE)
        """The last decisions, each with its reason."""
        self._settings = settings
        self._endings = Endings(settings)
        self._turn: _Turn | None = None
        self._floor = False
        self._free_since = float("-inf")

    @property
    def open(self) -> bool:
        """The caller is in a turn: speaking, or silent and not yet answered."""
        return self._turn is not None

    @property
    def started_at(self) -> float | None:
        return self._turn.started_at if self._turn else None

    @property
    def last_voice_at(self) -> float | None:
        return self._turn.ended_at if self._turn else None

    @property
    def text(self) -> str:
        """The open turn's best text so far, keys included."""
        return self._turn.words if self._turn else ""

    # -- inputs ---------------------------------------------------------------------------------------------

    def voice_started(self, now: float, at: float) -> list[TurnOutput]:
        """The caller's voice set in at `at`."""
        out: list[TurnOutput] = []
        if self._turn is None:
            self._turn = _Turn(min(at, now), min(at, now))
        turn = self._turn
        if not turn.voice:
            turn.voice = turn.spoken = True
            self._unsettle(turn, now, out)
        return self._evaluate(now, out)

    def voice_stopped(self, now: float, at: float) -> list[TurnOutput]:
        """The caller's voice was last heard at `at`."""
        out: list[TurnOutput] = []
        turn = self._turn
        if turn is not None and turn.voice:
            turn.voice = False
            turn.ended_at = max(turn.ended_at, min(at, now))
            self._ask(turn, now, out)
        return self._evaluate(now, out)

    def heard(self, now: float, text: str, *, settled: bool, pause: int) -> list[TurnOutput]:
        """Text of the turn came. Without voice activity before it, it is ignored: the voice opens a turn."""
        out: list[TurnOutput] = []
        turn = self._turn
        if turn is None or not turn.spoken:
            return self._evaluate(now, out)
        text = text.strip()
        answers = settled and pause == turn.pause and pause > 0
        if answers and (turn.cutting or not turn.voice):
            if not turn.settled:
                turn.settled_pause, turn.settled_at = pause, now
            if text and text != turn.text:
                self._unsettle_eager(turn, now, out)
                turn.text = text
        elif text and not turn.settled:
            turn.text = text
        return self._evaluate(now, out)

    def stt_failed(self, now: float) -> list[TurnOutput]:
        """The text that was asked for will not come: go on with the best partial."""
        if self._turn is not None and not self._turn.settled:
            self._turn.failed = True
        return self._evaluate(now, [])

    def key(self, now: float, digit: str) -> list[TurnOutput]:
        """A key was pressed: one of 0-9 * # A-D."""
        out: list[TurnOutput] = []
        turn = self._turn
        if turn is None:
            if digit == "#":
                return self._evaluate(now, out)
            turn = self._turn = _Turn(now, now)
        self._unsettle_eager(turn, now, out)
        if digit == "#":
            turn.keys_done = bool(turn.keys)
        else:
            turn.keys += digit
            turn.keys_done = False
        turn.keys_at = now
        turn.ended_at = max(turn.ended_at, now)
        return self._evaluate(now, out)

    def floor(self, now: float, taken: bool) -> list[TurnOutput]:
        """The agent has the floor (thinks or speaks), or not: while it has, no turn of the caller ends."""
        if self._floor and not taken:
            self._free_since = now
        self._floor = taken
        out: list[TurnOutput] = []
        if taken and self._turn is not None:
            self._unsettle_eager(self._turn, now, out)
        return self._evaluate(now, out)

    def forget(self, now: float, why: str) -> list[TurnOutput]:
        """What the open turn has so far is to be ignored (a backchannel, an echo)."""
        out: list[TurnOutput] = []
        if self._turn is not None:
            self._forget(self._turn, now, why, out)
        return self._evaluate(now, out)

    def abandon(self, now: float, why: str) -> list[TurnOutput]:
        """Forget the open turn with its voice, as when the line goes on hold: what follows is not the caller."""
        if self._turn is not None:
            self._turn.voice = False
        return self.forget(now, why)

    def tick(self, now: float) -> list[TurnOutput]:
        """Time has come: call it at `deadline()`."""
        return self._evaluate(now, [])

    def deadline(self) -> float | None:
        """When something happens by time alone (s), None when nothing will."""
        turn = self._turn
        if turn is None or self._floor:
            return None
        if turn.voice and not turn.cutting:
            return self._too_long_at(turn)
        due = self._due(turn)[0]
        if self._may_start_eagerly(turn):
            due = min(due, self._eager_at(turn, due))
        if turn.cutting or not turn.spoken:
            return due
        return min(due, self._too_long_at(turn))

    # -- decisions ------------------------------------------------------------------------------------------

    def _evaluate(self, now: float, out: list[TurnOutput]) -> list[TurnOutput]:
        turn = self._turn
        if turn is None:
            return out
        if self._floor:
            return out
        if turn.spoken and not turn.cutting and now >= self._too_long_at(turn):
            turn.cut_at = now
            if turn.voice:
                turn.ended_at = now
                self._ask(turn, now, out)
        if turn.voice and not turn.cutting:
            return out
        if turn.spoken and turn.settled and not turn.words:
            self._forget(turn, now, "noise: voice without words", out)
            return out
        due, why = self._due(turn)
        if now >= due:
            self._complete(turn, now, due, why, out)
        elif self._may_start_eagerly(turn) and now >= self._eager_at(turn, due):
            turn.eager = True
            self._say(now, EagerStart(turn.words), out)
        return out

    def _due(self, turn: _Turn) -> tuple[float, str]:
        """When the turn ends if nothing else comes, and why then."""
        due, why = turn.ended_at, "keys"
        if turn.spoken and turn.settled:
            silence_ms, why = self._silence(turn.text)
            due = turn.ended_at + silence_ms / 1000
            why = f"{silence_ms} ms of silence: {why}"
        elif turn.spoken:
            wait_ms = 0 if turn.failed else self._settings.stt_wait_ms
            due = max(turn.ended_at + self._settings.end_silence_ms / 1000, turn.asked_at + wait_ms / 1000)
            why = f"no settled text within {wait_ms} ms"
        if turn.cut_at is not None:
            due = turn.settled_at if turn.settled else min(due, turn.cut_at + self._settings.stt_wait_ms / 1000)
            why = f"longer than {self._settings.max_turn_ms} ms"
        if turn.keys:
            keys_due = turn.keys_at + (0 if turn.keys_done else self._settings.dtmf_pause_ms / 1000)
            if keys_due > due or not turn.spoken:
                due, why = keys_due, "keys ended with #" if turn.keys_done else "pause after keys"
        return due, why

    def _silence(self, text: str) -> tuple[int, str]:
        """The silence that ends a turn with `text` (ms), and why that much."""
        ending, why = self._endings.of(text)
        match ending:
            case Ending.INCOMPLETE:
                return self._settings.incomplete_silence_ms, why
            case Ending.ANSWER:
                return self._settings.answer_silence_ms, why
            case Ending.COMPLETE:
                return self._settings.end_silence_ms, why

    def _may_start_eagerly(self, turn: _Turn) -> bool:
        return (
            self._settings.eager
            and turn.settled
            and not turn.eager
            and not turn.cutting
            and not turn.keys
            and bool(turn.text)
        )

    def _eager_at(self, turn: _Turn, due: float) -> float:
        return max(turn.settled_at, due - self._settings.eager_lead_ms / 1000)

    def _too_long_at(self, turn: _Turn) -> float:
        return turn.started_at + self._settings.max_turn_ms / 1000

    def _ask(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        self.pauses += 1
        turn.pause, turn.asked_at, turn.failed = self.pauses, now, False
        self._say(now, AskSettled(self.pauses), out)

    def _unsettle(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        """The caller goes on: what was settled is only a beginning."""
        turn.settled_pause = -1
        self._unsettle_eager(turn, now, out)

    def _unsettle_eager(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        if turn.eager:
            turn.eager = False
            self._say(now, EagerCancel(), out)

    def _complete(self, turn: _Turn, now: float, due: float, why: str, out: list[TurnOutput]) -> None:
        silence_over = now
        stt_ms = 0.0
        if turn.spoken and not turn.keys:
            silence_ms = 0 if turn.cutting else self._silence(turn.text)[0]
            text_at = turn.settled_at if turn.settled else now
            silence_over = min(now, turn.ended_at + silence_ms / 1000)
            stt_ms = max(0.0, text_at - silence_over) * 1000
            if stt_ms == 0:
                silence_over = now
        endpoint_ms = max(0.0, silence_over - turn.ended_at) * 1000
        held = due < self._free_since
        self._reopen(turn, now)
        complete = TurnComplete(turn.words, turn.started_at, turn.ended_at, endpoint_ms, stt_ms, held, why)
        self._say(now, complete, out)

    def _forget(self, turn: _Turn, now: float, why: str, out: list[TurnOutput]) -> None:
        self._unsettle_eager(turn, now, out)
        self._reopen(turn, now)
        self._say(now, TurnForgotten(why), out)

    def _reopen(self, turn: _Turn, now: float) -> None:
        """The turn is over; a voice that goes on belongs to the next one."""
        self._turn = _Turn(now, now, voice=True, spoken=True) if turn.voice else None

    def _say(self, now: float, what: TurnOutput, out: list[TurnOutput]) -> None:
        out.append(what)
        self.log.append(LogEntry(now, what))
