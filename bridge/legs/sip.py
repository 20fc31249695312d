"""The SIP leg: a call of our user agent with an RTP stream, as a `Leg`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.causes import clearing_of, refusal_of
from bridge.events import (
    Answered,
    Cause,
    DtmfReceived,
    FarPartyChanged,
    LegEnded,
    LegEvent,
    Progress,
    TransferResult,
)
from bridge.legs.base import (
    Capability,
    Leg,
    LegError,
    LegInfo,
    LegState,
    LegStateError,
    MediaQuality,
    NotCapableError,
    PacketTap,
)
from bridge.legs.media import MediaCrashed, MediaExpired, MediaStream
from bridge.legs.sip_dtmf import DtmfMode, InfoDigits, parse_info
from bridge.legs.sip_ends import end_of
from bridge.legs.sip_media import SipMedia
from bridge.legs.sip_reoffer import SipReoffers
from bridge.legs.sip_transfer import SipTransfers, TransferWay
from bridge.legs.subscribers import Subscribers
from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.errors import SdpError, SipError
from bridge.sip.flow import Address, Flow, Transport
from bridge.sip.offer_answer import LocalMedia
from bridge.sip.sdp import SessionDescription
from bridge.sip.transports import Transports
from bridge.sip.uri import Uri
from bridge.targets import in_asterisk

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SipLegOptions:
    """What is set for each trunk about its legs."""

    dtmf: DtmfMode = "auto"
    transfer: TransferWay = "auto"
    """`bridge`: never ask by REFER; `refer`: never go through us instead."""
    accept_refer: bool = False
    """Let the far party transfer us: call whom its REFER names, and go on with them."""


DEFAULT_OPTIONS = SipLegOptions()


class SipSide(Protocol):
    """What a leg needs of its endpoint."""

    agent: UserAgent
    retry_after_s: int

    @property
    def transports(self) -> Transports: ...

    def forget(self, key: sip.CallKey) -> None: ...

    def assign(self, key: sip.CallKey, leg: "SipLeg") -> None:
        """Tell the events of a call to `leg` from now on."""
        ...


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
        options: SipLegOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.refusal: tuple[Cause, str] | None = None
        """Why the caller's offer can't be answered (488); None: it can."""
        self.options = options
        self.agent = endpoint.agent
        self.key = key
        self._endpoint = endpoint
        self._info = info
        self._flow = flow
        self._media = SipMedia(stream, local, self.tell)
        self._reoffers = SipReoffers(self, self._media)
        self._transfers = SipTransfers(self)
        self._digits = InfoDigits(self._send_info)
        self._events_heard = False
        """The far side sends telephone-events: what it says in INFO besides is the same once more."""
        self._state = LegState.OFFERED
        self._subscribers = Subscribers()
        self._taps: list[PacketTap] = []
        self._confirmed = asyncio.Event()
        """The ACK has come (or the call has ended): only then may the session be changed."""
        self._ring_limit: asyncio.TimerHandle | None = None
        stream.on_event = self._on_media_event

    # -- the Leg contract -----------------------------------------------------------------------------------

    @property
    def info(self) -> LegInfo:
        return self._info

    @property
    def transport(self) -> Transport:
        """What its signalling goes by."""
        return self._flow.transport

    @property
    def capabilities(self) -> Capability:
        can = Capability.RINGING | Capability.HOLD | Capability.DTMF_RECEIVE
        agreed = self._media.agreed
        if self.options.transfer != "bridge":
            can |= Capability.TRANSFER | Capability.TRANSFER_REPLACING
        if agreed is None or agreed.dtmf_payload_type is not None or self.options.dtmf != "rfc4733":
            can |= Capability.DTMF_SEND
        if agreed is not None and self._info.direction == "inbound":
            can |= Capability.EARLY_MEDIA
        return can

    @property
    def state(self) -> LegState:
        return self._state

    @property
    def sample_rate(self) -> int:
        return self._media.stream.sample_rate

    @property
    def playout(self) -> Playout:
        return self._media.stream.playout

    @property
    def quality(self) -> MediaQuality:
        return self._media.stream.quality

    def listen(self, sink: FrameSink) -> Unsubscribe:
        return self._media.stream.listen(sink)

    def tap_packets(self, tap: PacketTap) -> Unsubscribe:
        """See `PacketSource`."""
        self._taps = [*self._taps, tap]
        self._media.stream.tap(self._show_packet)

        def untap() -> None:
            self._taps = [t for t in self._taps if t is not tap]
            if not self._taps:
                self._media.stream.tap(None)

        return untap

    def _show_packet(self, received: bool, packet: bytes, far: Address, at: float) -> None:
        local = (self._media.local.address, self._media.stream.port)
        for tap in self._taps:
            tap(received, local, far, packet)

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        return self._subscribers.subscribe(handler)

    async def ringing(self) -> None:
        if self._state is LegState.OFFERED and self._info.direction == "inbound":
            self.agent.ring(self.key, self.now())
            self.flush()

    async def early_media(self) -> None:
        self._must_be_offered()
        media = self._media
        if media.agreed is None:
            raise NotCapableError("the caller made no offer that early media could answer")
        if not media.running:
            self.agent.ring(self.key, self.now(), status=183, sdp=media.answer())
            media.apply()
            self.flush()

    async def answer(self) -> None:
        self._must_be_offered()
        media = self._media
        if media.agreed is not None:
            self.agent.answer(self.key, media.answer(), self.now())
            self._go_up()
            self.flush()
            return
        # Late offer: what the caller can do, and where its media goes, comes with the ACK.
        self.agent.answer(self.key, media.offer(), self.now())
        self.flush()
        await self._confirmed.wait()
        if self.state is not LegState.UP:
            raise LegStateError(f"the call ended while its offer was answered: {self._end_text()}")

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        self.hang_up(cause, detail)

    def hang_up(self, cause: Cause, detail: str = "", *, headers: Sequence[tuple[str, str]] = ()) -> None:
        """`hangup` for callers that can't wait: telling a SIP peer takes no time. `headers` go with the BYE or the
        refusal."""
        if self._state is LegState.ENDED:
            return
        if self._state is LegState.OFFERED and self._info.direction == "inbound" and self._media.offered is None:
            status, reason = refusal_of(cause)
            fields = [("Reason", str(reason)), *headers]
            if status == 503:
                fields.append(("Retry-After", str(self._endpoint.retry_after_s)))
            self.agent.reject(self.key, status, self.now(), headers=fields)
            self._end(LegEnded(cause, detail, "us", status, reason.cause))
        else:
            reason = clearing_of(cause)
            self.agent.hangup(self.key, self.now(), reason=str(reason), headers=headers)
            self._end(LegEnded(cause, detail, "us", None, reason.cause))
        self.flush()

    async def transfer(self, target: str, *, replacing: Leg | None = None) -> None:
        self._must_be_up()
        if Capability.TRANSFER not in self.capabilities:
            raise NotCapableError("this trunk's callers are transferred through us alone")
        await self._transfers.refer(self._referable(target), replacing, self.options.transfer)

    def stop_transfer(self) -> None:
        self._transfers.stop()

    def follow_transfer(self, dialled: Leg) -> None:
        self._must_be_up()
        self._transfers.follow(dialled)

    def refuse_transfer(self, status: int) -> None:
        if self._state is LegState.UP:
            self._transfers.refuse(status)

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        self._must_be_up()
        if wrong := set(digits.upper()) - set("0123456789*#ABCD"):
            raise ValueError(f"not DTMF digits: {''.join(sorted(wrong))!r}")
        agreed, mode = self._media.agreed, self.options.dtmf
        by_events = agreed is not None and agreed.dtmf_payload_type is not None
        if mode == "info" or (mode == "auto" and not by_events):
            self._digits.queue(digits.upper(), tone_ms=tone_ms, gap_ms=gap_ms)
        elif by_events:
            self._media.stream.send_dtmf(digits.upper(), tone_ms=tone_ms, gap_ms=gap_ms)
        else:
            raise NotCapableError("the far side takes no telephone-events")

    async def hold(self, on: bool) -> None:
        self._must_be_up()
        await self._confirmed.wait()
        self._must_be_up()
        await self._reoffers.hold(on)

    async def music(self, on: bool) -> None:
        raise NotCapableError("music on hold is the other side's: put the caller on hold")

    async def set_variables(self, values: Mapping[str, str]) -> None:
        raise NotCapableError("a SIP call has no variables")

    # -- the endpoint's side --------------------------------------------------------------------------------

    def take_offer(self, offer: SessionDescription) -> None:
        """Agree on the offer of the first INVITE. Raises SdpError (NoAudioError, NoCommonCodecError)."""
        self._media.take_offer(offer)

    def note_offer(self, offer: SessionDescription) -> None:
        """The offer that went out in our INVITE."""
        self._media.offered = offer

    def limit_ringing(self, timeout_s: float) -> None:
        """An outbound call that is not answered by then ends with `no-answer`."""
        self._ring_limit = asyncio.get_running_loop().call_later(timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._state is LegState.OFFERED:
            self.hang_up(Cause.NO_ANSWER, "nobody answered in time")

    async def be_replaced(self, new: "SipLeg") -> None:
        """Another party calls to take our far party's place: answer it, and let it. Never raises."""
        try:
            await new.answer()
        except LegError as error:
            log.info("nobody took the far party's place", reason=str(error))
            return
        if self._state is LegState.ENDED:
            new.hang_up(Cause.CANCELLED, "the call to be replaced has ended")
        else:
            self.replace_far_party(new, "Replaces")

    def replace_far_party(self, new: "SipLeg", why: str, linger_s: float = 0.0) -> None:
        """`new`, which is up, takes our far party's place: its call and its media become ours, it is over itself. The
        old party is hung up, after a while if it may do that itself."""
        former, was_up = self.key, self._state is LegState.UP
        self._endpoint.forget(former)
        asyncio.get_running_loop().call_later(linger_s, self._hang_up_former, former)
        self._reoffers.fail("the far party changed")
        self._confirmed.set()
        self.key, self._flow, self._confirmed = new.key, new._flow, new._confirmed
        # It ends below, which its own would be set by.
        new._confirmed = asyncio.Event()
        self._info = replace(
            self._info,
            id=new.info.id,
            peer=new.info.peer,
            headers=new.info.headers,
            display_name=new.info.display_name,
        )
        self._transfers.close("the far party changed")
        self._transfers = SipTransfers(self)
        self._digits.close()
        self._digits = InfoDigits(self._send_info)
        self._media.take_over(new._media)
        self._endpoint.assign(self.key, self)
        new._end(LegEnded(Cause.TRANSFERRED, f"took the place of {former}"), moved=True)
        if self._ring_limit is not None:
            self._ring_limit.cancel()
        self._state = LegState.UP
        other = new.info.from_ if new.info.direction == "inbound" else new.info.to
        self._media.apply()
        self.tell(FarPartyChanged(new.info.id, new.info.peer, other, why))
        if not was_up:
            self.tell(Answered())
        self._media.tell_hold()

    def _hang_up_former(self, key: sip.CallKey) -> None:
        self.agent.hangup(key, self.now(), reason=str(clearing_of(Cause.TRANSFERRED)))
        self.flush()

    # -- SIP ------------------------------------------------------------------------------------------------

    def on_sip_event(self, event: sip.Event) -> None:
        match event:
            case sip.Confirmed(sdp=sdp):
                self._on_confirmed(sdp)
            case sip.Progress(status=status, sdp=sdp):
                self.tell(Progress(status, early_media=self._take_early(sdp)))
            case sip.Answered(sdp=sdp):
                self._on_answered(sdp)
            case (
                sip.Reoffered()
                | sip.ReofferConfirmed()
                | sip.ReofferCancelled()
                | sip.ReofferAnswered()
                | sip.ReofferRejected()
                | sip.Refreshed()
            ):
                self._reoffers.on_sip_event(event)
            case sip.ReferAccepted() | sip.ReferRejected() | sip.ReferResult() | sip.Referred():
                self._transfers.on_sip_event(event)
            case sip.InfoReceived(content_type=content_type, body=body):
                self._on_info(content_type, body)
            case sip.InfoAnswered(status=status):
                self._digits.answered(status)
            case sip.ByeReceived() if self._transfers.following:
                left = end_of(event, ringing_out=False)
                assert left is not None
                self._transfers.far_left(left)
            case sip.ByeReceived() if self._transfers.under_way:
                # Many a PBX hangs up once it has taken the REFER, and never says how it went.
                done = "the far side took the transfer and hung up"
                self.tell(TransferResult(200, done))
                self._end(LegEnded(Cause.TRANSFERRED, done, "far"))
            case _:
                outbound = self._info.direction == "outbound"
                ended = end_of(event, ringing_out=outbound and self._state is LegState.OFFERED)
                if ended is not None:
                    self._end(ended)

    def _on_confirmed(self, sdp: bytes | None) -> None:
        if self._media.offered is None:
            self._confirmed.set()
            return
        if sdp is None:
            self.break_off("the ACK to our offer has no answer")
        elif problem := self._media.problem_with_answer(sdp):
            self.break_off(problem)
        else:
            self._go_up()
        self._confirmed.set()

    def _take_early(self, sdp: bytes | None) -> bool:
        """Media before the answer. Several phones may ring: the one that spoke last is heard."""
        media = self._media
        if sdp is None or media.offered is None:
            return False
        try:
            media.take_answer(sdp, provisional=True)
        except SdpError as error:
            log.info("early media can't be used", reason=str(error))
            return False
        media.apply()
        return True

    def _on_answered(self, sdp: bytes | None) -> None:
        media = self._media
        if media.offered is None and media.agreed is not None:
            # Answered before, reliably, and changed by UPDATE since: what the 200 repeats is void (RFC 6337 2.2).
            problem = ""
        elif sdp is None:
            problem = "the answer has no session description"
        else:
            problem = media.problem_with_answer(sdp)
        if problem:
            self.break_off(problem)
        else:
            self._confirmed.set()
            self._go_up()

    def _go_up(self) -> None:
        self._state = LegState.UP
        if self._ring_limit is not None:
            self._ring_limit.cancel()
        self._media.apply()
        self._media.stream.await_media()
        agreed = self._media.agreed
        if agreed is not None and agreed.srtp is not None and self._flow.transport != "tls":
            log.warning("SRTP keys were sent in the open: use TLS", peer=str(self._flow), trunk=self._info.trunk)
        self.tell(Answered())
        self._media.tell_hold()

    def break_off(self, detail: str) -> None:
        """There is no session that both can have."""
        self.agent.hangup(self.key, self.now(), reason='SIP;cause=488;text="Not Acceptable Here"')
        self._end(LegEnded(Cause.REFUSED_MEDIA, detail, "us", None, clearing_of(Cause.REFUSED_MEDIA).cause))

    def _on_info(self, content_type: str, body: bytes) -> None:
        digit = parse_info(content_type, body)
        if digit is not None and not self._events_heard:
            self.tell(digit)

    def _send_info(self, content_type: str, body: bytes) -> None:
        try:
            self.agent.info(self.key, content_type, body, self.now())
        except SipError as error:
            log.info("digit not sent", error=str(error))
        self.flush()

    # -- media ----------------------------------------------------------------------------------------------

    def _on_media_event(self, event: LegEvent | MediaExpired | MediaCrashed) -> None:
        match event:
            case MediaExpired(detail=detail):
                # Before the answer nobody promised any media.
                if self._state is LegState.UP:
                    self.hang_up(Cause.MEDIA_TIMEOUT, detail)
            case MediaCrashed(detail=detail):
                self.hang_up(Cause.INTERNAL_ERROR, detail)
            case DtmfReceived():
                self._events_heard = True
                self.tell(event)
            case _:
                self.tell(event)

    def wait_for_far_party(self) -> None:
        """The far party is gone, another one will come."""
        self._media.suspend()

    def end(self, ended: LegEnded) -> None:
        """It is over, without a word to the far side."""
        self._end(ended)

    # -- inside ---------------------------------------------------------------------------------------------

    def _end(self, ended: LegEnded, *, moved: bool = False) -> None:
        """`moved`: call and media go on as another leg's."""
        if self._state is LegState.ENDED:
            return
        self._state = LegState.ENDED
        if not moved:
            self._media.stream.close()
            self._endpoint.forget(self.key)
        if self._ring_limit is not None:
            self._ring_limit.cancel()
        self._digits.close()
        why = f"the call ended: {ended.cause.value}"
        self._reoffers.fail(why)
        self._transfers.close(why)
        self._confirmed.set()
        self._subscribers.end(ended)

    def _end_text(self) -> str:
        ended = self._subscribers.ended
        return "" if ended is None else f"{ended.cause.value} {ended.detail}".strip()

    def tell(self, event: LegEvent) -> None:
        """Tell who has subscribed."""
        self._subscribers.tell(event)

    def _referable(self, target: str) -> str:
        """A number becomes a user at the peer's end of the call, as the peer itself calls that."""
        if target.startswith(("sip:", "sips:", "tel:", "<")):
            return target
        if in_asterisk(target):
            raise NotCapableError(f"{target} is a place in an Asterisk, which this call did not come from")
        peer = Uri.parse(self.agent.remote_target(self.key))
        return str(Uri("sip", peer.host, target, port=peer.port))

    def _must_be_offered(self) -> None:
        if self._state is LegState.ENDED:
            raise LegStateError("the call has ended")
        if self._info.direction != "inbound" or self._state is LegState.UP:
            raise LegStateError("only an inbound call that is not yet answered can be answered")

    def _must_be_up(self) -> None:
        if self._state is not LegState.UP:
            raise LegStateError("the call is not up")

    def now(self) -> float:
        """The user agent's time (s)."""
        return self._endpoint.transports.now()

    def flush(self) -> None:
        """Send what the user agent has to say."""
        self._endpoint.transports.flush()
