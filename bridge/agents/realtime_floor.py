"""Who speaks for an agent whose model speaks by itself: one turn in the playout, others behind it in order."""

from collections import deque
from collections.abc import Callable

from bridge.agents.outlet import Outlet
from bridge.agents.realtime_turn import RealtimeTurn, Reply
from bridge.agents.record import Record
from bridge.audio.playout import Playout


class RealtimeFloor:
    """At most one turn sounds. A reply that comes while another one sounds waits: a model's own ear answers what is
    said over it, and whether that was meant as an interruption is decided elsewhere."""

    def __init__(
        self, playout: Playout, record: Record, remember: Callable[[RealtimeTurn, float | None], None]
    ) -> None:
        """`remember` is told each turn that was heard, and how much of it (ms; None: all)."""
        self._record = record
        self._remember = remember
        self.outlet = Outlet(playout)
        """Pauses what the turns say, whichever it is."""
        self._behind: deque[RealtimeTurn] = deque()
        self.turn: RealtimeTurn | None = None
        """The turn that has the floor."""
        self.spoke = False
        """The agent was heard since the caller's last turn."""

    @property
    def free(self) -> bool:
        return self.turn is None

    @property
    def last(self) -> RealtimeTurn | None:
        """The turn that will be heard last, as things are."""
        return self._behind[-1] if self._behind else self.turn

    @property
    def turns(self) -> list[RealtimeTurn]:
        """All that are to be heard, the present one first."""
        return [*([] if self.turn is None else [self.turn]), *self._behind]

    def find(self, item: str) -> RealtimeTurn | None:
        """The turn of a reply that is still to be heard, or being heard."""
        return next((turn for turn in self.turns if turn.item == item and turn.model), None)

    def add(self, turn: RealtimeTurn) -> None:
        """It takes the floor, or waits behind those before it."""
        if self.turn is None:
            self._take(turn)
        else:
            self._behind.append(turn)

    def started(self, generation: int, at: float) -> None:
        """The playout sends the first audio of an utterance."""
        self.spoke = True
        turn = self.turn
        if turn is not None and turn.speech.generation == generation and turn.started_at is None:
            self._record.agent_started(turn, at)

    def finished(self, generation: int, at: float) -> RealtimeTurn | None:
        """The playout has sent all of an utterance. Returns the turn that is over; the next one has the floor."""
        turn = self.turn
        if turn is None or turn.speech.generation != generation:
            return None
        self._remember(turn, None)
        self._record.agent_ended(turn, at, None)
        self.turn = None
        self._next()
        return turn

    def cut(self, at: float) -> RealtimeTurn | None:
        """Stop the present turn; what was heard of it up to `at` is on record. The floor is free, though others may
        wait behind (`go_on`)."""
        turn, self.turn = self.turn, None
        if turn is None:
            return None
        heard_ms = turn.speech.heard_ms
        turn.speech.drop()
        turn.stop()
        self._remember(turn, heard_ms)
        self._record.agent_ended(turn, at, heard_ms)
        self.outlet.unpause("barge-in")
        return turn

    def go_on(self) -> None:
        """Let the next one speak, if the floor is free."""
        if self.turn is None:
            self._next()

    def forget(self, item: str) -> None:
        """A reply that waits is not to be heard."""
        self._behind = deque(turn for turn in self._behind if turn.item != item)

    def forget_behind(self) -> list[RealtimeTurn]:
        """None of those that wait is to be heard; returns them."""
        turns, self._behind = list(self._behind), deque()
        for turn in turns:
            turn.speech.drop()
            turn.stop()
        return turns

    def _next(self) -> None:
        if self._behind:
            self._take(self._behind.popleft())

    def _take(self, turn: RealtimeTurn) -> None:
        self.turn = turn
        turn.speech.release()
        self.outlet.utterance_begun()


def stalls_at(turn: RealtimeTurn, now: float, between_s: float) -> float | None:
    """When (s) the model is known to have broken off in the middle: all that came was played, and nothing more came
    for `between_s`. None for a turn that is complete."""
    speech = turn.speech
    if not isinstance(speech, Reply) or speech.complete:
        return None
    if speech.queued_ms > 0:
        return now + speech.queued_ms / 1000 + between_s
    played_at = 0.0 if turn.started_at is None else turn.started_at + speech.audio_ms / 1000
    return max(turn.last_at, played_at) + between_s
