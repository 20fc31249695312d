"""Speech to text by files: each pause of the caller's turn is sent as a WAV and answered with its text.

It works with every server that has OpenAI's `/audio/transcriptions`.
"""

import struct
from collections.abc import Awaitable, Callable

from bridge.audio.frames import BYTES_PER_SAMPLE, duration_ms
from bridge.providers.base import SttEvent
from bridge.providers.local.transcript import SILENCE_DBFS, clean, loudest_dbfs
from bridge.providers.stt_windows import Purpose, WindowStream

Transcribe = Callable[[bytes], Awaitable[str]]
"""A WAV file to its text. Raises ProviderError; has its own deadline."""

_WAV = struct.Struct("<4sI4s4sIHHIIHH4sI")

SHORTEST_MS = 100
"""Less is refused by OpenAI, and holds no word."""


def wav(pcm: bytes, sample_rate: int) -> bytes:
    """int16 mono PCM as a WAV file."""
    head = _WAV.pack(
        b"RIFF",
        _WAV.size - 8 + len(pcm),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        sample_rate,
        sample_rate * BYTES_PER_SAMPLE,
        BYTES_PER_SAMPLE,
        8 * BYTES_PER_SAMPLE,
        b"data",
        len(pcm),
    )
    return head + pcm


def file_stream(
    transcribe: Transcribe,
    *,
    sample_rate: int,
    turn_max_s: float,
    partials: bool,
    emit: Callable[[SttEvent], None],
) -> WindowStream:
    """What is no stream as one: a window of a turn is a file."""

    async def recognise(pcm: bytes, _: Purpose) -> str:
        length_ms = duration_ms(len(pcm), sample_rate)
        if length_ms < SHORTEST_MS or loudest_dbfs(pcm, sample_rate) <= SILENCE_DBFS:
            return ""
        return clean(await transcribe(wav(pcm, sample_rate)), seconds=length_ms / 1000)

    return WindowStream(
        recognise,
        sample_rate=sample_rate,
        turn_max_s=turn_max_s,
        emit=emit,
        # The next file could work, but a caller waits for this one: another provider, or once more.
        fatal=lambda error: True,
        partials=partials,
        supersedes=True,
    )
