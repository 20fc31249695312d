"""SIP messages: requests, responses and their header fields, parsed and serialised (RFC 3261 7)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from bridge.sip.errors import MalformedMessage, SipSyntaxError
from bridge.sip.grammar import is_token, split_list
from bridge.sip.uri import NameAddr, Uri
from bridge.sip.via import Via

REASONS = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    200: "OK", 202: "Accepted", 300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily",
    305: "Use Proxy", 380: "Alternative Service", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Timeout", 410: "Gone", 413: "Request Entity Too Large",
    414: "Request-URI Too Long", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme", 420: "Bad Extension",
    421: "Extension Required", 422: "Session Interval Too Small", 423: "Interval Too Brief",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated",
    488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 493: "Undecipherable",
    500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large", 600: "Busy Everywhere",
    603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip

_COMPACT = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
    "e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To",
    "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
}  # fmt: skip

_KNOWN_NAMES = (
    *_COMPACT.values(), "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Authorization",
    "CSeq", "Content-Disposition", "Date", "Diversion", "Expires", "Max-Forwards", "Min-SE", "Organization",
    "P-Asserted-Identity", "P-Preferred-Identity", "Privacy", "Proxy-Authenticate", "Proxy-Authorization",
    "Proxy-Require", "RAck", "RSeq", "Reason", "Record-Route", "Remote-Party-ID", "Replaces", "Require",
    "Retry-After", "Route", "Server", "Subscription-State", "Timestamp", "Unsupported", "User-Agent",
    "WWW-Authenticate", "Warning",
)  # fmt: skip

# As written (long or compact) to (key in lower case, name as we write it). Mostly one look-up a header line.
_NAMES: dict[str, tuple[str, str]] = {}
for _name in _KNOWN_NAMES:
    _NAMES[_name] = _NAMES[_name.lower()] = (_name.lower(), _name)
for _short, _name in _COMPACT.items():
    _NAMES[_short] = _NAMES[_short.upper()] = (_name.lower(), _name)

# A NUL may stand in a quoted string, escaped (RFC 4475 3.1.1.2).
_LENGTH = ("Content-Length", "content-length", "l", "L")

_FORBIDDEN = re.compile(r"[\r\n]|(?<!\\)\x00")
_CSEQ = re.compile(r"\s*+([0-9]{1,10})\s++(\S++)\s*+")
_RETRY_AFTER = re.compile(r"([0-9]{1,9})(?![0-9])")
_MAX_CSEQ = 2**31

DEFAULT_MAX_HEADERS = 200
"""Header lines in one message; honest ones have 10 to 40."""


def _named(name: str) -> tuple[str, str]:
    """Key and spelling of a header field name. Raises SipSyntaxError for what can't be one."""
    known = _NAMES.get(name)
    if known is not None:
        return known
    stripped = name.rstrip(" \t")
    known = _NAMES.get(stripped) or _NAMES.get(stripped.lower())
    if known is not None:
        return known
    if not is_token(stripped):
        raise SipSyntaxError("malformed header name", name)
    return stripped.lower(), stripped


def _field(name: str, value: str) -> tuple[str, str, str]:
    """Key, spelling and value of a field. Raises SipSyntaxError for what can't be one."""
    # Thirty fields a message: the pattern is for those that need it.
    if ("\n" in value or "\r" in value or "\0" in value) and _FORBIDDEN.search(value):
        raise SipSyntaxError(f"line break or NUL in the value of {name}", value)
    key, spelling = _NAMES.get(name) or _named(name)
    return key, spelling, value.strip(" \t")


class Headers:
    """Header fields in order. Names compare without case, compact forms equal their long ones."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: list[tuple[str, str, str]] = []
        for name, value in fields:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Append a field. Raises SipSyntaxError for a malformed name or a value that holds a line break."""
        self._fields.append(_field(name, value))

    def prepend(self, name: str, value: str) -> None:
        """Put a field before all others. Raises as `add` does."""
        self._fields.insert(0, _field(name, value))

    def copy_from(self, source: "Headers", names: Iterable[str]) -> None:
        """Append the fields of `source` that have one of these names, as we write them."""
        self._fields += [entry for entry in source._fields if entry[1] in names]

    def replace_first(self, name: str, value: str) -> None:
        """Put `value` in place of the first field of this name, which must be there."""
        field = _field(name, value)
        index = next(i for i, entry in enumerate(self._fields) if entry[0] == field[0])
        self._fields[index] = field

    def get(self, name: str) -> str | None:
        """The first field's value as written, or None."""
        key = _NAMES[name][0] if name in _NAMES else name.lower()
        for entry in self._fields:
            if entry[0] == key:
                return entry[2]
        return None

    def get_all(self, name: str) -> list[str]:
        """Each field's value as written, one per header line."""
        key = _NAMES[name][0] if name in _NAMES else name.lower()
        return [entry[2] for entry in self._fields if entry[0] == key]

    def keys(self) -> list[str]:
        """The names in lower case, in order, one per header line."""
        return [entry[0] for entry in self._fields]

    def items_of(self, name: str) -> list[str]:
        """The items of a list-valued field (Via, Route, Allow, Supported, ...), over all its lines, split at commas.

        Raises SipSyntaxError."""
        return [item for value in self.get_all(name) for item in split_list(value)]

    def tokens_of(self, name: str) -> set[str]:
        """The items of a list of tokens, in lower case. Never raises: an unreadable list is empty."""
        try:
            return {item.lower() for item in self.items_of(name)}
        except SipSyntaxError:
            return set()

    def extend(self, fields: Iterable[tuple[str, str]]) -> None:
        for name, value in fields:
            self.add(name, value)

    def copy(self) -> "Headers":
        twin = Headers()
        twin._fields = list(self._fields)
        return twin

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Name and value, in order, one per header line."""
        return ((name, value) for _, name, value in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return [(key, value) for key, _, value in self._fields] == [(key, value) for key, _, value in other._fields]

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({[(name, value) for _, name, value in self._fields]!r})"


@dataclass(frozen=True, slots=True)
class CSeq:
    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> "CSeq":
        """Raises SipSyntaxError, also for a number of 2**31 and more (RFC 3261 8.1.1.5)."""
        return _parse_cseq(text)

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@lru_cache(512)
def _parse_cseq(text: str) -> CSeq:
    match = _CSEQ.fullmatch(text)
    if match is None or int(match[1]) >= _MAX_CSEQ or not is_token(match[2]):
        raise SipSyntaxError("malformed CSeq", text)
    return CSeq(int(match[1]), match[2])


class _FieldAccess:
    """The fields that every message has. Each raises SipSyntaxError where it is missing or malformed."""

    __slots__ = ()
    headers: Headers

    def _required(self, name: str) -> str:
        value = self.headers.get(name)
        if not value:
            raise SipSyntaxError("missing header", name)
        return value

    @property
    def via(self) -> Via:
        """The topmost hop."""
        value = self._required("Via")
        if "," not in value:
            return Via.parse(value)
        items = split_list(value)
        if not items:
            raise SipSyntaxError("missing header", "Via")
        return Via.parse(items[0])

    @property
    def from_(self) -> NameAddr:
        return NameAddr.parse(self._required("From"))

    @property
    def to(self) -> NameAddr:
        return NameAddr.parse(self._required("To"))

    @property
    def call_id(self) -> str:
        return self._required("Call-ID")

    @property
    def cseq(self) -> CSeq:
        return CSeq.parse(self._required("CSeq"))

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact, None when there is none."""
        items = self.headers.items_of("Contact")
        return NameAddr.parse(items[0]) if items else None

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters, "" when absent."""
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()


def _encode(start_line: str, headers: Headers, body: bytes, charset: str) -> bytes:
    lines = [start_line, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode(charset, "replace") + body


@dataclass(slots=True)
class Request(_FieldAccess):
    """`headers` leaves Content-Length out: it is the body's."""

    method: str
    uri: str
    """The Request-URI as written."""
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    charset: str = "utf-8"
    """How the head is encoded: UTF-8, or Latin-1 for a peer that breaks the rule, so that what is echoed stays."""

    @property
    def target(self) -> Uri:
        """The Request-URI. Raises SipSyntaxError."""
        return Uri.parse(self.uri)

    def serialise(self) -> bytes:
        return _encode(f"{self.method} {self.uri} SIP/2.0", self.headers, self.body, self.charset)


@dataclass(slots=True)
class Response(_FieldAccess):
    """`headers` leaves Content-Length out: it is the body's."""

    status: int
    reason: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    charset: str = "utf-8"

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which it may be tried again (RFC 3261 20.33), None where nothing readable is said of it."""
        match = _RETRY_AFTER.match(self.headers.get("Retry-After") or "")
        return int(match[1]) if match else None

    def serialise(self) -> bytes:
        return _encode(f"SIP/2.0 {self.status} {self.reason}", self.headers, self.body, self.charset)


_ECHOED = ("Via", "From", "To", "Call-ID", "CSeq")


def make_response(request: Request, status: int, reason: str = "", *, to_tag: str = "") -> Response:
    """A response with what RFC 3261 8.2.6.2 copies from the request; `to_tag` is added unless To has one."""
    if _FORBIDDEN.search(reason):
        raise SipSyntaxError("line break or NUL in a reason phrase", reason)
    response = Response(status, reason or REASONS.get(status, "Unknown"), charset=request.charset)
    headers = response.headers
    headers.copy_from(request.headers, _ECHOED if status > 100 else (*_ECHOED, "Timestamp"))
    if to_tag and _takes_tag(request):
        headers.replace_first("To", f"{request.headers.get('To')};tag={to_tag}")
    return response


def _takes_tag(request: Request) -> bool:
    """Whether our tag can be added to To: not where there is one, nor to something that can't be read."""
    try:
        return request.to.tag is None
    except SipSyntaxError:
        return False


def _split_head(data: bytes) -> tuple[list[str], bytes, str, bool]:
    """Unfolded lines, what follows the blank line, the charset, and whether there was a blank line."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        head, blank, body = data.partition(b"\n\n")
    try:
        text, charset = head.decode(), "utf-8"
    except UnicodeDecodeError:
        text, charset = head.decode("latin-1"), "latin-1"
    if text.count("\n") != text.count("\r\n"):
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    lines: list[str] = []
    for line in text.split("\r\n"):
        if line[:1] in (" ", "\t") and lines:
            lines[-1] = f"{lines[-1].rstrip()} {line.strip()}"
        elif line:
            lines.append(line)
    return lines, body, charset, bool(blank)


def _start_line(line: str, charset: str) -> tuple[Request | Response, str]:
    """The message that the first line opens, and what is wrong with that line ("" if nothing)."""
    if line[:8].upper() == "SIP/2.0 ":
        status, _, reason = line[8:].partition(" ")
        if len(status) != 3 or not status.isascii() or not status.isdigit() or not "100" <= status <= "699":
            raise MalformedMessage("malformed status line")
        return Response(int(status), reason.strip(), charset=charset), ""
    parts = line.split(" ")
    if len(parts) == 3 and is_token(parts[0]) and parts[1] and parts[2].upper() == "SIP/2.0":
        return Request(parts[0], parts[1], charset=charset), ""
    words = line.split()
    if len(words) < 3 or not is_token(words[0]) or not words[-1].upper().startswith("SIP/"):
        raise MalformedMessage("not a SIP message")
    request = Request(words[0], " ".join(words[1:-1]), charset=charset)
    version = words[-1].upper() != "SIP/2.0"
    return request, "Version Not Supported" if version else "Malformed Request Line"


def parse_message(data: bytes, *, max_headers: int = DEFAULT_MAX_HEADERS) -> Request | Response:
    """Parse one datagram, or one message cut out of a stream.

    Bytes after Content-Length are cut off. Only the outer form is checked; see `check` for the fields.
    Raises MalformedMessage, with the request as far as it was understood."""
    lines, body, charset, complete = _split_head(data.lstrip(b"\r\n"))
    if not lines:
        raise MalformedMessage("empty message")
    message, fault = _start_line(lines[0], charset)
    status = 505 if fault == "Version Not Supported" else 400
    if len(lines) - 1 > max_headers:
        fault, status = "Too Many Header Fields", 513
    length: str | None = None
    headers = message.headers
    for line in lines[1 : max_headers + 1]:
        name, colon, value = line.partition(":")
        try:
            if not colon:
                raise SipSyntaxError("header line without a colon", line)
            if name in _LENGTH or (name not in _NAMES and name.strip(" \t").lower() in _LENGTH):
                value = value.strip(" \t")
                fault = fault or ("Conflicting Content-Length" if length not in (None, value) else "")
                length = value
            else:
                headers.add(name, value)
        except SipSyntaxError:
            fault = fault or "Malformed Header Field"
    message.body = body
    if not complete:
        fault = fault or "Truncated Message"
    elif length is not None:
        if not (length.isascii() and length.isdigit()) or len(length) > 9:
            fault = fault or "Malformed Content-Length"
        elif int(length) > len(body):
            fault = fault or "Body Shorter Than Content-Length"
        else:
            message.body = body[: int(length)]
    if fault:
        raise MalformedMessage(fault, status=status, request=message if isinstance(message, Request) else None)
    return message


_ONCE = ("From", "To", "Call-ID", "CSeq", "Max-Forwards")


def check(message: Request | Response) -> None:
    """Check the fields that every message must have (RFC 3261 8.1.1, 20). Raises MalformedMessage."""
    request = message if isinstance(message, Request) else None
    try:
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            if not message.headers.get(name):
                raise MalformedMessage(f"Missing {name} Header", request=request)
        keys = message.headers.keys()
        for name in _ONCE:
            if keys.count(name.lower()) > 1:
                raise MalformedMessage(f"Repeated {name} Header", request=request)
        for part, name in ((message.from_, "From"), (message.to, "To")):
            if part.tag == "":
                raise MalformedMessage(f"Empty Tag In {name}", request=request)
        via, cseq = message.via, message.cseq
        if not via.host:
            raise MalformedMessage("Malformed Via", request=request)
        if request is not None:
            if cseq.method != request.method:
                raise MalformedMessage("CSeq Method Does Not Match", request=request)
            hops = request.headers.get("Max-Forwards")
            if hops is not None and not (hops.isascii() and hops.isdigit() and int(hops[:9]) <= 255):
                raise MalformedMessage("Malformed Max-Forwards", request=request)
            if request.uri.startswith("<"):
                raise MalformedMessage("Malformed Request-URI", request=request)
    except SipSyntaxError as error:
        what = re.sub(r"\s+", " ", str(error).partition(":")[0]).strip()
        raise MalformedMessage(what.title(), request=request) from error
