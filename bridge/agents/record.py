"""What a conversation puts on its call's record: turns in order of their start, barge-ins, engines that failed."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.agents.bargein import Confirmed, Rejected
from bridge.agents.base import CallSession
from bridge.events import BargeIn, Note, ProviderFailed, TurnDelays, TurnEnded
from bridge.providers.base import ProviderError, Role, Switched


@dataclass(slots=True)
class TurnSlot:
    """A turn under way, at its place in the order of starts."""

    started_at: float
    ended: TurnEnded | None = None
    void: bool = False


class Spoken(Protocol):
    """What one turn of the agent says, and how far it was played."""

    @property
    def heard_ms(self) -> float: ...
    def said(self) -> str: ...
    def heard(self, heard_ms: float) -> str: ...


class RecordedTurn(Protocol):
    """One turn of the agent, as the record needs it."""

    started_at: float | None
    slot: TurnSlot | None

    @property
    def speech(self) -> Spoken: ...
    def delays(self) -> TurnDelays: ...


class TurnLedger:
    """Numbers turns in order of their start and tells them in that order: a turn that ended waits while one that
    started earlier has not."""

    def __init__(self, emit: Callable[[TurnEnded], None]) -> None:
        self._emit = emit
        self._slots: deque[TurnSlot] = deque()
        self._next = 0

    def open(self, started_at: float) -> TurnSlot:
        """A turn started; that of the caller is told later than it was, and may go before one opened already."""
        slot = TurnSlot(started_at)
        later = sum(other.started_at > started_at for other in self._slots)
        self._slots.insert(len(self._slots) - later, slot)
        return slot

    def end(self, slot: TurnSlot, turn: TurnEnded) -> None:
        """It ended; its index is set here."""
        slot.ended = turn
        self._tell()

    def void(self, slot: TurnSlot) -> None:
        """It was none."""
        slot.void = True
        self._tell()

    def _tell(self) -> None:
        while self._slots and (self._slots[0].ended or self._slots[0].void):
            turn = self._slots.popleft().ended
            if turn is not None:
                self._emit(replace(turn, index=self._next))
                self._next += 1


class Record:
    """One conversation's events, timed in its session's clock (s)."""

    def __init__(self, session: CallSession) -> None:
        self._session = session
        self._ledger = TurnLedger(session.emit)
        self._caller: TurnSlot | None = None

    def caller_started(self, at: float) -> None:
        """The caller is in a turn, of which nothing is known yet. Calling it again changes nothing."""
        if self._caller is None:
            self._caller = self._ledger.open(at)

    def caller_ended(self, text: str, started_at: float, ended_at: float, why: str) -> None:
        slot, self._caller = self._caller or self._ledger.open(started_at), None
        started_ms, ended_ms = self._session.at_ms(started_at), self._session.at_ms(ended_at)
        heard_ms = ended_ms - started_ms
        self._ledger.end(
            slot,
            TurnEnded(0, "caller", text, started_ms, ended_ms, heard_text=text, heard_ms=heard_ms, why=why),
        )

    def caller_forgotten(self) -> None:
        """It was no turn."""
        slot, self._caller = self._caller, None
        if slot is not None:
            self._ledger.void(slot)

    def caller_began(self, at: float) -> TurnSlot:
        """A turn of the caller whose text may come after later turns have begun (`caller_done`, `caller_void`)."""
        return self._ledger.open(at)

    def caller_done(self, slot: TurnSlot, text: str, ended_at: float) -> None:
        started_ms, ended_ms = self._session.at_ms(slot.started_at), self._session.at_ms(ended_at)
        heard_ms = ended_ms - started_ms
        self._ledger.end(slot, TurnEnded(0, "caller", text, started_ms, ended_ms, heard_text=text, heard_ms=heard_ms))

    def caller_void(self, slot: TurnSlot) -> None:
        """It was none."""
        self._ledger.void(slot)

    def agent_started(self, turn: RecordedTurn, at: float) -> None:
        """The turn's first audio went out."""
        turn.started_at = at
        turn.slot = self._ledger.open(at)

    def agent_ended(self, turn: RecordedTurn, at: float, heard_ms: float | None) -> None:
        """It was played out, or cut off after `heard_ms`. A turn of which nothing was played is none."""
        if turn.slot is None or turn.started_at is None:
            return
        said = turn.speech.said()
        self._ledger.end(
            turn.slot,
            TurnEnded(
                index=0,
                speaker="agent",
                text=said,
                started_ms=self._session.at_ms(turn.started_at),
                ended_ms=self._session.at_ms(at),
                heard_text=said if heard_ms is None else turn.speech.heard(heard_ms),
                heard_ms=turn.speech.heard_ms if heard_ms is None else heard_ms,
                interrupted=heard_ms is not None,
                delays=turn.delays(),
            ),
        )

    def barge_in(self, decision: Confirmed | Rejected) -> None:
        at_ms = self._session.at_ms(decision.paused_at)
        confirmed = isinstance(decision, Confirmed)
        self._session.emit(BargeIn(at_ms, confirmed, decision.reason, decision.pause_ms))

    def provider_failed(self, role: Role, error: ProviderError) -> None:
        self._session.emit(ProviderFailed(role, error.provider, str(error), self._now_ms()))

    def provider_switched(self, switched: Switched) -> None:
        error = switched.error
        self._session.emit(
            ProviderFailed(switched.role, switched.from_, str(error), self._now_ms(), went_on=switched.to)
        )

    def note(self, name: str, detail: str) -> None:
        self._session.emit(Note(name, detail, self._now_ms()))

    def _now_ms(self) -> float:
        return self._session.at_ms(self._session.clock())
