"""The unit of audio inside Offhook: a frame is `bytes`, 20 ms of int16 little-endian mono PCM."""

from collections.abc import Callable

FRAME_MS = 20
"""Length of every frame (ms), and the grid of the media clock."""

FRAME_S = FRAME_MS / 1000

BYTES_PER_SAMPLE = 2

FrameSink = Callable[[bytes, float], None]
"""Takes one frame and the clock's time of its tick (seconds, monotonic). Runs on the media clock:
it returns at once, never awaits, and drops (and counts) its own data when it cannot keep up."""

Unsubscribe = Callable[[], None]
"""Ends a subscription; calling it twice does nothing."""


def frame_bytes(sample_rate: int) -> int:
    """Bytes in one frame at `sample_rate` (Hz)."""
    return sample_rate * FRAME_MS // 1000 * BYTES_PER_SAMPLE


def duration_ms(pcm_bytes: int, sample_rate: int) -> float:
    """How long `pcm_bytes` bytes of int16 mono at `sample_rate` (Hz) last, in ms."""
    return pcm_bytes * 1000 / (BYTES_PER_SAMPLE * sample_rate)
