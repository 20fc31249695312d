"""Bodies of messages: finding the SDP, and the status line in a sipfrag."""

import re

from bridge.sip.errors import SipSyntaxError
from bridge.sip.grammar import get_param, parse_params
from bridge.sip.message import Request, Response

_SIPFRAG = re.compile(rb"\s*+SIP/2\.0 ([1-6][0-9][0-9])(?: ([^\r\n]*+))?")
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n|\A\r?\n")
_ORIGIN = re.compile(rb"^o=(\S+ \S+) ([0-9]{1,19}) ", re.M)
_PART_TYPE = re.compile(rb"^(?:content-type|c)[ \t]*:[ \t]*([^;\r\n]+)", re.I | re.M)

MAX_PARTS = 16


def sdp_of(message: Request | Response) -> bytes | None:
    """The session description in the body, also as a part of a multipart; None when there is none."""
    if not message.body:
        return None
    if message.content_type == "application/sdp":
        return message.body
    if message.content_type.startswith("multipart/"):
        return _sdp_part(message)
    return None


def _sdp_part(message: Request | Response) -> bytes | None:
    _, semicolon, params = (message.headers.get("Content-Type") or "").partition(";")
    try:
        boundary = get_param(parse_params(semicolon + params), "boundary")
    except SipSyntaxError:
        return None
    if not boundary:
        return None
    # A line break before the first delimiter makes all of them alike.
    parts = (b"\r\n" + message.body).split(b"\n--" + boundary.encode("utf-8", "replace"), MAX_PARTS)
    for part in parts[1:]:
        head, _, content = part.lstrip(b" \t").partition(b"\n")
        if head.strip():
            continue
        match = _BLANK_LINE.search(content)
        if match is None:
            continue
        kind = _PART_TYPE.search(content[: match.start()])
        if kind is not None and kind[1].strip().lower() == b"application/sdp":
            sdp = content[match.end() :]
            return sdp[:-1] if sdp.endswith(b"\r") else sdp
    return None


def following(previous: bytes, new: bytes) -> bytes:
    """`new` as the description that comes after `previous`: where it says something else, the version in its `o=`
    line is made greater, if it is not (RFC 3264 8). Else a peer may take the change for none."""
    before, origin = _ORIGIN.search(previous), _ORIGIN.search(new)
    if before is None or origin is None or before[1] != origin[1] or new == previous:
        return new
    last, version = int(before[2]), int(origin[2])
    if version > last:
        return new
    if previous[: before.start(2)] + previous[before.end(2) :] == new[: origin.start(2)] + new[origin.end(2) :]:
        return previous
    return b"%s%d%s" % (new[: origin.start(2)], last + 1, new[origin.end(2) :])


def parse_sipfrag(body: bytes) -> tuple[int, str] | None:
    """Status and reason of the status line that a REFER's NOTIFY carries (RFC 3420); None when there is none."""
    match = _SIPFRAG.match(body)
    if match is None:
        return None
    return int(match[1]), (match[2] or b"").decode("utf-8", "replace").strip()


def dtmf_of_info(content_type: str, body: bytes) -> tuple[str, int] | None:
    """The digit (0-9 * # A-D) and its length in ms that an INFO carries, None if it carries none.

    `application/dtmf-relay` has `Signal=5` and `Duration=160` lines, `application/dtmf` the bare digit."""
    text = body.decode("ascii", "replace")
    if content_type == "application/dtmf":
        digit, duration = text.strip(), ""
    elif content_type == "application/dtmf-relay":
        lines = (line.partition("=") for line in text.splitlines())
        fields = {name.strip().lower(): value.strip() for name, _, value in lines}
        digit, duration = fields.get("signal", ""), fields.get("duration", "")
    else:
        return None
    # Some peers number the keys as RFC 4733 does.
    digit = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}.get(digit, digit.upper())
    if len(digit) != 1 or digit not in "0123456789*#ABCD":
        return None
    return digit, int(duration) if duration.isdigit() and len(duration) < 6 else 160
