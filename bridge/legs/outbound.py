"""What an endpoint is told about a call that it is to make, and about the legs of a peer: the trunk's, mostly."""

from dataclasses import dataclass, field
from typing import Literal

from bridge.sip.digest import Credentials
from bridge.sip.offer_answer import Codec

Srtp = Literal["off", "offered", "required"]


@dataclass(frozen=True, slots=True)
class LegProfile:
    """What is particular about the legs of one peer, whoever called."""

    trunk: str = ""
    """Its name, "" for none."""
    codecs: tuple[Codec, ...] = ()
    """In order of preference; empty: the endpoint's own."""
    ptime_ms: int = 20
    dtmf: Literal["auto", "rfc4733", "info"] = "auto"
    srtp: Srtp = "off"
    transfer: Literal["auto", "bridge", "refer"] = "auto"
    """How a caller is handed on: REFER where the peer takes it, never by REFER, or by nothing else."""
    accept_refer: bool = False
    """Whether the peer may transfer us."""
    credentials: Credentials | None = None
    """Answers challenges of requests within the call."""


@dataclass(frozen=True, slots=True)
class OutboundCall:
    """An INVITE to be sent."""

    target: str
    """Request-URI: a SIP URI."""
    from_: str = ""
    """URI or name-addr, or a user: then at our own address; "": `shown_from` there."""
    display_name: str = ""
    """Of From, in place of the one that `from_` may have."""
    next_hop: str = ""
    """SIP URI that is looked up (RFC 3263); "": the target."""
    transport: Literal["", "udp", "tcp", "tls"] = ""
    """Empty: as the URI or DNS says."""
    route: tuple[str, ...] = ()
    """Route values."""
    headers: tuple[tuple[str, str], ...] = ()
    max_redirects: int = 0
    max_forwards: int = 70
    profile: LegProfile = field(default_factory=LegProfile)
    shown_from: str = ""
    """The caller as our records name it; "": the user part of `from_`."""
    shown_to: str = ""
    """The called one; "": the user part of the target."""
