"""What a caller's line brings while the agent speaks: people who mean to interrupt it, and everything that is none.

Every case is the same at every run: recorded speech from `tests/data/audio`, short words by the embedded voice (made
when asked for), and noises made by numbers from a fixed seed. All of it has been through mu-law.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from bench.vad_signals import (
    RATE,
    Samples,
    babble,
    bangs,
    car,
    clicks,
    coughs,
    dtmf,
    g711,
    level,
    music,
    recordings,
    white,
)

AUDIO = Path(__file__).parent.parent / "tests" / "data" / "audio"

LINE_DB = -62.0
"""Noise of every line, dBFS."""

TALK_DB = -23.0
"""Active level of the recorded callers, dBFS."""

STOP_WORDS = ("Stop.", "Wait.", "No, no.", "Hold on.", "Excuse me.", "Sorry?")
BACKCHANNELS = ("Uh huh.", "Okay.", "Yeah.", "Right.", "I see.", "Okay, good.")
ECHO_DELAYS_MS = (50, 100, 150, 200, 300)


@dataclass(frozen=True, slots=True)
class EchoPath:
    """The agent's own voice comes back on the caller's line."""

    gain_db: float
    delay_ms: int
    room: bool = False
    """Smeared over 100 ms, as by a loudspeaker in a room; else over 6 ms, as by a hybrid."""


@dataclass(frozen=True, slots=True)
class Case:
    """One sound over the agent's speech."""

    kind: str
    name: str
    stops: bool | None
    """It has to stop the agent (True), or must not (False); either will do (None)."""
    line: Samples
    """What the caller's line carries, from the start of the case."""
    onset_s: float
    """Where the sound truly starts within it."""
    end_s: float
    text: str = ""
    """What a good recogniser makes of it."""
    echo: EchoPath | None = None
    known: bool = False
    """The caller has spoken before: how loud their own voice is, is known."""


def corpus(audio: Path = AUDIO, *, voice: bool = True) -> list[Case]:
    """All cases. `voice`: with the words that the embedded voice speaks; it must be installed (else ModelError)."""
    found = list(_speech(audio))
    found += _noises(audio)
    found += _echoes()
    if voice:
        found += _words()
    return found


def _speech(audio: Path) -> Iterator[Case]:
    rng = np.random.default_rng(11)
    for recording in recordings(audio):
        text = _texts(audio)[recording.name]
        kind = "speech" if recording.condition == "clean8k" else "speech, 20 dB noise"
        stops = None if text.startswith("Yes") else True
        forms = [(kind, recording.samples)]
        if recording.condition == "clean8k":
            forms.append(("speech, 12 dB softer", recording.samples * 10 ** (-12 / 20)))
        extent = recording.onset_s, recording.offset_s
        for name, samples in forms:
            # A yes may mean "go on" as well as "stop, that's it".
            yield _placed(rng, name if stops else "a yes", recording.name, samples, *extent, text, stops=stops)


def _words() -> Iterator[Case]:
    rng = np.random.default_rng(12)
    for stops, kind, texts in ((True, "stop words", STOP_WORDS), (False, "backchannels", BACKCHANNELS)):
        for text in texts:
            samples = spoken(text) * 10 ** ((TALK_DB + 20) / 20)
            yield _placed(rng, kind, text, samples, *_extent(samples), text, stops=stops)


def _noises(audio: Path) -> Iterator[Case]:
    rng = np.random.default_rng(13)
    voices = [r.samples for r in recordings(audio) if r.condition == "clean8k"]
    for number in range(12):
        for kind, samples in (
            ("coughs", coughs(rng, 3.0, TALK_DB + 6)[: int(1.3 * RATE)]),
            ("throat clearing", throat(rng, TALK_DB)),
            ("clicks", clicks(rng, 2.0, TALK_DB + 6)),
            ("knocks", bangs(rng, 2.0, TALK_DB + 6)),
            ("breathing", breathing(rng, 6.0, TALK_DB - 12)),
            ("mhm", mhm(rng, TALK_DB)),
            ("keyboard", keyboard(rng, 4.0, TALK_DB - 6)),
            ("hold music", music(rng, 8.0, TALK_DB - 3)),
            ("television", television(rng, voices, 8.0, TALK_DB - 18)),
            ("babble", babble(rng, 8.0, TALK_DB - 12, voices)),
            ("car", car(rng, 8.0, TALK_DB - 10)),
        ):
            text = "mhm" if kind == "mhm" else ""
            case = _placed(rng, kind, f"{kind} {number + 1}", samples, *_extent(samples), text, stops=False)
            yield case
            if kind in ("television", "babble"):
                yield replace(case, kind=f"{kind}, caller known", known=True)
    yield _placed(rng, "keys (DTMF)", "all keys", dtmf(3.2, -12), 0.0, 3.2, stops=False)


def _echoes() -> Iterator[Case]:
    rng = np.random.default_rng(14)
    for gain_db in (-30.0, -20.0, -15.0):
        for delay_ms in ECHO_DELAYS_MS:
            for room in (False, True):
                name = f"{gain_db:.0f} dB, {delay_ms} ms{', room' if room else ''}"
                yield Case(
                    f"own echo at {gain_db:.0f} dB",
                    name,
                    False,
                    white(rng, 10.0, LINE_DB),
                    0.0,
                    10.0,
                    echo=EchoPath(gain_db, delay_ms, room),
                )


def _placed(
    rng: np.random.Generator,
    kind: str,
    name: str,
    samples: Samples,
    onset_s: float,
    end_s: float,
    text: str = "",
    *,
    stops: bool | None = True,
) -> Case:
    """`samples` somewhere within 1.5 to 4 s of a quiet line, with 1.5 s of it after."""
    before = rng.uniform(1.5, 4.0)
    line = white(rng, before + len(samples) / RATE + 1.5, LINE_DB)
    at = int(before * RATE)
    line[at : at + len(samples)] += samples
    return Case(kind, name, stops, g711(line), at / RATE + onset_s, at / RATE + end_s, text)


def _extent(samples: Samples) -> tuple[float, float]:
    """Where the sound starts and ends (s): its 10 ms level within 26 dB of its loudest."""
    frames = samples[: len(samples) // 80 * 80].reshape(-1, 80)
    loudness = np.sqrt((frames**2).mean(axis=1))
    loud = np.nonzero(loudness > loudness.max() * 10 ** (-26 / 20))[0]
    return float(loud[0]) * 0.01, float(loud[-1] + 1) * 0.01


@cache
def _texts(audio: Path) -> dict[str, str]:

    entries = (json.loads(line) for line in (audio / "manifest.jsonl").read_text().splitlines())
    return {Path(entry["file"]).stem: entry["text"] for entry in entries}


# -- made sounds ---------------------------------------------------------------------------------------------


@cache
def spoken(text: str) -> Samples:
    """`text` by the embedded voice, at -20 dBFS. Raises ModelError where it is not installed."""
    import onnxruntime

    # The voice draws its melody from noise.
    onnxruntime.set_seed(1)
    from bridge.providers.local.models import find_model
    from bridge.providers.local.piper import PiperEngine
    from bridge.providers.local.settings import EngineSettings

    engine = PiperEngine(find_model("tts", EngineSettings()))
    _, pcm = engine.run({"text": text, "sample_rate": RATE}, b"")
    return np.frombuffer(pcm, np.int16).astype(np.float64)


def _shaped(rng: np.random.Generator, count: int, formants: tuple[float, ...], width: float) -> Samples:
    """Noise through resonances (Hz)."""
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    shape = sum((1 / (1 + ((hertz - f) / width) ** 2) for f in formants), np.zeros(len(hertz)))
    made: Samples = np.fft.irfft(spectrum * shape, count)
    return made


def _voice(pitch: Samples, formants: tuple[tuple[float, float], ...]) -> Samples:
    """Harmonics of a gliding `pitch` (Hz a sample), as loud as the formants (Hz, gain) let them be."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    made = np.zeros(len(pitch))
    for harmonic in range(1, 25):
        hertz = harmonic * pitch
        gain = sum((g / (1 + ((hertz - f) / 90) ** 2) for f, g in formants), np.zeros(len(pitch)))
        made += np.where(hertz < 3600, gain, 0.0) * np.sin(harmonic * phase)
    return made


def _at(samples: Samples, db: float) -> Samples:
    scaled: Samples = samples / max(1e-9, float(np.sqrt((samples**2).mean()))) * level(db)
    return scaled


def mhm(rng: np.random.Generator, db: float) -> Samples:
    """A hummed "mhm": two nasal syllables, the second higher, breath between them."""
    low = rng.uniform(95, 190)
    parts = []
    for rise, seconds in ((1.0, rng.uniform(0.12, 0.2)), (1.25, rng.uniform(0.16, 0.28))):
        count = int(seconds * RATE)
        pitch = low * rise * np.linspace(1.0, 1.08, count)
        hum = _voice(pitch, ((260.0, 1.0), (1050.0, 0.12), (2300.0, 0.05)))
        parts.append(hum * np.hanning(count) ** 0.5)
        parts.append(_shaped(rng, int(rng.uniform(0.04, 0.08) * RATE), (500.0, 1500.0), 600) * 0.02)
    return _at(np.concatenate(parts[:3]), db)


def throat(rng: np.random.Generator, db: float) -> Samples:
    """Clearing of a throat: 300 to 500 ms of rough, low voice with noise in it, twice."""
    parts = []
    for _ in range(2):
        count = int(rng.uniform(0.18, 0.28) * RATE)
        jitter = 1 + 0.12 * np.cumsum(rng.normal(0, 0.05, count)).clip(-1, 1)
        voice = _voice(rng.uniform(70, 110) * jitter, ((550.0, 1.0), (1300.0, 0.4)))
        noise = _shaped(rng, count, (600.0, 1300.0, 2400.0), 250)
        rough = _at(voice, -20) * (1 + rng.normal(0, 0.4, count)) + _at(noise, -20)
        parts += [rough * np.hanning(count), np.zeros(int(0.06 * RATE))]
    return _at(np.concatenate(parts), db)


def breathing(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Into the microphone: a breath every 2.5 s, in and out."""
    line = np.zeros(int(seconds * RATE))
    at = 0.2
    while at < seconds - 1.6:
        for length, formants in ((rng.uniform(0.5, 0.8), (1100.0, 2600.0)), (rng.uniform(0.6, 0.9), (700.0, 1700.0))):
            count = min(int(length * RATE), len(line) - int(at * RATE))
            line[int(at * RATE) :][:count] += _shaped(rng, count, formants, 700) * np.hanning(count)
            at += length + 0.1
        at += rng.uniform(0.6, 1.0)
    return _at(line, db)


def keyboard(rng: np.random.Generator, seconds: float, db: float) -> Samples:
    """Typing: key strokes of 15 ms with a thump, six a second."""
    line = np.zeros(int(seconds * RATE))
    for start in np.arange(0.1, seconds - 0.2, 1 / 6):
        count = int(rng.uniform(0.012, 0.02) * RATE)
        stroke = _shaped(rng, count, (400.0, 2500.0), 900) * np.exp(-4 * np.arange(count) / count)
        at = int((start + rng.uniform(0, 0.06)) * RATE)
        line[at : at + count] += _at(stroke, 0) * rng.uniform(0.4, 1.0)
    peak = float(np.abs(line).max())
    return line / peak * level(db) * 3


def television(rng: np.random.Generator, voices: list[Samples], seconds: float, db: float) -> Samples:
    """A voice across the room, over music: band-limited, with the room's reverberation."""
    order = rng.permutation(len(voices))
    talk = np.resize(np.concatenate([voices[i] for i in order]), int(seconds * RATE))
    line = _at(talk, -20) + _at(music(rng, seconds, -20), -30)
    count = 2400
    room = rng.normal(0, 1, count) * np.exp(-np.arange(count) / 500)
    size = len(line) + count
    wet = np.fft.irfft(np.fft.rfft(line, size) * np.fft.rfft(room, size), size)[: len(line)]
    return _at(wet, db)
