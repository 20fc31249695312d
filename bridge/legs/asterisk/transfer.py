"""Handing an Asterisk call over: on in the dialplan, by REFER, or two channels of the same Asterisk joined."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from bridge.asterisk.ari_errors import AriError, AriRefusedError
from bridge.asterisk.ari_wire import segment
from bridge.asterisk.permits import permits, refusal
from bridge.events import Cause, LegEnded, TransferResult
from bridge.legs.asterisk.release import Place, outcome_variables, set_all
from bridge.legs.base import Leg, LegError, LegState, LegStateError, TransferFailedError, TransferRefusedError
from bridge.targets import (
    DialplanTarget,
    EndpointTarget,
    NumberTarget,
    QueueTarget,
    SipTarget,
    TargetError,
    parse_target,
)
from bridge.variables import as_value

if TYPE_CHECKING:
    from bridge.legs.asterisk.leg import AsteriskLeg

log = structlog.get_logger(__name__)

REFERRING = frozenset({"PJSIP", "SIP"})
"""Channel technologies whose far end can be asked to call somebody else."""

REFER_S = 90.0
"""How long the far end may ring its new party until Asterisk is asked no more how that went."""
LEAVING_S = 2.0
"""A far end that has been connected with its new party hangs up on us within this."""
TRIED_S = 3.0
"""A REFER that failed after more than this was taken, and the target tried in vain; before, it was refused."""


class Transfers:
    """The transfers of one leg, at most one at a time."""

    def __init__(self, leg: "AsteriskLeg") -> None:
        self.leaving = False
        """The channel leaves the application by our wish."""
        self.referring = False
        """The far end was asked to call somebody else: if it hangs up now, it has done so."""
        self._leg = leg
        self._busy = False

    async def transfer(self, target: str, replacing: Leg | None) -> None:
        """See `Leg.transfer`. When it returns the leg has ended, its outcome told. If nobody waits for it any more it
        goes on all the same, so that the channel is not left where no bridge is."""
        if self._busy:
            raise LegError("another transfer is under way")
        self._busy = True
        outcome: asyncio.Future[LegError | None] = asyncio.get_running_loop().create_future()
        work = self._carry_out(target, replacing, outcome)
        self._leg.side.spawn(work, f"transfer of {self._leg.channel_id}")
        if (failure := await outcome) is not None:
            raise failure

    async def _carry_out(
        self, target: str, replacing: Leg | None, outcome: "asyncio.Future[LegError | None]"
    ) -> None:
        failure: LegError | None = LegError("the transfer broke off")
        try:
            if replacing is not None:
                await self._join(target, replacing)
            else:
                await self._hand_over(target)
            failure = None
        except LegError as error:
            failure = error
        finally:
            self._busy = False
            if not outcome.done():
                outcome.set_result(failure)

    async def _hand_over(self, target: str) -> None:
        settings = self._leg.side.settings
        try:
            parsed = parse_target(target)
        except TargetError as error:
            raise TransferFailedError(str(error), 400) from error
        if not permits(settings.dial, parsed):
            raise TransferFailedError(refusal(settings.name, target), 403)
        match parsed:
            case NumberTarget(number=number):
                await self._continue(target, Place(settings.transfer_context, number))
            case QueueTarget(name=name):
                # Asterisks without app_queue can't say, and then the context decides.
                if await self._read(f"QUEUE_EXISTS({name})") == "0":
                    raise TransferFailedError(f"Asterisk {settings.name!r} has no queue {name!r}", 404)
                await self._continue(target, Place(settings.queue_context, name))
            case DialplanTarget(context=context, extension=extension, priority=priority):
                number_ = int(priority) if priority.isdigit() else None
                label = None if priority.isdigit() else priority
                await self._continue(target, Place(context, extension, number_, label))
            case EndpointTarget(technology=technology):
                if technology != self._leg.technology:
                    by = self._leg.technology
                    raise TransferRefusedError(f"a caller by {by} can't be sent to {target}: join the two", 501)
                await self._refer(target, str(parsed))
            case SipTarget(uri=uri):
                technology = self._leg.technology
                await self._refer(target, f"{technology}/{uri if technology == 'PJSIP' else uri.partition(':')[2]}")

    # -- in the dialplan ------------------------------------------------------------------------------------

    async def _continue(self, target: str, place: Place) -> None:
        leg, ari = self._leg, self._leg.side.ari
        where = f"{place.context},{place.extension},{place.label or place.priority}"
        # A channel that goes on at a place that does not exist is hung up.
        found = await self._read(f"DIALPLAN_EXISTS({where})")
        if found is None:
            raise TransferFailedError(
                f"whether {where} exists can't be told without func_dialplan.so in Asterisk", 500
            )
        if found != "1":
            raise TransferFailedError(f"Asterisk's dialplan has no {where}", 404)
        said = outcome_variables("TRANSFER", Cause.TRANSFERRED, "")
        said["OFFHOOK_TARGET"] = as_value(target)
        self.leaving = True
        try:
            await leg.waiting.stop(leg.channel_id)
            await set_all(ari, leg.channel_id, {**said, **await leg.dead_man.lift()})
            await ari.continue_in_dialplan(
                leg.channel_id,
                context=place.context,
                extension=place.extension,
                priority=place.priority,
                label=place.label,
            )
        except AriError as error:
            self.leaving = False
            if leg.state is LegState.UP:
                # Else it is being given back, with the dialplan's own limit.
                leg.dead_man.resume()
            raise await self._failure(error) from error
        self._gone(target, f"went on at {where}")

    async def _read(self, function: str) -> str | None:
        """What a function of the dialplan gives; None where Asterisk does not have it."""
        try:
            return await self._leg.side.ari.get_variable(self._leg.channel_id, function)
        except AriRefusedError as error:
            if await self._leg.is_gone():
                raise LegStateError("the call has ended") from error
            log.debug("function of the dialplan not read", function=function, error=str(error))
            return None
        except AriError as error:
            raise LegError(str(error)) from error

    # -- by REFER -------------------------------------------------------------------------------------------

    async def _refer(self, target: str, endpoint: str) -> None:
        """Asterisk tells nothing of what becomes of a REFER. But its thread of the channel waits for it, and for as
        long carries out nothing else that was asked of the channel: the answer to a request says that it is over. If
        it went well the far end hangs up."""
        leg = self._leg
        if leg.technology not in REFERRING:
            raise TransferRefusedError(f"a caller by {leg.technology} can't be asked to call somebody else", 501)
        ari, channel = leg.side.ari, leg.channel_id
        begun = leg.side.now()
        try:
            await leg.waiting.stop(leg.channel_id)
            await leg.dead_man.wait(REFER_S + LEAVING_S)
            # In a bridge the channel's thread would never see the end of a REFER that was refused, and wait for ever.
            await leg.line.part(channel)
            leg.waiting.set_apart(True)
            self.referring = True
            try:
                await ari.redirect(channel, endpoint)
                await self._refer_is_over()
                took_s = leg.side.now() - begun
            finally:
                await self._bring_back(leg)
                leg.waiting.set_apart(False)
            if await leg.ended_within(LEAVING_S):
                return
        except AriError as error:
            failure = await self._failure(error)
            if leg.state is LegState.ENDED and self.referring:
                # Told already, as it is when the far end hangs up.
                return
            raise failure from error
        finally:
            self.referring = False
        kind = TransferFailedError if took_s > TRIED_S else TransferRefusedError
        raise kind(f"the far end did not get through to {target}", 480)

    async def _refer_is_over(self) -> None:
        """Returns when the channel's thread is through with it, or the leg has ended. Raises AriError."""
        leg = self._leg
        path = f"channels/{segment(leg.channel_id)}/answer"
        asked = asyncio.ensure_future(leg.side.ari.request("POST", path, timeout_s=REFER_S, over_http=True))
        ended = asyncio.ensure_future(leg.ended_within(REFER_S))
        try:
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            if leg.state is not LegState.ENDED:
                await asked
        finally:
            asked.cancel()
            ended.cancel()

    # -- with another channel -------------------------------------------------------------------------------

    async def _join(self, target: str, replacing: Leg) -> None:
        leg = self._leg
        # A leg's own type alone knows its channel.
        if not isinstance(replacing, type(leg)) or replacing.side is not leg.side:
            raise TransferRefusedError("the two parties are not on the same Asterisk", 501)
        if replacing.state is not LegState.UP:
            raise _left()
        try:
            await leg.waiting.stop(leg.channel_id)
            await replacing.waiting.stop(replacing.channel_id)
            # Who talk with each other are to do so whatever becomes of us.
            for one in (leg, replacing):
                await set_all(leg.side.ari, one.channel_id, await one.dead_man.lift())
            await leg.side.join(leg, replacing)
        except AriError as error:
            await self._bring_back(leg, replacing)
            raise await self._failure(error) from error
        if not (leg.state is replacing.state is LegState.UP):
            # One of them left while they were brought together. First this: what else comes of its channel must not
            # send the other one away.
            leg.side.part(leg)
            await self._bring_back(leg, replacing)
            raise LegStateError("the call has ended") if leg.state is LegState.ENDED else _left()
        replacing.end(LegEnded(Cause.TRANSFERRED, "the two parties talk without us"))
        self._gone(target, "the two parties talk without us")

    # -- inside ---------------------------------------------------------------------------------------------

    async def _bring_back(self, *legs: "AsteriskLeg") -> None:
        """Into the bridges of their own, in which they may be still. One that has ended is none of our business."""
        for leg in legs:
            if leg.state is LegState.UP:
                try:
                    await leg.line.join(leg.channel_id)
                except AriError as error:
                    log.warning("not brought back to its bridge", channel=leg.channel_id, error=str(error))
                leg.dead_man.resume()

    def _gone(self, target: str, how: str) -> None:
        self._leg.tell(TransferResult(200, how))
        self._leg.end(LegEnded(Cause.TRANSFERRED, target))

    async def _failure(self, error: AriError) -> LegError:
        if isinstance(error, AriRefusedError) and await self._leg.is_gone():
            return LegStateError("the call has ended")
        if isinstance(error, AriRefusedError):
            return TransferFailedError(f"Asterisk refused: {error}", 500)
        return TransferFailedError(str(error), 503)


def _left() -> TransferFailedError:
    return TransferFailedError("the second party has hung up", 480)
