"""The arithmetic around the engines: Whisper's spectrogram and prompt, the voice's level and silence."""

import numpy as np
import pytest
import tokenizers

from bridge.audio.mel import log_mel, mel_filters
from bridge.providers.local.minilm import bert_tokenizer, mean_pool
from bridge.providers.local.models import VOCABULARY
from bridge.providers.local.piper import LEAD_MS, LEVEL_DBFS, PEAK, TAIL_MS, level, trim
from bridge.providers.local.whisper import prompt

RATE = 22050


def tone(hz: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    times = np.arange(int(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def test_the_mel_filters_are_slaneys() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201)
    # Published values: the first band peaks at the second bin (40 Hz), the bands are 37.3 Hz apart below 1 kHz.
    assert filters[0].argmax() == 1
    assert filters[0, 1] == pytest.approx(0.02486259, abs=1e-5)
    areas = filters.sum(axis=1) * 40
    assert areas[20:] == pytest.approx(np.ones(60), abs=0.3)


def test_a_tone_lights_its_own_band() -> None:
    mel = log_mel(tone(1000, 1.0, 16000))
    assert mel.shape == (80, 100)
    centre_hz = (mel_filters() @ np.arange(201) * 40) / mel_filters().sum(axis=1)
    assert centre_hz[mel[:, 50].argmax()] == pytest.approx(1000, abs=40)


def test_the_spectrogram_spans_eight_decades_below_its_peak() -> None:
    mel = log_mel(np.concatenate([tone(500, 0.5, 16000), np.zeros(8000, np.float32)]))
    assert mel.max() - mel.min() == pytest.approx(2.0)
    assert mel.dtype == np.float32


def test_the_prompt_asks_for_the_language_without_its_region() -> None:
    words = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
    vocabulary = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(words)})
    )
    assert prompt(vocabulary, "en-GB") == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="'xx-YY'"):
        prompt(vocabulary, "xx-YY")


def test_speech_is_brought_to_its_level_whatever_it_was() -> None:
    for amplitude in (0.01, 0.3, 1.0):
        loud = level(tone(300, 1.0, RATE, amplitude), RATE)
        assert 20 * np.log10(np.sqrt(np.square(loud).mean())) == pytest.approx(LEVEL_DBFS, abs=0.2)


def test_pauses_do_not_make_speech_louder() -> None:
    spoken = tone(300, 1.0, RATE)
    paused = np.concatenate([spoken, np.zeros(3 * RATE, np.float32)])
    assert np.abs(level(paused, RATE)).max() == pytest.approx(np.abs(level(spoken, RATE)).max(), rel=0.01)


def test_peaks_limit_the_level() -> None:
    clicks = tone(300, 1.0, RATE, 0.001)
    clicks[::2000] = 0.9
    assert np.abs(level(clicks, RATE)).max() <= PEAK + 1e-6


def test_silence_around_the_speech_is_cut_to_a_little() -> None:
    silence = np.zeros(RATE, np.float32)
    kept = trim(np.concatenate([silence, tone(300, 0.5, RATE), silence]), RATE)
    assert len(kept) / RATE * 1000 == pytest.approx(500 + LEAD_MS + TAIL_MS, abs=20)


def test_silence_alone_is_nothing() -> None:
    assert len(trim(np.zeros(RATE, np.float32), RATE)) == 0
    assert len(level(np.zeros(0, np.float32), RATE)) == 0


def test_words_are_cut_as_bert_cuts_them() -> None:
    encoding = bert_tokenizer(str(VOCABULARY)).encode("Résumé unaffordable!")
    assert encoding.tokens == ["[CLS]", "resume", "una", "##ff", "##ord", "##able", "!", "[SEP]"]


def test_padding_does_not_weigh_in_the_mean() -> None:
    hidden = np.array([[[3.0, 4.0], [100.0, -100.0]]], np.float32)
    assert mean_pool(hidden, np.array([[1, 0]])) == pytest.approx(np.array([[0.6, 0.8]]))
