"""What the embedded recogniser makes of audio from the wire."""

import asyncio
import audioop
import re

from bridge.providers.base import Heard, SttEvent
from bridge.providers.local.engines import LocalEngines

RATE_HZ = 8000
FRAME_BYTES = 320
SHORT_S = 0.5
"""Audio is not cut into pieces that are shorter than this."""


async def transcribe(engines: LocalEngines, pcm: bytes) -> str:
    """What the embedded recogniser hears in int16 mono at 8 kHz, in lower case without punctuation.

    On a name like La Lanterna its decoder goes round in circles ("la la la la") in one of five renderings, as each
    is spoken a little differently, and the rest of the audio is lost with it: what it makes nothing of it hears once
    more in two halves, and these again.
    """
    text = await _heard(engines, pcm)
    if text or len(pcm) < 4 * SHORT_S * RATE_HZ:
        return text
    middle = _quietest(pcm)
    return " ".join([await transcribe(engines, half) for half in (pcm[:middle], pcm[middle:])]).strip()


async def _heard(engines: LocalEngines, pcm: bytes) -> str:
    heard: asyncio.Queue[SttEvent] = asyncio.Queue()
    stream = await engines.stt.open(sample_rate=RATE_HZ, language="en", emit=heard.put_nowait)
    stream.speech_started()
    for i in range(0, len(pcm), FRAME_BYTES):
        stream.push(pcm[i : i + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
    stream.speech_paused()
    async with asyncio.timeout(60):
        event = await heard.get()
    await stream.aclose()
    assert isinstance(event, Heard)
    return re.sub(r"[^a-z0-9' ]", "", event.text.lower())


def _quietest(pcm: bytes) -> int:
    """Where to cut, in bytes: at the quietest frame of the middle third."""
    frames = range(len(pcm) // FRAME_BYTES // 3, 2 * len(pcm) // FRAME_BYTES // 3)
    return FRAME_BYTES * min(frames, key=lambda n: audioop.rms(pcm[n * FRAME_BYTES : (n + 1) * FRAME_BYTES], 2))


def share_of_words(heard: str, expected: str) -> float:
    """How much of `expected` is in `heard`: the small recogniser stumbles over names."""
    words = expected.split()
    return sum(word in heard.split() for word in words) / len(words)
