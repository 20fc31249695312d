"""What the embedded recogniser makes of audio from the wire."""

import asyncio
import re

from bridge.providers.base import Heard, SttEvent
from bridge.providers.local.engines import LocalEngines


async def transcribe(engines: LocalEngines, pcm: bytes) -> str:
    """What the embedded recogniser hears in int16 mono at 8 kHz, in lower case without punctuation."""
    heard: asyncio.Queue[SttEvent] = asyncio.Queue()
    stream = await engines.stt.open(sample_rate=8000, language="en", emit=heard.put_nowait)
    stream.speech_started()
    for i in range(0, len(pcm), 320):
        stream.push(pcm[i : i + 320].ljust(320, b"\0"))
    stream.speech_paused()
    async with asyncio.timeout(60):
        event = await heard.get()
    await stream.aclose()
    assert isinstance(event, Heard)
    return re.sub(r"[^a-z0-9' ]", "", event.text.lower())


def share_of_words(heard: str, expected: str) -> float:
    """How much of `expected` is in `heard`: the small recogniser stumbles over names."""
    words = expected.split()
    return sum(word in heard.split() for word in words) / len(words)
