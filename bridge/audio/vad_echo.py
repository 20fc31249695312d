"""The agent's own echo, kept from being taken for the caller: an expected level, and a proof by correlation.

What we sent in the last 400 ms may come back, weaker. A frame no louder than the strongest echo seen on this line so
far does not pass the gate; where one passes and sounds like speech, the waveform is compared with what we sent, at
every delay, before speech is told. A proven echo raises the expected level; quiet while we speak lowers it, so that
a soft caller on a clean line gets through.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bridge.audio.frames import FRAME_MS

PRE_EMPHASIS = 0.9
"""Flattens speech before it is compared: two voiced sounds of different words share their low frequencies."""

BLOCK_FRAMES = 25
"""Frames (20 ms) of our speech after which the expected level may fall."""


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """Ratios are of RMS levels, received to sent."""

    max_delay_ms: int = 400
    """The longest way to the far end and back, its jitter buffer included."""
    expected_ratio: float = 0.1
    """Assumed before anything is known: -20 dB, a hybrid's or a loud handset's echo."""
    least_ratio: float = 0.005
    """The expectation does not fall below -46 dB."""
    margin: float = 1.5
    """A frame must be this much (3.5 dB) above the strongest expected echo."""
    compare_ms: int = 128
    """Audio that is compared. With 128 ms unrelated speech correlates to 0.36 at its 99th percentile and echoes,
    dispersed ones too, to 0.7 at the median (`bench/vad.py`)."""
    same: float = 0.5
    """From this correlation on it is our echo. An echo as loud as the caller reaches it too: to tell those apart
    needs a canceller."""
    active_level: float = 200.0
    """We are speaking when a sent frame's RMS (of int16) is above this, -44 dBFS."""


class EchoGuard:
    """One stream's echo: `sent` takes what we send, `bound` says how loud its echo may be."""

    __slots__ = (
        "_block",
        "_block_max",
        "_compare_bytes",
        "_dirty",
        "_frames",
        "_last_max",
        "_levels",
        "_ratio",
        "_sent_at",
        "_settings",
        "_silent",
        "_span_s",
        "loudest",
    )

    def __init__(self, settings: EchoSettings, sample_rate: int) -> None:
        self._settings = settings
        delay_frames = settings.max_delay_ms // FRAME_MS + 1
        self._compare_bytes = settings.compare_ms * sample_rate // 1000 * 2
        self._levels: deque[float] = deque(maxlen=delay_frames)
        self._frames: deque[bytes] = deque(maxlen=delay_frames + -(-settings.compare_ms // FRAME_MS))
        self._span_s = settings.max_delay_ms / 1000
        self._sent_at = float("-inf")
        self.loudest = 0.0
        """Highest level we sent within the longest delay; 0 while none is above the active level."""
        self._silent = delay_frames
        """Consecutive silent frames sent."""
        self._ratio = settings.expected_ratio
        self._block = 0
        self._block_max = 0.0
        self._last_max = 1.0
        """The highest ratio in the block before: the echo of a block's last loud sound is in the next."""
        self._dirty = False

    @property
    def ratio(self) -> float:
        """The strongest echo expected on this line, received to sent."""
        return self._ratio

    def sent(self, pcm: bytes, level: float, now: float) -> None:
        """One frame as sent, its level and clock time."""
        self._sent_at = now
        self._frames.append(pcm)
        self._levels.append(level)
        if level >= self._settings.active_level:
            self._silent = 0
        else:
            self._silent += 1
        self.loudest = max(self._levels) if self._silent < self._frames_of_delay else 0.0

    def bound(self, level: float, now: float, *, speaking: bool) -> float:
        """The level a received frame must exceed to be more than our echo; 0 when nothing of ours can come back.

        `level` is that frame's, from which the line is learnt unless the caller is `speaking`."""
        loudest = self.loudest
        if not loudest or now - self._sent_at > self._span_s:
            return 0.0
        ratio = level / loudest
        if ratio > self._block_max:
            self._block_max = ratio
        if speaking:
            self._dirty = True
        self._block += 1
        if self._block >= BLOCK_FRAMES:
            if not self._dirty:
                quieter = max(self._block_max, self._last_max, self._ratio / 2, self._settings.least_ratio)
                self._ratio = min(self._ratio, quieter)
                self._last_max = self._block_max
            self._block, self._block_max, self._dirty = 0, 0.0, False
        return loudest * self._ratio * self._settings.margin

    def is_echo(self, heard: Iterable[bytes], now: float) -> bool:
        """Whether the end of `heard` (frames, oldest first) is what we sent, at some delay.

        Costs about 0.2 ms at 8 kHz; asked once per suspected start of speech while we speak. A yes is remembered as
        the line's echo, at most 6 dB more at a time: one in a hundred is a caller, who must not be masked for it."""
        if not self.loudest or now - self._sent_at > self._span_s:
            return False
        received = b"".join(heard)[-self._compare_bytes :]
        reference = b"".join(self._frames)
        if len(received) < self._compare_bytes or len(reference) <= self._compare_bytes:
            return False
        if correlation(received, reference) < self._settings.same:
            return False
        seen = max(self._block_max, self._last_max)
        self._ratio = min(1.0, max(self._ratio, min(seen, 2 * self._ratio)))
        self._block, self._block_max, self._dirty = 0, 0.0, False
        return True

    @property
    def _frames_of_delay(self) -> int:
        return self._levels.maxlen or 0


def correlation(received: bytes, reference: bytes) -> float:
    """The highest normalised cross-correlation (0..1) of `received` with any stretch of `reference` as long
    (int16 mono, both pre-emphasised)."""
    heard, sent = _flatten(received), _flatten(reference)
    count = len(heard)
    size = 1 << (len(sent) + count - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(sent, size) * np.conj(np.fft.rfft(heard, size)), size)
    energy = np.cumsum(np.concatenate(([0.0], sent * sent)))
    stretch = energy[count:] - energy[:-count]
    # A stretch 30 dB below the loudest can't be what is heard: its correlation would be one of rounding noise.
    stretch = np.maximum(stretch, stretch.max() * 1e-3)
    norm = np.sqrt(stretch * float(heard @ heard))
    return float(np.max(np.abs(product[: len(stretch)]) / np.maximum(norm, 1e-9)))


def _flatten(pcm: bytes) -> npt.NDArray[np.float64]:
    samples = np.frombuffer(pcm, np.int16).astype(np.float64)
    flat: npt.NDArray[np.float64] = samples[1:] - PRE_EMPHASIS * samples[:-1]
    return flat
