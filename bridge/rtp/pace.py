"""When and how the jitter buffer plays faster or slower: its delay kept in bounds by changes that are not heard."""

import audioop
from enum import Enum, auto
from math import gcd

from bridge.audio.frames import FRAME_MS, frame_bytes
from bridge.rtp.stretch import best_lag, lengthen, shorten, to_samples
from bridge.rtp.timeline import HIGH_FRAMES, Timeline

QUIET_RMS = 100
"""Below this (of 32767) nobody hears a frame missing or doubled: about -50 dB."""

PAUSE_TICKS = 5
"""Between two changes within speech, so that nobody hears them."""

SPARE_FRAMES = 0.1
"""Kept in hand where a frame needs two packets: the clocks' drift moves what is needed."""


class Change(Enum):
    NONE = auto()
    SLOWER = auto()
    FASTER = auto()


class Pace:
    """One stream's pace. Lengths are in bytes of int16 mono, units as the timeline's, lags in samples."""

    __slots__ = ("_frame", "_frame_bytes", "_pause", "_sample_rate", "_unit_samples")

    def __init__(self, sample_rate: int, unit_bytes: int) -> None:
        """`unit_bytes`: of audio in a unit of the timeline."""
        self._sample_rate = sample_rate
        self._frame_bytes = frame_bytes(sample_rate)
        self._unit_samples = unit_bytes // 2
        self._frame = sample_rate * FRAME_MS // 1000 // self._unit_samples
        self._pause = 0
        """Ticks until speech may be changed again."""

    def judge(self, delay: float, timeline: Timeline, left: int, packet: int) -> Change:
        """Which change is needed, asked once a tick. `left` units are decoded already; packets have `packet`."""
        if self._pause:
            self._pause -= 1
        frame = self._frame
        # The frame is whole only once the packet that its last sample lies in has come.
        last = 0 if left >= frame else (frame - 1 - left) // packet * packet + left
        there = timeline.need + last
        if delay < (max(timeline.low, there + frame * SPARE_FRAMES) if last else timeline.low):
            return Change.SLOWER
        if delay > max(timeline.high, there + frame * HIGH_FRAMES):
            return Change.FASTER
        return Change.NONE

    def there(self, timeline: Timeline, packet: int) -> float:
        """The delay with which frames are whole when their step comes, packets having `packet` units: the end of a
        frame may be in a later packet than its beginning."""
        apart = self._frame - gcd(packet, self._frame)
        return timeline.need + (apart + self._frame * SPARE_FRAMES if apart else 0)

    def faster(self, pcm: bytes, over: int) -> tuple[bytes, int]:
        """Leave something out of `pcm` (two frames at least): what is left, and how much went, 0 if it would be heard
        now. `over`: units by which frames and packets are out of step, which silence can put right."""
        if audioop.rms(pcm[: 2 * self._frame_bytes], 2) < QUIET_RMS:
            lag = (over or self._frame) * self._unit_samples
        elif self._pause:
            return pcm, 0
        else:
            lag = self._whole(best_lag(to_samples(pcm[: 2 * self._frame_bytes]), self._sample_rate))
            self._pause = PAUSE_TICKS
        return shorten(pcm, lag, self._sample_rate), lag

    def slower(self, past: bytes, pcm: bytes, over: int) -> tuple[bytes, int]:
        """Say something of `past` (the two frames played before) again before `pcm`: both, and how much came."""
        if audioop.rms(pcm[: self._frame_bytes], 2) < QUIET_RMS:
            lag = (self._frame - over) * self._unit_samples
        elif self._pause:
            return pcm, 0
        else:
            lag = self._whole(best_lag(to_samples(past)[::-1], self._sample_rate))
            self._pause = PAUSE_TICKS
        return lengthen(past, pcm, lag, self._sample_rate), lag

    def _whole(self, lag: int) -> int:
        """A pitch period in whole units."""
        return lag - lag % self._unit_samples
