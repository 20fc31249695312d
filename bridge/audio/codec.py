"""Codecs between PCM frames and RTP payloads, found by the name and clock rate that SDP gives them."""

import audioop
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from bridge.audio import g722, opus

Encode = Callable[[bytes], bytes]
"""int16 little-endian mono PCM to a payload; an empty one need not be sent."""

Decode = Callable[[bytes], bytes]
"""A payload to int16 little-endian mono PCM. Never raises: what can't be decoded is empty.

It may have a method `recover(payload, samples)`: the audio of a lost packet, from the payload that follows it."""


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
    stateful: bool = False
    """What a frame is encoded to depends on those before: each must be encoded, even if it is the same again."""
    lengths_ms: tuple[int, ...] = ()
    """Packet lengths that it can have; empty: any multiple of 10 ms."""


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


@lru_cache(maxsize=64)
def opus_codec(fmtp: str) -> Codec:
    """Opus as the far end's format parameters want it (RFC 7587 6.1); the same codec for the same text."""
    encoder = partial(opus.OpusEncoder, opus.OpusParameters.of_fmtp(fmtp))
    return Codec(
        "OPUS", 48000, opus.SAMPLE_RATE, None, encoder, opus.OpusDecoder, stateful=True, lengths_ms=(10, 20, 40, 60)
    )


PCMU = Codec("PCMU", 8000, 8000, 0, lambda: _encode_pcmu, lambda: _decode_pcmu)
PCMA = Codec("PCMA", 8000, 8000, 8, lambda: _encode_pcma, lambda: _decode_pcma)
G722 = Codec("G722", 8000, g722.SAMPLE_RATE, 9, g722.G722Encoder, g722.G722Decoder, stateful=True)
L16 = Codec("L16", 16000, 16000, None, lambda: _swap, lambda: _swap)
L16_8K = Codec("L16", 8000, 8000, None, lambda: _swap, lambda: _swap)
OPUS = opus_codec("")

_WITH_LIBRARY: tuple[Codec, ...] = (*((G722,) if g722.available() else ()), *((OPUS,) if opus.available() else ()))

CODECS: tuple[Codec, ...] = (PCMU, PCMA, *_WITH_LIBRARY, L16, L16_8K)
"""Those that work here: G.722 and Opus need their libraries."""


def find_codec(name: str, clock_rate: int, fmtp: str = "") -> Codec | None:
    """The codec of an rtpmap (`PCMU/8000`), or None. Names are compared without regard to case. `fmtp` is what the
    far end says of the payloads that it takes."""
    for codec in CODECS:
        if codec.name == name.upper() and codec.clock_rate == clock_rate:
            return opus_codec(fmtp) if codec is OPUS else codec
    return None


def static_codec(payload_type: int) -> Codec | None:
    """The codec of a static payload type, which SDP may list without an rtpmap; None for any other."""
    for codec in CODECS:
        if codec.payload_type == payload_type:
            return codec
    return None
