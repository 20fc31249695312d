"""Recorded callers and waiting, for the tests of the embedded engines."""

import asyncio
import json
import re
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.providers.base import Heard, SttEvent
from bridge.providers.local.stt import LocalStt

AUDIO = Path(__file__).parents[2] / "data" / "audio"
RATE = 8000
FRAME = 320
HANGOVER_S = 0.2
"""How long after the voice a detector says so."""


@dataclass(frozen=True, slots=True)
class Recording:
    """int16 mono at 8 kHz, with where the voice is in it (bytes)."""

    file: str
    text: str
    pcm: bytes
    onset: int
    end: int


def recordings() -> list[Recording]:
    found = []
    for line in (AUDIO / "manifest.jsonl").read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        with wave.open(str(AUDIO / entry["file"])) as file:
            pcm = file.readframes(file.getnframes())
        onset = int(entry["lead_s"] * RATE) * 2
        end = onset + int((entry["speech_s"] + HANGOVER_S) * RATE) * 2
        found.append(Recording(entry["file"], entry["text"], pcm, onset, end))
    return found


def recording(name: str) -> Recording:
    return next(each for each in recordings() if each.file == f"{name}.wav")


SPOKEN_NUMBERS = {
    "seven thirty": "730",
    "five five five two one seven eight nine zero four": "5552178904",
    "seven three one nine": "7319",
    "forty two": "42",
    "three": "3",
    "m i l l e r": "miller",
}


def words(text: str) -> list[str]:
    """Words as the tests compare them: numbers as one run of digits, spelled words joined."""
    text = re.sub(r"(?<=[0-9])[-:.](?=[0-9])", "", text.lower())
    text = " ".join(re.sub(r"[^a-z0-9' ]", " ", text).split())
    for spoken, written in SPOKEN_NUMBERS.items():
        text = re.sub(rf"\b{spoken}\b", written, text)
    return text.split()


def wrong_words(heard: str, said: str) -> int:
    """Words left out, put in or changed."""
    row = list(range(len(words(heard)) + 1))
    for i, expected in enumerate(words(said), 1):
        before, row = row, [i]
        for j, found in enumerate(words(heard), 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (expected != found)))
    return row[-1]


class Listener:
    """Opens an ear and waits for what it tells."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[SttEvent] = asyncio.Queue()

    async def settled(self) -> Heard:
        """The next settled text. Fails on anything else that is told before it."""
        event = await self.next()
        assert isinstance(event, Heard), event
        assert event.settled, event
        return event

    async def next(self) -> SttEvent:
        async with asyncio.timeout(60):
            return await self.events.get()


async def hear(stt: LocalStt, pcm: bytes, onset: int = 0, end: int | None = None) -> str:
    """The settled text of one turn; `onset` and `end` in bytes, as a voice detector tells them."""
    listener = Listener()
    stream = await stt.open(sample_rate=RATE, language="en", emit=listener.events.put_nowait)
    end = len(pcm) if end is None else end
    for start in range(0, len(pcm), FRAME):
        if start <= onset < start + FRAME:
            stream.speech_started()
        stream.push(pcm[start : start + FRAME])
        if start < end <= start + FRAME:
            stream.speech_paused()
    heard = await listener.settled()
    await stream.aclose()
    return heard.text


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
