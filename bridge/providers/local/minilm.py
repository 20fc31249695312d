"""Sentence embeddings with MiniLM: WordPiece, BERT, mean over the tokens, unit length."""

from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, processors

from bridge.providers.local.models import Model, ModelError
from bridge.providers.local.onnx import open_session

DIMENSIONS = 384

MAX_TOKENS = 128
"""A caller's sentence has 10 to 30; what the model was trained on ends here."""


class MiniLmEngine:
    def __init__(self, model: Model) -> None:
        self._session = open_session(model["model.onnx"])
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._tokenizer = bert_tokenizer(str(model["vocab.txt"]))

    def run(self, fields: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Fields: `texts`. Returns float32 [texts, 384] as payload."""
        encodings = self._tokenizer.encode_batch(list(fields["texts"]))
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings], np.int64),
        }
        (hidden, *_) = self._session.run(None, {name: feed[name] for name in feed if name in self._inputs})
        return {}, mean_pool(hidden, feed["attention_mask"]).tobytes()


def mean_pool(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """[texts, tokens, dimensions] to unit vectors [texts, dimensions], padding left out."""
    weights = mask[:, :, None].astype(np.float32)
    mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9), np.float32)


def bert_tokenizer(vocabulary: str) -> tokenizers.Tokenizer:
    """BERT's uncased WordPiece tokenizer over the vocabulary file, padding each batch to its longest text."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece.from_file(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, _token_id(tokenizer, name)) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=_token_id(tokenizer, "[PAD]"), pad_token="[PAD]")
    return tokenizer


def _token_id(tokenizer: tokenizers.Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise ModelError(f"the vocabulary has no token {name}")
    return found
