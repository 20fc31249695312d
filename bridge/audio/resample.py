"""Change of sample rate for a stream of int16 mono PCM: a polyphase windowed-sinc filter in numpy."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bridge.audio.frames import frame_bytes

PASS_BAND = 0.85
"""Part of the lower rate's Nyquist band that is kept: 3400 Hz at 8 kHz, the telephone's own band."""

STOP_BAND_DB = 66
"""What is left of a tone that does not fit the lower rate; G.711's own noise is at -38 dB."""


class Resampler:
    """Turns a stream at `in_rate` (Hz) into one at `out_rate`, chunk by chunk, sizes as they come.

    The output is aligned with the input (no delay in its timeline); the last few milliseconds of a stream wait
    for what follows them, until `flush`. One instance serves one stream."""

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate <= 0 or out_rate <= 0:
            raise ValueError(f"sample rates must be positive, not {in_rate} and {out_rate}")
        self.in_rate = in_rate
        self.out_rate = out_rate
        common = math.gcd(in_rate, out_rate)
        self._up = out_rate // common
        self._down = in_rate // common
        self._odd = b""
        """Half a sample: byte streams are cut anywhere."""
        self._same = in_rate == out_rate
        if not self._same:
            self._rows = _filter_rows(self._up, self._down)
            self._taps = self._rows.shape[1]
            self._rewind()

    def _rewind(self) -> None:
        self._buffer = np.zeros(self._taps // 2 - 1, np.float32)
        self._position = 0
        """The next output sample's place in the buffer, in 1/up of an input sample."""

    def process(self, pcm: bytes) -> bytes:
        """Take int16 mono PCM (any number of bytes) and return what can be said of the output so far."""
        if self._odd:
            pcm = self._odd + pcm
            self._odd = b""
        if len(pcm) % 2:
            self._odd = pcm[-1:]
            pcm = pcm[:-1]
        if self._same or not pcm:
            return pcm
        return self._filter(np.frombuffer(pcm, "<i2").astype(np.float32))

    def flush(self) -> bytes:
        """End the stream: return its last samples, and be ready for a new one.

        Everything returned since the start is then `ceil(samples_in * out_rate / in_rate)` samples."""
        self._odd = b""
        if self._same:
            return b""
        tail = self._filter(np.zeros(self._taps // 2, np.float32))
        self._rewind()
        return tail

    def _filter(self, samples: NDArray[np.float32]) -> bytes:
        buffer = np.concatenate((self._buffer, samples))
        up, down, taps = self._up, self._down, self._taps
        count = ((len(buffer) - taps + 1) * up - self._position + down - 1) // down
        if count <= 0:
            self._buffer = buffer
            return b""
        windows = np.lib.stride_tricks.sliding_window_view(buffer, taps)
        if up == 1:
            out = windows[self._position :: down][:count] @ self._rows[0]
        else:
            out = np.empty(count, np.float32)
            # Outputs that are `up` apart share a phase; a row at a time when few phases see many outputs each.
            if up <= 8:
                for first in range(min(up, count)):
                    base, phase = divmod(self._position + first * down, up)
                    out[first::up] = windows[base::down][: len(out[first::up])] @ self._rows[phase]
            else:
                places = self._position + np.arange(count) * down
                np.einsum("ij,ij->i", windows[places // up], self._rows[places % up], out=out)
        self._position += count * down
        used = self._position // up
        self._position -= used * up
        self._buffer = buffer[used:].copy()
        np.rint(out, out=out)
        np.clip(out, -32768, 32767, out=out)
        samples_out: NDArray[np.int16] = out.astype("<i2")
        return samples_out.tobytes()


class FrameResampler:
    """Turns 20 ms frames at one rate into 20 ms frames at another, one for one; late by the filter's half length."""

    def __init__(self, in_rate: int, out_rate: int) -> None:
        self._resampler = Resampler(in_rate, out_rate)
        self._frame_bytes = frame_bytes(out_rate)
        self._rest = b""

    def convert(self, frame: bytes) -> bytes:
        """The next frame (int16 mono)."""
        pcm = self._rest + self._resampler.process(frame)
        missing = self._frame_bytes - len(pcm)
        if missing > 0:
            # At the start: the filter waits for what follows its first samples.
            pcm = bytes(missing) + pcm
        self._rest = pcm[self._frame_bytes :]
        return pcm[: self._frame_bytes]


@lru_cache(maxsize=32)
def _filter_rows(up: int, down: int) -> NDArray[np.float32]:
    """The low-pass filter between the two rates, one row for each of `up` phases, each of unit gain at 0 Hz."""
    widest = max(up, down)
    transition = (1 - PASS_BAND) / widest
    # Kaiser's formulas; frequencies are in units of half the rate `up` times the input's.
    beta = 0.1102 * (STOP_BAND_DB - 8.7)
    length = (STOP_BAND_DB - 8) / (2.285 * math.pi * transition)
    half = math.ceil(length / up / 2) + 1
    cutoff = (1 + PASS_BAND) / 2 / widest
    # Row p, column i weighs the input sample that lies p - (i - half + 1) * up from the output, in 1/up samples.
    offsets = np.arange(up)[:, None] - (np.arange(2 * half)[None, :] - half + 1) * up
    window = np.i0(beta * np.sqrt(np.clip(1 - (offsets / (half * up)) ** 2, 0, None))) / np.i0(beta)
    rows = np.sinc(cutoff * offsets) * window
    rows /= rows.sum(axis=1, keepdims=True)
    return np.ascontiguousarray(rows, np.float32)
