"""Clocks that run apart, over twenty minutes: measured, and absorbed unheard."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from bridge.rtp.drift import DriftMeter
from bridge.rtp.jitter import JitterBuffer
from bridge.rtp.timeline import Timeline

TWENTY_MINUTES = 60_000
"""Packets of 20 ms."""


def vowel(rate: int) -> np.ndarray:
    """Four seconds of a voice that never pauses: 120 to 180 Hz, its loudness moving."""
    times = np.arange(4 * rate) / rate
    phase = 2 * np.pi * np.cumsum(150 + 30 * np.sin(2 * np.pi * 0.5 * times)) / rate
    wave = sum(np.sin(k * phase) / k**1.5 for k in range(1, 9))
    return (3500 * wave * (1.2 + np.sin(2 * np.pi * 0.75 * times))).astype("<i2")


def words(rate: int) -> np.ndarray:
    """The same, on for 1.2 s and off for 0.8 s, with soft edges."""
    pcm = vowel(rate).astype(float)
    gate = np.convolve(np.tile(np.r_[np.ones(6 * rate // 5), np.zeros(4 * rate // 5)], 2), np.ones(400) / 400, "same")
    return (pcm * gate).astype("<i2")


def listen(
    pcm: np.ndarray,
    ppm: float,
    *,
    clock_rate: int = 8000,
    rate: int = 8000,
    jitter_ms: float = 0.0,
    packets: int = TWENTY_MINUTES,
    lost: Callable[[int], bool] = lambda n: False,
) -> tuple[JitterBuffer, np.ndarray, list[float]]:
    """What is heard of a sender whose clock is `ppm` fast; the delay of each tick."""
    rng = random.Random(5)
    buffer = JitterBuffer(clock_rate, rate)
    size, ticks = rate // 50, clock_rate // 50
    period = 0.02 / (1 + ppm * 1e-6)
    loop = [pcm[at : at + size].tobytes() for at in range(0, len(pcm), size)]
    waiting: list[tuple[float, int]] = []
    frames, delays = [], []
    sent = 0
    for tick in range(packets):
        now = 1000.013 + tick * 0.02
        while (left := 1000 + sent * period) <= now:
            if not lost(sent):
                waiting.append((left + rng.uniform(0, jitter_ms) / 1000, sent))
            sent += 1
        due = sorted(packet for packet in waiting if packet[0] <= now)
        waiting = [packet for packet in waiting if packet[0] > now]
        for arrival, n in due:
            stamp = (4_294_000_000 + n * ticks) & 0xFFFFFFFF
            buffer.push(n & 0xFFFF, stamp, 9, loop[n % len(loop)], bytes, arrival)
        frames.append(buffer.take(now))
        delays.append(buffer.delay_ms)
    return buffer, np.frombuffer(b"".join(frames), "<i2").astype(int), delays


def largest_step(samples: np.ndarray) -> int:
    return int(np.abs(np.diff(samples)).max())


@pytest.mark.parametrize("ppm", [-500, -100, 100, 500])
@pytest.mark.parametrize("sound", [vowel, words])
def test_twenty_minutes_of_drift_are_unheard(ppm: int, sound: Callable[[int], np.ndarray]) -> None:
    pcm = sound(8000)
    buffer, heard, delays = listen(pcm, ppm)
    natural = largest_step(pcm.astype(int))
    assert largest_step(heard[800:]) <= 1.5 * natural
    assert max(delays) <= 60 and min(delays[10:]) >= 4.5
    assert buffer.late == buffer.timeline.sequences.lost == buffer.concealed_ms == buffer.restarts == 0
    assert buffer.timeline.drift.ppm == pytest.approx(ppm, abs=10)


@pytest.mark.parametrize(("clock_rate", "rate"), [(8000, 16000), (48000, 16000)])
def test_drift_of_wideband_codecs_is_unheard_too(clock_rate: int, rate: int) -> None:
    pcm = vowel(rate)
    for ppm in (-500, 500):
        buffer, heard, delays = listen(pcm, ppm, clock_rate=clock_rate, rate=rate, packets=10_000)
        assert largest_step(heard[1600:]) <= 1.5 * largest_step(pcm.astype(int))
        assert max(delays) <= 60
        assert buffer.late == buffer.concealed_ms == 0
        assert buffer.timeline.drift.ppm == pytest.approx(ppm, abs=10)


@pytest.mark.parametrize("ppm", [-500, 0, 500])
def test_drift_is_told_from_jitter(ppm: int) -> None:
    buffer, _, delays = listen(words(8000), ppm, jitter_ms=30, packets=30_000)
    assert buffer.timeline.drift.ppm == pytest.approx(ppm, abs=20)
    assert max(delays) <= 110
    assert buffer.late <= 100


@pytest.mark.parametrize(("loss", "part"), [(0.01, 0.01), (0.05, 0.05), (0.2, 0.2)])
def test_loss_and_jitter_are_counted_for_what_they_are(loss: float, part: float) -> None:
    rng = random.Random(3)
    gone = {n for n in range(30_000) if rng.random() < loss}
    buffer, heard, delays = listen(vowel(8000), 60, jitter_ms=30, packets=30_000, lost=lambda n: n in gone and n > 10)
    assert buffer.timeline.sequences.lost == pytest.approx(len(gone), abs=10)
    assert buffer.concealed_ms == pytest.approx(len(gone) * 20, rel=0.25)
    assert buffer.late <= 30
    assert max(delays) <= 150
    assert largest_step(heard[800:]) <= 4 * largest_step(vowel(8000).astype(int))


def test_drift_is_unknown_for_the_first_half_minute() -> None:
    meter = DriftMeter()
    for n in range(39):
        meter.note(n * 1.0, 5.0)
    assert meter.ppm is None
    meter.note(39.0, 5.0)
    assert meter.ppm == pytest.approx(0)


def test_path_that_changes_is_no_drift() -> None:
    meter = DriftMeter()
    for n in range(600):
        meter.note(n * 1.0, (0.0 if n < 300 else 0.05) - n * 50e-6)
    assert meter.ppm == pytest.approx(50, abs=1)


def test_stream_that_begins_anew_is_measured_anew() -> None:
    timeline = Timeline(8000, 20, 200)
    timeline.start(1, 0, 7, 100.0)
    for n in range(1, 3000):
        timeline.accept(1 + n, n * 160, 7, 100 + n * 0.02)
    assert timeline.drift.ppm == pytest.approx(0, abs=1)
    timeline.start(50, 99, 8, 200.0)
    assert timeline.drift.ppm is None
