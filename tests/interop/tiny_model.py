"""A language model of a few hundred kilobytes in llama.cpp's file format, with weights at random: it talks endlessly
and makes no sense, which is all that a test of streaming needs.

The format is that of GGUF version 3 (ggml/docs/gguf.md): header, keys and values, tensor descriptions, tensors.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, HIDDEN, CONTEXT = 64, 4, 128, 32768
WORDS = ["well", "yes", "no", "table", "four", "people", "friday", "seven", "open", "noon", "we", "are", "you", "and"]
ALIGNMENT = 32

_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_TYPE_I32, _TENSOR_F32 = 5, 0

TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + ' ' }}{% endfor %}"


def write_tiny_model(path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"▁{word}" for word in WORDS)]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(WORDS)]
    values: dict[str, tuple[int, Any]] = {
        "general.architecture": (_STRING, "llama"),
        "general.name": (_STRING, "tiny"),
        "llama.context_length": (_U32, CONTEXT),
        "llama.embedding_length": (_U32, WIDTH),
        "llama.block_count": (_U32, 1),
        "llama.feed_forward_length": (_U32, HIDDEN),
        "llama.attention.head_count": (_U32, HEADS),
        "llama.attention.layer_norm_rms_epsilon": (_F32, 1e-5),
        "llama.rope.dimension_count": (_U32, WIDTH // HEADS),
        "llama.vocab_size": (_U32, len(tokens)),
        "tokenizer.ggml.model": (_STRING, "llama"),
        "tokenizer.ggml.tokens": (_ARRAY, (_STRING, tokens)),
        "tokenizer.ggml.scores": (_ARRAY, (_F32, [0.0] * len(tokens))),
        "tokenizer.ggml.token_type": (_ARRAY, (_TYPE_I32, kinds)),
        "tokenizer.ggml.bos_token_id": (_U32, 1),
        "tokenizer.ggml.eos_token_id": (_U32, 2),
        "tokenizer.ggml.unknown_token_id": (_U32, 0),
        "tokenizer.chat_template": (_STRING, TEMPLATE),
    }
    tensors = _tensors(len(tokens))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    for name, (kind, value) in values.items():
        head += _string(name) + struct.pack("<I", kind) + _value(kind, value)
    offset, data = 0, b""
    for name, tensor in tensors.items():
        head += _string(name) + struct.pack(f"<I{tensor.ndim}Q", tensor.ndim, *reversed(tensor.shape))
        head += struct.pack("<IQ", _TENSOR_F32, offset)
        data += _padded(tensor.tobytes())
        offset = len(data)
    path.write_bytes(_padded(head) + data)


def _tensors(vocabulary: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    chance = np.random.default_rng(4)

    def drawn(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return chance.normal(0, 0.5, shape).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    output = drawn(vocabulary, WIDTH) * 4
    # Only words are ever drawn: no bytes, and no end.
    output[: vocabulary - len(WORDS)] = 0
    block = "blk.0"
    return {
        "token_embd.weight": drawn(vocabulary, WIDTH),
        f"{block}.attn_norm.weight": ones,
        **{f"{block}.attn_{part}.weight": drawn(WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        f"{block}.ffn_norm.weight": ones,
        f"{block}.ffn_gate.weight": drawn(HIDDEN, WIDTH),
        f"{block}.ffn_up.weight": drawn(HIDDEN, WIDTH),
        f"{block}.ffn_down.weight": drawn(WIDTH, HIDDEN),
        "output_norm.weight": ones,
        "output.weight": output,
    }


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _string(value)
    if kind == _ARRAY:
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    return struct.pack({_U32: "<I", _F32: "<f", _TYPE_I32: "<i"}[kind], value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
