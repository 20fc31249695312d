"""Session descriptions: parsed and serialised (RFC 4566, RFC 8866). What they agree on is `offer_answer`'s."""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Literal

from bridge.sip.errors import SdpError

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

DIRECTIONS: tuple[Direction, ...] = ("sendrecv", "sendonly", "recvonly", "inactive")

MAX_BYTES = 16_384
MAX_LINES = 500
MAX_MEDIA = 32

_MEDIA = re.compile(r"(\S++) ++([0-9]{1,5})(?:/([0-9]{1,5}))? ++(\S++)((?: ++\S++)*+) *+")
_RTPMAP = re.compile(r"([0-9]{1,3}) ++([^\s/]++)/([0-9]{1,6})(?:/([0-9]{1,2}))?\s*+")

# The order of line types in a description (RFC 8866 5), those that we keep as they are.
_BEFORE_CONNECTION = "iuep"
_BEFORE_TIMING = "b"
_AFTER_TIMING = "rzk"


@dataclass(frozen=True, slots=True)
class Origin:
    """The `o=` line: whose session this is, and which version of it."""

    user: str
    session_id: str
    version: str
    address: str
    net_type: str = "IN"
    address_type: str = "IP4"

    def __str__(self) -> str:
        return f"{self.user} {self.session_id} {self.version} {self.net_type} {self.address_type} {self.address}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A `c=` line."""

    address: str
    """IP address or host name, without a multicast TTL."""
    address_type: str = "IP4"
    net_type: str = "IN"
    suffix: str = ""
    """`/ttl` or `/ttl/count` of a multicast address."""

    @property
    def is_null(self) -> bool:
        """0.0.0.0 or ::, which means "send me nothing" (RFC 3264 8.4)."""
        try:
            return ipaddress.ip_address(self.address).is_unspecified
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.net_type} {self.address_type} {self.address}{self.suffix}"


Attribute = tuple[str, str | None]
"""Name and value of an `a=` line; None for a bare flag."""

Line = tuple[str, str]
"""Type letter and value of a line that is kept as it is."""


@dataclass(frozen=True, slots=True)
class MediaDescription:
    """One `m=` line and what belongs to it."""

    media: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    connection: Connection | None = None
    attributes: tuple[Attribute, ...] = ()
    port_count: int | None = None
    lines: tuple[Line, ...] = ()
    """`i=`, `b=` and `k=` lines."""

    def attribute(self, name: str) -> str | None:
        """Value of the first attribute of that name, "" for a flag, None when absent."""
        return _attribute(self.attributes, name)

    def rtpmaps(self) -> dict[int, tuple[str, int, int]]:
        """Encoding name (upper case), clock rate (Hz) and channels by payload type; malformed ones are left out."""
        maps: dict[int, tuple[str, int, int]] = {}
        for name, value in self.attributes:
            match = _RTPMAP.fullmatch(value) if name == "rtpmap" and value else None
            if match and int(match[1]) < 128:
                maps.setdefault(int(match[1]), (match[2].upper(), int(match[3]), int(match[4] or 1)))
        return maps

    def fmtp(self, payload_type: int) -> str:
        """The format parameters of a payload type, "" when there are none."""
        prefix = f"{payload_type} "
        for name, value in self.attributes:
            if name == "fmtp" and value and value.startswith(prefix):
                return value[len(prefix) :].strip()
        return ""


@dataclass(frozen=True, slots=True)
class SessionDescription:
    origin: Origin
    media: tuple[MediaDescription, ...] = ()
    connection: Connection | None = None
    attributes: tuple[Attribute, ...] = ()
    name: str = "-"
    timing: str = "0 0"
    lines: tuple[Line, ...] = ()
    """`i= u= e= p= b= r= z= k=` lines."""

    def attribute(self, name: str) -> str | None:
        """Value of the first session attribute of that name, "" for a flag, None when absent."""
        return _attribute(self.attributes, name)

    def connection_of(self, media: MediaDescription) -> Connection:
        """The stream's own `c=`, else the session's. Raises SdpError when there is neither."""
        connection = media.connection or self.connection
        if connection is None:
            raise SdpError(f"no c= line for the {media.media} stream")
        return connection

    def direction_of(self, media: MediaDescription) -> Direction:
        """The stream's direction, else the session's, else sendrecv, as its author sees it."""
        for attributes in (media.attributes, self.attributes):
            for direction in DIRECTIONS:
                if (direction, None) in attributes:
                    return direction
        return "sendrecv"

    def serialise(self) -> bytes:
        out = ["v=0", f"o={self.origin}", f"s={self.name}"]
        out += _kept(self.lines, _BEFORE_CONNECTION)
        if self.connection:
            out.append(f"c={self.connection}")
        out += _kept(self.lines, _BEFORE_TIMING)
        out.append(f"t={self.timing}")
        out += _kept(self.lines, _AFTER_TIMING)
        out += _attribute_lines(self.attributes)
        for media in self.media:
            count = "" if media.port_count is None else f"/{media.port_count}"
            out.append(f"m={media.media} {media.port}{count} {media.protocol} {' '.join(media.formats)}")
            out += _kept(media.lines, "i")
            if media.connection:
                out.append(f"c={media.connection}")
            out += _kept(media.lines, "bk")
            out += _attribute_lines(media.attributes)
        return ("\r\n".join(out) + "\r\n").encode()


def _attribute(attributes: tuple[Attribute, ...], name: str) -> str | None:
    for key, value in attributes:
        if key == name:
            return value or ""
    return None


def _kept(lines: tuple[Line, ...], letters: str) -> list[str]:
    return [f"{letter}={value}" for wanted in letters for letter, value in lines if letter == wanted]


def _attribute_lines(attributes: tuple[Attribute, ...]) -> list[str]:
    return [f"a={name}" if value is None else f"a={name}:{value}" for name, value in attributes]


def _parse_origin(value: str) -> Origin:
    fields = value.split()
    if len(fields) != 6:
        raise SdpError(f"malformed o= line: {value[:80]!r}")
    user, session_id, version, net_type, address_type, address = fields
    return Origin(user, session_id, version, address, net_type, address_type)


def _parse_connection(value: str) -> Connection:
    fields = value.split()
    if len(fields) != 3 or fields[0] != "IN" or fields[1] not in ("IP4", "IP6"):
        raise SdpError(f"malformed c= line: {value[:80]!r}")
    address, slash, suffix = fields[2].partition("/")
    if not address:
        raise SdpError(f"malformed c= line: {value[:80]!r}")
    return Connection(address, fields[1], fields[0], slash + suffix)


def _parse_media(value: str) -> MediaDescription:
    match = _MEDIA.fullmatch(value)
    if match is None or int(match[2]) > 65535:
        raise SdpError(f"malformed m= line: {value[:80]!r}")
    count = int(match[3]) if match[3] else None
    return MediaDescription(match[1], int(match[2]), match[4], tuple(match[5].split()), port_count=count)


def _parse_attribute(value: str) -> Attribute:
    name, colon, rest = value.partition(":")
    return (name.strip(), rest.strip() if colon else None)


def _parse_section(lines: list[Line]) -> tuple[Connection | None, tuple[Attribute, ...], tuple[Line, ...]]:
    """The `c=` line, the attributes, and the lines that are kept as they are."""
    connection = None
    attributes = []
    kept = []
    for letter, value in lines:
        if letter == "c":
            connection = connection or _parse_connection(value)
        elif letter == "a":
            attributes.append(_parse_attribute(value))
        elif letter in "iuepbrzk":
            kept.append((letter, value))
    return connection, tuple(attributes), tuple(kept)


def parse_sdp(data: bytes) -> SessionDescription:
    """Parse a description. Lenient in the order of lines and in what no call needs; unknown line types are
    passed over. Raises SdpError."""
    if len(data) > MAX_BYTES:
        raise SdpError(f"session description of {len(data)} bytes, more than {MAX_BYTES}")
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    rows = [row for row in text.split("\n") if row.strip()]
    if len(rows) > MAX_LINES:
        raise SdpError(f"session description of {len(rows)} lines, more than {MAX_LINES}")
    sections: list[list[Line]] = [[]]
    for row in rows:
        letter, equals, value = row.partition("=")
        if not equals or len(letter) != 1:
            raise SdpError(f"not a line of SDP: {row[:80]!r}")
        if letter == "m":
            sections.append([])
        sections[-1].append((letter, value.strip()))
    if len(sections) > MAX_MEDIA + 1:
        raise SdpError(f"{len(sections) - 1} media streams, more than {MAX_MEDIA}")
    head = dict(reversed(sections[0]))
    if head.get("v") != "0":
        raise SdpError(f"not a session description: v={head.get('v')!r}")
    if "o" not in head:
        raise SdpError("no o= line")
    connection, attributes, kept = _parse_section(sections[0])
    media = []
    for section in sections[1:]:
        stream = _parse_media(section[0][1])
        own, own_attributes, own_kept = _parse_section(section[1:])
        own_kept = tuple(line for line in own_kept if line[0] in "ibk")
        media.append(replace(stream, connection=own, attributes=own_attributes, lines=own_kept))
    return SessionDescription(
        _parse_origin(head["o"]),
        tuple(media),
        connection,
        attributes,
        head.get("s", "-") or "-",
        head.get("t", "0 0") or "0 0",
        kept,
    )
