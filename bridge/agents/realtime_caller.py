"""The caller's turns as a speech-to-speech model's ear tells them: begun, over, and their text when it comes."""

from dataclasses import dataclass, field

from bridge.agents.realtime_history import History
from bridge.agents.record import Record, TurnSlot
from bridge.providers.base import Message


@dataclass(eq=False, slots=True)
class _Turn:
    item: str
    slot: TurnSlot
    place: list[Message] = field(default_factory=list)
    ended_at: float | None = None
    text_due: float = 0.0


class CallerTurns:
    """One call's. A turn is on record once it is over and its text has come, or is not waited for any longer."""

    def __init__(self, record: Record, history: History, *, text_s: float) -> None:
        self._record = record
        self._history = history
        self._text_s = text_s
        self._turns: list[_Turn] = []

    @property
    def open(self) -> bool:
        """The caller is in a turn."""
        return any(turn.ended_at is None for turn in self._turns)

    @property
    def awaits_text(self) -> bool:
        return bool(self._turns)

    def began(self, item: str, at: float) -> None:
        """The model's ear noticed the caller, whose voice set in at `at` (s)."""
        if not any(turn.item == item and (item or turn.ended_at is None) for turn in self._turns):
            self._turns.append(_Turn(item, self._record.caller_began(at)))

    def ended(self, item: str, at: float, now: float) -> None:
        """The turn is over; the voice was last heard at `at`."""
        turn = self._find(item)
        if turn is not None and turn.ended_at is None:
            turn.ended_at = max(at, turn.slot.started_at)
            turn.text_due = now + self._text_s
            turn.place = self._history.place()

    def said(self, item: str, text: str, now: float) -> None:
        """Its text came. One that nobody told of before is a turn all the same."""
        turn = self._find(item)
        if turn is None:
            if not text:
                return
            turn = _Turn(item, self._record.caller_began(now))
            self._turns.append(turn)
        if turn.ended_at is None:
            self.ended(turn.item, now, now)
        self._close(turn, text)

    def pressed(self, keys: str, began_at: float, ended_at: float) -> None:
        """Keys are a turn of their own."""
        self._record.caller_done(self._record.caller_began(began_at), keys, ended_at)

    def tick(self, now: float) -> None:
        for turn in [turn for turn in self._turns if turn.ended_at is not None and now >= turn.text_due]:
            self._close(turn, "")

    def deadline(self) -> float | None:
        return min((turn.text_due for turn in self._turns if turn.ended_at is not None), default=None)

    def forget_open(self) -> None:
        """What the caller is saying goes to nobody: the session that heard it is gone, the next hears it anew."""
        for turn in [turn for turn in self._turns if turn.ended_at is None]:
            self._turns.remove(turn)
            self._record.caller_void(turn.slot)

    def without_text(self) -> bool:
        """Forget the turns that are over and have no text yet; whether there were any."""
        late = [turn for turn in self._turns if turn.ended_at is not None]
        for turn in late:
            self._turns.remove(turn)
            self._record.caller_void(turn.slot)
        return bool(late)

    def close(self, at: float) -> None:
        """The call is over: what is open ends here."""
        for turn in list(self._turns):
            if turn.ended_at is None:
                turn.ended_at = max(at, turn.slot.started_at)
            self._close(turn, "")

    def _find(self, item: str) -> _Turn | None:
        if item:
            return next((turn for turn in self._turns if turn.item == item), None)
        return self._turns[0] if self._turns else None

    def _close(self, turn: _Turn, text: str) -> None:
        self._turns.remove(turn)
        if text:
            turn.place.append(Message("user", text))
        assert turn.ended_at is not None
        self._record.caller_done(turn.slot, text, turn.ended_at)
