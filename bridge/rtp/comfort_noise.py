"""Comfort noise (RFC 3389): the far end says how loud its silence is, and its pauses are noise of that level."""

import audioop
from functools import lru_cache

import numpy as np

from bridge.audio.frames import frame_bytes

LOUDEST_DBOV = 30
"""Below overload: what says it is louder is no background noise."""

SILENT_DBOV = 90
"""From here on it is digital silence."""

LOOP_S = 2
"""Of noise, made once a sample rate: nobody hears that it repeats."""

LOOP_RMS = 3000

CORNER_HZ = 500
"""Rooms and lines hiss less than they hum: flat up to here, then 6 dB less an octave."""


class ComfortNoise:
    """One stream's noise. Sans-IO."""

    __slots__ = ("_at", "_frame_bytes", "_gain", "_loop", "_sample_rate", "known")

    def __init__(self, sample_rate: int) -> None:
        self.known = False
        """The far end has told a level."""
        self._sample_rate = sample_rate
        self._frame_bytes = frame_bytes(sample_rate)
        self._gain = 0.0
        self._loop = b""
        self._at = 0

    def hear(self, payload: bytes) -> bytes:
        """Take the level of a packet (its first byte, in dB below overload; the spectrum after it is passed over).
        Returns no audio, as a decoder would that got nothing to play."""
        level = payload[0] & 0x7F if payload else SILENT_DBOV
        self.known = True
        self._gain = 0.0
        if level < SILENT_DBOV:
            self._gain = 32768 * 10 ** (-max(level, LOUDEST_DBOV) / 20) / LOOP_RMS
            self._loop = self._loop or _noise(self._sample_rate)
        return b""

    def more(self, size: int) -> bytes:
        """The next `size` bytes (int16 mono), a frame at most."""
        if not self._gain:
            return bytes(size)
        start = self._at
        self._at = (start + size) % (len(self._loop) - self._frame_bytes)
        noise: bytes = audioop.mul(self._loop[start : start + size], 2, self._gain)
        return noise


@lru_cache(maxsize=8)
def _noise(sample_rate: int) -> bytes:
    """`LOOP_S` of noise, and its first frame again at the end."""
    count = LOOP_S * sample_rate
    spectrum = np.fft.rfft(np.random.default_rng(3389).normal(size=count))
    spectrum /= np.sqrt(1 + (np.fft.rfftfreq(count, 1 / sample_rate) / CORNER_HZ) ** 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, count)
    noise *= LOOP_RMS / np.sqrt(np.square(noise).mean())
    loop = np.clip(np.rint(noise), -32768, 32767).astype("<i2").tobytes()
    return loop + loop[: frame_bytes(sample_rate)]
