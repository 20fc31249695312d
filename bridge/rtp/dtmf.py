"""Telephone events (RFC 4733): key presses received and sent as their own payload type."""

import struct
from collections import deque
from dataclasses import dataclass

from bridge.audio.frames import FRAME_MS

DIGITS = "0123456789*#ABCD"
"""By event code; 16 (flash) and the tones above are not keys."""

END_PACKETS = 3
"""The last packet is sent this often (RFC 4733 2.5.1.4): any one of them ends the digit."""

VOLUME = 10
"""dBm0 below zero that we say we send at."""

LOST_END_S = 0.2
"""A digit whose end packets all got lost is over when nothing came for it this long."""

MAX_DURATION = 0xFFFF
"""Of one segment, in timestamp units; a longer press goes on in a new one (RFC 4733 2.5.1.3)."""

_unpack_event = struct.Struct(">BBH").unpack_from
_pack_event = struct.Struct(">BBH").pack


@dataclass(frozen=True, slots=True)
class Digit:
    digit: str
    """One of 0-9 * # A-D."""
    duration_ms: int


class DtmfReceiver:
    """Turns event packets into digits, each told once, when it ends. Sans-IO."""

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._event: int | None = None
        """Code of the key being pressed."""
        self._timestamp = 0
        """Of the present (or last) segment."""
        self._duration = 0
        self._before = 0
        """Length of the segments, and of the wraps, before this one."""
        self._heard_at = 0.0
        self._known = False
        """`_timestamp` is one that was seen."""

    @property
    def pressed(self) -> bool:
        return self._event is not None

    def receive(self, payload: bytes, timestamp: int, now: float) -> list[Digit]:
        """One event packet. Returns the digits that ended: none, one, or two where an end got lost."""
        if len(payload) < 4:
            return []
        event, flags, duration = _unpack_event(payload)
        if event >= len(DIGITS):
            return []
        ended = []
        ahead = ((timestamp - self._timestamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000 if self._known else 1
        if ahead < 0:
            return []
        if ahead > 0:
            if self._continues(event, ahead):
                self._before += ahead
            else:
                ended = self._finish()
                self._before = 0
            self._event = event
            self._timestamp = timestamp
            self._duration = 0
            self._known = True
        elif event != self._event:
            return []
        if self._duration - duration > MAX_DURATION // 2:
            # A sender that lets the 16 bits run over instead of starting a new segment.
            self._before += MAX_DURATION + 1
            self._duration = duration
        self._duration = max(self._duration, duration)
        self._heard_at = now
        if flags & 0x80:
            ended += self._finish()
        return ended

    def poll(self, now: float) -> list[Digit]:
        """Called each tick while a key is pressed: the digit whose end got lost, once it is overdue."""
        return self._finish() if now - self._heard_at > LOST_END_S else []

    def _continues(self, event: int, ahead: int) -> bool:
        return event == self._event and ahead in (MAX_DURATION, MAX_DURATION + 1)

    def _finish(self) -> list[Digit]:
        if self._event is None:
            return []
        digit = Digit(DIGITS[self._event], (self._before + self._duration) * 1000 // self._clock_rate)
        self._event = None
        return [digit]


@dataclass(frozen=True, slots=True)
class EventPacket:
    """What to send this tick in the place of audio."""

    payload: bytes
    first: bool
    """The first of its digit: the marker is set."""
    timestamp: int
    """That of the digit's start, in all of its packets."""


class DtmfSender:
    """Says, tick by tick, which event packet is due. Sans-IO."""

    def __init__(self, clock_rate: int) -> None:
        self.busy = False
        """Digits or gaps are left; audio waits."""
        self._frame = clock_rate * FRAME_MS // 1000
        self._queue: deque[tuple[int, int, int]] = deque()
        """Event code, ticks of tone, ticks of gap."""
        self._tick = 0
        """Of the digit being sent."""
        self._timestamp = 0

    def queue(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        """Send `digits` (0-9 * # A-D) after those already queued; times are rounded up to whole frames. A tone longer
        than one segment of an event (8 s at 8 kHz, 1.3 s at 48 kHz) is cut to that: keys are told by their onset.

        Raises ValueError for another character, or a tone of nothing."""
        codes = [DIGITS.find(digit) for digit in digits.upper()]
        if -1 in codes:
            raise ValueError(f"{digits[codes.index(-1)]!r} is not one of the keys {DIGITS}")
        if tone_ms < 1:
            raise ValueError(f"a tone of {tone_ms} ms can't be sent")
        tone = min(-(-tone_ms // FRAME_MS), MAX_DURATION // self._frame)
        # The repeated ends take the first ticks of the gap.
        gap = max(-(-gap_ms // FRAME_MS), END_PACKETS - 1)
        self._queue.extend((code, tone, gap) for code in codes)
        self.busy = bool(self._queue)

    def clear(self) -> None:
        """Forget what is queued; a digit under way is cut short without its end."""
        self._queue.clear()
        self.busy = False
        self._tick = 0

    def next(self, timestamp: int) -> EventPacket | None:
        """What to send in the tick whose audio would have `timestamp`; None: silence, it is a gap."""
        code, tone, gap = self._queue[0]
        if self._tick == 0:
            self._timestamp = timestamp
        self._tick += 1
        tick = self._tick
        if tick == tone + gap:
            self._queue.popleft()
            self.busy = bool(self._queue)
            self._tick = 0
        if tick >= tone + END_PACKETS:
            return None
        flags = (0x80 if tick >= tone else 0) | VOLUME
        payload = _pack_event(code, flags, min(tick, tone) * self._frame)
        return EventPacket(payload, tick == 1, self._timestamp)
