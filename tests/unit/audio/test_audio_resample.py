"""The resampler keeps what fits the new rate, removes what does not, and does not care how the stream is cut."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.resample import FrameResampler, Resampler

RATES = [
    (22050, 8000),
    (24000, 8000),
    (24000, 16000),
    (8000, 16000),
    (16000, 8000),
    (48000, 8000),
    (48000, 16000),
    (22050, 16000),
    (8000, 48000),
]


def sine(hz: float, rate: int, seconds: float = 0.5, level: int = 10_000) -> bytes:
    times = np.arange(int(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * hz * times)).astype("<i2").tobytes()


def through(in_rate: int, out_rate: int, pcm: bytes) -> np.ndarray:
    resampler = Resampler(in_rate, out_rate)
    return np.frombuffer(resampler.process(pcm) + resampler.flush(), "<i2").astype(float)


def level_db(samples: np.ndarray) -> float:
    """RMS against that of a sine of level 10000, away from the ends."""
    middle = samples[300:-300]
    return 20 * math.log10(math.sqrt(float((middle**2).mean())) / (10_000 / math.sqrt(2)) + 1e-9)


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
@pytest.mark.parametrize("part", [0.02, 0.1, 0.25, 0.42])
def test_tone_of_the_pass_band_comes_through_unchanged(in_rate: int, out_rate: int, part: float) -> None:
    assert abs(level_db(through(in_rate, out_rate, sine(part * min(in_rate, out_rate), in_rate)))) < 0.1


@pytest.mark.parametrize(("in_rate", "out_rate"), [pair for pair in RATES if pair[0] > pair[1]])
@pytest.mark.parametrize("part", [0.51, 0.6, 0.8])
def test_tone_above_the_new_band_leaves_no_alias(in_rate: int, out_rate: int, part: float) -> None:
    hz = part * out_rate
    if hz < in_rate / 2:
        assert level_db(through(in_rate, out_rate, sine(hz, in_rate))) < -60


def test_upsampled_tone_has_no_mirror_image() -> None:
    out = through(8000, 16000, sine(1000, 8000))[:8000]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    image = spectrum[round(6900 * len(out) / 16000) : round(7100 * len(out) / 16000)].max()
    assert image < spectrum.max() / 1000


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_output_is_aligned_with_the_input(in_rate: int, out_rate: int) -> None:
    tone = sine(300, in_rate)
    expected = np.frombuffer(sine(300, out_rate), "<i2").astype(float)
    out = through(in_rate, out_rate, tone)
    assert len(out) == math.ceil(len(tone) // 2 * out_rate / in_rate)
    size = min(len(out), len(expected)) - 300
    assert np.abs(out[300:size] - expected[300:size]).max() < 40


@settings(max_examples=40, deadline=None)
@given(
    rates=st.sampled_from([*RATES, (8000, 8000)]),
    cuts=st.lists(st.integers(0, 3000), max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_cutting_the_stream_changes_nothing(rates: tuple[int, int], cuts: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-20000, 20000, 2000).astype("<i2").tobytes()
    whole = through(*rates, pcm)
    resampler = Resampler(*rates)
    pieces, start = [], 0
    for end in [*sorted(min(cut, len(pcm)) for cut in cuts), len(pcm)]:
        pieces.append(resampler.process(pcm[start:end]))
        start = end
    pieces.append(resampler.flush())
    cut_up = np.frombuffer(b"".join(pieces), "<i2").astype(float)
    assert len(cut_up) == len(whole)
    assert np.abs(cut_up - whole).max() <= 1


def test_full_scale_square_wave_is_clipped_not_wrapped() -> None:
    square = np.where(np.arange(4800) // 40 % 2, 32767, -32768).astype("<i2").tobytes()
    out = through(24000, 8000, square)
    signs = np.sign(out[100:1500])
    assert np.count_nonzero(np.diff(signs)) < 120


def test_resampler_serves_a_second_stream_after_flush() -> None:
    resampler = Resampler(24000, 8000)
    tone = sine(500, 24000)
    first = resampler.process(tone) + resampler.flush()
    assert resampler.process(tone) + resampler.flush() == first


def test_rates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(0, 8000)


def frames_through(in_rate: int, out_rate: int, pcm: bytes) -> np.ndarray:
    resampler = FrameResampler(in_rate, out_rate)
    size = in_rate // 50 * 2
    whole = range(0, len(pcm) - len(pcm) % size, size)
    return np.frombuffer(b"".join(resampler.convert(pcm[at : at + size]) for at in whole), "<i2").astype(float)


@pytest.mark.parametrize(("in_rate", "out_rate"), [*RATES, (16000, 24000), (24000, 16000), (8000, 44100)])
def test_frames_carry_the_stream_a_little_later(in_rate: int, out_rate: int) -> None:
    pcm = np.random.default_rng(5).integers(-12000, 12000, in_rate // 5).astype("<i2").tobytes()
    stream, frames = through(in_rate, out_rate, pcm), frames_through(in_rate, out_rate, pcm)
    assert len(frames) == len(stream)
    late = next(n for n in range(out_rate // 100) if np.abs(frames[n + 9 :][:200] - stream[9:][:200]).max() <= 1)
    assert late < 0.005 * out_rate
    assert np.abs(frames[late:] - stream[: len(stream) - late]).max() <= 1


def test_frames_at_full_scale_are_clipped_not_wrapped() -> None:
    square = np.where(np.arange(4800) // 40 % 2, 32767, -32768).astype("<i2").tobytes()
    signs = np.sign(frames_through(24000, 8000, square)[100:1500])
    assert np.count_nonzero(np.diff(signs)) < 120


def test_frames_of_two_streams_do_not_mix() -> None:
    one, other = FrameResampler(8000, 16000), FrameResampler(8000, 16000)
    for at in range(0, 3200, 320):
        one.convert(sine(440, 8000)[at : at + 320])
        assert not any(other.convert(bytes(320)))


def test_rates_without_whole_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="whole"):
        FrameResampler(11025, 8000)
