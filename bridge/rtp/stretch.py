"""Small changes of speed: whole pitch periods of PCM (int16 mono) removed or repeated, after WSOLA."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SHORTEST_PITCH_MS = 2.5
LONGEST_PITCH_MS = 15.0
"""Voices from 66 to 400 Hz."""

JOIN_MS = 5
"""Cross-fade where audio meets audio that was not beside it."""


def best_lag(samples: Samples, sample_rate: int) -> int:
    """The pitch period in samples: the shift at which the first 10 ms are most like what follows.

    0 if there is too little (25 ms are needed)."""
    shortest = int(sample_rate * SHORTEST_PITCH_MS / 1000)
    longest = int(sample_rate * LONGEST_PITCH_MS / 1000)
    width = sample_rate // 100
    if len(samples) < longest + width:
        return 0
    field = samples[shortest : longest + width]
    likeness = np.correlate(field, samples[:width], "valid")
    power = np.cumsum(np.concatenate((np.zeros(1), np.square(field, dtype=np.float64))))
    energy = power[width:] - power[:-width]
    return shortest + int(np.argmax(likeness / np.sqrt(energy + 1.0)))


@lru_cache(maxsize=512)
def ramp(count: int) -> Samples:
    """From 0 to 1 in so many samples, not to be written to. Made once: that takes longer than all else done with it,
    and a machine that was held up stretches the audio of all its calls at the same time."""
    rising = np.linspace(0.0, 1.0, count, dtype=np.float32)
    rising.setflags(write=False)
    return rising


def shorten(pcm: bytes, lag: int, sample_rate: int) -> bytes:
    """`pcm` without `lag` samples near its start, cross-faded; its first sample stays the first."""
    samples = to_samples(pcm)
    width = min(sample_rate * JOIN_MS // 1000, len(samples) - lag)
    rising = ramp(width)
    head = samples[:width] * (1 - rising) + samples[lag : lag + width] * rising
    return to_pcm(head) + pcm[2 * (lag + width) :]


def lengthen(past: bytes, pcm: bytes, lag: int, sample_rate: int) -> bytes:
    """`pcm` with the last `lag` samples of `past`, which was played just before, said once more ahead of it."""
    again = to_samples(past[-2 * lag :])
    width = min(sample_rate * JOIN_MS // 1000, len(again), len(pcm) // 2)
    rising = ramp(width)
    again[:width] = again[:width] * rising + to_samples(pcm[: 2 * width]) * (1 - rising)
    return to_pcm(again) + pcm


def to_samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def to_pcm(samples: Samples) -> bytes:
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()
