"""The level gate of voice activity: is a frame louder than the line's own noise? Costs about a microsecond.

The noise floor is tracked as the lowest frame level of the last second and a half: speech dips to it between
syllables, so it needs no decision about what is speech, falls at once when a noise ends (never deaf after loud
music) and climbs to a new noise within its window.
"""

from dataclasses import dataclass
from math import inf

BLOCK_FRAMES = 10
BLOCKS = 8
"""The floor's window: 8 blocks of 10 frames of 20 ms, the last one being filled."""

UNKNOWN_BLOCKS = 2
"""Blocks before a new line's floor counts (400 ms); until then all above the least level passes."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Levels are RMS of int16 samples (32768 is full scale)."""

    open_ratio: float = 2.0
    """How far above the floor a frame must be: 6 dB. Steady noise varies by about half a dB."""
    hold_ratio: float = 1.5
    """The same while speech is under way, so that its weak sounds count."""
    minimum_level: float = 40.0
    """Nothing below -58 dBFS is speech: G.711's own idle noise reaches -72 dBFS, a soft caller -45 dBFS."""


class LevelGate:
    """One stream's gate."""

    __slots__ = ("_count", "_floor", "_hold_threshold", "_lows", "_settings", "_slot", "threshold")

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._floor = 0.0
        self._lows = [inf] * BLOCKS
        """Lowest level of each block; the one at `_slot` is being filled, those not reached yet are infinite."""
        self._slot = 0
        self._count = -(UNKNOWN_BLOCKS - 1) * BLOCK_FRAMES
        """Frames in this block; the first block is longer."""
        self.threshold = self._hold_threshold = settings.minimum_level
        """A frame above this level passes."""

    @property
    def floor(self) -> float:
        """Level of the line's own noise; 0 while it is unknown."""
        return self._floor

    def passes(self, level: float, *, speaking: bool) -> bool:
        """Take the level of the next 20 ms; True if it stands out."""
        lows = self._lows
        if level < lows[self._slot]:
            lows[self._slot] = level
            if level < self._floor:
                self._set_floor(level)
        self._count += 1
        if self._count == BLOCK_FRAMES:
            self._count = 0
            self._set_floor(min(lows))
            self._slot = (self._slot + 1) % BLOCKS
            lows[self._slot] = inf
        return level > (self._hold_threshold if speaking else self.threshold)

    def learn_noise(self) -> None:
        """What came lately was judged to be no speech: its quiet frames are the floor, without waiting for the
        window to pass."""
        recent = min(self._lows[self._slot - 1], self._lows[self._slot])
        self._lows = [recent if low < recent else low for low in self._lows]
        self._set_floor(recent)

    def _set_floor(self, floor: float) -> None:
        self._floor = floor
        self.threshold = max(floor * self._settings.open_ratio, self._settings.minimum_level)
        self._hold_threshold = max(floor * self._settings.hold_ratio, self._settings.minimum_level)
