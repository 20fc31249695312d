"""URIs and the name-addr form of From, To, Contact, Route and Refer-To (RFC 3261 19.1, 20.10; RFC 3966)."""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote as percent_decode

from bridge.sip.errors import SipSyntaxError
from bridge.sip.grammar import Params, format_params, get_param, has_param, parse_params, quote, unquote

# The same text is parsed several times on a message's way; more than a few hundred at once are not in use.
_CACHED = 512

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._-]++)(?::([0-9]{1,5}))?")
_USER = re.compile(r"[^\s<>@\"\x00-\x1f\x7f]++")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME_ADDR = re.compile(r'\s*+("(?:[^"\\]++|\\.)*+"|[^"<>;,:@]*+)\s*+<\s*+([^<>]*+)>\s*+(.*)', re.S)


def parse_host_port(text: str) -> tuple[str, int | None]:
    """`host[:port]`: the host in lower case, brackets kept on an IPv6 address. Raises SipSyntaxError."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise SipSyntaxError("malformed host or port", text)
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        raise SipSyntaxError("port out of range", text)
    return match[1].lower(), port


def format_host(host: str) -> str:
    """A host as it stands in a URI or Via: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


@dataclass(frozen=True, slots=True)
class Uri:
    """A `sip:`, `sips:` or `tel:` URI, or any other kept whole in `opaque`."""

    scheme: str
    """In lower case."""
    host: str = ""
    """In lower case, IPv6 in brackets; empty unless SIP."""
    user: str = ""
    """As written, %-escapes kept; the number of a `tel:` URI."""
    password: str | None = None
    port: int | None = None
    params: Params = ()
    headers: str = ""
    """What follows `?`, as written."""
    opaque: str = ""

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Raises SipSyntaxError."""
        return _parse_uri(text)

    @property
    def is_sip(self) -> bool:
        return self.scheme in ("sip", "sips")

    @property
    def user_text(self) -> str:
        """The user part for people and routing: %-escapes decoded, parameters such as `;phone-context` cut off.

        Escaped control characters stay escaped: a NUL is no end, and `%00` and `%00%00` are two users."""
        text = percent_decode(self.user.partition(";")[0])
        return _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", text)

    @property
    def host_address(self) -> str:
        """The host without IPv6 brackets, as a socket takes it."""
        return self.host[1:-1] if self.host.startswith("[") else self.host

    def param(self, name: str) -> str | None:
        """Value of a URI parameter, "" for a bare one, None when absent."""
        return get_param(self.params, name)

    @property
    def is_loose_router(self) -> bool:
        return has_param(self.params, "lr")

    def __str__(self) -> str:
        if self.opaque:
            return f"{self.scheme}:{self.opaque}"
        if not self.is_sip:
            return f"{self.scheme}:{self.user}{format_params(self.params)}"
        user = self.user if self.password is None else f"{self.user}:{self.password}"
        at = "@" if user else ""
        port = "" if self.port is None else f":{self.port}"
        query = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{at}{self.host}{port}{format_params(self.params)}{query}"


@lru_cache(_CACHED)
def _parse_uri(text: str) -> Uri:
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or not _SCHEME.fullmatch(scheme):
        raise SipSyntaxError("not a URI", text)
    scheme = scheme.lower()
    if scheme == "tel":
        number, semicolon, params = rest.partition(";")
        if not _USER.fullmatch(number):
            raise SipSyntaxError("malformed tel URI", text)
        return Uri(scheme, user=number, params=parse_params(semicolon + params))
    if scheme not in ("sip", "sips"):
        if not _USER.fullmatch(rest.replace("@", "")):
            raise SipSyntaxError("malformed URI", text)
        return Uri(scheme, opaque=rest)
    # A user part may hold `;` and `?`, so it ends at the `@`, which nothing else may hold unescaped.
    userinfo, at, after = rest.rpartition("@")
    user, password = "", None
    if at:
        user, colon, secret = userinfo.partition(":")
        password = secret if colon else None
        if not _USER.fullmatch(user) or (password and not _USER.fullmatch(password)):
            raise SipSyntaxError("malformed user part", text)
    address, _, headers = after.partition("?")
    address, semicolon, params = address.partition(";")
    host, port = parse_host_port(address)
    if headers and not _USER.fullmatch(headers):
        raise SipSyntaxError("malformed URI headers", text)
    return Uri(scheme, host, user, password, port, parse_params(semicolon + params), headers)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """`"display name" <uri>;params`, or the bare form without brackets."""

    uri: Uri
    display_name: str = ""
    """Without quotes, escapes and control characters."""
    params: Params = ()
    """The header field's own parameters, e.g. `tag`."""

    @classmethod
    def parse(cls, text: str) -> "NameAddr":
        """Raises SipSyntaxError."""
        return _parse_name_addr(text)

    @property
    def tag(self) -> str | None:
        return get_param(self.params, "tag")

    def param(self, name: str) -> str | None:
        """Value of a header parameter, "" for a bare one, None when absent."""
        return get_param(self.params, name)

    def __str__(self) -> str:
        name = f"{quote(self.display_name)} " if self.display_name else ""
        return f"{name}<{self.uri}>{format_params(self.params)}"


@lru_cache(_CACHED)
def _parse_name_addr(text: str) -> NameAddr:
    match = _NAME_ADDR.fullmatch(text)
    if match is not None:
        name = _CONTROL.sub("", unquote(match[1].strip()))
        return NameAddr(Uri.parse(match[2].rstrip()), name, parse_params(match[3]))
    # The bare form: everything after the first `;` belongs to the header field, and `?` may not be in it.
    address, semicolon, params = text.strip().partition(";")
    if "<" in address or "?" in address or "," in address:
        raise SipSyntaxError("malformed address", text)
    return NameAddr(Uri.parse(address.rstrip()), params=parse_params(semicolon + params))
