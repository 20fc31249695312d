"""What the stand-ins of voices speak: a tone for each text, 60 ms a character, of a pitch that few others have.

Alignment is true: character `n` sounds from `n * CHAR_MS` on. So a test can tell which text some audio is of, and how
much of which word was played.
"""

import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from bridge.audio.codec import PCMU

CHAR_MS = 60
LOUD = 8000


def spoken_ms(text: str) -> int:
    """How long `text` lasts."""
    return len(text) * CHAR_MS


def pitch(text: str) -> int:
    """Of its tone, in Hz."""
    return 200 + zlib.crc32(text.encode()) % 2800


@lru_cache(maxsize=64)
def tone(text: str, rate_hz: int) -> bytes:
    """`text` as int16 mono."""
    times = np.arange(spoken_ms(text) * rate_hz // 1000) / rate_hz
    return np.rint(LOUD * np.sin(2 * np.pi * pitch(text) * times)).astype("<i2").tobytes()


@lru_cache(maxsize=64)
def mulaw(text: str) -> bytes:
    """`text` as mu-law at 8000 Hz."""
    return PCMU.encoder()(tone(text, 8000))


def telephone(text: str) -> bytes:
    """What is heard of `text` on a telephone: int16 at 8000 Hz, after mu-law."""
    return PCMU.decoder()(mulaw(text))


def on_wire(text: str, encoding: str, rate_hz: int) -> bytes:
    """`text` in the format that was asked for: `mulaw` at 8000 Hz, else int16."""
    return mulaw(text) if encoding == "mulaw" else tone(text, rate_hz)


def pieces(text: str, chars: int) -> Iterator[tuple[int, str]]:
    """Parts of `chars` characters, each with where it begins."""
    for at in range(0, len(text), chars):
        yield at, text[at : at + chars]


def heard_pitch(pcm: bytes, rate_hz: int) -> float:
    """The strongest frequency of int16 mono PCM, in Hz: audio that was resampled can't be compared byte by byte."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)
