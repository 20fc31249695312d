"""One stream's timing: timestamps unwrapped, jitter and drift measured, and what delay would have all in time.

A packet's *transit* is its arrival less its timestamp: a constant (the two clocks' offset and the path's delay) plus
what the network added. The least transit of the last seconds is the base; the second-largest of each block of
packets says what delay would have had (nearly) all of them in time.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from bridge.audio.frames import FRAME_MS
from bridge.rtp.drift import DriftMeter
from bridge.rtp.sequence import Sequences

BLOCK_PACKETS = 50
"""One second at 20 ms a packet."""

WINDOW_BLOCKS = 8
"""How long a burst of jitter is remembered: it tends to come again."""

JUMP_S = 1.0
"""A transit this far off the base is not jitter: the timestamps jumped, or the stream starts anew."""

HIGH_FRAMES = 1.1
"""Above the delay aimed for, until audio is left out: a frame is what is gained by waiting for one."""

LEAP_S = 0.1
"""Earlier than any packet before by this much: the path was a longer one until now, or the timestamps leapt ahead;
what was known of its jitter is of no more use."""

FIRST_STAMP = 1 << 24
"""Of a stream's first packet: more than any before it can be behind, and small, as small numbers are fast."""

DUPLICATE = -1
MISFIT = -2
"""What `accept` returns instead of a timestamp."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was known of a stream's jitter at some moment."""

    block: int
    second: float
    top: float
    jitter: float
    last_transit: float


class Timeline:
    """Sans-IO. What comes in is in ticks of the RTP clock, arrivals in seconds (monotonic); what is kept and told, in
    units of `divisor` ticks: an RTP clock may be finer than the samples."""

    __slots__ = (
        "_block",
        "_block_least",
        "_block_least_at",
        "_block_second",
        "_block_top",
        "_blocks",
        "_divisor",
        "_jitter",
        "_jump",
        "_last_transit",
        "_leap",
        "_max_delay",
        "_min_delay",
        "_peak",
        "_timestamp",
        "base",
        "clock_rate",
        "drift",
        "frame",
        "high",
        "high_frames",
        "low",
        "need",
        "newest",
        "sequences",
        "ssrc",
        "started",
        "target",
        "tick_rate",
    )

    def __init__(
        self,
        clock_rate: int,
        min_delay_ms: int,
        max_delay_ms: int,
        divisor: int = 1,
        sequences: Sequences | None = None,
    ) -> None:
        """`clock_rate`: ticks a second. `sequences` counts on what came before."""
        self.sequences = sequences or Sequences()
        self.tick_rate = clock_rate
        clock_rate //= divisor
        self.clock_rate = clock_rate
        """Units a second."""
        self.drift = DriftMeter()
        self._divisor = divisor
        self.frame = clock_rate * FRAME_MS // 1000
        self.high_frames = HIGH_FRAMES
        """Of this stream; more for one whose owner has means of its own to play sooner."""
        self.started = False
        self.ssrc = -1
        self.newest = 0
        """Highest timestamp so far, unwrapped, in ticks since the first (and `FIRST_STAMP`)."""
        self._timestamp = 0
        """The same as it was sent."""
        self.base = 0.0
        self.target = self.low = self.high = 0.0
        """Delay to aim for, and the bounds outside which it is corrected."""
        self.need = 0.0
        """Delay with which (nearly) each packet is there when its first sample is due."""
        self._min_delay = clock_rate * min_delay_ms / 1000
        self._max_delay = clock_rate * max_delay_ms / 1000
        self._jump = clock_rate * JUMP_S
        self._leap = clock_rate * LEAP_S
        self._jitter = 0.0
        self._last_transit = 0.0
        self._peak = 0.0
        self._block = 0
        self._block_least = self._block_second = self._block_top = 0.0
        self._block_least_at = 0.0
        self._blocks: deque[tuple[float, float]] = deque(maxlen=WINDOW_BLOCKS)

    @property
    def jitter(self) -> float:
        """Interarrival jitter (RFC 3550 6.4.1) in ticks of the RTP clock."""
        return self._jitter * self._divisor

    @property
    def jitter_ms(self) -> float:
        """Interarrival jitter (RFC 3550 6.4.1)."""
        return self._jitter * 1000 / self.clock_rate

    def start(self, sequence: int, timestamp: int, ssrc: int, arrival: float) -> int:
        """Begin (again) with this packet; returns its unwrapped timestamp."""
        self.sequences.start(sequence, ssrc)
        self.started = True
        self.ssrc = ssrc
        self.newest = FIRST_STAMP
        self._timestamp = timestamp
        stamp = self.newest // self._divisor
        self._last_transit = arrival * self.clock_rate - stamp
        self.rebase(stamp, arrival)
        return stamp

    def rebase(self, stamp: int, arrival: float) -> None:
        """Take this packet's transit for the least there is, and forget the jitter known so far."""
        self.base = self._peak = arrival * self.clock_rate - stamp
        self._blocks.clear()
        self.drift.restart()
        self._open_block()
        self._retarget()

    def accept(self, sequence: int, timestamp: int, ssrc: int, arrival: float) -> int:
        """The unwrapped timestamp of the stream's next packet, or DUPLICATE, or MISFIT: not of this timeline."""
        ahead = timestamp - self._timestamp
        if not -0x80000000 <= ahead < 0x80000000:
            ahead = ((ahead + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        stamp = self.newest + ahead
        if self._divisor != 1:
            stamp //= self._divisor
        transit = arrival * self.clock_rate - stamp
        jump = self._jump
        if ssrc != self.ssrc or not -jump < transit - self.base < jump:
            return MISFIT
        sequences = self.sequences
        if not sequences.count(sequence):
            return MISFIT if sequences.far(sequence) else DUPLICATE
        if ahead > 0:
            self.newest += ahead
            self._timestamp = timestamp
        self._jitter += (abs(transit - self._last_transit) - self._jitter) / 16
        self._last_transit = transit
        if transit < self._block_least:
            self._block_least = transit
            self._block_least_at = arrival
            if transit < self.base:
                self._come_earlier(stamp, transit, arrival)
        if transit > self._block_second:
            if transit > self._block_top:
                self._block_second = self._block_top
                self._block_top = transit
            else:
                self._block_second = transit
            if self._block_second > self._peak:
                self._peak = self._block_second
                self._retarget()
        self._block += 1
        if self._block == BLOCK_PACKETS:
            self._close_block()
        return stamp

    def accept_untimed(self, sequence: int, timestamp: int, ssrc: int) -> int:
        """As `accept` for a packet whose timestamp says nothing of its sending (an event's updates)."""
        if ssrc != self.ssrc or self.sequences.far(sequence):
            return MISFIT
        if not self.sequences.count(sequence):
            return DUPLICATE
        ahead = ((timestamp - self._timestamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        return (self.newest + ahead) // self._divisor

    def note(self, sequence: int, ssrc: int) -> bool:
        """Count a packet of the stream that has nothing to do with its timestamps; False if it is none, or known."""
        return ssrc == self.ssrc and self.sequences.count(sequence)

    @property
    def newest_stamp(self) -> int:
        """Highest timestamp so far, unwrapped, in units."""
        return self.newest // self._divisor

    # -- for streams whose timestamps are made up as they come ----------------------------------------------

    def transit(self, timestamp: int, arrival: float) -> float:
        """Of a packet newer than all before it (units, to compare with `base`); of no meaning before `start`."""
        stamp = self.newest + ((timestamp - self._timestamp) & 0xFFFFFFFF)
        return arrival * self.clock_rate - stamp // self._divisor

    def restamp(self, later: int) -> None:
        """All that came so far was sent by so many units later than its timestamps say."""
        self.newest += later * self._divisor
        self._timestamp = (self._timestamp + later * self._divisor) & 0xFFFFFFFF
        self._last_transit -= later

    def record(self) -> Record:
        """To `amend` from, a second later at most."""
        return Record(self._block, self._block_second, self._block_top, self._jitter, self._last_transit)

    def amend(self, record: Record, late: Iterable[float]) -> None:
        """Forget what was noted since the record was made, a second ago at most: what came then was late by so much
        (units), as it is stamped now."""
        if self._block < record.block:
            # A block has ended meanwhile: it is left as it was.
            if self._blocks:
                self._blocks[-1] = (self._blocks[-1][0], max(record.second, self._blocks[-1][0]))
            self._block_second = self._block_top = float("-inf")
            self._block_least = float("inf")
        else:
            self._block_second, self._block_top = record.second, record.top
        self._jitter, self._last_transit = record.jitter, record.last_transit
        for units in late:
            transit = self.base + units
            self._jitter += (abs(transit - self._last_transit) - self._jitter) / 16
            self._last_transit = transit
            self._block_least = min(self._block_least, transit)
            self._block_second = max(self._block_second, min(self._block_top, transit))
            self._block_top = max(self._block_top, transit)
        self._peak = max(self.base, self._block_second, *(second for _, second in self._blocks))
        self._retarget()

    def raise_base(self, base: float) -> None:
        """What came with a shorter transit than this within the last second was stamped too late."""
        if self._blocks:
            least, second = self._blocks[-1]
            self._blocks[-1] = (max(least, base), max(second, base))
        self._block_least = max(self._block_least, base)
        self.base = max(self.base, base)
        self._peak = max(self._peak, self.base)
        self._retarget()

    def forget(self) -> None:
        """The next packet begins a new stream, whatever it is."""
        self.ssrc = -1
        self.sequences.forget()

    def _come_earlier(self, stamp: int, transit: float, arrival: float) -> None:
        if self.base - transit > self._leap:
            self.rebase(stamp, arrival)
        else:
            self.base = transit
            self._retarget()

    def _open_block(self) -> None:
        self._block = 0
        self._block_least = float("inf")
        self._block_second = self._block_top = float("-inf")

    def _close_block(self) -> None:
        self._blocks.append((self._block_least, self._block_second))
        self.drift.note(self._block_least_at, self._block_least / self.clock_rate)
        self._open_block()
        self.base = min(least for least, _ in self._blocks)
        self._peak = max(second for _, second in self._blocks)
        self._retarget()

    def _retarget(self) -> None:
        # A packet later than the longest delay could not be waited for anyway.
        self.need = min(self._peak - self.base, self._max_delay)
        self.target = max(self.need, self._min_delay)
        self.low = self.target - self.frame / 4
        self.high = self.target + self.frame * self.high_frames
