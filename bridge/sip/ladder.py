"""A call's SIP messages as a ladder: who sent what to whom, when, as text for a terminal."""

from collections.abc import Sequence

from bridge.sip.errors import MalformedMessage, SdpError, SipSyntaxError
from bridge.sip.message import Request, Response, parse_message
from bridge.sip.sdp import parse_sdp
from bridge.sip.trace import TracedMessage

US = "Offhook"

_COLUMN = 58
"""Characters between two parties: room for a status line and what its session says; longer ones are cut."""


def ladder(messages: Sequence[TracedMessage]) -> str:
    """Lines of text, ending with a line break; "" for no messages. Times are seconds since the first message.

    We stand behind the first party; further ones (a second leg, a transfer) to our right."""
    if not messages:
        return ""
    peers = list(dict.fromkeys(_peer(message) for message in messages))
    columns = [peers[0], US, *peers[1:]]
    lines = [_heads(columns)]
    start = messages[0].at
    for message in messages:
        lines.append(f"{message.at - start:9.3f}  {_rung(message, columns)}")
    return "".join(line.rstrip() + "\n" for line in lines)


def summary(message: TracedMessage) -> str:
    """One message in a few words: method or status, and what its session description says."""
    try:
        parsed = parse_message(message.data)
    except MalformedMessage:
        first = message.data.split(b"\r\n", 1)[0].decode("utf-8", "replace")
        return f"malformed: {first}"
    if isinstance(parsed, Request):
        words = parsed.method
        if parsed.method in ("INVITE", "REFER"):
            words = f"{words} {_target(parsed)}"
    else:
        words = f"{parsed.status} {parsed.reason} ({_method(parsed)})"
    session = _session(parsed.body) if "sdp" in (parsed.headers.get("Content-Type") or "") else ""
    return f"{words} {session}".rstrip()


def _target(request: Request) -> str:
    return (request.headers.get("Refer-To") or "") if request.method == "REFER" else request.uri


def _method(response: Response) -> str:
    try:
        return response.cseq.method
    except SipSyntaxError:
        return "?"


def _session(body: bytes) -> str:
    try:
        session = parse_sdp(body)
    except SdpError:
        return "[unreadable SDP]"
    if not session.media:
        return "[no media]"
    media = session.media[0]
    names = [name for name, _, _ in media.rtpmaps().values() if name not in ("TELEPHONE-EVENT", "CN")]
    return f"[{','.join(names) or ' '.join(media.formats)} :{media.port} {session.direction_of(media)}]"


def _peer(message: TracedMessage) -> str:
    host, port = message.flow.remote
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address if message.flow.transport == "udp" else f"{address}/{message.flow.transport}"


def _heads(columns: Sequence[str]) -> str:
    line = " " * 11
    for column in columns:
        line += column.ljust(_COLUMN + 1)
    return line


def _rung(message: TracedMessage, columns: Sequence[str]) -> str:
    peer, us = columns.index(_peer(message)), columns.index(US)
    left, right = min(peer, us), max(peer, us)
    rightwards = message.received == (peer < us)
    width = (right - left) * (_COLUMN + 1) - 1
    label = summary(message)
    room = width - 6
    label = label if len(label) <= room else label[: room - 1] + "…"
    body = f"- {label} ".ljust(width - 1, "-")
    arrow = f"{body}>" if rightwards else f"<{body}"
    line = ""
    for index in range(len(columns)):
        line += "|"
        if index == left:
            line += arrow
        elif not left < index < right and index < len(columns) - 1:
            line += " " * _COLUMN
        if left < index < right:
            line = line[:-1]
    return line
