"""G.722 at 64 kbit/s (ITU-T G.722; RFC 3551 4.5.2): 16 kHz audio in a byte for every two samples, by libg722."""

import numpy as np

try:
    import G722 as libg722  # type: ignore[import-not-found]  # ships no type information
except ImportError:
    libg722 = None
"""Built for no other than the common platforms: elsewhere the codec isn't offered."""

SAMPLE_RATE = 16000
BIT_RATE = 64000


def available() -> bool:
    """Whether the library is installed."""
    return libg722 is not None


class G722Encoder:
    """One stream's encoder: an even number of samples (int16 mono, 16 kHz) to a payload."""

    __slots__ = ("_encode",)

    def __init__(self) -> None:
        self._encode = libg722.G722(SAMPLE_RATE, BIT_RATE, use_numpy=False).encode

    def __call__(self, pcm: bytes) -> bytes:
        payload: bytes = self._encode(np.frombuffer(pcm, "<i2", len(pcm) // 2))
        return payload


class G722Decoder:
    """One stream's decoder."""

    __slots__ = ("_decode",)

    def __init__(self) -> None:
        self._decode = libg722.G722(SAMPLE_RATE, BIT_RATE, use_numpy=False).decode

    def __call__(self, payload: bytes) -> bytes:
        pcm: bytes = self._decode(payload).tobytes()
        return pcm
