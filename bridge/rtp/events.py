"""What an RTP session tells: its events, its counters, and what reports (RTCP) need of both directions."""

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.rtp.latch import Address


@dataclass(frozen=True, slots=True)
class DigitReceived:
    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class MediaSilent:
    """No packet came for a while; told once in each such pause."""

    silent_ms: int


@dataclass(frozen=True, slots=True)
class MediaResumed:
    """Packets come again after `MediaSilent`."""


@dataclass(frozen=True, slots=True)
class MediaTimedOut:
    """The limit is reached: end the leg. Told once, until packets come again."""

    silent_ms: int
    ever_received: bool


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """Media is taken from, and sent to, this address from now on."""

    address: Address


RtpEvent = DigitReceived | MediaSilent | MediaResumed | MediaTimedOut | SourceChanged


@dataclass(frozen=True, slots=True)
class RtpQuality:
    """Counters since the start; the first eight are those of `MediaQuality`."""

    packets_received: int
    packets_sent: int
    packets_lost: int
    packets_late: int
    packets_rejected: int
    concealed_ms: int
    jitter_ms: float
    buffer_ms: float
    rejected: Mapping[str, int]
    """`packets_rejected` by reason: malformed, payload-type, stranger, rtcp (not counted as rejected)."""
    loss_bursts: int
    """Runs of lost packets."""
    recovered_ms: int = 0
    """Lost audio that was played from the redundancy of the packet after it (Opus); not in `concealed_ms`."""
    restarts: int = 0
    """Times the stream began anew in mid-call: another SSRC, or its sequence numbers or timestamps jumped."""


@dataclass(frozen=True, slots=True)
class Reception:
    """What a report block says of the source that is heard now (RFC 3550 6.4.1); counters begin anew with it."""

    ssrc: int
    highest_sequence: int
    """Extended by the number of wraps in its upper 16 bits."""
    expected: int
    """Packets, by sequence number."""
    received: int
    """Packets, duplicates not counted."""
    jitter: float
    """Interarrival jitter, in units of the RTP clock."""
    clock_rate: int
    """Hz of the RTP clock."""


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What a sender report says of our stream (RFC 3550 6.4.1); it begins anew when its clock rate changes."""

    ssrc: int
    packets: int
    octets: int
    """Of payload."""
    timestamp: int
    """RTP timestamp of the tick at `at`, sent or not; it goes on by `clock_rate` a second."""
    at: float
    """Clock time (s, monotonic)."""
    clock_rate: int
