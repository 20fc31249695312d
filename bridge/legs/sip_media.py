"""The session of a SIP leg: what was offered and agreed on, and the stream that follows it. No signalling in here."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from bridge.events import Held, LegEvent, Resumed
from bridge.legs.media import MediaStream
from bridge.sip.errors import SdpError
from bridge.sip.flow import Address
from bridge.sip.offer_answer import LocalMedia, Negotiated, accept_answer, make_offer, negotiate_answer, revised
from bridge.sip.sdp import Direction, SessionDescription, parse_sdp


class SipMedia:
    """Offers and answers of one leg. Methods that take the peer's SDP raise SdpError for what can't be used; all is
    then as it was before."""

    def __init__(self, stream: MediaStream, local: LocalMedia, tell: Callable[[LegEvent], None]) -> None:
        self.stream = stream
        self.local = local
        self.agreed: Negotiated | None = None
        self.offered: SessionDescription | None = None
        """Our offer that waits for its answer."""
        self.running = False
        self.holding = False
        """We hold the far party."""
        self.held = False
        """The far party holds us."""
        self._tell = tell
        self._description: SessionDescription | None = None
        """The last description of ours that was sent: its `o=` goes on from there."""

    # -- offers of the peer ---------------------------------------------------------------------------------

    def take_offer(self, sdp: bytes | SessionDescription) -> None:
        """Agree on an offer, in the first INVITE or later; `answer` is ours."""
        offer = parse_sdp(sdp) if isinstance(sdp, bytes) else sdp
        agreed = negotiate_answer(offer, self._wanted("sendonly" if self.holding else "sendrecv"))
        check_remote(agreed.remote)
        self.agreed = agreed
        if not self.running:
            self.stream.prepare(agreed.codec)

    def answer(self) -> bytes:
        """The answer to the offer that was taken last."""
        assert self.agreed is not None
        self._description = self._following(self.agreed.local)
        return self._description.serialise()

    # -- offers of ours -------------------------------------------------------------------------------------

    def offer(self, direction: Direction | None = None) -> bytes:
        """A new offer; without a direction that of the present state."""
        wanted = direction or ("sendonly" if self.holding else "sendrecv")
        self.offered = self._following(make_offer(self._wanted(wanted), self._description))
        return self.offered.serialise()

    def take_answer(self, sdp: bytes, *, provisional: bool = False) -> None:
        """Take the answer to our offer. A provisional one (early media) may be followed by others."""
        offer = self.offered
        if offer is None:
            raise SdpError("an answer where nothing was offered")
        if not provisional:
            self.offered = None
        agreed = accept_answer(offer, parse_sdp(sdp), self._wanted(offer.direction_of(offer.media[0])))
        check_remote(agreed.remote)
        self.agreed = agreed
        self._description = offer

    def problem_with_answer(self, sdp: bytes) -> str:
        """`take_answer` for those who go on without: what is wrong with it, empty for nothing."""
        try:
            self.take_answer(sdp)
        except SdpError as error:
            return f"the answer can't be used: {error}"
        return ""

    def take_moved(self, sdp: bytes) -> None:
        """The peer repeated its answer to our last description, and moved its media by it."""
        if self._description is None:
            raise SdpError("an answer where nothing was offered")
        self.offered = self._description
        self.take_answer(sdp)

    # -- the stream -----------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Let the stream follow what was agreed on: start it, or change it."""
        assert self.agreed is not None
        if self.running:
            self.stream.update(self.agreed)
        else:
            self.running = True
            self.stream.start(self.agreed)

    def tell_hold(self) -> None:
        """Tell the far party's hold, or its end, if what was agreed on changed it."""
        agreed = self.agreed
        assert agreed is not None
        if agreed.held != self.held:
            self.held = agreed.held
            self._tell(Held(music=is_sending(agreed)) if agreed.held else Resumed())

    def suspend(self) -> None:
        """There is nobody at the other end, and nothing is to be expected of it, until `take_over`: a hold."""
        self.stream.suspend()
        if not self.held:
            self.held = True
            self._tell(Held())

    def take_over(self, other: "SipMedia") -> None:
        """Go on with another leg's session, ports and all; listeners and playout stay. `other` is over."""
        self.stream.take_over(other.stream)
        self.local, self.agreed, self._description = other.local, other.agreed, other._description
        self.offered = None
        self.running = self.holding = False

    # -- inside ---------------------------------------------------------------------------------------------

    def _wanted(self, direction: Direction) -> LocalMedia:
        return replace(self.local, direction=direction)

    def _following(self, description: SessionDescription) -> SessionDescription:
        return description if self._description is None else revised(self._description, description)


def is_sending(agreed: Negotiated) -> bool:
    """Whether the peer, which holds us, sends something meanwhile (its music)."""
    return agreed.direction in ("sendrecv", "recvonly") and agreed.remote[0] not in ("0.0.0.0", "::")


def check_remote(remote: Address) -> None:
    """RTP goes to addresses only: a name in SDP would have to be looked up on the media path."""
    try:
        ipaddress.ip_address(remote[0])
    except ValueError as error:
        raise SdpError(f"the media address {remote[0]!r} is no IP address") from error
