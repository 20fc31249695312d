"""Requests of ours outside any dialog: INVITEs that make calls, and those that stand alone (RFC 3261 8.1, 11)."""

import secrets
from collections.abc import Iterable

from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Request
from bridge.sip.uri import NameAddr, Uri

HeaderFields = Iterable[tuple[str, str]]

_NOT_ALONE = ("INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE")
"""They make a call, or belong to one."""

MAX_FORWARDS = 70


def build_invite(
    layer: TransactionLayer,
    target: str,
    flow: Flow,
    *,
    tag: str,
    from_: str,
    to: str,
    sdp: bytes | None,
    headers: HeaderFields,
    route: Iterable[str],
    max_forwards: int,
) -> Request:
    """The INVITE of a new call, without its Via; `tag` is ours in the dialog. Raises SipSyntaxError, ValueError."""
    if max_forwards < 0:
        raise ValueError(f"{max_forwards} hops left: the call has been forwarded too often (483)")
    request = _start(layer, "INVITE", target, tag, from_, to, route, max_forwards)
    add = request.headers.add
    add("Call-ID", secrets.token_hex(16))
    add("CSeq", "1 INVITE")
    add("Contact", layer.contact(flow, secure=request.uri.startswith("sips:")))
    request.headers.extend(layer.capabilities_of_invite(offers=sdp is not None))
    if sdp is not None and layer.config.reliable == "required":
        add("Require", "100rel")
    request.headers.extend(headers)
    if sdp is not None:
        add("Content-Type", "application/sdp")
        request.body = sdp
    return request


def build_request(
    layer: TransactionLayer,
    method: str,
    target: str,
    flow: Flow,
    *,
    from_: str,
    to: str,
    headers: HeaderFields,
    body: bytes,
    content_type: str,
    call_id: str,
    cseq: int,
    route: Iterable[str],
) -> Request:
    """A request that stands alone, without its Via. ValueError for a method that does not; raises SipSyntaxError."""
    if method in _NOT_ALONE:
        raise ValueError(f"{method} makes or belongs to a call: it can't be sent alone")
    request = _start(layer, method, target, secrets.token_hex(8), from_, to, route, MAX_FORWARDS)
    add = request.headers.add
    add("Call-ID", call_id or secrets.token_hex(16))
    add("CSeq", f"{cseq or 1} {method}")
    request.headers.extend(headers)
    if method == "OPTIONS":
        if "Contact" not in request.headers:
            add("Contact", layer.contact(flow))
        if "Accept" not in request.headers:
            add("Accept", "application/sdp")
    if body:
        add("Content-Type", content_type or "application/octet-stream")
        request.body = body
    return request


def _start(
    layer: TransactionLayer,
    method: str,
    target: str,
    tag: str,
    from_: str,
    to: str,
    route: Iterable[str],
    max_forwards: int,
) -> Request:
    uri = Uri.parse(target)
    if not uri.is_sip:
        raise SipSyntaxError("not a SIP URI", target)
    caller = NameAddr.parse(from_)
    request = Request(method, str(uri))
    add = request.headers.add
    for hop in route:
        add("Route", hop)
    add("Max-Forwards", str(max_forwards))
    add("From", str(NameAddr(caller.uri, caller.display_name, (("tag", tag),))))
    add("To", str(NameAddr.parse(to or f"<{target}>")))
    if layer.config.user_agent:
        add("User-Agent", layer.config.user_agent)
    return request
