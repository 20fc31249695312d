"""Redirections of one call: what its 3xx responses named, and what was tried (RFC 3261 8.1.3.4, 21.3)."""

from dataclasses import replace

from bridge.sip.errors import SipSyntaxError
from bridge.sip.message import Response
from bridge.sip.uri import NameAddr, Uri

FOLLOWED = (300, 301, 302)
"""305 and 380 name no other place for the same request."""

MAX_TARGETS = 16
"""Contacts of one 3xx that are looked at."""


class Redirections:
    """The target set: no place is tried twice, and after `limit` redirections there is no further one."""

    def __init__(self, limit: int, target: str) -> None:
        self.response: Response | None = None
        """The last 3xx that was followed."""
        self._left = limit
        self._tried = {_identity(Uri.parse(target))} if limit else set()
        self._targets: list[str] = []

    def follow(self, response: Response | None) -> tuple[str, ...]:
        """The places to try after this final response (None: there was none), the preferred first; () for none."""
        if self._left <= 0 or (response is None and self.response is None):
            return ()
        if response is not None and response.status in FOLLOWED:
            self.response = response
            # Those of the later response are nearer to the goal than what an earlier one had left.
            self._targets = [*_contacts(response), *self._targets]
        elif self.response is None or (response is not None and response.status >= 600):
            return ()
        fresh: dict[tuple[object, ...], str] = {}
        for target in self._targets:
            identity = _identity(Uri.parse(target))
            if identity not in self._tried:
                fresh.setdefault(identity, target)
        self._targets = list(fresh.values())[:MAX_TARGETS]
        return tuple(self._targets)

    def chosen(self, target: str) -> str:
        """Note what is tried next; the Request-URI for it. Raises SipSyntaxError for what is no SIP URI."""
        uri = Uri.parse(target)
        if not uri.is_sip:
            raise SipSyntaxError("not a SIP URI", target)
        self._left -= 1
        self._tried.add(_identity(uri))
        self._targets = [other for other in self._targets if other != target]
        # A Request-URI has neither headers nor a method (RFC 3261 19.1.1).
        return str(replace(uri, headers="", params=tuple(param for param in uri.params if param[0] != "method")))


def _contacts(response: Response) -> list[str]:
    """The URIs that a 3xx names, the preferred first."""
    try:
        items = response.headers.items_of("Contact")[:MAX_TARGETS]
    except SipSyntaxError:
        return []
    found: list[tuple[float, str]] = []
    for item in items:
        try:
            contact = NameAddr.parse(item)
            target = str(contact.uri)
            Uri.parse(target)
            found.append((-_preference(contact.param("q")), target))
        except SipSyntaxError:
            continue
    return [uri for _, uri in sorted(found, key=lambda entry: entry[0])]


def _preference(text: str | None) -> float:
    try:
        return min(max(float(text or "1"), 0.0), 1.0)
    except ValueError:
        return 0.0


def _identity(uri: Uri) -> tuple[object, ...]:
    """What makes two URIs the same place for us."""
    transport = (uri.param("transport") or "").lower()
    return (uri.scheme, uri.user, uri.host, uri.port, transport, uri.opaque)
