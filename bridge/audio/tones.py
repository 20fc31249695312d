"""Tones as telephones know them: sines, pairs of them, cadences; and how to find one in audio (Goertzel)."""

import numpy as np
from numpy.typing import NDArray

LEVEL = 8000
"""Peak of each sine of a tone (of 32767): about -12 dBFS, and room for two."""

RINGBACK = ((440.0, 480.0), 2000, 4000)
BUSY = ((480.0, 620.0), 500, 500)
REORDER = ((480.0, 620.0), 250, 250)
"""North American call progress tones (ITU-T E.180): frequencies in Hz, ms on, ms off."""

HOLD = ((440.0,), 300, 5000)
"""A short note now and then: the line is still there."""
HOLD_LEVEL = 1500

DTMF_ROWS = (697.0, 770.0, 852.0, 941.0)
DTMF_COLUMNS = (1209.0, 1336.0, 1477.0, 1633.0)
DTMF_KEYS = ("123A", "456B", "789C", "*0#D")
"""ITU-T Q.23."""

EDGE_MS = 5
"""Ramp at a tone's ends, so that they don't click."""


def tone(frequencies_hz: tuple[float, ...], duration_ms: int, sample_rate: int, *, level: int = LEVEL) -> bytes:
    """The sum of sines as int16 mono PCM, `level` the peak of each."""
    times = np.arange(sample_rate * duration_ms // 1000) / sample_rate
    wave = np.zeros(len(times))
    for hz in frequencies_hz:
        wave += level * np.sin(2 * np.pi * hz * times)
    edge = min(sample_rate * EDGE_MS // 1000, len(times) // 2)
    if edge:
        ramp = np.linspace(0, 1, edge)
        wave[:edge] *= ramp
        wave[-edge:] *= ramp[::-1]
    return _pcm(wave)


def cadence(
    pattern: tuple[tuple[float, ...], int, int], duration_ms: int, sample_rate: int, *, level: int = LEVEL
) -> bytes:
    """`duration_ms` of a call progress tone (RINGBACK, BUSY, REORDER, HOLD), from its beginning."""
    frequencies, on_ms, off_ms = pattern
    period = tone(frequencies, on_ms, sample_rate, level=level) + bytes(2 * (sample_rate * off_ms // 1000))
    size = 2 * (sample_rate * duration_ms // 1000)
    return (period * (size // len(period) + 1))[:size]


def dtmf(digits: str, sample_rate: int, *, tone_ms: int = 100, gap_ms: int = 100) -> bytes:
    """In-band DTMF. Raises ValueError for a character that is no key."""
    parts = []
    for digit in digits.upper():
        parts += [tone(dtmf_pair(digit), tone_ms, sample_rate), bytes(2 * (sample_rate * gap_ms // 1000))]
    return b"".join(parts)


def dtmf_pair(digit: str) -> tuple[float, float]:
    """The two frequencies (Hz) of a key (0-9 * # A-D). Raises ValueError for another character."""
    for row, keys in zip(DTMF_ROWS, DTMF_KEYS, strict=True):
        if len(digit) == 1 and digit in keys:
            return row, DTMF_COLUMNS[keys.index(digit)]
    raise ValueError(f"{digit!r} is not one of the keys {''.join(DTMF_KEYS)}")


def tone_level(pcm: bytes, frequency_hz: float, sample_rate: int) -> float:
    """The peak of the sine at `frequency_hz` in int16 mono PCM (Goertzel's sum): about LEVEL for a tone made here."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not len(samples):
        return 0.0
    turn = np.exp(-2j * np.pi * frequency_hz / sample_rate * np.arange(len(samples)))
    return float(2 * abs(np.dot(samples, turn)) / len(samples))


def detect_dtmf(pcm: bytes, sample_rate: int) -> str | None:
    """The key that sounds all through `pcm` (at least 40 ms), or None."""
    rows = [tone_level(pcm, hz, sample_rate) for hz in DTMF_ROWS]
    columns = [tone_level(pcm, hz, sample_rate) for hz in DTMF_COLUMNS]
    row, column = int(np.argmax(rows)), int(np.argmax(columns))
    rest = sum(rows) + sum(columns) - rows[row] - columns[column]
    if min(rows[row], columns[column]) < 200 or rest > min(rows[row], columns[column]):
        return None
    return DTMF_KEYS[row][column]


def _pcm(wave: NDArray[np.float64]) -> bytes:
    return np.clip(np.rint(wave), -32768, 32767).astype("<i2").tobytes()
