"""A call by way of a trunk: the INVITE's addresses, headers and route as the trunk is configured (RFC 3323, 3325)."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from urllib.parse import quote

from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.sip.errors import SipSyntaxError
from bridge.sip.offer_answer import Codec
from bridge.sip.uri import Uri
from bridge.trunks.trunks import Trunk

_SEPARATORS = str.maketrans("", "", " ()/.-")
_ANONYMOUS = '"Anonymous" <sip:anonymous@anonymous.invalid>'


class DialError(Exception):
    """A call can't be made as asked; the message says why."""


def is_number(text: str) -> bool:
    """Whether `text` is a telephone number, in whatever notation, rather than a URI."""
    digits = text.translate(_SEPARATORS)
    return bool(digits) and set(digits) <= set("+0123456789*#ABCD") and "+" not in digits[1:]


def profile_of(trunk: Trunk, codecs: Mapping[str, Codec]) -> LegProfile:
    """What is set about the trunk's legs; `codecs` are those there are, by name in upper case."""
    settings = trunk.settings
    return LegProfile(
        trunk=settings.name,
        codecs=tuple(codecs[name.upper()] for name in settings.codecs if name.upper() in codecs),
        ptime_ms=settings.ptime_ms,
        dtmf=settings.dtmf,
        srtp=settings.srtp,
        transfer=settings.transfer,
        accept_refer=settings.accept_refer,
        credentials=trunk.credentials,
    )


def asked_headers(trunk: Trunk, asked: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers that a request to dial adds. Raises DialError for one that the trunk does not allow."""
    for name, _ in asked:
        if not any(fnmatchcase(name.lower(), pattern.lower()) for pattern in trunk.settings.allow_headers):
            raise DialError(f"header {name} is not among allow_headers of trunk {trunk.name!r}")
    return tuple(asked)


def outbound_call(
    trunk: Trunk,
    to: str,
    *,
    profile: LegProfile,
    caller: str = "",
    headers: Sequence[tuple[str, str]] = (),
    diverted_by: str = "",
) -> OutboundCall:
    """The call to `to` (a number, a user, or a SIP URI at the trunk's host) from `caller`, a number or user ("": the
    trunk's own). `diverted_by`: the number that was called before, on whose behalf this call is made.

    Raises DialError."""
    settings = trunk.settings
    if not settings.host:
        raise DialError(f"trunk {trunk.name!r} has no host: it takes calls and makes none")
    caller = caller or settings.caller or settings.username or "offhook"
    host = settings.from_host or settings.host
    ours = f"<sip:{_user(caller)}@{host}>"
    added: list[tuple[str, str]] = []
    if settings.identity != "from":
        added.append((f"P-{settings.identity.capitalize()}-Identity", ours))
    if settings.anonymous:
        added.append(("Privacy", "id"))
    if settings.diversion and diverted_by:
        added.append(("Diversion", f"<sip:{_user(diverted_by)}@{host}>;reason=unconditional"))
    replaced = {name.lower() for name, _ in headers}
    added += [(name, value) for name, value in settings.headers.items() if name.lower() not in replaced]
    target = _target(trunk, to)
    service_route = trunk.registration.service_route if trunk.registration is not None else ()
    return OutboundCall(
        target=str(target),
        from_=_ANONYMOUS if settings.anonymous else ours,
        next_hop=settings.next_hop,
        transport=settings.transport,
        route=(*settings.route, *service_route),
        headers=(*added, *headers),
        max_redirects=settings.follow_redirects,
        profile=profile,
        shown_from=caller,
        shown_to=target.user_text or target.host,
    )


def _target(trunk: Trunk, to: str) -> Uri:
    settings = trunk.settings
    if not to.startswith(("sip:", "sips:")):
        user = to.translate(_SEPARATORS) if is_number(to) else to
        to = f"sip:{_user(user)}@{settings.host}{settings.port_text}{settings.transport_text}"
        return _parsed(to)
    uri = _parsed(to)
    if uri.host not in (settings.host, settings.from_host) and not settings.outbound_proxy:
        # Whoever is called may ask for the trunk's password.
        raise DialError(f"{uri.host} is not the host of trunk {trunk.name!r} ({settings.host})")
    return uri


def _parsed(text: str) -> Uri:
    try:
        return Uri.parse(text)
    except SipSyntaxError as error:
        raise DialError(f"{text!r} can't be called: {error}") from error


def _user(text: str) -> str:
    """As the user part of a URI: what may not stand there is escaped (RFC 3261 25.1)."""
    return quote(text, safe="!*'()&=+$,;?/%")
