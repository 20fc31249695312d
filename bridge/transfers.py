"""How a call's caller gets to somebody else: by the carrier (REFER, its dialplan), or through us by a second leg."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from bridge.agent_line import AgentLine
from bridge.agents.base import Introduction, Speak
from bridge.caller_music import CallerMusic
from bridge.events import AgentPart, Cause, LegEnded, LegEvent, TransferAsked, TransferResult
from bridge.legs.base import (
    Capability,
    Leg,
    LegError,
    LegState,
    LegStateError,
    NotCapableError,
    TransferFailedError,
    TransferRefusedError,
)
from bridge.parties import CallParts, Parties
from bridge.second_leg import Dial, Meanwhile, SecondLeg
from bridge.targets import DialplanTarget, QueueTarget, TargetError, parse_target
from bridge.transfer_outcome import TransferOutcome
from bridge.transfer_ways import TransferWays
from bridge.variables import as_values

log = structlog.get_logger(__name__)

TransferMode = Literal["auto", "blind", "attended", "bridge"]
"""`blind`: the carrier connects the caller with the target. `attended`: the target answers us first, then the carrier
connects the two. `bridge`: through us, to the end. `auto`: blind, and through us where the carrier refuses."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Waits, in seconds."""

    ring_s: float = 25.0
    """How long the second leg rings: a little less than an agent waits for a transfer."""
    outcome_s: float = 60.0
    """How long the carrier may take to tell how a transfer went."""


DEFAULT_LIMITS = TransferLimits()


class Transfers:
    """The second leg of one call, and every way to hand its caller over. Verbs raise LegError (LegStateError where
    they don't fit the call's state)."""

    def __init__(self, call: CallParts, dial: Dial | None, limits: TransferLimits) -> None:
        """Without `dial` only the carrier can transfer."""
        music = CallerMusic(call.leg)
        self.line = AgentLine(call.leg, self.hand_over, self._stop_hand_over, music, can_dial=dial is not None)
        """The call's leg as its agent sees it."""
        self._call = call
        self._dial = dial
        self._music = music
        self._parties = Parties(call, self.line, music, dial, ring_s=limits.ring_s, over=self._second_over)
        self._outcome = TransferOutcome(call, self.line)
        self._ways = TransferWays(
            call,
            self.line,
            music,
            self._parties,
            self._outcome,
            voice=lambda: self._speak,
            outcome_s=limits.outcome_s,
        )
        self._speak: Speak | None = None
        """The agent's voice, for others than the caller."""
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._handing_over: asyncio.Task[None] | None = None

    @property
    def second(self) -> SecondLeg | None:
        return self._parties.second

    @property
    def joined(self) -> bool:
        """Caller and second party talk with each other."""
        return self._parties.joined

    async def settled(self) -> None:
        """Wait for the end of the transfer that is under way, if any."""
        await self._outcome.settled()

    # -- a second leg ---------------------------------------------------------------------------------------

    async def consult(
        self,
        target: str,
        *,
        caller: Meanwhile = "waits",
        headers: Sequence[tuple[str, str]] = (),
        ring_s: float | None = None,
    ) -> Leg:
        """Dial `target` as the second leg; returns it when it was answered. `caller` says what the caller does until
        they are joined. Raises SecondLegError with the reason; the caller is back with the agent by then."""
        apart = caller != "talks"
        second = await self._parties.reach(target, caller, agent_apart=apart, headers=headers, ring_s=ring_s)
        assert second.leg is not None
        return second.leg

    def begin_consult(self, target: str, *, caller: Meanwhile = "waits") -> None:
        """`consult` without waiting: the record tells what comes of it."""
        self._parties.must_be_able_to_reach()
        self._start(self._consult_quietly(target, caller), "consultation")

    def bridge(self, agent: AgentPart = "muted") -> None:
        """Join the caller with the second party, the agent's part in it as given."""
        second = self._parties.present()
        if agent != "left" and not self._call.agent_present():
            raise LegStateError("the agent has left the call")
        second.join(agent)
        if agent == "left":
            self._call.dismiss_agent()

    def unbridge(self) -> None:
        """Give the caller back to the agent; the second party waits."""
        second = self._parties.present()
        if not self._call.agent_present():
            raise LegStateError("the agent has left the call")
        second.wait("talks", agent_apart=False)

    async def release(self, cause: Cause = Cause.AGENT_HUNG_UP) -> None:
        """Let the second leg go: the caller is with the agent again."""
        await self._parties.present().release(cause)

    # -- the caller alone -----------------------------------------------------------------------------------

    async def hold(self, on: bool) -> None:
        """Let the caller wait with the hold tone, apart from the agent, its carrier told so; or take it back."""
        await self._parties.hold(on)

    def send_dtmf(self, digits: str) -> None:
        """Press keys at the caller's far end. Raises ValueError for what are no digits."""
        self._call.leg.send_dtmf(digits)
        self._call.note("keys-pressed", digits)

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set variables for who has the call after us."""
        self._call.must_be_up()
        leg = self._call.leg
        if Capability.VARIABLES not in leg.capabilities:
            raise NotCapableError(f"a call by {leg.info.kind} has no variables")
        shown = as_values(values)
        await leg.set_variables(shown)
        self._call.note("variables-set", ", ".join(f"{name}={value}" for name, value in shown.items()))

    # -- transfers ------------------------------------------------------------------------------------------

    async def transfer(self, target: str, mode: TransferMode = "auto") -> TransferResult:
        """Hand the caller over; returns the outcome, which is on record as well. After success the call ends, or its
        two parties talk on through us; after failure the caller is with the agent."""
        self._claim()
        try:
            return await self._transfer(target, mode, by_agent=False)
        finally:
            self._unclaim()

    def begin_transfer(self, target: str, mode: TransferMode = "auto", *, announce: str = "") -> None:
        """The same without waiting. With `announce` (mode `attended`) who answers is told that first, in the agent's
        voice, while the caller waits. Raises LegStateError while another one is under way, LegError where the agent
        has no voice for it."""
        introduction = None
        if announce:
            introduction = Introduction(announce)
            if self._speak is None or not self._call.agent_present():
                raise LegError("this call's agent has no voice to announce it with")
        self._begin(target, mode, introduction, by_agent=False)

    def lend_voice(self, speak: Speak | None) -> None:
        """See `Introductions`."""
        self._speak = speak

    async def hand_over(self, target: str, introduction: Introduction | None = None) -> None:
        """The agent transfers its caller: the way is ours to find, the outcome is told to the agent as an event, and
        after success it leaves. Raises LegError."""
        self._handing_over = self._begin(target, "auto", introduction, by_agent=True)

    def _stop_hand_over(self) -> None:
        """The agent waits no longer."""
        if self._handing_over is not None and not self.joined:
            self._handing_over.cancel()

    async def _transfer(self, target: str, mode: TransferMode, *, by_agent: bool) -> TransferResult:
        if mode == "attended":
            return await self._ways.attended(target)
        can_refer = Capability.TRANSFER in self._call.leg.capabilities
        if mode == "blind" or (mode == "auto" and can_refer):
            try:
                await self._call.leg.transfer(target)
            except TransferFailedError as error:
                hopeless = not isinstance(error, TransferRefusedError) or self._dial is None
                if mode == "blind" or hopeless:
                    return self._outcome.tell(TransferResult(error.status, str(error)))
                log.info("the carrier does no transfers: bridging", reason=str(error))
            except NotCapableError as error:
                if mode == "blind" or self._dial is None or not _can_be_called(target):
                    raise
                log.info("the carrier does not transfer to such a target: bridging", reason=str(error))
            else:
                return await self._ways.referred(target, ends=not by_agent)
        return await self._ways.bridged(target, by_agent=by_agent)

    # -- what comes in --------------------------------------------------------------------------------------

    def on_leg_event(self, event: LegEvent) -> None:
        """An event of the caller's leg, on record already."""
        self._outcome.tell_agent(event)
        self._parties.on_leg_event(event)
        self._outcome.on_leg_event(event)
        if isinstance(event, TransferAsked):
            self._start(self._follow(event), "transfer by the far party")

    async def _follow(self, asked: TransferAsked) -> None:
        """The far party asks us to call somebody in its place."""
        leg = self._call.leg
        if self._dial is None or self.second is not None:
            leg.refuse_transfer(603)
            return
        try:
            dialled = await self._dial(asked.target, leg, headers=asked.headers, timeout_s=self._limits.ring_s)
        except LegError as error:
            log.info("transfer refused", target=asked.target, reason=str(error))
            if leg.state is LegState.UP:
                leg.refuse_transfer(503)
            return
        try:
            leg.follow_transfer(dialled)
        except LegError as error:
            log.info("transfer came to nothing", target=asked.target, reason=str(error))
            await dialled.hangup(Cause.CANCELLED)

    def _second_over(self, second: SecondLeg, ended: LegEnded) -> None:
        if self._call.leg.state is LegState.ENDED:
            return
        if not self._call.agent_present():
            # An agent that left during a transfer: that goes on, and its failure is no end of a transferred call.
            if second.was_joined or not self._outcome.pending:
                self._call.end(Cause.TRANSFERRED, f"{second.target}: {ended.cause.value}")
        elif not self._outcome.pending:
            self.line.apart = False

    async def close(self, cause: Cause) -> None:
        """The call is over: so is everything here."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._parties.close(cause)
        self._music.close()
        self.line.close()

    # -- tasks ----------------------------------------------------------------------------------------------

    def _begin(
        self, target: str, mode: TransferMode, introduction: Introduction | None, *, by_agent: bool
    ) -> asyncio.Task[None]:
        self._claim()
        task = self._start(self._quietly(target, mode, introduction, by_agent=by_agent), "transfer")
        task.add_done_callback(lambda _: self._unclaim())
        return task

    def _claim(self) -> None:
        self._call.must_be_up()
        self._outcome.begin()

    def _unclaim(self) -> None:
        self._outcome.end()
        # The second leg may have ended before the outcome was known.
        self._parties.rejoin_agent()

    async def _quietly(
        self, target: str, mode: TransferMode, introduction: Introduction | None, *, by_agent: bool
    ) -> None:
        try:
            if introduction is not None:
                await self._ways.introduced(target, introduction, by_agent=by_agent)
            else:
                await self._transfer(target, mode, by_agent=by_agent)
        except LegError as error:
            status = 501 if isinstance(error, NotCapableError) else 500
            self._outcome.tell(TransferResult(status, str(error)))

    async def _consult_quietly(self, target: str, caller: Meanwhile) -> None:
        try:
            await self.consult(target, caller=caller)
        except LegError as error:
            log.info("consultation failed", target=target, reason=str(error))

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"{what} of {self._call.leg.info.id}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a transfer crashed", task=task.get_name(), exc_info=error)


def _can_be_called(target: str) -> bool:
    """Whether somebody could answer there: in a queue, or at a place of a dialplan, nobody does."""
    try:
        return not isinstance(parse_target(target), QueueTarget | DialplanTarget)
    except TargetError:
        return True
