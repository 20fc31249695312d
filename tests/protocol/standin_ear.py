"""Hearing for stand-ins of speech recognition: an energy gate over the audio that comes in, and what is "recognised"
taken from a script, the n-th utterance being its n-th text.

    ear = ScriptedEar(["Hello there.", "Yes, please."], encoding="mulaw", sample_rate=8000)
    for heard in ear.feed(audio):   # Began, Words (one more word is out), Ended
        ...
    ear.finalise()                  # the client asks for what is there
"""

import audioop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FRAME_MS = 20

PAUSE_MS = 100
"""Quiet that is a pause rather than the gap in a plosive."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A sign of an utterance. Times are ms of audio since the stream's start."""

    what: Literal["began", "words", "ended"]
    """`began`: the gate has opened. `words`: more of the text is out. `ended`: it has been quiet for `hang_ms`, and
    the whole text is out."""
    number: int
    """Of the utterance, from 0."""
    text: str
    """Of the utterance so far."""
    began_ms: int
    at_ms: int


class ScriptedEar:
    """One stream. Words come out one by one as speech goes on, all of them as it ends. ` | ` in a text is a pause
    that does not end the utterance: what follows it is not known before speech goes on."""

    def __init__(
        self,
        script: Sequence[str],
        *,
        encoding: str = "linear16",
        sample_rate: int = 8000,
        gate_rms: int = 300,
        hang_ms: int = 600,
        word_ms: int = 240,
    ) -> None:
        """`encoding`: linear16, mulaw or alaw (vendors' other names for them too). An utterance that the script has
        no text for is empty."""
        self._script = list(script)
        self._encoding = encoding
        self._width = 2 if _linear(encoding) else 1
        self._frame = sample_rate * FRAME_MS // 1000 * self._width
        self._gate_rms = gate_rms
        self._hang_ms = hang_ms
        self._word_ms = word_ms
        self._rest = bytearray()
        self._number = -1
        self._open = False
        self.began_ms = 0
        """Where the present utterance, or the last one, began..."""
        self.loud_to_ms = 0
        """...and was last loud."""
        self._loud_ms = 0
        self._out = 0
        self._part = 0
        self.quiet_ms = 0
        """Since the present utterance was last loud."""
        self.at_ms = 0
        """Audio heard so far."""

    @property
    def speaking(self) -> bool:
        """An utterance is open: begun, and not yet followed by `hang_ms` of quiet."""
        return self._open

    @property
    def text(self) -> str:
        """What is out of the present utterance, or of the last one."""
        return " ".join(self._words()[: self._out])

    def feed(self, audio: bytes) -> list[Heard]:
        """Audio of any length, in the stream's encoding."""
        self._rest += audio
        heard: list[Heard] = []
        while len(self._rest) >= self._frame:
            frame = bytes(self._rest[: self._frame])
            del self._rest[: self._frame]
            heard += self._take(frame)
        return heard

    def finalise(self) -> list[Heard]:
        """The client wants what is there. In a pause that is the whole utterance; in speech, the words that are
        out."""
        if not self._open or self.quiet_ms < 2 * FRAME_MS or self._out >= self._known():
            return []
        self._out = self._known()
        return [self._sign("words")]

    def end(self) -> list[Heard]:
        """The stream is over: an open utterance ends."""
        return self._close() if self._open else []

    def _take(self, frame: bytes) -> list[Heard]:
        self.at_ms += FRAME_MS
        loud = audioop.rms(_pcm(frame, self._encoding), 2) >= self._gate_rms
        heard: list[Heard] = []
        if loud and not self._open:
            self._number += 1
            self._open = True
            self.began_ms = self.at_ms - FRAME_MS
            self._loud_ms = self._out = self._part = self.quiet_ms = 0
            heard.append(self._sign("began"))
        if not self._open:
            return heard
        if not loud:
            self.quiet_ms += FRAME_MS
            return [*heard, *(self._close() if self.quiet_ms >= self._hang_ms else [])]
        if self.quiet_ms >= PAUSE_MS:
            self._part += 1
        self.quiet_ms = 0
        self.loud_to_ms = self.at_ms
        self._loud_ms += FRAME_MS
        if self._loud_ms % self._word_ms == 0 and self._out < self._known() - 1:
            self._out += 1
            heard.append(self._sign("words"))
        return heard

    def _close(self) -> list[Heard]:
        self._open = False
        self._out = len(self._words())
        return [self._sign("ended")]

    def _words(self) -> list[str]:
        return [word for part in self._parts() for word in part.split()]

    def _known(self) -> int:
        """Words that could be out by now."""
        return sum(len(part.split()) for part in self._parts()[: self._part + 1])

    def _parts(self) -> list[str]:
        return self._script[self._number].split(" | ") if 0 <= self._number < len(self._script) else []

    def _sign(self, what: Literal["began", "words", "ended"]) -> Heard:
        return Heard(what, self._number, self.text, self.began_ms, self.at_ms)


def _linear(encoding: str) -> bool:
    return "law" not in encoding and "pcmu" not in encoding and "pcma" not in encoding


def _pcm(audio: bytes, encoding: str) -> bytes:
    if _linear(encoding):
        return audio
    alaw = "alaw" in encoding or "pcma" in encoding
    return audioop.alaw2lin(audio, 2) if alaw else audioop.ulaw2lin(audio, 2)


def tone(ms: int, sample_rate: int = 8000, amplitude: int = 8000) -> bytes:
    """A square wave of 400 Hz, int16: loud enough for the gate."""
    half = sample_rate // 800
    samples = [amplitude if at // half % 2 else -amplitude for at in range(sample_rate * ms // 1000)]
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)


def quiet(ms: int, sample_rate: int = 8000) -> bytes:
    """Digital silence, int16."""
    return bytes(sample_rate * ms // 1000 * 2)
