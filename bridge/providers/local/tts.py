"""Text to speech with the embedded voice: text made speakable, cut into pieces, synthesised in the worker pool."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from bridge.audio.frames import BYTES_PER_SAMPLE
from bridge.providers.base import ProviderUnfitError, SpeechChunk
from bridge.providers.local.jobs import Priority
from bridge.providers.local.phrases import PhraseFiles, PhraseMemory, phrase_key
from bridge.providers.local.pool import PROVIDER, EnginePool
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.speakable import speakable

FORMAT = "1"
"""Part of every cached phrase's name; changes with anything here or in the engine that changes the sound."""

PREPARE_DEADLINE_S = 60.0

LONG_SENTENCE_CHARS = 60
"""A text whose first sentence is longer starts with its first clause: half the wait for the first audio."""

FIRST_CLAUSE_CHARS = 20
"""A clause shorter than this is not cut off: the voice needs context for its melody."""

MAX_PIECE_CHARS = 160
"""10 s of speech, 0.8 s of work; the memory of a worker grows with the longest piece."""

SENTENCE_PAUSE_MS = 220
CLAUSE_PAUSE_MS = 90
"""Put after each piece, on top of the 60 ms that a piece keeps of its own silence."""

_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n+")
_CLAUSE = re.compile(r"[,;:](?=\s)|\s[–—-](?=\s)")
_CONJUNCTION = re.compile(r"\s(?=(?:and|or|but|because|which|that|so|when|if)\s)")
_SOUND = re.compile(r"[^\W_]")


class LocalTts:
    """Implements `Tts`. The pool is started and closed by its owner."""

    def __init__(
        self, pool: EnginePool, settings: EngineSettings, *, voice: str, fingerprint: str, directory: Path
    ) -> None:
        """`voice` is the name of the model, `fingerprint` changes with its files, `directory` keeps phrases."""
        self._pool = pool
        self._settings = settings
        self._voice = voice
        self._key_voice = f"{FORMAT} {fingerprint}"
        self._memory = PhraseMemory(settings.phrase_cache_mb << 20)
        self._files = PhraseFiles(directory)

    @property
    def name(self) -> str:
        return PROVIDER

    async def start(self) -> None:
        """Nothing to do: the pool is warm."""

    async def probe(self) -> str:
        return "the embedded voice"

    async def warm(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to do: iterators are closed by whom they were made for."""

    async def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[SpeechChunk]:
        """A chunk a piece, its pause included."""
        self._check(voice)
        for number, piece in enumerate(pieces(speakable(text, language))):
            key = phrase_key(piece, voice=self._key_voice, sample_rate=sample_rate)
            pcm = self._memory.get(key)
            if pcm is None:
                # Only the first piece is waited for in silence; the others come while it is played.
                priority = Priority.NEXT_CLAUSE if number else Priority.REPLY
                pcm = await self._speak(piece, sample_rate, priority, self._settings.tts_deadline_s)
                self._memory.put(key, pcm)
            yield SpeechChunk(pcm)

    async def prepare(self, texts: Iterable[str], *, voice: str, sample_rate: int, language: str = "en") -> None:
        """Have the speech of `texts` ready, from disk or synthesised in the background and put on disk.

        Raises ProviderError."""
        self._check(voice)
        wanted = dict.fromkeys(piece for text in texts for piece in pieces(speakable(text, language)))
        at_once = asyncio.Semaphore(max(1, self._pool.load.workers))

        async def prepare(piece: str) -> None:
            key = phrase_key(piece, voice=self._key_voice, sample_rate=sample_rate)
            async with at_once:
                pcm = await asyncio.to_thread(self._files.read, key)
                if pcm is None:
                    pcm = await self._speak(piece, sample_rate, Priority.BACKGROUND, PREPARE_DEADLINE_S)
                    await asyncio.to_thread(self._files.write, key, pcm)
            self._memory.put(key, pcm)

        try:
            async with asyncio.TaskGroup() as group:
                for piece in wanted:
                    group.create_task(prepare(piece))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _speak(self, piece: str, sample_rate: int, priority: Priority, deadline_s: float) -> bytes:
        reply = await self._pool.run(
            "tts", {"text": piece, "sample_rate": sample_rate}, priority=priority, deadline_s=deadline_s
        )
        if not reply.payload:
            return b""
        pause_ms = SENTENCE_PAUSE_MS if piece.rstrip("\"')]")[-1:] in ".!?…" else CLAUSE_PAUSE_MS
        return reply.payload + bytes(pause_ms * sample_rate // 1000 * BYTES_PER_SAMPLE)

    def _check(self, voice: str) -> None:
        if voice not in ("", self._voice):
            raise ProviderUnfitError(PROVIDER, f"there is no voice {voice!r}; known: {self._voice!r}")


def pieces(text: str) -> list[str]:
    """Cut into what is synthesised in one go: sentences, and of a long first sentence its first clause."""
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        rest = sentence
        if not found and len(rest) > LONG_SENTENCE_CHARS:
            clause = next(_CLAUSE.finditer(rest, FIRST_CLAUSE_CHARS), None)
            if clause is not None:
                found.append(rest[: clause.end()].strip())
                rest = rest[clause.end() :]
        while len(rest) > MAX_PIECE_CHARS:
            cut = _breath(rest)
            found.append(rest[:cut].strip())
            rest = rest[cut:]
        found.append(rest.strip())
    return [piece for piece in found if _SOUND.search(piece)]


def _breath(text: str) -> int:
    """Where a speaker would take breath in the second half of the first `MAX_PIECE_CHARS`."""
    for place in (_CLAUSE, _CONJUNCTION):
        ends = [match.end() for match in place.finditer(text, MAX_PIECE_CHARS // 2, MAX_PIECE_CHARS)]
        if ends:
            return ends[-1]
    return text.rfind(" ", 0, MAX_PIECE_CHARS) + 1 or MAX_PIECE_CHARS
