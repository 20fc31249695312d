"""Speech to text with Moonshine: encoder, cached decoder and vocabulary straight through onnxruntime.

The library that carries the model (moonshine-voice) always takes two threads and cuts the audio with a voice
detector of its own; run directly on one thread the same model takes a fifth of the CPU and hears numbers as numbers.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.providers.local.models import Model
from bridge.providers.local.onnx import open_session
from bridge.providers.local.transcript import SAMPLE_RATE, clean, samples_16k

LEAD_S, TAIL_S = 0.5, 0.25
"""Silence put before and after: 4.3 % of words wrong instead of 4.9 % on the recorded callers, cut in three ways."""

TOKENS_PER_S = 8.0
"""Speech has up to 6 tokens a second; a decoder that wants more has gone round in circles."""

SPARE_TOKENS = 8

MIN_LOGPROB = -1.0
"""Of the tokens, on average. Speech at 5 dB of noise still reaches -0.96; silence and hiss lie at -1.2."""

LAST_LATIN = "\u024f"
"""Letters beyond Latin are what an English recogniser makes of music."""

BEGIN, END = 1, 2
"""Token ids of <s> and </s>."""


class MoonshineEngine:
    """Hears int16 mono PCM of up to about 30 s; longer audio makes it loop."""

    def __init__(self, model: Model) -> None:
        self._encoder = open_session(model["encoder_model.ort"])
        self._decoder = open_session(model["decoder_model_merged.ort"])
        self._tokens = read_vocabulary(model["tokenizer.bin"])
        self._outputs = [output.name for output in self._decoder.get_outputs()]
        shapes = {value.name: value.shape for value in self._decoder.get_inputs()}
        self._no_past = {
            name: np.zeros((1, shape[1], 0, shape[3]), np.float32)
            for name, shape in shapes.items()
            if name.startswith("past_key_values.")
        }

    def run(self, fields: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Fields: `sample_rate`; payload: the audio. Returns `text`."""
        rate = int(fields["sample_rate"])
        samples = samples_16k(payload, rate)
        text, mean_logprob = self._transcribe(samples)
        if mean_logprob < MIN_LOGPROB or any(char > LAST_LATIN for char in text if char.isalpha()):
            return {"text": ""}, b""
        return {"text": clean(text, seconds=len(samples) / SAMPLE_RATE)}, b""

    def _transcribe(self, samples: NDArray[np.float32]) -> tuple[str, float]:
        audio = np.pad(samples, (int(LEAD_S * SAMPLE_RATE), int(TAIL_S * SAMPLE_RATE)))[None]
        mask = np.ones(audio.shape, np.int64)
        (hidden,) = self._encoder.run(None, {"input_values": audio, "attention_mask": mask})
        feed: dict[str, Any] = {
            "encoder_attention_mask": mask,
            "encoder_hidden_states": hidden,
            "input_ids": np.array([[BEGIN]]),
            "use_cache_branch": np.array([False]),
            **self._no_past,
        }
        tokens: list[int] = []
        logprob = 0.0
        for step in range(SPARE_TOKENS + int(TOKENS_PER_S * len(samples) / SAMPLE_RATE)):
            logits, *present = self._decoder.run(None, feed)
            scores = logits[0, -1]
            token = int(scores.argmax())
            logprob -= float(np.log(np.exp(scores - scores[token]).sum()))
            if token == END:
                break
            tokens.append(token)
            for name, value in zip(self._outputs[1:], present, strict=True):
                # What was computed from the audio comes once; later steps return it empty.
                if step == 0 or ".encoder." not in name:
                    feed[name.replace("present.", "past_key_values.", 1)] = value
            feed["input_ids"] = np.array([[token]])
            feed["use_cache_branch"] = np.array([True])
        text = b"".join(self._tokens[token] for token in tokens).decode(errors="ignore")
        return text.replace("▁", " ").strip(), logprob / (len(tokens) + 1)


def read_vocabulary(path: Path) -> list[bytes]:
    """Tokens by id: UTF-8 after a length of one byte, or of two, low seven bits first, when it is 128 or more."""
    data = path.read_bytes()
    tokens = []
    place = 0
    while place < len(data):
        length = data[place]
        place += 1
        if length >= 128:
            length = length - 128 + 128 * data[place]
            place += 1
        tokens.append(data[place : place + length])
        place += length
    return tokens
