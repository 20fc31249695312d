"""How a call's caller gets to somebody else: by the carrier (REFER), or through us by a second leg."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from bridge.agent_line import AgentLine
from bridge.bridging import WAITING, Junction
from bridge.events import (
    AgentPart,
    CallEvent,
    Cause,
    FarPartyChanged,
    LegEnded,
    LegEvent,
    TransferAsked,
    TransferResult,
)
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
from bridge.second_leg import Dial, Meanwhile, SecondLeg, SecondLegError

log = structlog.get_logger(__name__)

TransferMode = Literal["auto", "blind", "attended", "bridge"]
"""`blind`: the carrier connects the caller with the target. `attended`: the target answers us first, then the carrier
connects the two. `bridge`: through us, to the end. `auto`: blind, and through us where the carrier refuses."""

NO_OUTCOME = TransferResult(408, "the carrier did not tell how the transfer went")


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Waits, in seconds."""

    ring_s: float = 25.0
    """How long the second leg rings: a little less than an agent waits for a transfer."""
    outcome_s: float = 60.0
    """How long the carrier may take to tell how a transfer went."""


DEFAULT_LIMITS = TransferLimits()


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


class Transfers:
    """The second leg of one call, and every way to hand its caller over. Verbs raise LegError (LegStateError where
    they don't fit the call's state)."""

    def __init__(self, call: CallParts, dial: Dial | None, limits: TransferLimits) -> None:
        """Without `dial` only the carrier can transfer."""
        self.second: SecondLeg | None = None
        self.line = AgentLine(call.leg, self.hand_over, self._stop_hand_over, can_dial=dial is not None)
        """The call's leg as its agent sees it."""
        self._call = call
        self._dial = dial
        self._waiting: Junction | None = None
        """The caller is on hold by us."""
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._handing_over: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[TransferResult] | None = None
        self._free = asyncio.Event()
        """No transfer is under way."""
        self._free.set()

    @property
    def joined(self) -> bool:
        """Caller and second party talk with each other."""
        return self.second is not None and self.second.agent_part is not None

    async def settled(self) -> None:
        """Wait for the end of the transfer that is under way, if any."""
        await self._free.wait()

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
        second = await self._reach(target, caller, agent_apart=caller != "talks", headers=headers, ring_s=ring_s)
        assert second.leg is not None
        return second.leg

    def bridge(self, agent: AgentPart = "muted") -> None:
        """Join the caller with the second party, the agent's part in it as given."""
        second = self._present_second()
        if agent != "left" and not self._call.agent_present():
            raise LegStateError("the agent has left the call")
        second.join(agent)
        if agent == "left":
            self._call.dismiss_agent()

    def unbridge(self) -> None:
        """Give the caller back to the agent; the second party waits."""
        second = self._present_second()
        if not self._call.agent_present():
            raise LegStateError("the agent has left the call")
        second.wait("talks", agent_apart=False)

    async def release(self, cause: Cause = Cause.AGENT_HUNG_UP) -> None:
        """Let the second leg go: the caller is with the agent again."""
        await self._present_second().release(cause)

    # -- the caller alone -----------------------------------------------------------------------------------

    async def hold(self, on: bool) -> None:
        """Let the caller wait with the hold tone, apart from the agent, its carrier told so; or take it back."""
        self._must_be_up()
        if on == (self._waiting is not None):
            return
        if on:
            if self.second is not None:
                raise LegStateError("the call has a second leg: it has a place to wait")
            self._waiting = Junction(self._call.leg)
            self._waiting.routing = WAITING
            self.line.ear = self._waiting.agent_hears
            self.line.apart = True
        try:
            await self._call.leg.hold(on)
        except LegError:
            if on:
                self._take_back()
            raise
        if not on:
            self._take_back()

    def _take_back(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
            self.line.ear = None
            self.line.apart = False

    def send_dtmf(self, digits: str) -> None:
        """Press keys at the caller's far end. Raises ValueError for what are no digits."""
        self._call.leg.send_dtmf(digits)

    # -- transfers ------------------------------------------------------------------------------------------

    async def transfer(self, target: str, mode: TransferMode = "auto") -> TransferResult:
        """Hand the caller over; returns the outcome, which is on record as well. After success the call ends, or its
        two parties talk on through us; after failure the caller is with the agent."""
        self._claim()
        try:
            return await self._transfer(target, mode, by_agent=False)
        finally:
            self._unclaim()

    def begin_transfer(self, target: str, mode: TransferMode = "auto") -> None:
        """The same without waiting. Raises LegStateError while another one is under way."""
        self._begin(target, mode, by_agent=False)

    def begin_consult(self, target: str, *, caller: Meanwhile = "waits") -> None:
        """`consult` without waiting: the record tells what comes of it."""
        self._must_be_able_to_reach()
        self._start(self._consult_quietly(target, caller), "consultation")

    async def hand_over(self, target: str) -> None:
        """The agent transfers its caller: the way is ours to find, the outcome is told to the agent as an event, and
        after success it leaves."""
        self._handing_over = self._begin(target, "auto", by_agent=True)

    def _stop_hand_over(self) -> None:
        """The agent waits no longer."""
        if self._handing_over is not None and not self.joined:
            self._handing_over.cancel()

    def _begin(self, target: str, mode: TransferMode, *, by_agent: bool) -> asyncio.Task[None]:
        self._claim()
        task = self._start(self._quietly(target, mode, by_agent=by_agent), "transfer")
        task.add_done_callback(lambda _: self._unclaim())
        return task

    async def _quietly(self, target: str, mode: TransferMode, *, by_agent: bool) -> None:
        try:
            await self._transfer(target, mode, by_agent=by_agent)
        except LegError as error:
            self._tell_result(TransferResult(500, str(error)))

    async def _consult_quietly(self, target: str, caller: Meanwhile) -> None:
        try:
            await self.consult(target, caller=caller)
        except LegError as error:
            log.info("consultation failed", target=target, reason=str(error))

    async def _transfer(self, target: str, mode: TransferMode, *, by_agent: bool) -> TransferResult:
        if mode == "attended":
            return await self._attended(target)
        can_refer = Capability.TRANSFER in self._call.leg.capabilities
        if mode == "blind" or (mode == "auto" and can_refer):
            try:
                await self._call.leg.transfer(target)
            except TransferFailedError as error:
                hopeless = not isinstance(error, TransferRefusedError) or self._dial is None
                if mode == "blind" or hopeless:
                    return self._tell_result(TransferResult(error.status, str(error)))
                log.info("the carrier does no transfers: bridging", reason=str(error))
            else:
                return await self._referred(target, ends=not by_agent)
        return await self._bridged(target, by_agent=by_agent)

    async def _referred(self, target: str, *, ends: bool) -> TransferResult:
        """The carrier took our request."""
        assert self._outcome is not None
        try:
            async with asyncio.timeout(self._limits.outcome_s):
                result = await self._outcome
        except TimeoutError:
            self._call.leg.stop_transfer()
            return self._tell_result(NO_OUTCOME)
        if 200 <= result.status < 300 and (ends or not self._call.agent_present()):
            self._call.end(Cause.TRANSFERRED, target)
        return result

    async def _attended(self, target: str) -> TransferResult:
        leg = self._call.leg
        second = self._consulted(target)
        try:
            if second is None:
                second = await self._reach(target, "rings", agent_apart=True)
        except SecondLegError as error:
            return self._tell_result(TransferResult(error.status, str(error)))
        assert second.leg is not None
        second.wait("waits", agent_apart=True)
        try:
            await leg.transfer(second.target, replacing=second.leg)
        except (TransferRefusedError, NotCapableError) as error:
            log.info("the carrier does no transfers: bridging", reason=str(error))
            return self._join_and_leave()
        except LegError as error:
            status = error.status if isinstance(error, TransferFailedError) else 500
            result = self._tell_result(TransferResult(status, str(error)))
        else:
            result = await self._referred(second.target, ends=True)
        if not 200 <= result.status < 300 and second.up:
            second.wait("talks", agent_apart=False)
        return result

    async def _bridged(self, target: str, *, by_agent: bool) -> TransferResult:
        try:
            if self._consulted(target) is None:
                await self._reach(target, "rings", agent_apart=not by_agent)
        except SecondLegError as error:
            return self._tell_result(TransferResult(error.status, str(error)))
        return self._join_and_leave(dismiss=not by_agent)

    def _consulted(self, target: str) -> SecondLeg | None:
        """The second leg, if it is up. Raises LegStateError where it is another than `target` ("": whoever it is)."""
        second = self.second
        if second is None or not second.up:
            return None
        if target not in ("", second.target):
            raise LegStateError(f"the call has a second leg already, to {second.target}")
        return second

    def _join_and_leave(self, *, dismiss: bool = True) -> TransferResult:
        """Caller and second party go on through us, without the agent."""
        second = self._present_second()
        second.join("left")
        if dismiss:
            self._call.dismiss_agent()
        return self._tell_result(TransferResult(200, "bridged"))

    # -- what comes in --------------------------------------------------------------------------------------

    def on_leg_event(self, event: LegEvent) -> None:
        """An event of the caller's leg, on record already."""
        self.line.tell(event)
        if self.second is not None:
            self.second.caller_event(event)
        match event:
            case TransferResult() if self._outcome is not None and not self._outcome.done():
                self._outcome.set_result(event)
            case TransferResult(status=status) if self._outcome is None and 200 <= status < 300:
                # Nobody waited any longer, but the caller is with somebody else.
                self._call.end(Cause.TRANSFERRED, "the carrier told so late")
            case LegEnded() if self._outcome is not None and not self._outcome.done():
                self._outcome.set_result(TransferResult(487, f"the call ended: {event.cause.value}"))
            case FarPartyChanged():
                # Nobody holds the new one.
                self._take_back()
            case TransferAsked():
                self._start(self._follow(event), "transfer by the far party")
            case _:
                pass

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

    async def close(self, cause: Cause) -> None:
        """The call is over: so is everything here."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.second is not None:
            await self.second.release(cause)
        self._take_back()
        self.line.close()

    # -- inside ---------------------------------------------------------------------------------------------

    async def _reach(
        self,
        target: str,
        meanwhile: Meanwhile,
        *,
        agent_apart: bool,
        headers: Sequence[tuple[str, str]] = (),
        ring_s: float | None = None,
    ) -> SecondLeg:
        dial = self._must_be_able_to_reach()
        call = self._call
        second = SecondLeg(target, call.leg, self.line, call.tell, call.at_ms, self._second_over)
        self.second = second
        await second.reach(
            dial,
            meanwhile=meanwhile,
            agent_apart=agent_apart,
            headers=headers,
            ring_s=self._limits.ring_s if ring_s is None else ring_s,
        )
        return second

    def _second_over(self, second: SecondLeg, ended: LegEnded) -> None:
        self.second = None
        if self._call.leg.state is LegState.ENDED:
            return
        if not self._call.agent_present():
            # An agent that left during a transfer: that goes on, and its failure is no end of a transferred call.
            if second.was_joined or self._outcome is None:
                self._call.end(Cause.TRANSFERRED, f"{second.target}: {ended.cause.value}")
        elif self._outcome is None:
            self.line.apart = False

    def _tell_result(self, result: TransferResult) -> TransferResult:
        """What the carrier's leg did not tell itself."""
        self._call.tell(result)
        self.line.tell(result)
        return result

    def _present_second(self) -> SecondLeg:
        if self.second is None:
            raise LegStateError("the call has no second leg")
        return self.second

    def _must_be_able_to_reach(self) -> Dial:
        if self._dial is None:
            raise LegError("this call can dial nobody")
        self._must_be_up()
        if self.second is not None:
            raise LegStateError("the call has a second leg already")
        if self._waiting is not None:
            raise LegStateError("the caller is on hold")
        return self._dial

    def _must_be_up(self) -> None:
        if self._call.leg.state is not LegState.UP:
            raise LegStateError("the call is not up")

    def _claim(self) -> None:
        self._must_be_up()
        if self._outcome is not None:
            raise LegStateError("another transfer is under way")
        self._outcome = asyncio.get_running_loop().create_future()
        self._free.clear()

    def _unclaim(self) -> None:
        self._outcome = None
        self._free.set()
        if self.second is None and self._waiting is None:
            # The second leg may have ended before the outcome was known.
            self.line.apart = False

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"{what} of {self._call.leg.info.id}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a transfer crashed", task=task.get_name(), exc_info=error)
