"""Text to speech with Piper: a clause becomes speech of even loudness, trimmed of silence, at the asked rate."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from piper.config import PiperConfig
from piper.voice import PiperVoice

from bridge.audio.resample import Resampler
from bridge.providers.local.models import Model
from bridge.providers.local.onnx import open_session

LEVEL_DBFS = -20.0
"""RMS of the voiced parts: what a telephone talker sends (ITU-T P.56 calls it active speech level)."""

PEAK = 0.89
"""-1 dBFS; the level gives way to it."""

VOICED_BELOW_PEAK_DB = 35.0
"""Frames within this of the loudest one are speech; the rest is room tone and breath."""

LEAD_MS, TAIL_MS = 20, 60
"""Kept of the silence before and after, so that plosives and fading vowels stay whole."""

FRAME_MS = 10


class PiperEngine:
    def __init__(self, model: Model) -> None:
        config = json.loads(model["voice.onnx.json"].read_text(encoding="utf-8"))
        self._voice = PiperVoice(session=open_session(model["voice.onnx"]), config=PiperConfig.from_dict(config))

    def run(self, fields: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Fields: `text`, `sample_rate`. Returns the speech as payload, empty for a text without sound."""
        pieces = [chunk.audio_float_array for chunk in self._voice.synthesize(str(fields["text"]))]
        if not pieces:
            return {}, b""
        rate = self._voice.config.sample_rate
        speech = level(trim(np.concatenate(pieces), rate), rate)
        resampler = Resampler(rate, int(fields["sample_rate"]))
        return {}, resampler.process(np.rint(speech * 32767).astype("<i2").tobytes()) + resampler.flush()


def trim(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Cut the silence before and after the speech, all but `LEAD_MS` and `TAIL_MS`. Samples in -1..1."""
    voiced = np.flatnonzero(_voiced(samples, rate))
    if not len(voiced):
        return samples[:0]
    frame = rate * FRAME_MS // 1000
    start = max(0, int(voiced[0]) * frame - rate * LEAD_MS // 1000)
    end = min(len(samples), (int(voiced[-1]) + 1) * frame + rate * TAIL_MS // 1000)
    kept = samples[start:end].copy()
    fade = min(rate * FRAME_MS // 1000, len(kept) // 2)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    kept[:fade] *= ramp
    kept[len(kept) - fade :] *= ramp[::-1]
    return kept


def level(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Bring the voiced parts to `LEVEL_DBFS`, no sample above `PEAK`."""
    frame = rate * FRAME_MS // 1000
    voiced = np.repeat(_voiced(samples, rate), frame)
    if not voiced.any():
        return samples
    rms = float(np.sqrt(np.square(samples[: len(voiced)][voiced]).mean()))
    gain = min(10 ** (LEVEL_DBFS / 20) / rms, PEAK / float(np.abs(samples).max()))
    return samples * np.float32(gain)


def _voiced(samples: NDArray[np.float32], rate: int) -> NDArray[np.bool_]:
    """For each 10 ms, whether it is speech."""
    frame = rate * FRAME_MS // 1000
    power = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    peak = power.max(initial=0.0)
    return np.asarray(power > max(1e-8, peak * 10 ** (-VOICED_BELOW_PEAK_DB / 10)), np.bool_)
