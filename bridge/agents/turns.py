"""The turn detector: when the caller's turn is over. A state machine without I/O or clock.

Several signs go in with `now` (s, monotonic): voice activity, recognised text, the recogniser's own endpointing, a
semantic model's verdict, keys, what the agent asked for, and whether it has the floor. Decisions come out, each with
its reason, and `deadline()` says when to call `tick`. It counts its requests for settled text (`AskSettled`), and
takes a `Heard` as settled only when it answers the latest of them.

What ends a turn is a silence. How long it must be is judged by the text; a text that looks incomplete gets patience,
more where the agent asked for such a thing, and no other sign shortens that. With a text that looks complete, the
recogniser's word that the turn is over, or the semantic model's, makes it short; a resumption makes it start anew.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bridge.agents.settings import TurnSettings
from bridge.agents.turn_events import (
    AskSettled,
    EagerCancel,
    EagerStart,
    LogEntry,
    Sign,
    TurnComplete,
    TurnForgotten,
    TurnOutput,
)
from bridge.agents.words import Ending, Endings, Expected, Judgement, words

LOG_SIZE = 200


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
    likely: bool = False
    """The recogniser says that it is probably over."""
    over_at: float | None = None
    """...that it is over, since then."""
    over_why: str = ""
    resumed_at: float | None = None
    """...that it goes on after all."""
    semantic: float | None = None
    """The model's probability that it is over with the present pause."""
    text_at: float = 0.0
    """When the text last became another."""

    @property
    def cutting(self) -> bool:
        return self.cut_at is not None

    @property
    def settled(self) -> bool:
        return self.settled_pause == self.pause

    @property
    def known_at(self) -> float | None:
        """Since when its text is known: settled, or said to be over. None: it is not."""
        if self.settled:
            return self.settled_at
        return self.over_at if self.text else None

    @property
    def words(self) -> str:
        return f"{self.text} {self.keys}".strip()


class TurnDetector:
    """One caller's turns. Inputs return what follows from them at once; `now` never goes back."""

    def __init__(self, settings: TurnSettings, told: Callable[[LogEntry], None] = lambda _: None) -> None:
        """`told` gets every entry of the log, as it is made."""
        self._told = told
        self.pauses = 0
        """Settled texts asked for so far."""
        self.log: deque[LogEntry] = deque(maxlen=LOG_SIZE)
        """The last decisions, each with its reason."""
        self._settings = settings
        self._endings = Endings(settings)
        self._turn: _Turn | None = None
        self._expected: Expected | None = None
        self._floor = False
        self._free_since = float("-inf")

    def speak(self, settings: TurnSettings) -> None:
        """Judge by these from now on: the caller speaks another language."""
        self._settings = settings
        self._endings = Endings(settings)

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
            turn.semantic = None
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
            self._take(turn, text, now, out)
        elif not turn.settled:
            self._take(turn, text, now, out)
        return self._evaluate(now, out)

    def endpoint(
        self, now: float, what: Literal["eager", "resumed", "end"], confidence: float | None = None
    ) -> list[TurnOutput]:
        """The recogniser's own sign (`SttEndpoint`), about the text it gave before. Without a turn it is ignored."""
        out: list[TurnOutput] = []
        turn = self._turn
        if turn is None or not turn.spoken:
            return self._evaluate(now, out)
        sure = "" if confidence is None else f" ({confidence:.2f})"
        if what == "end" and confidence is not None and confidence < self._settings.endpoint_confidence:
            what = "eager"
        match what:
            case "eager":
                turn.likely = True
                self._note(now, f"the recogniser thinks it is over{sure}")
            case "end":
                turn.likely, turn.over_at = True, now
                turn.over_why = f"the recogniser says it is over{sure}"
                self._note(now, turn.over_why)
            case "resumed":
                self._note(now, "the recogniser hears more")
                turn.resumed_at = now
                self._void_signs(turn)
                self._unsettle_eager(turn, now, "the recogniser hears more", out)
        return self._evaluate(now, out)

    def semantic(self, now: float, pause: int, probability: float) -> list[TurnOutput]:
        """The semantic model's verdict on the voice up to the pause numbered `pause`: the probability that the turn
        is over. One on an earlier pause is ignored."""
        turn = self._turn
        if turn is not None and pause == turn.pause and not turn.voice:
            turn.semantic = probability
            self._note(now, f"the semantic model gives {probability:.2f}")
        return self._evaluate(now, [])

    def expect(self, now: float, expected: Expected | None) -> list[TurnOutput]:
        """What the agent asked for (None: nothing that needs patience), until it asks for something else."""
        if expected != self._expected:
            self._expected = expected
            self._note(now, f"asked for: {expected or 'anything'}")
        return self._evaluate(now, [])

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
        self._unsettle_eager(turn, now, "a key", out)
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
            self._unsettle_eager(self._turn, now, "the agent has the floor", out)
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
            over_at = self._over_voice_at(turn)
            return min(self._too_long_at(turn), over_at if over_at is not None else float("inf"))
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
            over_at = self._over_voice_at(turn)
            if over_at is not None and now >= over_at:
                assert turn.over_at is not None
                turn.ended_at = max(turn.started_at, turn.over_at)
                why = f"{turn.over_why}, and what is still heard brought no word for"
                self._complete(turn, now, now, f"{why} {self._settings.endpoint_voice_ms} ms", out)
            elif self._may_start_eagerly(turn) and self._eager_at(turn, float("inf")) <= now:
                self._start_eagerly(turn, now, out)
            return out
        if turn.spoken and turn.settled and not turn.words:
            self._forget(turn, now, "noise: voice without words", out)
            return out
        due, why = self._due(turn)
        if now >= due:
            self._complete(turn, now, due, why, out)
        elif self._may_start_eagerly(turn) and now >= self._eager_at(turn, due):
            self._start_eagerly(turn, now, out)
        return out

    def _due(self, turn: _Turn) -> tuple[float, str]:
        """When the turn ends if nothing else comes, and why then."""
        due, why = turn.ended_at, "keys"
        if turn.spoken and turn.known_at is not None:
            silence_ms, why = self._silence(turn)
            since = turn.ended_at if turn.resumed_at is None else max(turn.ended_at, turn.resumed_at)
            due = since + silence_ms / 1000
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

    def _silence(self, turn: _Turn) -> tuple[int, str]:
        """The silence that ends the turn as it stands (ms), and why that much."""
        settings, judged = self._settings, self._judge(turn)
        silence_ms, why = judged.silence_ms, judged.why
        if judged.ending is Ending.INCOMPLETE:
            return silence_ms, why
        likely_over = turn.semantic is not None and turn.semantic >= settings.semantic_threshold
        if turn.over_at is not None:
            return min(silence_ms, settings.endpoint_silence_ms), f"{why}, {turn.over_why}"
        if turn.semantic is not None and likely_over:
            silence_ms = min(silence_ms, settings.endpoint_silence_ms)
            return silence_ms, f"{why}, the semantic model says it is over ({turn.semantic:.2f})"
        if turn.semantic is not None and judged.ending is Ending.COMPLETE:
            silence_ms = max(silence_ms, settings.incomplete_silence_ms)
            return silence_ms, f"{why}, but the semantic model says it goes on ({turn.semantic:.2f})"
        return silence_ms, why

    def _judge(self, turn: _Turn) -> Judgement:
        return self._endings.judge(turn.text, self._expected)

    def _may_start_eagerly(self, turn: _Turn) -> bool:
        return (
            self._settings.eager
            and (turn.known_at is not None or turn.likely)
            and not turn.eager
            and not turn.cutting
            and not turn.keys
            and bool(turn.text)
        )

    def _eager_at(self, turn: _Turn, due: float) -> float:
        if turn.likely and self._judge(turn).ending is not Ending.INCOMPLETE:
            return float("-inf")
        if turn.known_at is None:
            return float("inf")
        return max(turn.known_at, due - self._settings.eager_lead_ms / 1000)

    def _start_eagerly(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        turn.eager = True
        why = "the recogniser thinks it is over" if turn.likely else "the text is settled"
        self._say(now, EagerStart(turn.words, why), out)

    def _over_voice_at(self, turn: _Turn) -> float | None:
        """When a turn that is over by the recogniser's word ends although there is voice."""
        if turn.over_at is None or not turn.text or turn.keys or self._judge(turn).ending is Ending.INCOMPLETE:
            return None
        return max(turn.over_at, turn.text_at) + self._settings.endpoint_voice_ms / 1000

    def _too_long_at(self, turn: _Turn) -> float:
        return turn.started_at + self._settings.max_turn_ms / 1000

    def _ask(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        self.pauses += 1
        turn.pause, turn.asked_at, turn.failed = self.pauses, now, False
        self._say(now, AskSettled(self.pauses), out)

    def _take(self, turn: _Turn, text: str, now: float, out: list[TurnOutput]) -> None:
        """Take `text` for the turn's, if there is any."""
        if not text or text == turn.text:
            return
        # Recognisers set commas and capitals later.
        if words(text) != words(turn.text):
            turn.text_at = now
            # What the recogniser said of the end, it said of another text.
            turn.likely, turn.over_at = False, None
            self._unsettle_eager(turn, now, "other words", out)
        turn.text = text

    def _unsettle(self, turn: _Turn, now: float, out: list[TurnOutput]) -> None:
        """The caller goes on: what was settled is only a beginning."""
        turn.settled_pause = -1
        turn.resumed_at = None
        self._void_signs(turn)
        self._unsettle_eager(turn, now, "the caller goes on", out)

    @staticmethod
    def _void_signs(turn: _Turn) -> None:
        turn.likely, turn.over_at, turn.semantic = False, None, None

    def _unsettle_eager(self, turn: _Turn, now: float, why: str, out: list[TurnOutput]) -> None:
        if turn.eager:
            turn.eager = False
            self._say(now, EagerCancel(why), out)

    def _complete(self, turn: _Turn, now: float, due: float, why: str, out: list[TurnOutput]) -> None:
        silence_over = now
        stt_ms = 0.0
        if turn.spoken and not turn.keys:
            silence_ms = 0 if turn.cutting else self._silence(turn)[0]
            text_at = turn.known_at if turn.known_at is not None else now
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
        self._unsettle_eager(turn, now, why, out)
        self._reopen(turn, now)
        self._say(now, TurnForgotten(why), out)

    def _reopen(self, turn: _Turn, now: float) -> None:
        """The turn is over; a voice that goes on belongs to the next one."""
        self._turn = _Turn(now, now, voice=True, spoken=True) if turn.voice else None

    def _note(self, now: float, what: str) -> None:
        self._log(now, Sign(what))

    def _log(self, now: float, what: TurnOutput | Sign) -> None:
        entry = LogEntry(now, what)
        self.log.append(entry)
        self._told(entry)

    def _say(self, now: float, what: TurnOutput, out: list[TurnOutput]) -> None:
        out.append(what)
        self._log(now, what)
