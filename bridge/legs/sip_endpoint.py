"""The SIP endpoint: one address of ours, whose calls it turns into legs, and from which it makes outbound ones."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.events import Cause
from bridge.legs.base import LegError, LegInfo
from bridge.legs.media import MediaPlane, MediaStream, MediaUnavailableError
from bridge.legs.sip import DEFAULT_OPTIONS, SipLeg, SipLegOptions, bracketed
from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.errors import SdpError, SipError, SipSyntaxError
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request
from bridge.sip.offer_answer import L16_16K, PCMA, PCMU, Codec, LocalMedia, make_offer
from bridge.sip.sdp import SessionDescription, parse_sdp
from bridge.sip.settings import Admit, UserAgentConfig
from bridge.sip.timers import TimerValues
from bridge.sip.udp import UdpEndpoint, open_udp
from bridge.sip.uri import Uri

log = structlog.get_logger(__name__)

DEFAULT_CODECS: tuple[Codec, ...] = (PCMU, PCMA, L16_16K)
"""G.711 first: L16 is for peers on the same network that ask for nothing else."""

BYE_WAIT_S = 2.0
"""How long a closing endpoint waits for answers to its BYEs."""

BYE_LOOK_S = 0.02

KEPT_HEADERS = ("p-asserted-identity", "diversion", "history-info", "privacy", "referred-by")


@dataclass(frozen=True, slots=True)
class SipEndpointSettings:
    host: str = "0.0.0.0"
    port: int = 5060
    """0 takes any free one (a phone)."""
    advertised_address: str | None = None
    user_agent: str = "Offhook"
    t1_s: float = 0.5
    retry_after_s: int = 10
    max_calls: int = 2000
    codecs: tuple[Codec, ...] = DEFAULT_CODECS
    max_ring_s: float = 180.0
    leg: SipLegOptions = DEFAULT_OPTIONS
    """Of legs whose trunk says nothing else."""


class SipEndpoint:
    """One SIP address of ours: turns calls of the user agent into legs, and makes outbound ones."""

    def __init__(
        self,
        settings: SipEndpointSettings,
        media: MediaPlane,
        on_incoming: Callable[["SipLeg"], None] | None = None,
        *,
        admit: Admit | None = None,
    ) -> None:
        self.settings = settings
        self.media = media
        self.retry_after_s = settings.retry_after_s
        self._on_incoming = on_incoming
        self._legs: dict[sip.CallKey, SipLeg] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: UdpEndpoint | None = None
        self.agent = UserAgent(
            UserAgentConfig(
                user_agent=settings.user_agent,
                advertised=self._advertised,
                admit=admit,
                timers=TimerValues(t1=settings.t1_s),
                max_calls=settings.max_calls,
                max_ring_s=settings.max_ring_s,
                retry_after_s=settings.retry_after_s,
            )
        )

    async def start(self) -> None:
        """Bind. Raises OSError where the port is taken."""
        self._udp = await open_udp(self.agent, self._on_event, host=self.settings.host, port=self.settings.port)

    @property
    def address(self) -> Address:
        return self.udp.address

    @property
    def udp(self) -> UdpEndpoint:
        if self._udp is None:
            raise LegError("the SIP endpoint is not started")
        return self._udp

    @property
    def legs(self) -> Sequence["SipLeg"]:
        return tuple(self._legs.values())

    async def dial(
        self, target: str, *, from_user: str, timeout_s: float = 60.0, headers: Sequence[tuple[str, str]] = ()
    ) -> SipLeg:
        """Call `target` (`sip:user@host[:port]`). Returns the leg at once; its events tell the rest. A call that is
        not answered within `timeout_s` ends with `no-answer`.

        Raises LegError for a target that can't be called, MediaUnavailableError without a free port."""
        loop = asyncio.get_running_loop()
        try:
            uri = Uri.parse(target)
        except SipSyntaxError as error:
            raise LegError(f"{target!r} is not a SIP URI: {error}") from error
        if not uri.is_sip or uri.scheme != "sip":
            raise LegError(f"{target!r}: only sip: URIs over UDP can be called")
        try:
            found = await loop.getaddrinfo(uri.host.strip("[]"), uri.port or 5060, type=2)
        except OSError as error:
            raise LegError(f"{uri.host!r} can't be resolved: {error}") from error
        family_wanted = ":" in self.address[0]
        addresses = [entry[4] for entry in found if (":" in str(entry[4][0])) == family_wanted]
        if not addresses:
            raise LegError(f"{uri.host!r} has no address of the family that we listen on")
        remote = (str(addresses[0][0]), int(addresses[0][1]))
        try:
            flow = self.udp.flow_to(remote)
        except OSError as error:
            raise LegError(f"there is no route to {remote[0]}: {error}") from error
        stream = self.media.open()
        local = self._local_media(stream, flow)
        offer = make_offer(local)
        try:
            key = self.agent.invite(
                target,
                flow,
                self.udp.now(),
                from_=f"<sip:{from_user}@{bracketed(local.address)}>",
                sdp=offer.serialise(),
                headers=headers,
            )
        except SipError as error:
            stream.close()
            raise LegError(f"{target!r} can't be called: {error}") from error
        info = LegInfo(
            kind="sip",
            direction="outbound",
            from_=from_user,
            to=uri.user or uri.host,
            trunk="",
            id=self.agent.call_id(key),
            peer=f"{remote[0]}:{remote[1]}",
        )
        leg = SipLeg(self, key, info, flow, stream, local, self.settings.leg)
        leg.note_offer(offer)
        leg.limit_ringing(timeout_s)
        self._legs[key] = leg
        self.udp.flush()
        return leg

    async def aclose(self) -> None:
        """Hang up what is left, wait a little for the answers, close the socket."""
        if self._udp is None:
            return
        for leg in self.legs:
            await leg.hangup(Cause.DRAINED, "the bridge stopped")
        # A call that was crossed by its end leaves without an event, so the count itself is watched.
        for _ in range(int(BYE_WAIT_S / BYE_LOOK_S)):
            if not self.agent.call_count:
                break
            await asyncio.sleep(BYE_LOOK_S)
        self._udp.close()
        await self._udp.closed

    def forget(self, key: sip.CallKey) -> None:
        self._legs.pop(key, None)

    def assign(self, key: sip.CallKey, leg: SipLeg) -> None:
        self._legs[key] = leg

    # -- inside ---------------------------------------------------------------------------------------------

    def _advertised(self, flow: Flow) -> Address:
        return (self.settings.advertised_address or flow.local[0], self.address[1])

    def _local_media(self, stream: MediaStream, flow: Flow) -> LocalMedia:
        address = self.settings.advertised_address or flow.local[0]
        session_id = random.getrandbits(31)
        return LocalMedia(address, stream.port, codecs=self.settings.codecs, session_id=session_id)

    def _on_event(self, event: sip.Event) -> None:
        if isinstance(event, sip.InviteReceived):
            self._invited(event)
            return
        if isinstance(event, sip.RequestAnswered):
            return
        leg = self._legs.get(event.key)
        if leg is not None:
            leg.on_sip_event(event)

    def _invited(self, event: sip.InviteReceived) -> None:
        agent, now = self.agent, self.udp.now()
        if self._on_incoming is None:
            agent.reject(event.key, 486, now)
            return
        info = inbound_info(event.request, event.flow)
        offer: SessionDescription | None = None
        try:
            if event.sdp is not None:
                offer = parse_sdp(event.sdp)
        except SdpError as error:
            agent.reject(event.key, 400, now, reason="Bad Session Description")
            log.info("offer can't be read", peer=info.peer, error=str(error))
            return
        try:
            stream = self.media.open()
        except MediaUnavailableError as error:
            log.warning("call refused", reason=str(error))
            agent.reject(event.key, 503, now, headers=(("Retry-After", str(self.settings.retry_after_s)),))
            return
        local = self._local_media(stream, event.flow)
        leg = SipLeg(self, event.key, info, event.flow, stream, local, self.settings.leg)
        self._legs[event.key] = leg
        if offer is not None:
            try:
                leg.take_offer(offer)
            except SdpError as error:
                leg.media_refusal = str(error)
        if event.replaces is None:
            self._on_incoming(leg)
        elif leg.media_refusal:
            leg.hang_up(Cause.REFUSED_MEDIA, leg.media_refusal)
        else:
            self._replaced(event.replaces, leg)

    def _replaced(self, key: sip.CallKey, new: SipLeg) -> None:
        """A caller takes another's place (RFC 3891): it gets that one's leg, whose owner has nothing to do."""
        former = self._legs.get(key)
        if former is None:
            new.hang_up(Cause.REFUSED_NO_ROUTE, "the call to be replaced is over")
            return
        task = asyncio.get_running_loop().create_task(former.be_replaced(new), name=f"replacement of {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def inbound_info(request: Request, flow: Flow) -> LegInfo:
    headers: dict[str, str] = {}
    for name, value in request.headers:
        lower = name.lower()
        if lower.startswith("x-") or lower in KEPT_HEADERS:
            headers.setdefault(lower, value)
    caller = request.from_
    return LegInfo(
        kind="sip",
        direction="inbound",
        from_=caller.uri.user or caller.uri.host,
        to=Uri.parse(request.uri).user or "",
        trunk="",
        id=request.call_id,
        peer=f"{flow.remote[0]}:{flow.remote[1]}",
        display_name=caller.display_name,
        headers=headers,
    )
