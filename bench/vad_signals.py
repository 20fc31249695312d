"""Signals for measuring voice activity: recorded callers with their true onsets, and what is not speech."""

import audioop
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 8000

Samples = npt.NDArray[np.float64]
"""int16 scale, mono, 8 kHz."""


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    condition: str
    """`clean8k` or `snr20`."""
    samples: Samples
    onset_s: float
    """Where the clean recording's 10 ms level first comes within 26 dB of its loudest."""
    offset_s: float
    """Where it last is."""


def read_wav(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        if file.getframerate() != RATE or file.getnchannels() != 1:
            raise ValueError(f"{path}: expected {RATE} Hz mono")
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64)


def recordings(directory: Path) -> list[Recording]:
    """Every recording of the manifest that is present, clean and noisy."""
    found = []
    for line in (directory / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        path = directory / entry["file"]
        clean = directory / entry["file"].replace("snr20", "clean8k")
        if path.exists() and clean.exists():
            onset, offset = extent(read_wav(clean))
            found.append(Recording(path.stem, entry["cond"], read_wav(path), onset, offset))
    return found


def extent(clean: Samples) -> tuple[float, float]:
    """Onset and offset (s) of the speech in a recording without noise."""
    frames = clean[: len(clean) // 80 * 80].reshape(-1, 80)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.nonzero(level > np.percentile(level, 95) * 10 ** (-26 / 20))[0]
    return float(loud[0]) * 0.01, float(loud[-1] + 1) * 0.01


def g711(samples: Samples) -> Samples:
    """A mu-law round trip."""
    pcm = np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
    return np.frombuffer(audioop.ulaw2lin(audioop.lin2ulaw(pcm, 2), 2), np.int16).astype(np.float64)


def level(db: float) -> float:
    """RMS (int16 scale) of `db` dBFS."""
    return float(32768 * 10 ** (db / 20))


def white(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    return rng.normal(0, level(db), int(seconds * RATE))


def pink(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * seconds))
    noise: Samples = np.fft.irfft(spectrum, count)
    return noise / float(noise.std()) * level(db)


def tone(seconds: float, db: float, *hertz: float) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    wave_: Samples = np.sum([np.sin(2 * np.pi * f * t) for f in hertz], axis=0)
    return wave_ / float(np.sqrt((wave_**2).mean())) * level(db)


def hum(seconds: float, db: float, base: float) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    wave_: Samples = np.sum([np.sin(2 * np.pi * base * k * t + k) / k for k in (1, 2, 3, 5, 7)], axis=0)
    return wave_ / float(np.sqrt((wave_**2).mean())) * level(db)


def gated(samples: Samples, on_s: float, off_s: float) -> Samples:
    """Cadence: on, off, on, ..."""
    t = np.arange(len(samples)) / RATE % (on_s + off_s)
    return np.where(t < on_s, samples, 0.0)


def dtmf(seconds: float, db: float) -> Samples:
    """All sixteen digits in turn, 100 ms each with 100 ms between."""
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
    digits = [gated(tone(0.2, db, rows[i % 4], columns[i // 4]), 0.1, 0.1) for i in range(16)]
    line = np.concatenate(digits)
    return np.resize(line, int(seconds * RATE))


def clicks(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Clicks of 1 to 5 ms, two a second."""
    return _bursts(rng, seconds, db, 0.001, 0.005)


def bangs(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Knocks: bursts of noise of 20 to 60 ms, decaying, two a second."""
    return _bursts(rng, seconds, db, 0.02, 0.06)


def _bursts(rng: np.random.Generator, seconds: float, db: float, shortest: float, longest: float) -> Samples:
    line = rng.normal(0, level(-62), int(seconds * RATE))
    for start in np.arange(0.3, seconds - 0.2, 0.5):
        count = int(rng.uniform(shortest, longest) * RATE)
        burst = rng.normal(0, 1, count) * np.exp(-3 * np.arange(count) / count)
        burst *= level(db) / np.sqrt((burst**2).mean())
        at = int((start + rng.uniform(0, 0.1)) * RATE)
        line[at : at + count] += burst
    return line


def coughs(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Something like a cough every 1.5 s: 250 ms of noise through a vowel's formants, with a sharp attack."""
    line = rng.normal(0, level(-62), int(seconds * RATE))
    for start in np.arange(0.5, seconds - 0.5, 1.5):
        count = int(0.25 * RATE)
        burst = rng.normal(0, 1, count)
        spectrum = np.fft.rfft(burst)
        hertz = np.fft.rfftfreq(count, 1 / RATE)
        shape = sum(1 / (1 + ((hertz - f) / 150) ** 2) for f in (600.0, 1200.0, 2500.0))
        burst = np.fft.irfft(spectrum * shape, count) * np.exp(-4 * np.arange(count) / count)
        burst *= level(db) / np.sqrt((burst**2).mean())
        at = int(start * RATE)
        line[at : at + count] += burst
    return line


def music(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Hold music of a kind: a chord and a melody of plucked notes with harmonics, 120 a minute."""
    line = np.zeros(int(seconds * RATE))
    scale = 220 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
    t = np.arange(int(0.9 * RATE)) / RATE
    for beat in range(int(seconds * 2) - 2):
        for note, gain in ((rng.choice(scale), 1.0), (scale[0] / 2, 0.6), (scale[3] / 2, 0.4)):
            sound = sum(np.sin(2 * np.pi * note * k * t) / k**1.5 for k in range(1, 6)) * np.exp(-3 * t)
            at = beat * RATE // 2
            line[at : at + len(sound)] += gain * sound[: len(line) - at]
    return line / float(np.sqrt((line**2).mean())) * level(db)


def babble(rng: np.random.Generator, seconds: float, db: float, voices: list[Samples], count: int = 8) -> Samples:
    """`count` of the recorded voices at once, over and over."""
    line = np.zeros(int(seconds * RATE))
    for _ in range(count):
        order = rng.permutation(len(voices))
        speech = np.concatenate([voices[i] for i in order])
        line += np.resize(np.roll(speech, int(rng.integers(len(speech)))), len(line))
    return line / float(line.std()) * level(db)


def car(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Road noise: pink with its lows lifted, swelling slowly by 6 dB."""
    base = pink(rng, seconds, db) + hum(seconds, db - 6, 37)
    swell = 10 ** (3 * np.sin(2 * np.pi * np.arange(len(base)) / RATE / 3) / 20)
    return base * swell


def frames(samples: Samples) -> Iterator[bytes]:
    """20 ms of int16 each, the last one padded with silence."""
    pcm = np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
    for at in range(0, len(pcm), 320):
        yield pcm[at : at + 320].ljust(320, b"\0")
