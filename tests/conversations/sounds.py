"""What callers say and what is heard beside them, as int16 mono at 8 kHz: recordings where there are some, else the
embedded voice (kept in the user's cache), and noises made by numbers from a fixed seed."""

import hashlib
import json
import os
import wave
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from situation import Sound

from bench.barge_corpus import breathing, mhm, spoken, television, throat
from bench.vad_signals import RATE, Samples, clicks, coughs, level, music, recordings

AUDIO = Path(__file__).parents[1] / "data/audio"
SPEECH_DB = -20.0
LINE_DB = -65.0
"""Noise of every line."""
LOUD_DB = -12.0
"""Of coughs and the like, at their peak of 10 ms."""
EDGE_DB = 26.0
"""What is so much softer than the loudest 10 ms at the ends of a recording is no speech."""


@cache
def phrase(text: str, voice: str = "piper") -> Samples:
    """`text` as somebody says it, at -20 dBFS, without silence at its ends."""
    found = _recorded().get((text, voice)) or _recorded().get((text, "kokoro" if voice == "piper" else "piper"))
    samples = _read(found) if found else _made(text)
    samples = trimmed(samples)
    active = samples[np.abs(samples) > np.abs(samples).max() / 20]
    return samples * level(SPEECH_DB) / float(np.sqrt((active**2).mean()))


def trimmed(samples: Samples) -> Samples:
    blocks = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    loudness = np.sqrt((blocks**2).mean(axis=1))
    loud = np.nonzero(loudness > loudness.max() * 10 ** (-EDGE_DB / 20))[0]
    return samples[loud[0] * 80 : (loud[-1] + 1) * 80]


def sound(kind: Sound, seconds: float, db: float | None = None) -> Samples:
    """The same at each run. `db`: dBFS, by default as loud as a caller's mouth makes it."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    speech = SPEECH_DB if db is None else db
    match kind:
        case "cough":
            return trimmed(coughs(rng, 3.0, SPEECH_DB + 6)[int(0.4 * RATE) : int(1.2 * RATE)])
        case "throat":
            return trimmed(throat(rng, speech))
        case "clicks":
            return clicks(rng, seconds, SPEECH_DB + 6)
        case "breathing":
            return breathing(rng, max(seconds, 3.0), SPEECH_DB - 14)
        case "mhm":
            return trimmed(mhm(rng, speech - 3))
        case "television":
            voices = [found.samples for found in recordings(AUDIO) if found.condition == "clean8k"]
            return television(rng, voices, seconds, speech)
        case "music":
            return music(rng, seconds, speech)


def line_noise(seconds: float) -> Samples:
    return np.random.default_rng(7).normal(0, level(LINE_DB), int(seconds * RATE))


@cache
def _recorded() -> dict[tuple[str, str], Path]:
    entries = [json.loads(line) for line in (AUDIO / "manifest.jsonl").read_text().splitlines()]
    return {
        (entry["text"], entry["source"]): AUDIO / entry["file"]
        for entry in entries
        if entry["cond"] == "clean8k" and (AUDIO / entry["file"]).exists()
    }


def _made(text: str) -> Samples:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offhook/callers"
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.wav"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        with wave.open(str(part), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(spoken(text).astype(np.int16).tobytes())
        part.replace(path)
    return _read(path)


def _read(path: Path) -> Samples:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64)
