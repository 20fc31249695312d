"""When speech starts and stops: the decision over what the detectors say of one stream. No audio, clock or I/O.

Two kinds of evidence go in: each 20 ms frame with the word of the cheap detectors (`voiced`: it stands out of the
noise and sounds like voice), and, a little later, Silero's probability for windows of 32 ms. Speech starts when
consecutive windows are probable and enough of their frames are voiced; it stops when no voiced frame came for the
hangover. Silero's no takes the word from the cheap detectors while speech is under way. Without Silero a longer run
of voiced frames decides.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from bridge.audio.frames import FRAME_MS, FRAME_S
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent

HISTORY_FRAMES = 32
"""How far back an onset is looked for, and how late a window's result may come (640 ms)."""

CERTAINTY_WINDOWS = 32
"""Newest scored windows that tell how surely a sound is speech."""

EPSILON = 1e-6
"""Clock times of the 20 ms grid are sums of floats."""


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    start_probability: float = 0.5
    """Consecutive windows this probable add up to the evidence for a start."""
    start_evidence: float = 1.2
    """Sum of their probabilities that starts speech: never one window alone, which a click or a bang can give."""
    stay_probability: float = 0.35
    """While speech is under way this is enough: hysteresis against flicker."""
    start_frames: int = 3
    """Voiced frames (20 ms each) within the last 120 ms for a start: keeps out bangs shorter than 60 ms."""
    hangover_ms: int = 180
    """Silence before the stop is told: longer than the closure of a "p" or "t" (up to 120 ms)."""
    onset_gap_frames: int = 2
    """Unvoiced frames an onset may hold when it is traced back to its first voiced frame."""
    alone_start_ms: int = 160
    """Without Silero: voiced frames needed for a start. webrtcvad takes a third of pure noise for voice."""
    alone_hangover_ms: int = 240


class SpeechDecision:
    """One stream. `accept` is asked before a start is told; its no (it is our own echo) discards the evidence."""

    def __init__(
        self, settings: DecisionSettings, *, silero: bool = True, accept: Callable[[], bool] = lambda: True
    ) -> None:
        self._settings = settings
        self._silero = silero
        self._accept = accept
        self._frames: deque[tuple[float, bool]] = deque(maxlen=HISTORY_FRAMES)
        """End of each frame and whether it was voiced, oldest first."""
        self._voiced_run = 0
        """Without Silero: voiced frames less unvoiced ones, never below 0."""
        self._evidence = 0.0
        """Sum of the probabilities of the consecutive probable windows so far."""
        self._against = 0
        """Consecutive improbable windows while speech is under way."""
        self._last_voice = 0.0
        """End of the last voiced frame that counts."""
        self._supported_until = 0.0
        """End of the last probable window."""
        self._probabilities: deque[float] = deque(maxlen=CERTAINTY_WINDOWS)
        """Of the newest windows since speech started."""
        self._told = 0.0
        """The time of the last event: times never go back."""
        self.speaking = False

    def frame(self, now: float, voiced: bool) -> VoiceEvent | None:
        """The frame that ends at `now` (s, clock time)."""
        self._frames.append((now, voiced))
        if self.speaking:
            if voiced and self._against < 2:
                self._last_voice = now
            hangover_ms = self._settings.hangover_ms if self._silero else self._settings.alone_hangover_ms
            if (now - self._last_voice) * 1000 >= hangover_ms - EPSILON:
                return self._stop(now)
        elif not self._silero:
            self._voiced_run = self._voiced_run + 1 if voiced else max(0, self._voiced_run - 1)
            if self._voiced_run * FRAME_MS >= self._settings.alone_start_ms:
                self._voiced_run = 0
                return self._start(now, now)
        return None

    def window(self, start: float, end: float, probability: float, now: float) -> VoiceEvent | None:
        """Silero's `probability` for the audio between `start` and `end` (s, clock time), known at `now`."""
        settings = self._settings
        if self.speaking:
            self._probabilities.append(probability)
            if probability >= settings.stay_probability:
                self._against = 0
                self._supported_until = max(self._supported_until, end)
                self._last_voice = max(self._last_voice, self._last_voiced(now))
            else:
                self._against += 1
                if self._against == 2:
                    # What the cheap detectors took for voice since the last probable window was noise.
                    self._last_voice = min(self._last_voice, self._last_voiced(self._supported_until + FRAME_S))
            return None
        # A window that is probable without one voiced frame in it is speech below the gate: our echo, far talk.
        if probability < settings.start_probability or not self._voiced_between(start, end):
            self._evidence = 0.0
            return None
        self._evidence += probability
        if self._evidence < settings.start_evidence or self._recently_voiced() < settings.start_frames:
            return None
        return self._start(end, now)

    @property
    def last_voice(self) -> float:
        """End of the last voiced frame that counts as speech (s); 0 before any."""
        return self._last_voice

    @property
    def certainty(self) -> float:
        """Upper quartile of Silero's probabilities since speech started; 1 where it has said nothing. Consonants are
        doubtful in any voice; in music and distant talk there is doubt about the clearest moments too."""
        known = sorted(self._probabilities)
        return known[len(known) * 3 // 4] if known else 1.0

    def restart(self) -> None:
        """Silero starts anew on this stream: windows before and after are not consecutive."""
        self._evidence = 0.0

    def without_silero(self) -> None:
        """Silero is gone for good: the cheap detectors decide alone from here on."""
        self._silero = False
        self._against = 0

    def _start(self, end: float, now: float) -> SpeechStarted | None:
        """Speech is sure of the audio up to `end`."""
        self._evidence = 0.0
        if not self._accept():
            return None
        self.speaking = True
        self._probabilities.clear()
        self._against = 0
        self._supported_until = end
        self._last_voice = max(self._last_voiced(now), end)
        self._told = min(now, max(self._told, self._onset(end)))
        return SpeechStarted(self._told)

    def _stop(self, now: float) -> SpeechStopped:
        self.speaking = False
        self._told = min(now, max(self._told, self._last_voice))
        return SpeechStopped(self._told)

    def _onset(self, end: float) -> float:
        """Start of the first voiced frame of the run that reaches `end`."""
        onset, gap = end - FRAME_S, 0
        for at, voiced in reversed(self._frames):
            if at > end + EPSILON:
                continue
            if voiced:
                onset, gap = at - FRAME_S, 0
            else:
                gap += 1
                if gap > self._settings.onset_gap_frames:
                    break
        return onset

    def _last_voiced(self, until: float) -> float:
        """End of the last voiced frame not later than `until`."""
        for at, voiced in reversed(self._frames):
            if voiced and at <= until + EPSILON:
                return at
        return 0.0

    def _voiced_between(self, start: float, end: float) -> bool:
        return any(voiced and start + EPSILON < at < end + FRAME_S - EPSILON for at, voiced in self._frames)

    def _recently_voiced(self) -> int:
        """Voiced frames among the newest six."""
        return sum(voiced for _, voiced in islice(reversed(self._frames), 6))
