"""How each way of handing a caller over goes: by the carrier, through us, or once somebody was told about it."""

from collections.abc import Callable

import structlog

from bridge.agent_line import AgentLine
from bridge.agents.base import Introduction, Speak
from bridge.caller_music import CallerMusic
from bridge.events import Cause, Note, TransferResult
from bridge.introduction import LEFT, introduce
from bridge.legs.base import (
    Capability,
    LegError,
    LegState,
    NotCapableError,
    TransferFailedError,
    TransferRefusedError,
)
from bridge.parties import CallParts, Parties
from bridge.second_leg import SecondLeg, SecondLegError
from bridge.transfer_outcome import NO_OUTCOME, TransferOutcome, went_well

log = structlog.get_logger(__name__)


class TransferWays:
    """Of one call. Each returns the outcome, which is told by then; they raise LegError where they could not be
    tried."""

    def __init__(
        self,
        call: CallParts,
        line: AgentLine,
        music: CallerMusic,
        parties: Parties,
        outcome: TransferOutcome,
        *,
        voice: Callable[[], Speak | None],
        outcome_s: float,
    ) -> None:
        """`voice` is the agent's at present, for others than the caller. The carrier may take `outcome_s` to tell how
        a transfer went."""
        self._call = call
        self._line = line
        self._music = music
        self._parties = parties
        self._outcome = outcome
        self._voice = voice
        self._outcome_s = outcome_s

    async def referred(self, target: str, *, ends: bool) -> TransferResult:
        """The carrier took our request: wait for what comes of it. After success the call ends, if it is to."""
        result = await self._carriers_outcome(target, ends=ends)
        return self._outcome.tell(NO_OUTCOME) if result is NO_OUTCOME else result

    async def attended(self, target: str) -> TransferResult:
        """The target answers us, then the carrier connects the two; where it can't, we do."""
        leg = self._call.leg
        second = self._parties.consulted(target)
        try:
            if second is None:
                second = await self._parties.reach(target, "rings", agent_apart=True)
        except SecondLegError as error:
            return self._outcome.tell(TransferResult(error.status, str(error)))
        assert second.leg is not None
        await self._wait_for_carrier(second)
        try:
            await leg.transfer(second.target, replacing=second.leg)
        except (TransferRefusedError, NotCapableError) as error:
            log.info("the carrier does no transfers: bridging", reason=str(error))
            return self._join_and_leave()
        except LegError as error:
            status = error.status if isinstance(error, TransferFailedError) else 500
            result = self._outcome.tell(TransferResult(status, str(error)))
        else:
            result = await self.referred(second.target, ends=True)
        if not went_well(result) and second.up:
            second.wait("talks", agent_apart=False)
        return result

    async def bridged(self, target: str, *, by_agent: bool) -> TransferResult:
        """Through us, to the end."""
        try:
            if self._parties.consulted(target) is None:
                await self._parties.reach(target, "rings", agent_apart=not by_agent)
        except SecondLegError as error:
            return self._outcome.tell(TransferResult(error.status, str(error)))
        return self._join_and_leave(dismiss=not by_agent)

    async def introduced(self, target: str, introduction: Introduction, *, by_agent: bool) -> TransferResult:
        """Whoever answers is told about the caller, who waits; then the two are connected."""
        try:
            second = self._parties.consulted(target)
            if second is None:
                second = await self._parties.reach(target, "waits", agent_apart=True)
        except SecondLegError as error:
            return await self._back(TransferResult(error.status, str(error)))
        with self._outcome.kept():
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

    async def _told(self, second: SecondLeg, introduction: Introduction) -> TransferResult | None:
        """None: they take the call."""
        assert second.leg is not None
        speak = self._voice()
        if speak is None:
            self._note("announcement-failed", "the agent has no voice for others")
            return None
        self._note("announced", introduction.text)
        return await introduce(second.leg, introduction, speak, lambda why: self._note("announcement-failed", why))

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
                if went_well(result) or leg.state is LegState.ENDED:
                    # An agent that leaves is not told to wait: it has its last things to do.
                    self._line.apart = False
                    self._outcome.tell_kept()
                    return result
                log.info("the carrier did not join the two: bridging", status=result.status, reason=result.reason)
        return self._join_and_leave(dismiss=dismiss) if second.up else await self._back(LEFT)

    async def _carriers_outcome(self, target: str, *, ends: bool) -> TransferResult:
        result = await self._outcome.of_carrier(self._outcome_s)
        if went_well(result) and (ends or not self._call.agent_present()):
            self._call.end(Cause.TRANSFERRED, target)
        return result

    async def _wait_for_carrier(self, second: SecondLeg) -> None:
        """Both wait for the carrier to join them, and without its music, which would go on when they talk."""
        second.wait("waits", agent_apart=True)
        self._music.want("waiting", False)
        await self._music.settled()

    async def _back(self, result: TransferResult) -> TransferResult:
        """Nobody takes the caller, who is to hear the agent and no music when it is told."""
        await self._music.settled()
        return self._outcome.tell(result)

    def _join_and_leave(self, *, dismiss: bool = True) -> TransferResult:
        """Caller and second party go on through us, without the agent."""
        self._parties.present().join("left")
        if dismiss:
            self._call.dismiss_agent()
        return self._outcome.tell(TransferResult(200, "bridged"))

    def _note(self, name: str, detail: str) -> None:
        self._call.tell(Note(name, detail, self._call.at_ms()))
