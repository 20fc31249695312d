"""The SIP leg: a call of our user agent with an RTP stream, as a `Leg`."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Protocol

import structlog

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.causes import cause_of_bye, cause_of_rejection, clearing_of, q850_of, refusal_of
from bridge.events import Answered, Cause, EndedBy, Held, LegEnded, LegEvent, Progress, Resumed, TransferResult
from bridge.legs.base import (
    Capability,
    LegError,
    LegInfo,
    LegState,
    LegStateError,
    MediaQuality,
    NotCapableError,
)
from bridge.legs.media import MediaCrashed, MediaExpired, MediaStream
from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.errors import SdpError, SipError
from bridge.sip.flow import Address, Flow
from bridge.sip.offer_answer import LocalMedia, Negotiated, accept_answer, make_offer, negotiate_answer, revised
from bridge.sip.sdp import Direction, SessionDescription, parse_sdp
from bridge.sip.udp import UdpEndpoint

log = structlog.get_logger(__name__)


class SipSide(Protocol):
    """What a leg needs of its endpoint."""

    agent: UserAgent
    retry_after_s: int

    @property
    def udp(self) -> UdpEndpoint: ...

    def forget(self, key: sip.CallKey) -> None: ...


class SipLeg:
    """One SIP call. See `bridge.legs.base.Leg`."""

    def __init__(
        self,
        endpoint: SipSide,
        key: sip.CallKey,
        info: LegInfo,
        flow: Flow,
        stream: MediaStream,
        local: LocalMedia,
    ) -> None:
        self.offered: SessionDescription | None = None
        """Our offer that waits for its answer (outbound, late offer, our re-INVITE)."""
        self.media_refusal = ""
        """Why the caller's offer can't be answered (488); empty: it can."""
        self._endpoint = endpoint
        self._key = key
        self._info = info
        self._flow = flow
        self._stream = stream
        self._local = local
        self._agreed: Negotiated | None = None
        self._description: SessionDescription | None = None
        """The last description of ours that was sent: its `o=` goes on from there."""
        self._state = LegState.OFFERED
        self._handlers: list[Callable[[LegEvent], None]] = []
        self._ended: LegEnded | None = None
        self._confirmed = asyncio.Event()
        """The ACK has come (or the call has ended): only then may the session be changed."""
        self._held = False
        self._holding = False
        self._reoffer: asyncio.Future[None] | None = None
        self._referral: asyncio.Future[None] | None = None
        self._transferring = False
        """The far side took our REFER and has not told its outcome."""
        self._ending: tuple[Cause, str] | None = None
        stream.on_event = self._on_media_event

    # -- the Leg contract -----------------------------------------------------------------------------------

    @property
    def info(self) -> LegInfo:
        return self._info

    @property
    def capabilities(self) -> Capability:
        can = Capability.RINGING | Capability.HOLD | Capability.TRANSFER | Capability.DTMF_RECEIVE
        if self._agreed is None or self._agreed.dtmf_payload_type is not None:
            can |= Capability.DTMF_SEND
        return can

    @property
    def state(self) -> LegState:
        return self._state

    @property
    def sample_rate(self) -> int:
        return self._stream.sample_rate

    @property
    def playout(self) -> Playout:
        return self._stream.playout

    @property
    def quality(self) -> MediaQuality:
        return self._stream.quality

    def listen(self, sink: FrameSink) -> Unsubscribe:
        return self._stream.listen(sink)

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        if self._ended is not None:
            handler(self._ended)
            return _nothing
        self._handlers = [*self._handlers, handler]

        def unsubscribe() -> None:
            self._handlers = [h for h in self._handlers if h is not handler]

        return unsubscribe

    async def ringing(self) -> None:
        if self._state is LegState.OFFERED and self._info.direction == "inbound":
            self._endpoint.agent.ring(self._key, self._now())
            self._flush()

    async def answer(self) -> None:
        if self._state is LegState.ENDED:
            raise LegStateError("the call has ended")
        if self._info.direction != "inbound" or self._state is LegState.UP:
            raise LegStateError("only an inbound call that is not yet answered can be answered")
        if self._agreed is not None:
            self._description = self._agreed.local
            self._endpoint.agent.answer(self._key, self._agreed.local.serialise(), self._now())
            self._go_up(self._agreed)
            self._flush()
            return
        # Late offer: what the caller can do, and where its media goes, comes with the ACK.
        self.offered = self._description = make_offer(self._local)
        self._endpoint.agent.answer(self._key, self.offered.serialise(), self._now())
        self._flush()
        await self._confirmed.wait()
        if self.state is not LegState.UP:
            raise LegStateError(f"the call ended while its offer was answered: {self._end_text()}")

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        self.hang_up(cause, detail)

    def hang_up(self, cause: Cause, detail: str = "") -> None:
        """`hangup` for callers that can't wait: telling a SIP peer takes no time."""
        if self._state is LegState.ENDED:
            return
        agent, now = self._endpoint.agent, self._now()
        if self._state is LegState.OFFERED and self._info.direction == "inbound" and self.offered is None:
            status, reason = refusal_of(cause)
            headers = [("Reason", str(reason))]
            if status == 503:
                headers.append(("Retry-After", str(self._endpoint.retry_after_s)))
            agent.reject(self._key, status, now, headers=headers)
            self._end(cause, detail, status=status, q850=reason.cause)
        else:
            reason = clearing_of(cause)
            agent.hangup(self._key, now, reason=str(reason))
            self._end(cause, detail, q850=reason.cause)
        self._flush()

    async def transfer(self, target: str) -> None:
        self._must_be_up()
        if self._referral is not None and not self._referral.done():
            raise LegError("another transfer is under way")
        self._referral = asyncio.get_running_loop().create_future()
        try:
            self._endpoint.agent.refer(self._key, self._referable(target), self._now())
        except SipError as error:
            self._referral = None
            raise LegError(f"can't transfer to {target!r}: {error}") from error
        self._flush()
        await self._referral

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        self._must_be_up()
        if Capability.DTMF_SEND not in self.capabilities:
            raise NotCapableError("the far side takes no telephone-events")
        if wrong := set(digits.upper()) - set("0123456789*#ABCD"):
            raise ValueError(f"not DTMF digits: {''.join(sorted(wrong))!r}")
        self._stream.send_dtmf(digits.upper(), tone_ms=tone_ms, gap_ms=gap_ms)

    async def hold(self, on: bool) -> None:
        self._must_be_up()
        await self._confirmed.wait()
        self._must_be_up()
        if on == self._holding:
            return
        if self._reoffer is not None and not self._reoffer.done():
            raise LegError("another change of the session is under way")
        direction: Direction = "sendonly" if on else "sendrecv"
        offer = make_offer(self._revised_local(direction))
        if self._description is not None:
            offer = revised(self._description, offer)
        self._reoffer = asyncio.get_running_loop().create_future()
        self.offered = offer
        try:
            self._endpoint.agent.reinvite(self._key, offer.serialise(), self._now())
        except SipError as error:
            self.offered = self._reoffer = None
            raise LegError(f"can't change the session now: {error}") from error
        self._flush()
        await self._reoffer
        self._holding = on

    def give_up(self) -> None:
        """Nobody has answered for long enough."""
        if self._state is LegState.OFFERED:
            self.hang_up(Cause.NO_ANSWER, "nobody answered in time")

    # -- SIP ------------------------------------------------------------------------------------------------

    def take_offer(self, offer: SessionDescription) -> None:
        """Agree on an offer, before or during the call. Raises SdpError (NoAudioError, NoCommonCodecError)."""
        agreed = negotiate_answer(offer, self._revised_local("sendonly" if self._holding else "sendrecv"))
        check_remote(agreed.remote)
        self._agreed = agreed
        if self._state is LegState.OFFERED:
            self._stream.prepare(agreed.codec)

    def on_sip_event(self, event: sip.Event) -> None:
        match event:
            case sip.Confirmed(sdp=sdp):
                self._on_confirmed(sdp)
            case sip.Progress(status=status):
                self._tell(Progress(status))
            case sip.Answered(sdp=sdp):
                self._on_answered(sdp)
            case sip.Reoffered(sdp=sdp):
                self._on_reoffered(sdp)
            case sip.ReofferConfirmed(sdp=sdp):
                if sdp is not None and self.offered is not None:
                    self._accept(sdp)
            case sip.ReofferCancelled():
                self.offered = None
            case sip.ReofferAnswered(sdp=sdp):
                self._on_reoffer_answered(sdp)
            case sip.ReofferRejected(status=status, reason=reason):
                self._fail(self._reoffer, f"the far side refused the change: {status} {reason}")
                self.offered = None
            case sip.ReferAccepted():
                self._transferring = True
                if self._referral is not None and not self._referral.done():
                    self._referral.set_result(None)
            case sip.ReferRejected(status=status, reason=reason):
                self._fail(self._referral, f"the far side refused the transfer: {status} {reason}")
            case sip.ReferResult(status=status, reason=reason, final=True):
                self._transferring = False
                self._tell(TransferResult(status, reason))
            case sip.Referred():
                self._endpoint.agent.reject_refer(self._key, 603, self._now())
            case sip.Cancelled(reason=reason):
                self._end(Cause.CANCELLED, reason, by="far", status=487, q850=q850_of(reason.partition(": ")[2]))
            case sip.Rejected(status=status, reason=reason, response=response):
                q850 = None if response is None else q850_of(response.headers.get("Reason") or "")
                self._end(cause_of_rejection(status, q850), f"{status} {reason}", by="far", status=status, q850=q850)
            case sip.ByeReceived() if self._transferring:
                # Many a PBX hangs up once it has taken the REFER, and never says how it went.
                self._tell(TransferResult(200, "the far side took the transfer and hung up"))
                self._end(Cause.TRANSFERRED, "the far side took the transfer and hung up", by="far")
            case sip.ByeReceived(reason=reason):
                q850 = q850_of(reason)
                self._end(cause_of_bye(q850), reason, by="far", q850=q850)
            case sip.Lost(detail=detail):
                unanswered = self._state is LegState.OFFERED and self._info.direction == "outbound"
                self._end(Cause.NO_ANSWER if unanswered else Cause.SIGNALLING_LOST, detail, by="network")
            case _:
                pass

    def _on_confirmed(self, sdp: bytes | None) -> None:
        if self.offered is None:
            self._confirmed.set()
            return
        if sdp is None:
            self._break_off("the ACK to our offer has no answer")
        elif self._accept(sdp) and self._agreed is not None:
            self._go_up(self._agreed)
        self._confirmed.set()

    def _on_answered(self, sdp: bytes | None) -> None:
        if sdp is None:
            self._break_off("the answer has no session description")
        elif self._accept(sdp) and self._agreed is not None:
            self._confirmed.set()
            self._go_up(self._agreed)

    def _on_reoffered(self, sdp: bytes | None) -> None:
        agent = self._endpoint.agent
        if sdp is None:
            offer = make_offer(self._revised_local("sendonly" if self._holding else "sendrecv"))
            self.offered = self._description = self._following(offer)
            agent.answer_reinvite(self._key, self.offered.serialise(), self._now())
            return
        before = self._agreed
        try:
            self.take_offer(parse_sdp(sdp))
        except SdpError as error:
            self._agreed = before
            log.info("re-INVITE refused", reason=str(error))
            agent.reject_reinvite(self._key, 488, self._now())
            return
        assert self._agreed is not None
        self._description = self._following(self._agreed.local)
        agent.answer_reinvite(self._key, self._description.serialise(), self._now())
        self._apply(self._agreed)

    def _on_reoffer_answered(self, sdp: bytes | None) -> None:
        if sdp is None or not self._accept(sdp):
            self._fail(self._reoffer, "the far side's answer to our offer can't be used")
        elif self._reoffer is not None and not self._reoffer.done():
            self._reoffer.set_result(None)

    def _accept(self, sdp: bytes) -> bool:
        """Take the answer to our offer. False: the call (or the change) failed over it."""
        assert self.offered is not None
        offer, self.offered = self.offered, None
        direction: Direction = offer.direction_of(offer.media[0])
        try:
            agreed = accept_answer(offer, parse_sdp(sdp), self._revised_local(direction))
            check_remote(agreed.remote)
        except SdpError as error:
            if self._state is LegState.OFFERED:
                self._break_off(f"the answer can't be used: {error}")
            return False
        self._agreed = agreed
        self._description = offer
        if self._state is LegState.UP:
            self._apply(agreed)
        return True

    def _go_up(self, agreed: Negotiated) -> None:
        self._state = LegState.UP
        self._stream.start(agreed)
        self._held = agreed.held
        self._tell(Answered())
        if self._held:
            self._tell(Held())

    def _apply(self, agreed: Negotiated) -> None:
        """A changed session: new address, codec or direction."""
        self._stream.update(agreed)
        if agreed.held != self._held:
            self._held = agreed.held
            self._tell(Held() if agreed.held else Resumed())

    def _break_off(self, detail: str) -> None:
        self._endpoint.agent.hangup(self._key, self._now(), reason='SIP;cause=488;text="Not Acceptable Here"')
        self._end(Cause.REFUSED_MEDIA, detail)

    # -- media ----------------------------------------------------------------------------------------------

    def _on_media_event(self, event: LegEvent | MediaExpired | MediaCrashed) -> None:
        match event:
            case MediaExpired(detail=detail):
                self.hang_up(Cause.MEDIA_TIMEOUT, detail)
            case MediaCrashed(detail=detail):
                self.hang_up(Cause.INTERNAL_ERROR, detail)
            case _:
                self._tell(event)

    # -- inside ---------------------------------------------------------------------------------------------

    def _end(
        self, cause: Cause, detail: str, *, by: EndedBy = "us", status: int | None = None, q850: int | None = None
    ) -> None:
        if self._state is LegState.ENDED:
            return
        self._state = LegState.ENDED
        self._stream.close()
        self._endpoint.forget(self._key)
        self._ended = LegEnded(cause, detail, by, status, q850)
        for waiting in (self._reoffer, self._referral):
            self._fail(waiting, f"the call ended: {cause.value}")
        self._confirmed.set()
        self._tell(self._ended)
        self._handlers = []

    def _end_text(self) -> str:
        return "" if self._ended is None else f"{self._ended.cause.value} {self._ended.detail}".strip()

    def _tell(self, event: LegEvent) -> None:
        for handler in self._handlers:
            handler(event)

    @staticmethod
    def _fail(future: asyncio.Future[None] | None, message: str) -> None:
        if future is not None and not future.done():
            future.set_exception(LegError(message))

    def _following(self, description: SessionDescription) -> SessionDescription:
        return description if self._description is None else revised(self._description, description)

    def _revised_local(self, direction: Direction) -> LocalMedia:
        local = self._local
        codecs = local.codecs
        if self._state is LegState.UP:
            # The frames' rate is fixed from the answer on.
            codecs = tuple(codec for codec in codecs if codec.sample_rate == self.sample_rate)
        return LocalMedia(local.address, local.port, codecs=codecs, direction=direction, session_id=local.session_id)

    def _referable(self, target: str) -> str:
        """A number becomes a user at the peer's host."""
        if target.startswith(("sip:", "sips:", "tel:", "<")):
            return target
        return f"sip:{target}@{bracketed(self._flow.remote[0])}"

    def _must_be_up(self) -> None:
        if self._state is not LegState.UP:
            raise LegStateError("the call is not up")

    def _now(self) -> float:
        return self._endpoint.udp.now()

    def _flush(self) -> None:
        self._endpoint.udp.flush()


def check_remote(remote: Address) -> None:
    """RTP goes to addresses only: a name in SDP would have to be looked up on the media path."""
    try:
        ipaddress.ip_address(remote[0])
    except ValueError as error:
        raise SdpError(f"the media address {remote[0]!r} is no IP address") from error


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _nothing() -> None:
    """Ends a subscription that never began."""
