"""The SIP endpoint: our user agent on its transports, whose calls it turns into legs, and outbound ones likewise."""

import asyncio
import ipaddress
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import quote

import structlog

from bridge.events import Cause
from bridge.legs.base import BadTargetError, LegError, LegInfo
from bridge.legs.codecs import CODECS
from bridge.legs.media import MediaPlane, MediaStream, MediaUnavailableError
from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.legs.sip import DEFAULT_OPTIONS, SipLeg, SipLegOptions
from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.errors import LocateError, SdpError, SipError, SipSyntaxError
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request
from bridge.sip.offer_answer import Codec, LocalMedia, make_offer
from bridge.sip.resolver import ResolverSettings
from bridge.sip.sdp import SessionDescription, parse_sdp
from bridge.sip.settings import DEFAULT_ALLOW, Admit, UserAgentConfig
from bridge.sip.tcp import StreamLimits
from bridge.sip.timers import TimerValues
from bridge.sip.tls import TlsSettings
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.transports import Transports, open_transports
from bridge.sip.uri import NameAddr, Uri, format_host
from bridge.sip.via import DEFAULT_TLS_PORT

log = structlog.get_logger(__name__)

DEFAULT_CODECS: tuple[Codec, ...] = tuple(
    CODECS[name] for name in ("PCMU", "PCMA", "G722", "OPUS", "L16") if name in CODECS
)
"""G.711 first, as it costs a tenth of the others; those are for peers that ask for nothing else, and for trunks whose
`codecs` put them first."""

BYE_WAIT_S = 2.0
"""How long a closing endpoint waits for answers to its BYEs."""

BYE_LOOK_S = 0.02

_USER_SAFE = "!*'()&=+$,;?/"
"""What may stand in the user part of a URI besides letters, digits and `-_.~` (RFC 3261 25.1)."""

KEPT_HEADERS = (
    "p-asserted-identity",
    "diversion",
    "history-info",
    "privacy",
    "referred-by",
    "traceparent",
    "tracestate",
)


@dataclass(frozen=True, slots=True)
class SipEndpointSettings:
    host: str = "0.0.0.0"
    port: int = 5060
    """Of UDP and TCP; 0 takes any free one (a phone)."""
    more_hosts: tuple[str, ...] = ()
    """Further addresses to listen on; `::` is IPv6 alone."""
    udp: bool = True
    tcp: bool = True
    tls_port: int = DEFAULT_TLS_PORT
    """Listened on if `tls.own` has a certificate."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    limits: StreamLimits = field(default_factory=StreamLimits)
    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    advertised_address: str | None = None
    """Address in Contact, Via and SDP for peers of its family, where NAT hides ours."""
    advertised_port: int | None = None
    """Of UDP and TCP, where NAT maps it to another; the one we listen on unless given."""
    advertised_tls_port: int | None = None
    local_networks: tuple[str, ...] = ()
    """Peers on this side of the NAT: they are shown our own address."""
    outbound_proxy: str = ""
    """SIP URI that calls go to first, as a loose route, where the call itself says nothing else."""
    user_agent: str = "Offhook"
    t1_s: float = 0.5
    retry_after_s: int = 10
    max_calls: int = 2000
    codecs: tuple[Codec, ...] = DEFAULT_CODECS
    max_ring_s: float = 180.0
    session_expires_s: int = 1800
    """Session interval that we ask for (RFC 4028); 0: none."""
    min_se_s: int = 90
    reliable: Literal["off", "supported", "required"] = "supported"
    """Reliable provisional responses (RFC 3262)."""
    leg: SipLegOptions = DEFAULT_OPTIONS
    """Of legs whose trunk says nothing else."""

    @property
    def transports(self) -> TransportSettings:
        return TransportSettings(
            hosts=(self.host, *self.more_hosts),
            port=self.port,
            udp=self.udp,
            tcp=self.tcp,
            tls_port=self.tls_port,
            tls=self.tls,
            limits=self.limits,
            resolver=self.resolver,
        )


class SipEndpoint:
    """Turns calls of the user agent into legs, and makes outbound ones."""

    def __init__(
        self,
        settings: SipEndpointSettings,
        media: MediaPlane,
        on_incoming: Callable[["SipLeg"], None] | None = None,
        *,
        admit: Admit | None = None,
        profile_of: Callable[[Request, Flow], LegProfile | None] | None = None,
        on_answered: Callable[[sip.RequestAnswered], None] | None = None,
    ) -> None:
        """`profile_of` says of an INVITE that was let in what is particular about its trunk's legs (None: nothing);
        `on_answered` takes the answers to requests outside calls, which others made through `agent`."""
        self.settings = settings
        self.media = media
        self.retry_after_s = settings.retry_after_s
        self._on_incoming = on_incoming
        self._profile_of = profile_of
        self._on_answered = on_answered
        self._local_networks = tuple(ipaddress.ip_network(network) for network in settings.local_networks)
        self._legs: dict[sip.CallKey, SipLeg] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: Transports | None = None
        self.agent = UserAgent(
            UserAgentConfig(
                user_agent=settings.user_agent,
                advertised=self._advertised,
                allow=(*DEFAULT_ALLOW, "REFER"),
                admit=admit,
                resolve=self._resolve,
                stream_flow=self._stream_flow,
                timers=TimerValues(t1=settings.t1_s),
                max_calls=settings.max_calls,
                max_ring_s=settings.max_ring_s,
                session_expires_s=settings.session_expires_s,
                min_se_s=settings.min_se_s,
                reliable=settings.reliable,
                retry_after_s=settings.retry_after_s,
            )
        )

    async def start(self) -> None:
        """Bind. Raises OSError where a port is taken, TlsError for certificates that can't be used."""
        self._transports = await open_transports(self.agent, self._on_event, self.settings.transports)

    @property
    def address(self) -> Address:
        return self.transports.address

    @property
    def transports(self) -> Transports:
        if self._transports is None:
            raise LegError("the SIP endpoint is not started")
        return self._transports

    @property
    def legs(self) -> Sequence["SipLeg"]:
        return tuple(self._legs.values())

    async def dial(
        self,
        target: str,
        *,
        from_user: str,
        timeout_s: float = 60.0,
        headers: Sequence[tuple[str, str]] = (),
        display_name: str = "",
        max_redirects: int = 0,
    ) -> SipLeg:
        """Call `target` (a `sip:`, `sips:` or `tel:` URI), by way of no trunk. Like `place`."""
        call = OutboundCall(
            target=target,
            from_=from_user,
            display_name=display_name,
            headers=tuple(headers),
            max_redirects=max_redirects,
        )
        return await self.place(call, timeout_s=timeout_s)

    async def place(self, call: OutboundCall, *, timeout_s: float = 60.0) -> SipLeg:
        """Make a call. Returns the leg as soon as it is known where the INVITE goes; its events tell the rest. A call
        that is not answered within `timeout_s` from then ends with `no-answer`.

        Raises BadTargetError for a target that can't be called, MediaUnavailableError without a free port."""
        transports = self.transports
        try:
            uri, hop, route = self._way_of(call)
            flows = await transports.locate(hop, transport=call.transport)
        except (SipSyntaxError, LocateError) as error:
            raise BadTargetError(f"{call.target!r} can't be called: {error}") from error
        flow, *others = flows
        # The session description holds one address of ours, so all must be of its family.
        alternatives = [other for other in others if (":" in other.remote[0]) == (":" in flow.remote[0])]
        profile = call.profile
        stream = self.media.open()
        local = self._local_media(stream, flow, profile)
        offer = make_offer(local)
        try:
            caller = self._caller(call, local.address)
            key = self.agent.invite(
                str(uri),
                flow,
                transports.now(),
                from_=str(caller),
                sdp=offer.serialise(),
                headers=call.headers,
                route=route,
                alternatives=alternatives,
                credentials=profile.credentials,
                max_redirects=call.max_redirects,
                max_forwards=call.max_forwards,
            )
        except SipError as error:
            stream.close()
            raise BadTargetError(f"{call.target!r} can't be called: {error}") from error
        info = LegInfo(
            kind="sip",
            direction="outbound",
            from_=call.shown_from or caller.uri.user_text or caller.uri.host,
            to=call.shown_to or uri.user or uri.host,
            trunk=profile.trunk,
            id=self.agent.call_id(key),
            peer=f"{flow.remote[0]}:{flow.remote[1]}",
        )
        leg = SipLeg(self, key, info, flow, stream, local, self._options(profile))
        leg.note_offer(offer)
        leg.limit_ringing(timeout_s)
        self._legs[key] = leg
        transports.flush()
        return leg

    async def aclose(self) -> None:
        """Hang up what is left, wait a little for the answers, close the sockets."""
        if self._transports is None:
            return
        for leg in self.legs:
            await leg.hangup(Cause.DRAINED, "the bridge stopped")
        # A call that was crossed by its end leaves without an event, so the count itself is watched.
        for _ in range(int(BYE_WAIT_S / BYE_LOOK_S)):
            if not self.agent.call_count:
                break
            await asyncio.sleep(BYE_LOOK_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._transports.close()
        await self._transports.closed

    def forget(self, key: sip.CallKey) -> None:
        self._legs.pop(key, None)

    def assign(self, key: sip.CallKey, leg: SipLeg) -> None:
        self._legs[key] = leg

    # -- inside ---------------------------------------------------------------------------------------------

    def _way_of(self, call: OutboundCall) -> tuple[Uri, Uri, tuple[str, ...]]:
        """Request-URI, the hop to be looked up, and Route. Raises SipSyntaxError, LocateError."""
        uri = Uri.parse(call.target)
        proxy = self.settings.outbound_proxy if not call.next_hop and not call.route else ""
        hop = Uri.parse(call.next_hop or proxy) if call.next_hop or proxy else uri
        if uri.scheme == "tel":
            if hop is uri:
                raise LocateError("a telephone number needs a trunk or an outbound proxy")
            # RFC 3261 19.1.6.
            uri = Uri("sip", hop.host, uri.user, port=hop.port, params=(("user", "phone"),))
        if proxy and not hop.is_loose_router:
            return uri, hop, (f"<{replace(hop, params=(*hop.params, ('lr', None)))}>",)
        return uri, hop, (f"<{hop}>",) if proxy else call.route

    def _caller(self, call: OutboundCall, host: str) -> NameAddr:
        """From: as it is given, or a user at our own address. Raises SipSyntaxError."""
        text = call.from_ or call.shown_from
        if text.startswith(("sip:", "sips:", "tel:", "<", '"')) or "<" in text:
            caller = NameAddr.parse(text)
        else:
            caller = NameAddr(Uri("sip", format_host(host), quote(text, safe=_USER_SAFE)))
        return replace(caller, display_name=call.display_name) if call.display_name else caller

    def _options(self, profile: LegProfile | None) -> SipLegOptions:
        if profile is None or not profile.trunk:
            return self.settings.leg
        return SipLegOptions(dtmf=profile.dtmf, transfer=profile.transfer, accept_refer=profile.accept_refer)

    def _advertised(self, flow: Flow) -> Address:
        settings = self.settings
        shown = settings.advertised_address
        if shown is None or (":" in shown) != (":" in flow.remote[0]) or self._is_near(flow.remote[0]):
            return flow.local
        tls = flow.transport == "tls"
        return (shown, (settings.advertised_tls_port if tls else settings.advertised_port) or flow.local[1])

    def _is_near(self, address: str) -> bool:
        peer = ipaddress.ip_address(address) if self._local_networks else None
        return peer is not None and any(peer in network for network in self._local_networks)

    def _resolve(self, host: str, port: int | None) -> Address | None:
        return None if self._transports is None else self._transports.find(host, port)

    def _stream_flow(self, flow: Flow) -> Flow | None:
        return None if self._transports is None else self._transports.stream_flow(flow)

    def _local_media(self, stream: MediaStream, flow: Flow, profile: LegProfile | None) -> LocalMedia:
        return LocalMedia(
            self._advertised(flow)[0],
            stream.port,
            codecs=(profile.codecs if profile is not None else ()) or self.settings.codecs,
            ptime_ms=profile.ptime_ms if profile is not None else 20,
            dtmf=self._options(profile).dtmf != "info",
            session_id=random.getrandbits(31),
            # A caller of no trunk may encrypt its media; one that we call by no trunk is not asked to.
            srtp=profile.srtp if profile is not None else "offered",
            rtcp_mux=self.media.rtcp_mux,
        )

    def _on_event(self, event: sip.Event) -> None:
        if isinstance(event, sip.InviteReceived):
            self._invited(event)
        elif isinstance(event, sip.RequestAnswered):
            if self._on_answered is not None:
                self._on_answered(event)
        elif isinstance(event, sip.Redirected):
            self._start(self._redirect(event), f"redirection of {event.key}")
        elif (leg := self._legs.get(event.key)) is not None:
            leg.on_sip_event(event)

    async def _redirect(self, event: sip.Redirected) -> None:
        """Go on at the first of the new targets that can be found; without any the call ends with its 3xx."""
        transports = self.transports
        for target in event.targets:
            try:
                flows = await transports.locate(target)
                self.agent.retarget(event.key, target, flows, transports.now())
            except LocateError as error:
                log.info("redirection can't be followed", target=target, error=str(error))
                continue
            except SipError as error:
                # It was hung up meanwhile.
                log.info("redirection not followed", target=target, error=str(error))
            break
        else:
            self.agent.cancel(event.key, transports.now())
        transports.flush()

    def _invited(self, event: sip.InviteReceived) -> None:
        agent, now = self.agent, self.transports.now()
        if self._on_incoming is None:
            agent.reject(event.key, 486, now)
            return
        profile = self._profile_of(event.request, event.flow) if self._profile_of is not None else None
        info = inbound_info(event.request, event.flow)
        if profile is not None:
            info = replace(info, trunk=profile.trunk)
            agent.set_credentials(event.key, profile.credentials)
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
        local = self._local_media(stream, event.flow, profile)
        leg = SipLeg(self, event.key, info, event.flow, stream, local, self._options(profile))
        self._legs[event.key] = leg
        if offer is not None:
            try:
                leg.take_offer(offer)
            except SdpError as error:
                leg.refusal = Cause.REFUSED_MEDIA, str(error)
        if event.replaces is None:
            self._on_incoming(leg)
        elif leg.refusal is not None:
            leg.hang_up(*leg.refusal)
        else:
            self._replaced(event.replaces, leg)

    def _replaced(self, key: sip.CallKey, new: SipLeg) -> None:
        """A caller takes another's place (RFC 3891): it gets that one's leg, whose owner has nothing to do."""
        former = self._legs.get(key)
        if former is None:
            new.hang_up(Cause.REFUSED_NO_ROUTE, "the call to be replaced is over")
            return
        if former.info.trunk != new.info.trunk:
            # Who knows a dialog's name need not be a party of it (RFC 3891 8): one trunk's callers are not another's.
            new.hang_up(Cause.REFUSED_FORBIDDEN, "the call to be replaced is another trunk's")
            return
        self._start(former.be_replaced(new), f"replacement of {key}")

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def inbound_info(request: Request, flow: Flow) -> LegInfo:
    headers: dict[str, str] = {}
    for name, value in request.headers:
        lower = name.lower()
        if lower.startswith("x-") or lower in KEPT_HEADERS:
            # Proxies add lines of their own: several are one list (RFC 3261 7.3.1).
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
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
