"""Speech to text with Whisper through CTranslate2: the log-mel spectrogram in numpy, one thread, greedy."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.providers.local.models import Model
from bridge.providers.local.transcript import SAMPLE_RATE, clean, samples_16k

WINDOW = 400
HOP = 160
MEL_BANDS = 80

PADDING_S = 6.0
"""Zeros after the audio: 4.8 % of words wrong instead of 14.7 % with 3 s, at a fifth of the time of Whisper's 30."""

MAX_AUDIO_S = 24.0
"""Padding included, the encoder takes 30 s."""

NO_SPEECH = 0.6
"""Above this probability of no speech the text is an invention: noise has 0.7 to 0.9, speech 0.03 to 0.35."""

MIN_LOGPROB = -1.5
"""Of the tokens, on average. A lone "Yes" has -1.3; the inventions lie at -1.8 and below."""

TOKENS_PER_S = 8.0
SPARE_TOKENS = 16


class WhisperEngine:
    def __init__(self, model: Model) -> None:
        import ctranslate2
        import tokenizers

        files: dict[str, Any] = {name: model[name].read_bytes() for name in model.files}
        parts = sorted(name for name in files if name.startswith("model.bin.part"))
        if parts:
            files["model.bin"] = b"".join(files.pop(name) for name in parts)
        self._view = ctranslate2.StorageView
        self._model = ctranslate2.models.Whisper(
            "whisper",
            device="cpu",
            compute_type="int8",
            intra_threads=1,
            inter_threads=1,
            files={name: io.BytesIO(content) for name, content in files.items()},
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(model["tokenizer.json"]))

    def run(self, fields: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Fields: `sample_rate`, `language`; payload: the audio. Returns `text`. Raises ValueError."""
        rate = int(fields["sample_rate"])
        samples = samples_16k(payload, rate)[: int(MAX_AUDIO_S * SAMPLE_RATE)]
        seconds = len(samples) / SAMPLE_RATE
        mel = log_mel(np.pad(samples, (0, int(PADDING_S * SAMPLE_RATE))))
        (result,) = self._model.generate(
            self._view.from_array(mel[None]),
            [prompt(self._tokenizer, str(fields["language"]))],
            beam_size=1,
            max_length=SPARE_TOKENS + int(TOKENS_PER_S * seconds),
            return_scores=True,
            return_no_speech_prob=True,
        )
        if result.no_speech_prob > NO_SPEECH or result.scores[0] < MIN_LOGPROB:
            return {"text": ""}, b""
        text = self._tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True)
        return {"text": clean(text, seconds=seconds)}, b""


def prompt(tokenizer: Any, language: str) -> list[int]:
    """Token ids that ask for a plain transcript in `language` (BCP 47). Raises ValueError if it is not known."""
    name = language.partition("-")[0].lower()
    words = ("<|startoftranscript|>", f"<|{name}|>", "<|transcribe|>", "<|notimestamps|>")
    ids = [tokenizer.token_to_id(word) for word in words]
    if None in ids:
        raise ValueError(f"the Whisper model does not know the language {language!r}")
    return ids


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's input: [80 bands, a frame each 10 ms] of 16 kHz samples in -1..1."""
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: len(samples) // HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    bands = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    bands = np.maximum(bands, bands.max() - 8.0)
    return np.ascontiguousarray((bands + 4.0) / 4.0, np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Slaney's mel filters: [80, 201], each triangle of unit area, from 0 Hz to 8 kHz."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE / 2), MEL_BANDS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return np.asarray(filters, np.float32)


# Slaney's scale: linear up to 1 kHz (15 mels), then 27 mels for each factor of 6.4.
_LINEAR_HZ = 200 / 3
_LOG_FROM_HZ, _LOG_FROM_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_FROM_HZ:
        return hz / _LINEAR_HZ
    return float(_LOG_FROM_MEL + np.log(hz / _LOG_FROM_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    high = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, mel * _LINEAR_HZ, high)
