"""What an operator sets about a trunk, and about those who are none."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from bridge.settings import Name, Network, PasswordSource, Port, Section
from bridge.sip.uri import Uri, parse_host_port

CODECS = ("PCMU", "PCMA", "G722", "opus", "L16")

_OURS = frozenset(
    (
        *("via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "route", "record-route", "require"),
        *("content-type", "content-length", "supported", "allow", "session-expires", "min-se", "rack", "rseq"),
        *("authorization", "proxy-authorization", "p-asserted-identity", "p-preferred-identity", "privacy"),
    )
)
"""Header fields that the stack writes itself."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_USER = re.compile(r"[A-Za-z0-9\-_.!~*'()&=+$,;?/%#]*")


def _host(value: str) -> str:
    if value:
        host, port = parse_host_port(value)
        if port is not None:
            raise ValueError(f"{value!r}: the port is a setting of its own")
        return host
    return value


def _hop(value: str) -> str:
    """A SIP URI, or a host that is made into one."""
    if not value:
        return value
    uri = Uri.parse(value if value.startswith(("sip:", "sips:")) else f"sip:{value}")
    if not uri.is_sip:
        raise ValueError(f"{value!r} is not a SIP URI")
    return str(uri)


def _user(value: str) -> str:
    if not _USER.fullmatch(value):
        raise ValueError(f"{value!r} can't be the user part of a SIP URI")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _OURS:
            raise ValueError(f"{name} is written by the bridge itself")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
            raise ValueError(f"the value of {name} holds a control character")
    return value


Host = Annotated[str, AfterValidator(_host)]
Hop = Annotated[str, AfterValidator(_hop)]
UserPart = Annotated[str, AfterValidator(_user)]


class TrunkUser(PasswordSource):
    """Somebody who calls us through the trunk and proves it by digest."""

    username: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f\"\\]+$")]

    @model_validator(mode="after")
    def _has_password(self) -> "TrunkUser":
        if not self.has_password:
            raise ValueError(f"user {self.username!r} needs password_env or password_file")
        return self


class TrunkSettings(PasswordSource):
    """A carrier, PBX or phone. Calls from it are told by `networks`, `certificate_names` or `users`."""

    name: Name
    host: Host = ""
    """Domain or address that our calls go to and our registration is for; empty: a trunk for inbound calls alone."""
    port: Port | None = None
    """Without one DNS decides (SRV), else 5060, or 5061 for TLS."""
    transport: Literal["", "udp", "tcp", "tls"] = ""
    """Empty: as DNS says (NAPTR), else UDP."""
    outbound_proxy: Hop = ""
    """All requests of ours go to this hop first (SIP URI or host), as a loose route."""

    networks: tuple[Network, ...] = ()
    """Calls from these addresses are this trunk's."""
    trust_host: bool = True
    """Calls from the addresses that `host`, `registrar` and `outbound_proxy` resolve to are this trunk's as well."""
    certificate_names: tuple[str, ...] = ()
    """Calls over TLS whose client certificate bears one of these names are this trunk's (`*.example.com` for any)."""
    users: tuple[TrunkUser, ...] = ()
    """Calls whose digest is right for one of these are this trunk's."""

    username: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f\"\\]*$")] = ""
    """Answers the other side's challenges, with the password of `password_env` or `password_file`."""
    realm: str = ""
    """Answer challenges of this realm alone; empty: of any."""
    registers: Annotated[bool, Field(alias="register")] = False
    """Register `username` there, so that calls come to us wherever we are."""
    registrar: Hop = ""
    """SIP URI or host of the registrar, where it is not `host`."""
    register_expires_s: Annotated[int, Field(ge=10, le=86400)] = 600
    """Asked for; the registrar may grant less. Half of it is how long a lost registration may go unnoticed."""
    contact_user: UserPart = ""
    """User part of the address we register, to which the calls come; empty: `username`."""

    codecs: tuple[Literal["PCMU", "PCMA", "G722", "opus", "L16"], ...] = ()
    """In order of preference; empty: the bridge's own."""
    ptime_ms: Annotated[int, Field(ge=10, le=60, multiple_of=10)] = 20
    dtmf: Literal["auto", "rfc4733", "info"] = "auto"
    srtp: Literal["off", "offered", "required"] = "off"
    transfer: Literal["auto", "bridge", "refer"] = "auto"
    """How a caller is handed on: by REFER, through us where the trunk refuses that (`auto`); always through us
    (`bridge`); by REFER or not at all (`refer`)."""
    accept_refer: bool = False
    """Let the trunk transfer us: call whom its REFER names."""

    calls: Annotated[int, Field(ge=1)] | None = None
    """Live calls on the trunk, both ways; the next one gets 503."""
    calls_per_s: Annotated[float, Field(gt=0)] | None = None
    """New calls a second, both ways; those beyond get 503. As many may come at once."""

    caller: UserPart = ""
    """Number that outbound calls come from when the request to dial names none."""
    from_host: Host = ""
    """Host in From and in the asserted identity; empty: `host`."""
    identity: Literal["from", "asserted", "preferred"] = "from"
    """Say who calls in From alone, or in P-Asserted-Identity or P-Preferred-Identity as well (RFC 3325)."""
    anonymous: bool = False
    """Withhold the caller's number: anonymous From and `Privacy: id`; the identity above tells the carrier alone."""
    diversion: bool = False
    """A call made on behalf of a caller (transfer through us) names in Diversion the number that he had dialled:
    carriers ask for it where From is not a number of ours (RFC 5806)."""
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    """Sent with every outbound call."""
    allow_headers: tuple[Annotated[str, Field(pattern=r"^[Xx]-[A-Za-z0-9_*-]+$")], ...] = ()
    """Which X- headers a request to dial may add (`X-*` for all)."""
    follow_redirects: Annotated[int, Field(ge=0, le=10)] = 0
    """How many 3xx answers are followed on one call."""

    options_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Ask by OPTIONS whether the trunk is alive, this often; 0: never."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "TrunkSettings":
        problems = []
        if not (self.host or self.networks or self.certificate_names or self.users):
            problems.append("it needs host (to call it), or networks, certificate_names or users (to be called)")
        if self.username and not self.has_password:
            problems.append("username needs password_env or password_file")
        if self.has_password and not self.username:
            problems.append("a password without username")
        if self.registers and not self.username:
            problems.append("register needs username")
        if self.registers and not (self.host or self.registrar):
            problems.append("register needs host or registrar")
        names = [user.username for user in self.users]
        problems += [f"user {name!r} stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if self.srtp != "off" and self.transport in ("udp", "tcp"):
            problems.append(f"srtp: {self.srtp} sends its keys in the open over {self.transport}: use transport: tls")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def aor(self) -> str:
        """The address of record that we register: a SIP URI."""
        user = self.username.replace("@", "%40")
        host = self.host or Uri.parse(self.registrar).host
        return f"sip:{user}@{host}"

    @property
    def registrar_uri(self) -> str:
        """Request-URI of REGISTER."""
        if self.registrar:
            return self.registrar
        return f"sip:{self.host}{self.port_text}{self.transport_text}"

    @property
    def route(self) -> tuple[str, ...]:
        """Route values of our requests: the outbound proxy, as a loose router."""
        if not self.outbound_proxy:
            return ()
        proxy = self.outbound_proxy
        return (f"<{proxy}>" if Uri.parse(proxy).is_loose_router else f"<{proxy};lr>",)

    @property
    def port_text(self) -> str:
        return "" if self.port is None else f":{self.port}"

    @property
    def transport_text(self) -> str:
        return f";transport={self.transport}" if self.transport else ""

    @property
    def next_hop(self) -> str:
        """Where our requests go first: what is looked up by RFC 3263."""
        return self.outbound_proxy or f"sip:{self.host}{self.port_text}{self.transport_text}"


Strangers = Literal["refuse", "silent", "challenge"]


class GuardSettings(Section):
    """Those who are no trunk of ours, by source address (IPv6: by /64)."""

    requests_per_s: Annotated[float, Field(gt=0)] = 20.0
    """Requests beyond are dropped without an answer. Does not hold for who has lately proved who he is."""
    burst: Annotated[int, Field(ge=1)] = 60
    """As many may come at once."""
    failures: Annotated[int, Field(ge=1)] = 10
    """Refused requests within `within_s` that bring a ban. A challenge that is not answered counts a fifth."""
    within_s: Annotated[float, Field(gt=0)] = 60.0
    ban_s: Annotated[float, Field(ge=0)] = 900.0
    """How long nothing from a banned address is answered; 0 bans nobody."""
    sources: Annotated[int, Field(ge=100)] = 20_000
    """Addresses that are remembered; beyond, those not seen for longest are forgotten."""
