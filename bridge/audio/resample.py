"""Change of sample rate for a stream of int16 mono PCM: a polyphase windowed-sinc filter in numpy."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bridge.audio.frames import FRAME_MS, frame_bytes

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
    """Turns 20 ms frames at one rate into 20 ms frames at another, one for one; late by the filter's half length.

    A frame is one small matrix product into arrays that are there already: a sixth of what `Resampler` takes for a
    chunk of this size."""

    __slots__ = ("_blocks", "_fresh", "_out", "_past", "_recent", "_result", "_weights", "_windows")

    def __init__(self, in_rate: int, out_rate: int) -> None:
        """Rates in Hz. ValueError where 20 ms are no whole number of samples."""
        size, out_size = frame_bytes(in_rate) // 2, frame_bytes(out_rate) // 2
        if size * 1000 != in_rate * FRAME_MS or out_size * 1000 != out_rate * FRAME_MS:
            raise ValueError(f"{FRAME_MS} ms at {in_rate} or {out_rate} Hz are no whole number of samples")
        self._weights = _frame_weights(in_rate, out_rate)
        width, out_step = self._weights.shape
        count = out_size // out_step
        past = width - size // count
        samples = np.zeros(past + size, np.float32)
        self._fresh, self._past, self._recent = samples[past:], samples[:past], samples[size:]
        step = size // count * samples.itemsize
        self._windows = np.lib.stride_tricks.as_strided(samples, (count, width), (step, samples.itemsize))
        # Windows overlap, and the product needs rows that don't: a copy of a few kB.
        self._blocks = np.empty((count, width), np.float32)
        self._out = np.empty((count, out_step), np.float32)
        self._result = np.empty((count, out_step), "<i2")

    def convert(self, frame: bytes) -> bytes:
        """The next frame (int16 mono)."""
        out = self._out
        self._fresh[:] = np.frombuffer(frame, "<i2")
        self._blocks[:] = self._windows
        np.matmul(self._blocks, self._weights, out=out)
        self._past[:] = self._recent
        np.rint(out, out=out)
        # Two of these take half the time of np.clip.
        np.maximum(out, -32768, out=out)
        np.minimum(out, 32767, out=out)
        self._result[:] = out
        return self._result.tobytes()


MAX_BLOCKS = 10
"""A frame is filtered in blocks of 2 ms: longer ones multiply by more zeros, shorter ones copy more."""


@lru_cache(maxsize=32)
def _frame_weights(in_rate: int, out_rate: int) -> NDArray[np.float32]:
    """What each output sample of a block (columns) takes of the input up to the block's end (rows)."""
    common = math.gcd(in_rate, out_rate)
    up, down = out_rate // common, in_rate // common
    rows = _filter_rows(up, down)
    taps = rows.shape[1]
    # The filter is the same for each block of a whole number of periods of `down` samples in, `up` samples out.
    periods = frame_bytes(in_rate) // 2 // down
    count = next(count for count in range(MAX_BLOCKS, 0, -1) if periods % count == 0)
    size, out_size = down * periods // count, up * periods // count
    late = taps // 2 * up // down
    weights = np.zeros((taps - 1 + size, out_size), np.float32)
    for column in range(out_size):
        base, phase = divmod((column - late) * down, up)
        first = base + taps // 2
        weights[first : first + taps, column] = rows[phase]
    unused = int(weights.any(axis=1).argmax())
    return np.ascontiguousarray(weights[unused:])


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
