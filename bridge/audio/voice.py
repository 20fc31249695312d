"""What voice activity tells, whatever detects it (`vad.py`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    at: float
    """When the voice set in (s, clock time): earlier than the time it is told, by the detector's own delay."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    at: float
    """When the voice was last heard (s, clock time). Told after a short hangover, long before a turn's end."""


VoiceEvent = SpeechStarted | SpeechStopped


@dataclass(frozen=True, slots=True)
class VoiceSound:
    """What a voice sounds like, since it set in."""

    last_at: float
    """End of the last frame with voice in it (s, clock time), without the hangover of `SpeechStopped`; 0 before
    any."""
    level_db: float
    """Of the loud half of its frames, dBFS; -inf before any."""
    certainty: float = 1.0
    """How sure it is that this is speech, in its clearer moments (0 to 1); 1 where no model says."""


class VoiceDetector(Protocol):
    """One stream's voice activity: feed it with `Leg.listen(detector.push)`."""

    def push(self, pcm: bytes, now: float) -> None:
        """One 20 ms frame (int16 mono) and its clock time; a `FrameSink`."""
        ...

    def reference(self, pcm: bytes, now: float) -> None:
        """One frame as we sent it (int16 mono), so that its echo is not taken for the caller: a `FrameSink` for
        `Playout.listen(detector.reference)`. Optional: without it every voice is the caller's."""
        ...

    @property
    def sound(self) -> VoiceSound:
        """The voice that is there, or was last."""
        ...

    def close(self) -> None:
        """Forget the stream; no event comes after."""
        ...


OpenVoiceDetector = Callable[[int, Callable[[VoiceEvent], None]], VoiceDetector]
"""(sample rate in Hz, handler of its events on the event loop's thread) -> a detector."""
