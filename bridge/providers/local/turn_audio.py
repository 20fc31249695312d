"""The audio of a caller's present turn, in windows that a recogniser takes well; no asyncio, no engine."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from bridge.audio.frames import BYTES_PER_SAMPLE, FRAME_MS

PRE_ROLL_MS = 300
"""Audio before voice activity is told that belongs to it."""

WINDOW_S = 12.0
"""The most audio that is recognised in one go: short enough to be quick and not to make the engine loop."""

CUT_SEARCH_S = 4.0
"""Speech without a pause is cut at the quietest place in the last seconds of a full window."""

CUT_MS = 160
"""Length of the quiet place looked for: a gap between words."""

FULL_S = 8.0
"""After a pause, a window that has this much is left as it is and a new one begun."""


@dataclass(eq=False, slots=True)
class Window:
    """A stretch of the turn and what is known of its text."""

    audio: bytearray = field(default_factory=bytearray)
    text: str = ""
    covered: int = 0
    """Bytes of `audio` that `text` is about."""

    @property
    def settled(self) -> bool:
        return self.covered == len(self.audio)

    def recognised(self, text: str, covered: int) -> None:
        """A result for the first `covered` bytes; one for less than is known already is stale."""
        if covered >= self.covered:
            self.text, self.covered = text, covered


class TurnAudio:
    """Keeps what is said between the commits; frames (int16 mono) in, windows out."""

    def __init__(self, sample_rate: int, max_s: float) -> None:
        self._bytes_per_s = sample_rate * BYTES_PER_SAMPLE
        self._max_bytes = max_s * self._bytes_per_s
        self._pre_roll: deque[bytes] = deque(maxlen=PRE_ROLL_MS // FRAME_MS)
        self.speaking = False
        self.windows: list[Window] = []
        """In order; only the last one grows."""

    def push(self, pcm: bytes) -> Window | None:
        """Take a frame. Returns the window that it filled, if it did: nothing will be added to it."""
        if not self.speaking:
            self._pre_roll.append(pcm)
            return None
        window = self.windows[-1]
        window.audio += pcm
        if len(window.audio) < WINDOW_S * self._bytes_per_s:
            return None
        cut = self._quietest(window.audio)
        self.windows.append(Window(window.audio[cut:]))
        del window.audio[cut:]
        self._forget()
        return window

    def speech_started(self) -> None:
        if self.speaking:
            return
        self.speaking = True
        if not self.windows or len(self.windows[-1].audio) >= FULL_S * self._bytes_per_s:
            self.windows.append(Window())
            self._forget()
        for pcm in self._pre_roll:
            self.windows[-1].audio += pcm
        self._pre_roll.clear()

    def speech_paused(self) -> None:
        self.speaking = False

    def commit(self) -> None:
        """Begin a new turn; if the caller is speaking, it begins here."""
        self.windows = [Window()] if self.speaking else []

    @property
    def text(self) -> str:
        """Everything recognised so far."""
        return " ".join(window.text for window in self.windows if window.text)

    def _quietest(self, audio: bytearray) -> int:
        """Where to cut: the middle of the quietest `CUT_MS` in the last `CUT_SEARCH_S`."""
        first = len(audio) - int(CUT_SEARCH_S * self._bytes_per_s) // 2 * 2
        samples = np.frombuffer(bytes(audio[first:]), "<i2").astype(np.float32)
        hop = self._bytes_per_s * FRAME_MS // 1000 // BYTES_PER_SAMPLE
        power = np.square(samples[: len(samples) // hop * hop].reshape(-1, hop)).mean(axis=1)
        span = CUT_MS // FRAME_MS
        quietest = int(np.convolve(power, np.ones(span), "valid").argmin())
        return first + (quietest + span // 2) * hop * BYTES_PER_SAMPLE

    def _forget(self) -> None:
        """Drop the turn's beginning when the turn is too long."""
        while len(self.windows) > 1 and sum(len(window.audio) for window in self.windows) > self._max_bytes:
            del self.windows[0]
