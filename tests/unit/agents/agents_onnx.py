"""A tiny ONNX model with the signature of smart-turn: the mean of its input, through a sigmoid. Written by hand, as
protocol buffers (onnx.proto): the package that makes models is not needed to run them."""

from collections.abc import Sequence

FLOAT = 1
OPSET = 13


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _tensor(name: str, shape: Sequence[int | str]) -> bytes:
    """ValueInfoProto of floats; a dimension that is a text has any size."""
    dims = b"".join(_message(1, _message(2, d) if isinstance(d, str) else _number(1, d)) for d in shape)
    return _message(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, dims)))


def _node(kind: str, of: str, to: str, attributes: bytes = b"") -> bytes:
    return _message(1, _message(1, of) + _message(2, to) + _message(4, kind) + attributes)


def mean_model(shape: Sequence[int] = (80, 800)) -> bytes:
    """Takes `input_features` [any, *shape], gives `logits` [any]."""
    axes = _message(5, _message(1, "axes") + _number(8, 1) + _number(8, 2) + _number(20, 7))
    keep = _message(5, _message(1, "keepdims") + _number(3, 0) + _number(20, 2))
    graph = (
        _node("ReduceMean", "input_features", "mean", axes + keep)
        + _node("Sigmoid", "mean", "logits")
        + _message(2, "mean")
        + _message(11, _tensor("input_features", ["calls", *shape]))
        + _message(12, _tensor("logits", ["calls"]))
    )
    return _number(1, 8) + _message(7, graph) + _message(8, _message(1, "") + _number(2, OPSET))
