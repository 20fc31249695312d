"""Codecs between PCM frames and RTP payloads, found by the name and clock rate that SDP gives them."""

import audioop
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Encode = Callable[[bytes], bytes]
"""int16 little-endian mono PCM to a payload."""

Decode = Callable[[bytes], bytes]
"""A payload to int16 little-endian mono PCM. Never raises: what can't be decoded is empty."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One audio format of RTP. A codec with memory gives a new function to each stream."""

    name: str
    """As in SDP's rtpmap, e.g. `PCMU`."""
    clock_rate: int
    """Hz of the RTP timestamp. G722 says 8000 and means 16000 (RFC 3551 4.5.2)."""
    sample_rate: int
    """Hz of the PCM."""
    payload_type: int | None
    """Static payload type (RFC 3551 6), or None where SDP assigns one."""
    encoder: Callable[[], Encode]
    decoder: Callable[[], Decode]


def _encode_pcmu(pcm: bytes) -> bytes:
    encoded: bytes = audioop.lin2ulaw(pcm, 2)
    return encoded


def _decode_pcmu(payload: bytes) -> bytes:
    pcm: bytes = audioop.ulaw2lin(payload, 2)
    return pcm


def _encode_pcma(pcm: bytes) -> bytes:
    encoded: bytes = audioop.lin2alaw(pcm, 2)
    return encoded


def _decode_pcma(payload: bytes) -> bytes:
    pcm: bytes = audioop.alaw2lin(payload, 2)
    return pcm


def _swap(pcm: bytes) -> bytes:
    """L16 is int16 in network order (RFC 3551 4.5.11); half a sample at the end is dropped."""
    return np.frombuffer(pcm, "<i2", len(pcm) // 2).byteswap().tobytes()


PCMU = Codec("PCMU", 8000, 8000, 0, lambda: _encode_pcmu, lambda: _decode_pcmu)
PCMA = Codec("PCMA", 8000, 8000, 8, lambda: _encode_pcma, lambda: _decode_pcma)
L16 = Codec("L16", 16000, 16000, None, lambda: _swap, lambda: _swap)

CODECS = (PCMU, PCMA, L16)


def find_codec(name: str, clock_rate: int) -> Codec | None:
    """The codec of an rtpmap (`PCMU/8000`), or None. Names are compared without regard to case."""
    for codec in CODECS:
        if codec.name == name.upper() and codec.clock_rate == clock_rate:
            return codec
    return None


def static_codec(payload_type: int) -> Codec | None:
    """The codec of a static payload type, which SDP may list without an rtpmap; None for any other."""
    for codec in CODECS:
        if codec.payload_type == payload_type:
            return codec
    return None
