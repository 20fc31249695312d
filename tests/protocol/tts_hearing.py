"""Listening to a voice, for tests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import standin_voice

from bridge.providers.base import SpeechChunk, WordTiming


@dataclass
class Listened:
    """The speech of one text."""

    pcm: bytes = b""
    words: list[WordTiming] = field(default_factory=list)
    chunks: int = 0

    def add(self, chunk: SpeechChunk) -> None:
        self.pcm += chunk.pcm
        self.words += chunk.words
        self.chunks += 1


def ask(tts: Any, text: str, **how: Any) -> AsyncIterator[SpeechChunk]:
    return tts.synthesize(text, **{"voice": "", "sample_rate": 8000, "language": "en", **how})


async def listen(tts: Any, text: str, **how: Any) -> Listened:
    """All of a text's speech."""
    listened = Listened()
    async for chunk in ask(tts, text, **how):
        listened.add(chunk)
    return listened


def true_words(text: str) -> list[WordTiming]:
    """When each word of `text` sounds, as the stand-ins speak."""
    words, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        end = at + len(word)
        words.append(WordTiming(word, at * standin_voice.CHAR_MS, end * standin_voice.CHAR_MS))
        at = end
    return words
