"""Frames of audio that say which frame they are, so that codecs, resampling and jitter buffers leave it readable.

A number of 12 bits is four loud steps of 3 ms: three digits of 16 levels and their check. Silence and a step of one
level come before. It is read from the stream of samples, wherever frames were cut.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUMBERS = 4096
RATE_HZ = 8000

_QUIET, _SYNC, _DIGIT = 30, 20, 24
"""Samples at 8 kHz: before the code, of its beginning, of each digit. The rest of the 160 is silence."""
_SYNC_LEVEL, _STEP = 6400, 1600
_CODE = _SYNC + 4 * _DIGIT
_FRAME = RATE_HZ // 50

SENT_BEFORE_S = (_FRAME - _QUIET - _CODE) / RATE_HZ
"""A frame's number was complete so long before the frame was."""

Seen = tuple[int, float]
"""The number of a frame, and when its last sample was there (s), had the samples of its frame come one by one: so a
frame that was cut anew, a few samples on, is as late as those few, not by a whole frame."""


def encode(number: int, rate_hz: int = RATE_HZ) -> bytes:
    """20 ms, int16 mono."""
    digits = [number >> 8 & 15, number >> 4 & 15, number & 15]
    frame = np.zeros(_FRAME, np.int16)
    frame[_QUIET : _QUIET + _SYNC] = _SYNC_LEVEL
    for place, digit in enumerate([*digits, _check(digits)]):
        at = _QUIET + _SYNC + place * _DIGIT
        frame[at : at + _DIGIT] = (digit % 8 + 1) * (_STEP if digit < 8 else -_STEP)
    return np.repeat(frame, rate_hz // RATE_HZ).astype("<i2").tobytes()


def decode(frames: Sequence[tuple[bytes, float]], rate_hz: int = RATE_HZ) -> list[Seen]:
    """The numbers in one stream's frames of equal size (int16), each given with its time. What can't be read, as it
    was concealed or stretched, is left out."""
    if not frames:
        return []
    size = len(frames[0][0]) // 2 * RATE_HZ // rate_hz
    samples = np.frombuffer(b"".join(pcm for pcm, _ in frames), "<i2")[:: rate_hz // RATE_HZ].astype(np.float64)
    rising = np.flatnonzero((samples[1:] >= _SYNC_LEVEL / 2) & (samples[:-1] < _SYNC_LEVEL / 2)) + 1
    found = []
    for start in rising:
        if start >= _QUIET and start + _CODE <= len(samples):
            number = _read(samples[start - _QUIET : start + _CODE])
            if number is not None:
                frame, place = divmod(int(start) + _CODE - 1, size)
                found.append((number, frames[frame][1] - (size - 1 - place) / RATE_HZ))
    return found


def _read(samples: NDArray[np.float64]) -> int | None:
    # Away from the edges, where filters ring.
    before, begin = samples[4 : _QUIET - 8], samples[_QUIET + 6 : _QUIET + _SYNC - 6]
    if np.abs(before).max() > _STEP / 2 or abs(begin.mean() - _SYNC_LEVEL) > _STEP / 2:
        return None
    steps = samples[_QUIET + _SYNC :].reshape(4, _DIGIT)[:, 6:-6].mean(axis=1) / _STEP
    sizes = np.rint(np.abs(steps))
    if sizes.min() < 1 or sizes.max() > 8:
        return None
    digits = [int(size) - 1 + (8 if step < 0 else 0) for size, step in zip(sizes, steps, strict=True)]
    if digits[3] != _check(digits[:3]):
        return None
    return digits[0] << 8 | digits[1] << 4 | digits[2]


def _check(digits: Sequence[int]) -> int:
    return (3 * digits[0] + 5 * digits[1] + 7 * digits[2] + 9) & 15


def follow(sent: Sequence[Seen], came: Sequence[Seen], within_s: float = 1.0) -> list[float | None]:
    """For each frame sent, how long (s) it took to come; None: it did not come. A number may be sent again after
    `within_s`."""
    times: dict[int, list[float]] = {}
    for number, at in sorted(came, key=lambda one: one[1]):
        times.setdefault(number, []).append(at)
    delays: list[float | None] = []
    for number, at in sent:
        # A kernel's time stamp and our clock may differ by a little.
        later = times.get(number, [])
        index = bisect_left(later, at - 0.001)
        delays.append(later[index] - at if index < len(later) and later[index] < at + within_s else None)
    return delays
