"""What stand-ins of speech-to-speech models share: a script of turns, an ear for loudness, a voice of tones."""

import audioop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

WORD_MS = 240
"""How long a spoken word lasts."""

LOUD_RMS = 300
ONSET_FRAMES = 3


def spoken(text: str, rate: int = 8000) -> bytes:
    """`text` as int16 mono PCM at `rate` (Hz): a tone for each word."""
    time = np.arange(rate * WORD_MS // 1000) / rate
    words = [np.sin(2 * np.pi * (300 + 37 * (len(word) % 9)) * time) * 8000 for word in text.split()]
    return np.concatenate(words).astype("<i2").tobytes() if words else b""


@dataclass(frozen=True)
class Turn:
    """What comes of one turn of the caller, or of one request to answer."""

    heard: str = ""
    """The transcript of the caller's audio; none of it comes where it is empty."""
    says: str = ""
    tools: Sequence[tuple[str, dict[str, Any] | str]] = ()
    """Names and arguments; text in their place is sent as it is."""
    think_s: float = 0.0
    fails: dict[str, Any] | None = None
    """The reply fails with this error."""
    silent: bool = False
    """No reply at all is made."""
    incomplete: str = ""
    """The reply breaks off for this reason."""


class LoudEar:
    """When the caller begins and ends, by loudness over 20 ms frames of int16 PCM."""

    def __init__(self, silence_ms: int) -> None:
        self.silence_ms = silence_ms
        self.frames = 0
        self.loud_frames = 0
        self.speaking = False
        self._voiced = self._silent = 0

    @property
    def onset_ms(self) -> int:
        return (self.frames - self._voiced) * 20

    def hear(self, frame: bytes) -> Literal["started", "stopped"] | None:
        self.frames += 1
        loud = audioop.rms(frame, 2) > LOUD_RMS
        self.loud_frames += loud
        self._voiced, self._silent = (self._voiced + 1, 0) if loud else (0, self._silent + 1)
        if not self.speaking and self._voiced >= ONSET_FRAMES:
            self.speaking = True
            return "started"
        if self.speaking and self._silent * 20 >= self.silence_ms:
            self.speaking = False
            return "stopped"
        return None
