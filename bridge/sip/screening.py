"""What a user agent turns away on sight, and with what (RFC 3261 8.2, 11, 12.2.2)."""

from bridge.sip.errors import SipSyntaxError
from bridge.sip.grammar import get_param, parse_params
from bridge.sip.message import Request
from bridge.sip.session_timer import refusal_of
from bridge.sip.settings import Refusal, UserAgentConfig

_SDP_RANGES = {"application/sdp", "application/*", "*/*", "multipart/mixed", "multipart/*"}
IN_DIALOG_ONLY = ("BYE", "INFO", "NOTIFY", "REFER", "UPDATE", "PRACK")


def screen(request: Request, config: UserAgentConfig) -> Refusal | None:
    """Check what any request is checked for: method, extensions, body. None lets it pass."""
    if request.method not in config.allow:
        return Refusal(405, headers=(("Allow", ", ".join(config.allow)),))
    unknown = [tag for tag in _required(request) if tag.lower() not in config.supported]
    if unknown:
        return Refusal(420, headers=(("Unsupported", ", ".join(unknown)),))
    if "Replaces" in request.headers and request.method not in ("INVITE", "BYE"):
        return Refusal(400, "Replaces Outside INVITE")
    return _screen_accept(request) or _screen_body(request, config) or refusal_of(request, config)


def screen_new(request: Request, config: UserAgentConfig) -> Refusal | None:
    """Check a request outside any dialog, beyond what `screen` does."""
    if request.method in IN_DIALOG_ONLY and request.method in config.allow:
        return Refusal(481)
    try:
        target = request.target
    except SipSyntaxError:
        return Refusal(400, "Malformed Request-URI")
    if not target.is_sip:
        return Refusal(416)
    # Only OPTIONS may be meant to end here (RFC 3261 11): for a call we are the end in any case.
    if (
        request.method == "OPTIONS"
        and request.headers.get(
            "Max-Forwards",
        )
        == "0"
    ):
        return Refusal(483)
    return screen(request, config) or _screen_reliability(request, config)


def _required(request: Request) -> list[str]:
    try:
        return request.headers.items_of("Require")
    except SipSyntaxError:
        return request.headers.get_all("Require")


def _screen_accept(request: Request) -> Refusal | None:
    """An INVITE whose sender takes no session description can't be answered (RFC 3261 21.4.7, RFC 4475 3.3.15)."""
    if request.method != "INVITE":
        return None
    accepted = {item.partition(";")[0].strip() for item in request.headers.tokens_of("Accept")}
    return None if not accepted or accepted & _SDP_RANGES else Refusal(406)


def _screen_reliability(request: Request, config: UserAgentConfig) -> Refusal | None:
    if request.method != "INVITE" or config.reliable != "required":
        return None
    if "100rel" in request.headers.tokens_of("Supported") | request.headers.tokens_of("Require"):
        return None
    return Refusal(421, headers=(("Require", "100rel"),))


def _screen_body(request: Request, config: UserAgentConfig) -> Refusal | None:
    if not request.body:
        return None
    if request.headers.tokens_of("Content-Encoding") - {"identity"}:
        return Refusal(415, headers=(("Accept-Encoding", "identity"),))
    if request.method in ("INVITE", "UPDATE", "PRACK"):
        accepted: tuple[str, ...] = ("application/sdp", "multipart/mixed", "multipart/alternative")
        shown = "application/sdp"
    elif request.method == "INFO":
        accepted = config.info_types
        shown = ", ".join(config.info_types)
    else:
        return None
    if request.content_type in accepted or _is_optional(request):
        return None
    return Refusal(415, headers=(("Accept", shown),))


def _is_optional(request: Request) -> bool:
    """Whether the sender can do without our understanding the body (RFC 3261 20.11)."""
    _, semicolon, params = (request.headers.get("Content-Disposition") or "").partition(";")
    try:
        return (get_param(parse_params(semicolon + params), "handling") or "").lower() == "optional"
    except SipSyntaxError:
        return False
