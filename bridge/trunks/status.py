"""What is shown of a trunk: its registration, whether it answers, its calls."""

from dataclasses import dataclass, replace
from typing import Literal

from bridge.sip.registration import RegistrationStatus

TrunkState = Literal[
    "up", "down", "unknown", "unwatched", "registering", "failed", "refused", "unregistering", "unregistered"
]
"""`unknown`: not heard of yet; `unwatched`: neither registered nor asked by OPTIONS; else the registration's."""


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


def moved(status: TrunkStatus, offset_s: float) -> TrunkStatus:
    """The same with every time moved: to another clock."""

    def at(time: float | None) -> float | None:
        return None if time is None else time + offset_s

    registration = status.registration
    if registration is not None:
        registration = replace(registration, until=at(registration.until), next_at=at(registration.next_at))
    return replace(status, registration=registration, last_error_at=at(status.last_error_at))
