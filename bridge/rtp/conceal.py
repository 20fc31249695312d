"""Packet-loss concealment and small changes of speed: whole pitch periods of PCM (int16 mono) repeated or removed.

After ITU-T G.711 Appendix I (concealment) and WSOLA (speed).
"""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

HOLD_MS = 20
"""A lost packet's length of speech is repeated at full level ..."""

FADE_MS = 60
"""... and then fades: a vowel that goes on longer sounds like a robot."""

SHORTEST_PITCH_MS = 2.5
LONGEST_PITCH_MS = 15.0
"""Voices from 66 to 400 Hz."""

JOIN_MS = 5
"""Cross-fade where invented audio meets real audio."""

QUIET_RMS = 100
"""Below this (of 32767) nobody hears a frame missing or doubled: about -50 dB."""


class Concealer:
    """Goes on in the caller's own sound where packets are missing. One instance serves one stream."""

    __slots__ = ("_cycle", "_elapsed", "_end", "_hold", "_join", "_sample_rate", "active")

    def __init__(self, sample_rate: int) -> None:
        self.active = False
        """Between `begin` and `join`."""
        self._sample_rate = sample_rate
        self._hold = sample_rate * HOLD_MS // 1000
        self._end = sample_rate * (HOLD_MS + FADE_MS) // 1000
        self._join = sample_rate * JOIN_MS // 1000
        self._elapsed = 0
        self._cycle: Samples = np.zeros(1, np.float32)

    @property
    def audible(self) -> bool:
        """False once the sound has faded out."""
        return self._elapsed < self._end

    def begin(self, history: bytes) -> None:
        """Take the last 40 ms that were played as what to go on with."""
        self.active = True
        self._elapsed = 0
        past = _samples(history)
        lag = _best_lag(past[::-1], self._sample_rate)
        blend = lag // 4
        if not lag or len(past) < lag + blend:
            self._elapsed = self._end
            return
        cycle = past[-lag:].copy()
        if blend:
            # The end of a period leads into its own beginning, as the audio before it did.
            ramp = np.linspace(0.0, 1.0, blend, dtype=np.float32)
            cycle[-blend:] = cycle[-blend:] * (1 - ramp) + past[-lag - blend : -lag] * ramp
        self._cycle = cycle

    def mute(self) -> None:
        """Be silent from here on: the sender said that nothing follows."""
        self._elapsed = self._end

    def more(self, samples: int) -> bytes:
        """The next `samples` samples of invented audio: repeated, fading, then silent."""
        if not self.audible:
            return bytes(2 * samples)
        return _pcm(self._invent(samples))

    def _invent(self, samples: int) -> Samples:
        times = np.arange(self._elapsed, self._elapsed + samples)
        self._elapsed += samples
        gain = np.clip((self._end - times) / (self._end - self._hold), 0, 1).astype(np.float32)
        return self._cycle[times % len(self._cycle)] * gain

    def join(self, pcm: bytes) -> bytes:
        """Real audio is back: fade over into `pcm`, and be done."""
        self.active = False
        count = min(self._join, len(pcm) // 2)
        if not count:
            return pcm
        head = _samples(pcm[: 2 * count]) * np.linspace(0.0, 1.0, count, dtype=np.float32)
        if self.audible:
            head += self._invent(count) * np.linspace(1.0, 0.0, count, dtype=np.float32)
        return _pcm(head) + pcm[2 * count :]


def best_lag(pcm: bytes, sample_rate: int) -> int:
    """The pitch period in samples: the shift at which the first 10 ms are most like what follows.

    0 if there is too little (25 ms are needed)."""
    return _best_lag(_samples(pcm), sample_rate)


def _best_lag(samples: Samples, sample_rate: int) -> int:
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


def shorten(pcm: bytes, lag: int, sample_rate: int) -> bytes:
    """`pcm` without `lag` samples near its start, cross-faded; its first sample stays the first."""
    samples = _samples(pcm)
    width = min(sample_rate * JOIN_MS // 1000, len(samples) - lag)
    ramp = np.linspace(0.0, 1.0, width, dtype=np.float32)
    head = samples[:width] * (1 - ramp) + samples[lag : lag + width] * ramp
    return _pcm(head) + pcm[2 * (lag + width) :]


def lengthen(pcm: bytes, lag: int, sample_rate: int) -> bytes:
    """`pcm` with its first `lag` samples said twice, cross-faded; `lag` samples longer."""
    samples = _samples(pcm)
    width = min(sample_rate * JOIN_MS // 1000, len(samples) - lag)
    ramp = np.linspace(0.0, 1.0, width, dtype=np.float32)
    seam = samples[lag : lag + width] * (1 - ramp) + samples[:width] * ramp
    return pcm[: 2 * lag] + _pcm(seam) + pcm[2 * width :]


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32)


def _pcm(samples: Samples) -> bytes:
    return np.clip(samples, -32768, 32767).astype("<i2").tobytes()
