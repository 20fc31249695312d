"""What goes into a recogniser, and what comes out, cleaned of what it makes up on noise, music and silence."""

import re

import numpy as np
from numpy.typing import NDArray

from bridge.audio.resample import Resampler

SAMPLE_RATE = 16000
"""Hz: what recognisers are trained on."""

SILENCE_DBFS = -55.0
"""Audio whose loudest 20 ms stay below this has no speech in it: line noise after G.711 is at -65 or lower."""

WORDS_PER_S = 6.0
"""Nobody says more words a second; a recogniser that does so is inventing."""

SPARE_WORDS = 2

PHANTOMS = frozenset(
    {"you", "so you", "thank you for watching", "thanks for watching", "please subscribe", "the end"}
)
"""Whole results that mean noise; recognisers learned them from the ends of subtitled films."""

CREDITS = ("emily beynon", "subtitles by", "subtitled by", "amara org")
"""The same, wherever they stand in a result."""

LOOP_REPEATS = 4
"""A phrase of several words so often in a row is a decoder in a loop."""

STUTTER = 3
"""One word repeated is cut to so many: "no no no no no" loses nothing."""

LONGEST_LOOP_WORDS = 12

_MERIDIEM = re.compile(r"\b([ap])\.\s?(m)\b\.*", re.IGNORECASE)
"""Written "p. m.." as often as "pm"."""

_NOT_WORDS = re.compile(r"[^\w\s']+")


def samples_16k(pcm: bytes, sample_rate: int) -> NDArray[np.float32]:
    """int16 mono PCM as samples in -1..1 at 16 kHz."""
    resampler = Resampler(sample_rate, SAMPLE_RATE)
    samples = np.frombuffer(resampler.process(pcm) + resampler.flush(), "<i2")
    return samples.astype(np.float32) / np.float32(32768)


def loudest_dbfs(pcm: bytes, sample_rate: int) -> float:
    """Level (RMS, dBFS) of the loudest 20 ms of int16 mono PCM; -120 for nothing."""
    window = sample_rate // 50
    samples: NDArray[np.float32] = np.frombuffer(pcm[: len(pcm) // (2 * window) * 2 * window], "<i2").astype(
        np.float32
    )
    if not len(samples):
        return -120.0
    power = np.square(samples.reshape(-1, window)).mean(axis=1).max()
    return float(max(-120.0, 10 * np.log10(power / 32768**2 + 1e-12)))


def clean(text: str, *, seconds: float) -> str:
    """The text that is worth believing, empty if it is an invention. `seconds` of audio it was heard in."""
    text = " ".join(text.replace("♪", " ").replace("\ufffd", "").split())
    text = _MERIDIEM.sub(r"\1\2", text)
    words = _NOT_WORDS.sub(" ", text).lower().split()
    plain = " ".join(words)
    if not words or plain in PHANTOMS or any(credit in plain for credit in CREDITS):
        return ""
    if len(words) > SPARE_WORDS + WORDS_PER_S * seconds or _loops(words):
        return ""
    return _without_stutter(text)


def _loops(words: list[str]) -> bool:
    """Whether a phrase of two words or more, repeated in a row, makes up most of the text."""
    for size in range(2, LONGEST_LOOP_WORDS + 1):
        for start in range(len(words) - size * LOOP_REPEATS + 1):
            phrase = words[start : start + size]
            end = start + size
            while words[end : end + size] == phrase:
                end += size
            if len(set(phrase)) > 1 and end - start >= size * LOOP_REPEATS and 2 * (end - start) > len(words):
                return True
    return False


def _without_stutter(text: str) -> str:
    kept: list[str] = []
    for word in text.split():
        bare = _NOT_WORDS.sub("", word).lower()
        last = [_NOT_WORDS.sub("", earlier).lower() for earlier in kept[-STUTTER:]]
        # Digits are meant: "five five five five" is a number.
        if bare.isalpha() and last == [bare] * STUTTER and bare not in _DIGITS:
            continue
        kept.append(word)
    return " ".join(kept)


_DIGITS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})
