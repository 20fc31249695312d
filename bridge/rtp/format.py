"""What signalling tells an RTP session: the formats agreed on, which way media flows, how long to wait for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from bridge.audio.codec import Codec
from bridge.audio.frames import FRAME_MS
from bridge.rtp.jitter import MAX_DELAY_MS, MIN_DELAY_MS

COMFORT_NOISE = 13
"""Static payload type (RFC 3389), understood whether it was agreed on or not."""


class Direction(Enum):
    """What our side of the SDP says (RFC 3264 5.1)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)


@dataclass(frozen=True, slots=True)
class RtpFormat:
    """What was negotiated: one codec that we send, those we take, telephone events and comfort noise."""

    codec: Codec
    payload_type: int
    """Of what we send: the number the far end gave the codec."""
    receive: Mapping[int, Codec] = field(default_factory=dict)
    """Every payload type we named, and its codec; when empty, `payload_type` alone."""
    dtmf_payload_type: int | None = None
    """Of the events we send; None: the far end takes none."""
    dtmf_clock_rate: int | None = None
    """Hz, of the durations in the events we send; None: the codec's clock rate."""
    dtmf_receive: Mapping[int, int] = field(default_factory=dict)
    """Clock rate (Hz) by payload type of the events we take; when empty, those of the events we send."""
    comfort_noise: frozenset[int] = frozenset()
    """Payload types of comfort noise beside the static one."""
    ptime_ms: int = FRAME_MS
    """Audio in each packet we send, a multiple of 10 ms; what the codec can't do is rounded down."""

    @property
    def packet_ms(self) -> int:
        """`ptime_ms`, as the codec can have it."""
        possible = self.codec.lengths_ms
        wanted = max(10, self.ptime_ms // 10 * 10)
        return max((ms for ms in possible if ms <= wanted), default=possible[0]) if possible else wanted


@dataclass(frozen=True, slots=True)
class RtpLimits:
    """Waits of a session, in seconds."""

    first_media_s: float = 30.0
    """From the start until the first packet."""
    media_s: float = 20.0
    """Without a packet in mid-call."""
    notice_s: float = 5.0
    """Without a packet until it is worth telling."""
    suppressed_s: float = 120.0
    """Without a packet after comfort noise, in place of both: who sends that need not send anything while silent."""
    min_delay_ms: int = MIN_DELAY_MS
    max_delay_ms: int = MAX_DELAY_MS
    """Bounds of the jitter buffer's delay."""


DEFAULT_LIMITS = RtpLimits()
