"""Changes of a SIP leg's session while there is one: re-INVITE and UPDATE, both ways (RFC 3261 14, RFC 3311)."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from bridge.legs.base import LegError, LegState, PeerTimeoutError
from bridge.legs.sip_media import SipMedia
from bridge.sip import events as sip
from bridge.sip.errors import SdpError, SipError

if TYPE_CHECKING:
    from bridge.legs.sip import SipLeg

log = structlog.get_logger(__name__)

NO_ANSWER = 408
"""Also what the user agent says where nothing came."""


class SipReoffers:
    """At most one change of ours at a time; glare (491) is the user agent's to repeat."""

    def __init__(self, leg: "SipLeg", media: SipMedia) -> None:
        self._leg = leg
        self._media = media
        self._waiting: asyncio.Future[None] | None = None
        self._holds = False
        """What is waited for: a hold, or its end."""
        self._quiet = asyncio.Event()
        """No change of the far side's is under way."""
        self._quiet.set()

    async def hold(self, on: bool) -> None:
        """Hold the far party, or take it back. Raises LegError."""
        leg, media = self._leg, self._media
        if self._waiting is not None and not self._waiting.done():
            raise LegError("another change of the session is under way")
        if on == media.holding:
            return
        waiting = self._waiting = asyncio.get_running_loop().create_future()
        self._holds = on
        await self._quiet.wait()
        if waiting.done():
            # The call ended meanwhile: the reason is in the future.
            await waiting
        try:
            leg.agent.reinvite(leg.key, media.offer("sendonly" if on else "sendrecv"), leg.now())
        except SipError as error:
            media.offered = self._waiting = None
            raise LegError(f"can't change the session now: {error}") from error
        leg.flush()
        await waiting

    def on_sip_event(self, event: sip.Event) -> None:
        match event:
            case sip.Reoffered(sdp=sdp):
                self._reoffered(sdp)
            case sip.ReofferConfirmed(sdp=sdp):
                self._confirmed(sdp)
            case sip.ReofferCancelled():
                self._media.offered = None
                self._quiet.set()
            case sip.ReofferAnswered(sdp=sdp, late_offer=late_offer):
                self._answered(sdp, late_offer=late_offer)
            case sip.ReofferRejected(status=status, reason=reason):
                self._media.offered = None
                kind = PeerTimeoutError if status == NO_ANSWER else LegError
                self.fail(f"the far side refused the change: {status} {reason}", kind)
            case sip.Refreshed(sdp=sdp):
                self._refreshed(sdp)
            case _:
                pass

    def fail(self, why: str, kind: type[LegError] = LegError) -> None:
        """The change of ours came to nothing."""
        self._quiet.set()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(kind(why))

    def _reoffered(self, sdp: bytes | None) -> None:
        leg, media = self._leg, self._media
        self._quiet.clear()
        if leg.state is LegState.OFFERED:
            # The first offer was answered for good before this one came (RFC 3311 5.1).
            media.offered = None
        if sdp is None:
            leg.agent.answer_reinvite(leg.key, media.offer(), leg.now())
            return
        try:
            media.take_offer(sdp)
        except SdpError as error:
            log.info("offer refused", reason=str(error))
            leg.agent.reject_reinvite(leg.key, 488, leg.now())
            self._quiet.set()
            return
        leg.agent.answer_reinvite(leg.key, media.answer(), leg.now())
        self._follow()

    def _confirmed(self, sdp: bytes | None) -> None:
        """The ACK: it brings the answer where the re-INVITE left the offer to us."""
        self._quiet.set()
        if sdp is None or self._media.offered is None:
            return
        if problem := self._media.problem_with_answer(sdp):
            log.info("the session stays as it was", reason=problem)
        else:
            self._follow()

    def _answered(self, sdp: bytes | None, *, late_offer: bool) -> None:
        if sdp is None:
            problem = "the answer has no session description"
        elif late_offer:
            problem = self._answer_late(sdp)
        else:
            problem = self._media.problem_with_answer(sdp)
        if problem:
            self.fail(problem)
            return
        if self._waiting is not None and not self._waiting.done():
            # Here and not where it is waited for: the far side's next offer may be the next thing that is read.
            self._media.holding = self._holds
            self._waiting.set_result(None)
        self._follow()

    def _answer_late(self, sdp: bytes) -> str:
        """We asked for an offer; returns what is wrong with it, if anything. The ACK takes the answer along."""
        leg, media = self._leg, self._media
        try:
            media.take_offer(sdp)
        except SdpError as error:
            # There is no way to refuse an offer in a 2xx (RFC 3261 14.1): the session can't go on.
            leg.break_off(f"the offer can't be used: {error}")
            return str(error)
        leg.agent.acknowledge(leg.key, media.answer(), leg.now())
        return ""

    def _refreshed(self, sdp: bytes) -> None:
        try:
            self._media.take_moved(sdp)
        except SdpError as error:
            log.info("the far side's new description can't be used", reason=str(error))
        else:
            self._follow()

    def _follow(self) -> None:
        """Let the media follow: new address, codec or direction."""
        if self._media.running:
            self._media.apply()
        if self._leg.state is LegState.UP:
            self._media.tell_hold()
