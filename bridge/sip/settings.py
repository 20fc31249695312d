"""What a user agent is told at its start, and how its owner turns requests away."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from bridge.sip.dialog import Resolve
from bridge.sip.flow import Address, Flow
from bridge.sip.message import DEFAULT_MAX_HEADERS, Request
from bridge.sip.timers import TimerValues

DEFAULT_ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO", "NOTIFY", "UPDATE", "PRACK")
"""REFER is not among them: an owner that acts on `Referred` adds it."""

DEFAULT_SUPPORTED = ("100rel", "norefersub", "replaces", "timer")
"""Option tags of RFC 3262, RFC 4488, RFC 3891 and RFC 4028."""

INFO_TYPES = ("application/dtmf-relay", "application/dtmf")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final response to a request that makes no call."""

    status: int
    reason: str = ""
    """Reason phrase; the standard one when empty."""
    headers: tuple[tuple[str, str], ...] = ()


class Verdict(Enum):
    SILENT = "silent"
    """No answer at all, as if nobody listened."""


Admit = Callable[[Request, Flow], int | Refusal | Verdict | None]
"""Asked for every request that belongs to no dialog or transaction: None lets it in, a status or `Refusal`
answers it, `Verdict.SILENT` drops it. It may be malformed in part: read its fields with care for SipSyntaxError."""


@dataclass(frozen=True, slots=True)
class UserAgentConfig:
    user_agent: str = "Offhook"
    """Server and User-Agent header; "" leaves them out."""
    contact_user: str = ""
    """User part of our Contact."""
    advertised: Callable[[Flow], Address] | None = None
    """Our address for Via and Contact as the peer of a flow should see it (behind NAT: the public one).
    None takes `flow.local`."""
    admit: Admit | None = None
    resolve: Resolve | None = None
    """Addresses of names in Contact and Record-Route. None: a name stands for where the peer's packets come from."""
    stream_flow: Callable[[Flow], Flow | None] | None = None
    """The TCP flow to the peer of a UDP one, for requests over `max_udp_bytes` (RFC 3261 18.1.1); None where there
    is none. When it fails (see `UserAgent.transport_failed`) the request goes over UDP."""
    max_udp_bytes: int = 1_300
    allow: tuple[str, ...] = DEFAULT_ALLOW
    supported: tuple[str, ...] = DEFAULT_SUPPORTED
    """Option tags that we name in Supported and understand in Require."""
    reliable: Literal["off", "supported", "required"] = "supported"
    """Reliable provisional responses (RFC 3262). `required`: a caller without them is refused (421), and a peer
    that we call has to send them."""
    session_expires_s: int = 1800
    """The session interval that we ask for (RFC 4028); 0: we ask for none, and follow the peer's."""
    min_se_s: int = 90
    """The shortest session interval that we take; shorter ones get 422. At least 90 (RFC 4028 5)."""
    info_types: tuple[str, ...] = INFO_TYPES
    """Bodies of INFO that are taken; others get 415."""
    timers: TimerValues = field(default_factory=TimerValues)
    max_message_bytes: int = 16_384
    """Longer datagrams are dropped: an INVITE with everything is about 3 kB."""
    max_headers: int = DEFAULT_MAX_HEADERS
    max_calls: int = 2_000
    """New INVITEs beyond get 503."""
    max_transactions: int = 20_000
    """New INVITEs beyond get 503; requests within calls beyond twice as many are dropped."""
    max_ring_s: float = 180.0
    """An unanswered call is given up after this (an INVITE's own Expires may be shorter)."""
    retry_after_s: int = 5
    """Retry-After in a 503 for want of room."""

    def __post_init__(self) -> None:
        if self.reliable == "off":
            supported = tuple(tag for tag in self.supported if tag != "100rel")
            object.__setattr__(self, "supported", supported)
