"""What is shown of a trunk: its registration, whether it answers, its calls."""

from dataclasses import dataclass
from typing import Literal

from bridge.sip.flow import Address

RegistrationState = Literal["registering", "registered", "failed", "refused", "unregistering", "unregistered"]

TrunkState = Literal[
    "up", "down", "unknown", "unwatched", "registering", "failed", "refused", "unregistering", "unregistered"
]
"""`unknown`: not heard of yet; `unwatched`: neither registered nor asked by OPTIONS; else the registration's."""


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """How it stands with one registration. Times are on the clock of `now`."""

    state: RegistrationState
    """`failed`: another attempt follows soon; `refused`: our account is not taken (403, wrong password): seldom."""
    until: float | None = None
    """When what was granted last runs out."""
    next_at: float | None = None
    """The next attempt."""
    error: str = ""
    """What went wrong with the last attempt, "" when nothing did."""
    round_trip_ms: float | None = None
    """Of the last attempt that was answered, a challenge included."""
    service_route: tuple[str, ...] = ()
    """Route values for our requests by way of this registrar (RFC 3608)."""
    path: tuple[str, ...] = ()
    """The proxies between the registrar and us (RFC 3327)."""
    seen_as: Address | None = None
    """Our address as the registrar sees it."""


@dataclass(frozen=True, slots=True)
class LivenessStatus:
    """Whether a trunk answers OPTIONS. Times are on the clock of `now`."""

    state: Literal["unknown", "up", "down"]
    round_trip_ms: float | None = None
    """Of the last answer."""
    missed: int = 0
    """Unanswered in a row."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class TrunkStatus:
    """One trunk at a glance."""

    name: str
    host: str
    transport: str
    state: TrunkState
    registration: RegistrationStatus | None
    liveness: LivenessStatus | None
    calls: int
    max_calls: int | None
    attempts: int
    refused: int
    last_error: str
    last_error_at: float | None
    """On the clock of `now`."""
