"""How the pool and a worker talk over a pipe: messages of a JSON header and raw bytes, each with its length.

4 bytes length of the header, 4 bytes length of the payload (big endian), header, payload
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct("!II")

MAX_HEADER = 4 << 20
"""Bytes. A batch of texts to embed is the largest header there is."""

MAX_PAYLOAD = 64 << 20
"""Bytes: half an hour of 16 kHz audio."""


class WireError(Exception):
    """The other side does not speak this protocol; nothing more can be read."""


@dataclass(frozen=True, slots=True)
class Message:
    op: str
    fields: dict[str, Any]
    """JSON values; a job's `id` among them."""
    payload: bytes = b""


def encode(message: Message) -> bytes:
    """Raises WireError for a message that is too long to send."""
    header = json.dumps({"op": message.op, **message.fields}).encode()
    _check(len(header), len(message.payload))
    return _LENGTHS.pack(len(header), len(message.payload)) + header + message.payload


class Decoder:
    """Turns bytes, cut anywhere, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises WireError."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTHS.size:
            header_length, payload_length = _LENGTHS.unpack_from(self._buffer)
            _check(header_length, payload_length)
            start = _LENGTHS.size + header_length
            if len(self._buffer) < start + payload_length:
                break
            header = bytes(self._buffer[_LENGTHS.size : start])
            payload = bytes(self._buffer[start : start + payload_length])
            del self._buffer[: start + payload_length]
            messages.append(_message(header, payload))
        return messages


def _check(header_length: int, payload_length: int) -> None:
    if header_length > MAX_HEADER or payload_length > MAX_PAYLOAD:
        raise WireError(f"message of {header_length} + {payload_length} bytes; at most {MAX_HEADER} + {MAX_PAYLOAD}")


def _message(header: bytes, payload: bytes) -> Message:
    try:
        fields = json.loads(header)
    except ValueError as error:
        raise WireError(f"header is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(op := fields.pop("op", None), str):
        raise WireError(f"header has no op: {header[:80]!r}")
    return Message(op, fields, payload)
