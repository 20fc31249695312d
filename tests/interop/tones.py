"""Tones that the tests' phones play, and how they are recognised in what was heard."""

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_tone(path: Path, *, hz: float, rate: int, seconds: float = 60.0) -> None:
    """A mono WAV, 16 bits, at a third of full scale."""
    samples = 10_000 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())


def read_wav(path: Path) -> tuple[NDArray[np.float64], int]:
    """Samples of the first channel and their rate; also of a file whose writer did not live to fill in its length."""
    data = path.read_bytes()
    channels, rate = int.from_bytes(data[22:24], "little"), int.from_bytes(data[24:28], "little")
    start = data.index(b"data") + 8
    samples = np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2").astype(float)
    return samples[::channels], rate


def tone_seconds(samples: NDArray[np.float64], rate: int, hz: float) -> float:
    """For how long this tone, and little else, was there: pieces of 100 ms with nine tenths of their energy in it."""
    size = rate // 10
    wave_form = np.exp(-2j * np.pi * hz * np.arange(size) / rate)
    found = 0
    for at in range(0, len(samples) - size + 1, size):
        piece = samples[at : at + size]
        energy = float(np.sum(piece**2))
        found += energy > size * 300**2 and 2 * abs(np.sum(piece * wave_form)) ** 2 / size > 0.9 * energy
    return found / 10
