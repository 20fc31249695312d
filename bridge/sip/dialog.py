"""Dialogs: what two user agents remember of each other between requests (RFC 3261 12)."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace

from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request, Response
from bridge.sip.uri import NameAddr, Uri
from bridge.sip.via import BRANCH_COOKIE, DEFAULT_PORT, DEFAULT_TLS_PORT

Resolve = Callable[[str, int | None], Address | None]
"""Finds the address of a host name and optional port, at once (from a cache); None when it can't."""


@dataclass(slots=True)
class Dialog:
    """One dialog, confirmed or about to be. It is ours to change: CSeq numbers run, the target is refreshed."""

    call_id: str
    local: str
    """Our From (To in requests to us) as written, with our tag."""
    remote: str
    """The peer's, with its tag if it gave one."""
    local_tag: str
    remote_tag: str
    local_cseq: int
    """Number of our last request."""
    remote_cseq: int | None
    """Number of the peer's last request, None before there was one."""
    route_set: tuple[str, ...]
    """Proxies to go through, next first, as Route values."""
    remote_target: Uri
    flow: Flow
    """How the peer was last reached."""
    behind_nat: bool = False
    """The peer announces an address that its packets don't come from: its Contact is of no use, its source is."""

    @classmethod
    def from_invite(cls, request: Request, local_tag: str, flow: Flow) -> "Dialog":
        """The called side's dialog. Raises SipSyntaxError for a missing or malformed Contact or Record-Route."""
        contact = request.contact
        if contact is None:
            # RFC 2543 did without: then From says where (RFC 4475 3.4.1).
            if request.via.branch.startswith(BRANCH_COOKIE):
                raise SipSyntaxError("missing header", "Contact")
            contact = request.from_
        if not contact.uri.is_sip:
            raise SipSyntaxError("Contact that is no SIP URI", str(contact.uri))
        return cls(
            call_id=request.call_id,
            local=f"{request.headers.get('To')};tag={local_tag}",
            remote=request.headers.get("From") or "",
            local_tag=local_tag,
            remote_tag=request.from_.tag or "",
            local_cseq=0,
            remote_cseq=request.cseq.number,
            route_set=_route_set(request.headers.items_of("Record-Route")),
            remote_target=contact.uri,
            flow=flow,
            behind_nat=_behind_nat(request, contact.uri, flow) or _is_astray(contact.uri, flow),
        )

    @classmethod
    def from_answer(cls, request: Request, response: Response, flow: Flow) -> "Dialog":
        """The calling side's dialog. Raises SipSyntaxError for a malformed Contact or Record-Route."""
        contact = response.contact
        target = contact.uri if contact is not None and contact.uri.is_sip else request.target
        return cls(
            call_id=request.call_id,
            local=request.headers.get("From") or "",
            remote=response.headers.get("To") or "",
            local_tag=request.from_.tag or "",
            remote_tag=response.to.tag or "",
            local_cseq=request.cseq.number,
            remote_cseq=None,
            route_set=_route_set(list(reversed(response.headers.items_of("Record-Route")))),
            remote_target=target,
            flow=flow,
            behind_nat=_is_astray(target, flow),
        )

    def refresh_target(self, message: Request | Response) -> None:
        """Take over the Contact of a re-INVITE or of its answer, if it is usable (RFC 3261 12.2)."""
        try:
            contact = message.contact
        except SipSyntaxError:
            return
        if contact is not None and contact.uri.is_sip:
            self.remote_target = contact.uri

    def next_cseq(self) -> int:
        """The number of our next request, counted up."""
        self.local_cseq += 1
        return self.local_cseq

    def request(self, method: str, cseq: int | None = None) -> Request:
        """A request within the dialog, without Via and Contact; `cseq` is an INVITE's number for its ACK."""
        if cseq is None:
            cseq = self.next_cseq()
        uri, routes = str(replace(self.remote_target, headers="")), self.route_set
        if routes and not _uri_of(routes[0]).is_loose_router:
            # A strict router wants to find itself in the Request-URI, and the target last (RFC 3261 12.2.1.1).
            uri, routes = str(replace(_uri_of(routes[0]), headers="")), (*routes[1:], f"<{uri}>")
        request = Request(method, uri)
        for route in routes:
            request.headers.add("Route", route)
        request.headers.add("Max-Forwards", "70")
        request.headers.add("From", self.local)
        request.headers.add("To", self.remote)
        request.headers.add("Call-ID", self.call_id)
        request.headers.add("CSeq", f"{cseq} {method}")
        return request

    def next_flow(self, resolve: Resolve | None) -> Flow:
        """Where the next request goes: the first route, else the peer's Contact. A connection is kept; a name
        that can't be resolved is taken for the address that the peer's own messages come from."""
        if self.flow.reliable or (self.behind_nat and not self.route_set):
            return self.flow
        return flow_towards(_uri_of(self.route_set[0]) if self.route_set else self.remote_target, self.flow, resolve)


def flow_towards(uri: Uri, flow: Flow, resolve: Resolve | None) -> Flow:
    """`flow`, directed at the host of `uri` (RFC 3263 for addresses; names go to `resolve`)."""
    host = uri.param("maddr") or uri.host_address
    try:
        ipaddress.ip_address(host)
    except ValueError:
        address = resolve(host, uri.port) if resolve else None
        return flow if address is None else replace(flow, remote=address)
    if (":" in host) != (":" in flow.local[0]):
        # No packet of this flow gets there; where its own come from is the next best.
        return flow
    default = DEFAULT_TLS_PORT if uri.scheme == "sips" else DEFAULT_PORT
    return replace(flow, remote=(host, uri.port or default))


def _uri_of(route: str) -> Uri:
    return NameAddr.parse(route).uri


def _route_set(routes: list[str]) -> tuple[str, ...]:
    for route in routes:
        if not _uri_of(route).is_sip:
            raise SipSyntaxError("Record-Route that is no SIP URI", route)
    return tuple(routes)


def _is_astray(contact: Uri, flow: Flow) -> bool:
    """Whether a peer on the Internet names an address for itself that is none there, as a PBX does that does not know
    of its NAT."""
    try:
        named = ipaddress.ip_address(contact.param("maddr") or contact.host_address)
    except ValueError:
        return False
    return not named.is_global and ipaddress.ip_address(flow.remote[0]).is_global


def _behind_nat(request: Request, contact: Uri, flow: Flow) -> bool:
    """Whether the caller stands where its Contact can't be reached: it names the same address in Via and
    Contact, and its packets come from another."""
    via = request.via
    return (
        contact.host == via.host
        and via.host.strip("[]") != flow.remote[0]
        and len(request.headers.items_of("Via")) == 1
    )
