"""Whom a call's caller is with: its agent, nobody (on hold by us), or a second party whom we called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.agent_line import AgentLine
from bridge.bridging import WAITING, Junction
from bridge.caller_music import CallerMusic
from bridge.events import CallEvent, Cause, FarPartyChanged, LegEnded, LegEvent, Note
from bridge.legs.base import Leg, LegError, LegState, LegStateError
from bridge.second_leg import Dial, Meanwhile, SecondLeg


@dataclass(frozen=True, slots=True)
class CallParts:
    """What transfers need of their call."""

    leg: Leg
    tell: Callable[[CallEvent], None]
    """Puts an event on the record."""
    at_ms: Callable[[], float]
    end: Callable[[Cause, str], None]
    agent_present: Callable[[], bool]
    dismiss_agent: Callable[[], None]

    def note(self, name: str, detail: str) -> None:
        """Puts what was done to the call on the record."""
        self.tell(Note(name, detail, self.at_ms()))

    def must_be_up(self) -> None:
        """Raises LegStateError."""
        if self.leg.state is not LegState.UP:
            raise LegStateError("the call is not up")


class Parties:
    """Of one call: at most one second leg, or the caller on hold by us, never both."""

    def __init__(
        self,
        call: CallParts,
        line: AgentLine,
        music: CallerMusic,
        dial: Dial | None,
        *,
        ring_s: float,
        over: Callable[[SecondLeg, LegEnded], None],
    ) -> None:
        """Without `dial` nobody can be called. A second leg rings for `ring_s`; `over` is told when one has ended."""
        self.second: SecondLeg | None = None
        self._call = call
        self._line = line
        self._music = music
        self._dial = dial
        self._ring_s = ring_s
        self._told_over = over
        self._waiting: Junction | None = None
        """The caller is on hold by us."""

    @property
    def joined(self) -> bool:
        """Caller and second party talk with each other."""
        return self.second is not None and self.second.agent_part is not None

    # -- a second party -------------------------------------------------------------------------------------

    async def reach(
        self,
        target: str,
        meanwhile: Meanwhile,
        *,
        agent_apart: bool,
        headers: Sequence[tuple[str, str]] = (),
        ring_s: float | None = None,
    ) -> SecondLeg:
        """Dial `target`; returns when it has answered. Raises LegError where that can't be begun, SecondLegError
        where nothing came of it: the caller is back with the agent by then."""
        dial = self.must_be_able_to_reach()
        call = self._call
        second = SecondLeg(target, call.leg, self._line, call.tell, call.at_ms, self._over, self._music)
        self.second = second
        await second.reach(
            dial,
            meanwhile=meanwhile,
            agent_apart=agent_apart,
            headers=headers,
            ring_s=self._ring_s if ring_s is None else ring_s,
        )
        return second

    def must_be_able_to_reach(self) -> Dial:
        """Raises LegError where nobody can be dialled now."""
        if self._dial is None:
            raise LegError("this call can dial nobody")
        self._call.must_be_up()
        if self.second is not None:
            raise LegStateError("the call has a second leg already")
        if self._waiting is not None:
            raise LegStateError("the caller is on hold")
        return self._dial

    def present(self) -> SecondLeg:
        """The second leg, answered or not. Raises LegStateError: there is none."""
        if self.second is None:
            raise LegStateError("the call has no second leg")
        return self.second

    def consulted(self, target: str) -> SecondLeg | None:
        """The second leg, if it is up. Raises LegStateError where it is another than `target` ("": whoever it is)."""
        second = self.second
        if second is None or not second.up:
            return None
        if target not in ("", second.target):
            raise LegStateError(f"the call has a second leg already, to {second.target}")
        return second

    def _over(self, second: SecondLeg, ended: LegEnded) -> None:
        self.second = None
        self._told_over(second, ended)

    # -- hold -----------------------------------------------------------------------------------------------

    async def hold(self, on: bool) -> None:
        """Let the caller wait with the hold tone, apart from the agent, its carrier told so; or take it back. Raises
        LegError, LegStateError while there is a second leg."""
        self._call.must_be_up()
        if on == (self._waiting is not None):
            return
        if on:
            if self.second is not None:
                raise LegStateError("the call has a second leg: it has a place to wait")
            self._waiting = Junction(self._call.leg)
            self._waiting.routing = WAITING
            self._line.ear = self._waiting.agent_hears
            self._line.apart = True
        try:
            await self._call.leg.hold(on)
        except LegError:
            if on:
                self._take_back()
            raise
        if not on:
            self._take_back()
        name, said = ("caller-held", "it waits") if on else ("caller-taken-back", "it is with the agent again")
        self._call.note(name, said)

    def _take_back(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
            self._line.ear = None
            self._line.apart = False

    # -- what comes in --------------------------------------------------------------------------------------

    def on_leg_event(self, event: LegEvent) -> None:
        """An event of the caller's leg."""
        if self.second is not None:
            self.second.caller_event(event)
        if isinstance(event, FarPartyChanged):
            # Nobody holds the new one.
            self._take_back()

    def rejoin_agent(self) -> None:
        """The caller is with its agent again, where nobody else has it."""
        if self.second is None and self._waiting is None:
            self._line.apart = False

    async def close(self, cause: Cause) -> None:
        """The call is over."""
        if self.second is not None:
            await self.second.release(cause)
        self._take_back()
