"""How a call's caller gets to somebody else: by the carrier (REFER, its dialplan), or through us by a second leg."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from bridge.agent_line import AgentLine
from bridge.agents.base import Introduction, Speak
from bridge.bridging import WAITING, Junction
from bridge.caller_music import CallerMusic
from bridge.events import (
    AgentPart,
    CallEvent,
    Cause,
    FarPartyChanged,
    LegEnded,
    LegEvent,
    Note,
    TransferAsked,
    TransferResult,
)
from bridge.introduction import LEFT, introduce
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
from bridge.targets import DialplanTarget, QueueTarget, TargetError, parse_target
from bridge.variables import as_values

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
        self._music = CallerMusic(call.leg)
        self.line = AgentLine(call.leg, self.hand_over, self._stop_hand_over, self._music, can_dial=dial is not None)
        """The call's leg as its agent sees it."""
        self._call = call
        self._dial = dial
        self._waiting: Junction | None = None
        """The caller is on hold by us."""
        self._speak: Speak | None = None
        """The agent's voice, for others than the caller."""
        self._keep_outcome = False
        """What the carrier tells of a transfer is not the whole outcome: the agent is told that later."""
        self._kept: TransferResult | None = None
        """What it told."""
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

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set variables for who has the call after us."""
        self._must_be_up()
        leg = self._call.leg
        if Capability.VARIABLES not in leg.capabilities:
            raise NotCapableError(f"a call by {leg.info.kind} has no variables")
        await leg.set_variables(as_values(values))

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

    def begin_consult(self, target: str, *, caller: Meanwhile = "waits") -> None:
        """`consult` without waiting: the record tells what comes of it."""
        self._must_be_able_to_reach()
        self._start(self._consult_quietly(target, caller), "consultation")

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

    def _begin(
        self, target: str, mode: TransferMode, introduction: Introduction | None, *, by_agent: bool
    ) -> asyncio.Task[None]:
        self._claim()
        task = self._start(self._quietly(target, mode, introduction, by_agent=by_agent), "transfer")
        task.add_done_callback(lambda _: self._unclaim())
        return task

    async def _quietly(
        self, target: str, mode: TransferMode, introduction: Introduction | None, *, by_agent: bool
    ) -> None:
        try:
            if introduction is not None:
                await self._introduced(target, introduction, by_agent=by_agent)
            else:
                await self._transfer(target, mode, by_agent=by_agent)
        except LegError as error:
            status = 501 if isinstance(error, NotCapableError) else 500
            self._tell_result(TransferResult(status, str(error)))

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
            except NotCapableError as error:
                if mode == "blind" or self._dial is None or not _can_be_called(target):
                    raise
                log.info("the carrier does not transfer to such a target: bridging", reason=str(error))
            else:
                return await self._referred(target, ends=not by_agent)
        return await self._bridged(target, by_agent=by_agent)

    async def _referred(self, target: str, *, ends: bool) -> TransferResult:
        """The carrier took our request."""
        result = await self._carriers_outcome(target, ends=ends)
        return self._tell_result(NO_OUTCOME) if result is NO_OUTCOME else result

    async def _carriers_outcome(self, target: str, *, ends: bool) -> TransferResult:
        """What came of our request, as the carrier told, or did not. After success the call ends, if it is to."""
        assert self._outcome is not None
        try:
            async with asyncio.timeout(self._limits.outcome_s):
                result = await self._outcome
        except TimeoutError:
            self._call.leg.stop_transfer()
            return NO_OUTCOME
        if _went_well(result) and (ends or not self._call.agent_present()):
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
        await self._wait_for_carrier(second)
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
        if not _went_well(result) and second.up:
            second.wait("talks", agent_apart=False)
        return result

    async def _bridged(self, target: str, *, by_agent: bool) -> TransferResult:
        try:
            if self._consulted(target) is None:
                await self._reach(target, "rings", agent_apart=not by_agent)
        except SecondLegError as error:
            return self._tell_result(TransferResult(error.status, str(error)))
        return self._join_and_leave(dismiss=not by_agent)

    async def _introduced(self, target: str, introduction: Introduction, *, by_agent: bool) -> TransferResult:
        """Whoever answers is told about the caller, who waits; then the two are connected."""
        try:
            second = self._consulted(target)
            if second is None:
                second = await self._reach(target, "waits", agent_apart=True)
        except SecondLegError as error:
            return await self._back(TransferResult(error.status, str(error)))
        self._keep_outcome = True
        try:
            second.tell()
            declined = await self._told(second, introduction)
            if declined is None:
                return await self._connect(second, dismiss=not by_agent)
            await second.release(Cause.AGENT_HUNG_UP)
            return await self._back(declined)
        except BaseException:
            # Given up, or broken: nobody else would let them go.
            await second.release(Cause.CANCELLED)
            raise
        finally:
            self._keep_outcome = False

    async def _told(self, second: SecondLeg, introduction: Introduction) -> TransferResult | None:
        assert second.leg is not None
        if self._speak is None:
            self._note("announcement-failed", "the agent has no voice for others")
            return None
        self._note("announced", introduction.text)
        return await introduce(
            second.leg, introduction, self._speak, lambda why: self._note("announcement-failed", why)
        )

    async def _connect(self, second: SecondLeg, *, dismiss: bool) -> TransferResult:
        """They are told and want the caller: by the carrier where it joins the two, else through us."""
        leg = self._call.leg
        await self._wait_for_carrier(second)
        if Capability.TRANSFER_REPLACING in leg.capabilities:
            assert second.leg is not None
            try:
                await leg.transfer(second.target, replacing=second.leg)
            except LegError as error:
                if leg.state is LegState.ENDED:
                    raise
                log.info("the carrier does not join the two: bridging", reason=str(error))
            else:
                result = await self._carriers_outcome(second.target, ends=dismiss)
                if _went_well(result) or leg.state is LegState.ENDED:
                    # An agent that leaves is not told to wait: it has its last things to do.
                    self.line.apart = False
                    self._tell_kept()
                    return result
                log.info("the carrier did not join the two: bridging", status=result.status, reason=result.reason)
        return self._join_and_leave(dismiss=dismiss) if second.up else await self._back(LEFT)

    async def _wait_for_carrier(self, second: SecondLeg) -> None:
        """Both wait for the carrier to join them, and without its music, which would go on when they talk."""
        second.wait("waits", agent_apart=True)
        self._music.want("waiting", False)
        await self._music.settled()

    async def _back(self, result: TransferResult) -> TransferResult:
        """Nobody takes the caller, who is to hear the agent and no music when it is told."""
        await self._music.settled()
        return self._tell_result(result)

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
        if self._keep_outcome and isinstance(event, TransferResult):
            self._kept = event
        else:
            if isinstance(event, LegEnded):
                # A carrier that joins two calls ends both at once: the agent is to know why.
                self._tell_kept()
            self.line.tell(event)
        if self.second is not None:
            self.second.caller_event(event)
        match event:
            case TransferResult() if self._outcome is not None and not self._outcome.done():
                self._outcome.set_result(event)
            case TransferResult() if self._outcome is None and _went_well(event):
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
        self._music.close()
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
        second = SecondLeg(target, call.leg, self.line, call.tell, call.at_ms, self._second_over, self._music)
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

    def _tell_kept(self) -> None:
        """The carrier has done it: the agent may know."""
        kept, self._kept = self._kept, None
        if kept is not None and _went_well(kept):
            self.line.tell(kept)

    def _tell_result(self, result: TransferResult) -> TransferResult:
        """What the carrier's leg did not tell itself."""
        self._call.tell(result)
        self.line.tell(result)
        return result

    def _note(self, name: str, detail: str) -> None:
        self._call.tell(Note(name, detail, self._call.at_ms()))

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


def _went_well(result: TransferResult) -> bool:
    return 200 <= result.status < 300


def _can_be_called(target: str) -> bool:
    """Whether somebody could answer there: in a queue, or at a place of a dialplan, nobody does."""
    try:
        return not isinstance(parse_target(target), QueueTarget | DialplanTarget)
    except TargetError:
        return True
