"""What the record gives back: calls, turns and events as values, and what to ask for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.events import CallEvent, TurnDelays


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as it was handed in, numbered within its call."""

    call_id: str
    seq: int
    """0, 1, 2 ... within the call."""
    at: float
    """Unix time (s) at which it was recorded."""
    event: CallEvent


@dataclass(frozen=True, slots=True)
class CallRecord:
    id: str
    direction: str
    from_: str
    to: str
    trunk: str
    agent: str
    leg_kind: str
    leg_id: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    """None while the call is up. All times are aware, in UTC."""
    setup_ms: float | None
    cause: str | None
    detail: str
    recording: str | None
    """File name inside the recordings directory."""
    quality: dict[str, float] | None
    """Numbers of the media; MOS, loss, jitter and round trip among them, where they are known."""
    codec: str = ""
    srtp: str = ""
    """The crypto suite; empty: in clear."""
    one_way: str = ""
    """Why audio flowed one way only, where it did until the end."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    seq: int
    at: datetime
    index: int
    speaker: str
    text: str
    started_ms: float
    ended_ms: float
    heard_text: str
    heard_ms: float
    interrupted: bool
    delays: TurnDelays
    why: str = ""
    """The caller's: what made it over."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    seq: int
    at: datetime
    name: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallHistory:
    """One call with everything that happened on it, in order."""

    call: CallRecord
    turns: tuple[TurnRecord, ...]
    events: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; None leaves a condition out."""

    since: datetime | None = None
    """Started at or after this time."""
    until: datetime | None = None
    """Started before this time."""
    agent: str | None = None
    cause: str | None = None
    direction: str | None = None
    leg_id: str | None = None
    """What others call it: the id of one of its legs, the SIP Call-ID behind an Asterisk, the name of its channel."""
    live: bool | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    calls: tuple[CallRecord, ...]
    next_cursor: str | None
    """Give it to the next `list_calls`; None on the last page."""
