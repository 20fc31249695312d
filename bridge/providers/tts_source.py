"""The speech of one text on its way from a vendor: what has come, the deadlines for the rest, the second attempt."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from bridge.audio.frames import duration_ms
from bridge.providers.base import ProviderError, ProviderTimeoutError, SpeechChunk, Tts, WordTiming
from bridge.providers.tts_audio import TELEPHONE_RATE, WireDecoder, WireFormat
from bridge.providers.tts_words import WordAligner

SAME_CLOCK_MS = 30.0
"""Alignment may begin this much before the audio it came with, and still count from the start of the text."""


PROBE_TEXT = "OK."

ENDLESS_S = 30.0
ENDLESS_S_A_CHAR = 1.0
"""Audio longer than this, and so much for each character of its text, is no speech of that text."""

SLOWEST = 3.0
"""Audio that takes so many times longer to come than to be heard is of no use on a telephone."""


class SocketLostError(Exception):
    """The connection is gone, for no reason that has to do with the text: sent again, it may be spoken."""


class EndlessSpeechError(SocketLostError):
    """More audio comes than the text can have."""


class Leave(Enum):
    """Why a source is not read any more."""

    DONE = "all of it came"
    CANCELLED = "it is not wanted any more"
    STALLED = "a deadline passed: the connection is suspect"
    FAILED = "the vendor gave an error, or the connection is gone"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Longest waits, in seconds."""

    first_audio_s: float
    """From the text to its first audio, with connecting where that is needed."""
    between_audio_s: float
    """From one piece of audio to the next, or to the end."""

    def missed(self, heard: bool) -> str:
        """Which one was; `heard`: some audio had come."""
        if heard:
            return f"no more audio within {self.between_audio_s:g} s"
        return f"no audio within {self.first_audio_s:g} s"


class Source(Protocol):
    """The speech of one text."""

    async def next(self) -> SpeechChunk | None:
        """What came next; None: that was all. Raises ProviderError, SocketLostError."""
        ...

    async def leave(self, how: Leave) -> None:
        """Called once, last: stop the work if it goes on, and give back what was taken. Never raises."""
        ...


async def speak(
    provider: str, text: str, deadlines: Deadlines, begin: Callable[[bool], Awaitable[Source]]
) -> AsyncGenerator[SpeechChunk, None]:
    """The speech of `text`. `begin` sends it; with True for the second time, on a new connection, as the first one
    was found dead before any audio came. Closing the generator leaves the source. Raises ProviderError."""
    due = asyncio.get_running_loop().time() + deadlines.first_audio_s
    heard = False
    pace = _Pace(deadlines.between_audio_s)
    for again in (False, True):
        how = Leave.CANCELLED
        source = None
        try:
            async with asyncio.timeout_at(due):
                source = await begin(again)
            while (chunk := await _next(source, None if heard else due, pace)) is not None:
                heard = heard or bool(chunk.pcm)
                yield chunk
            how = Leave.DONE
            if not heard and any(char.isalnum() for char in text):
                raise ProviderError(provider, "no audio came for the text")
            return
        except TimeoutError:
            how = Leave.STALLED
            raise ProviderTimeoutError(provider, deadlines.missed(heard)) from None
        except ProviderError:
            how = Leave.FAILED
            raise
        except SocketLostError as lost:
            how = Leave.FAILED
            if heard or again:
                raise ProviderError(provider, f"{lost}{' in the middle of the speech' if heard else ''}") from None
        finally:
            if source is not None:
                await source.leave(how)


async def tried(tts: Tts) -> float:
    """Have a voice say two letters on a telephone, as in a call: that the key is taken, and the voice, the model and
    the credit are there. Returns how long its first audio took (ms). Raises ProviderError."""
    now = asyncio.get_running_loop().time
    begun, heard = now(), 0.0
    spoken = tts.synthesize(PROBE_TEXT, voice="", sample_rate=TELEPHONE_RATE, language="")
    async for _ in spoken:
        heard = heard or now()
    return (heard - begun) * 1000


class _Pace:
    """How long the next piece of audio may take: a vendor that sends a few samples a second is never late with one,
    and is silent all the same. Time in which nobody asks does not count."""

    __slots__ = ("_between_s", "_credit_s")

    def __init__(self, between_s: float) -> None:
        self._between_s = self._credit_s = between_s

    @property
    def limit_s(self) -> float:
        return max(0.0, min(self._between_s, self._credit_s))

    def came(self, pcm: bytes, after_s: float) -> None:
        # As long as it would be on a telephone: at higher rates it is given more time.
        self._credit_s += duration_ms(len(pcm), TELEPHONE_RATE) / 1000 * SLOWEST - after_s


async def _next(source: Source, due: float | None, pace: _Pace) -> SpeechChunk | None:
    """Raises TimeoutError at `due`, or if the next piece is late."""
    now = asyncio.get_running_loop().time
    asked = now()
    async with asyncio.timeout_at(asked + pace.limit_s if due is None else due):
        chunk = await source.next()
    if chunk is not None:
        pace.came(chunk.pcm, now() - asked if due is None else 0.0)
    return chunk


def parts(text: str, most: int) -> Iterator[str]:
    """`text` in pieces of at most `most` characters, cut between words where there are any."""
    rest = text
    while len(rest) > most:
        cut = rest.rfind(" ", 0, most) + 1 or most
        yield rest[:cut]
        rest = rest[cut:]
    yield rest


class Utterance:
    """One text's speech, put together from audio and alignment as they come in."""

    __slots__ = ("_aligner", "_bytes", "_decoder", "_most_ms", "_words")

    def __init__(self, text: str, wire: WireFormat, sample_rate: int) -> None:
        self._decoder = WireDecoder(wire, sample_rate)
        self._aligner = WordAligner(text)
        self._most_ms = (ENDLESS_S + len(text) * ENDLESS_S_A_CHAR) * 1000
        self._words: list[WordTiming] = []
        """Complete, not yet given out."""
        self._bytes = 0

    @property
    def audio_ms(self) -> float:
        """That has come so far."""
        return duration_ms(self._bytes, self._decoder.sample_rate)

    def align_characters(
        self, characters: Sequence[str], starts_ms: Sequence[float], ends_ms: Sequence[float]
    ) -> None:
        """Alignment that came with the next `chunk`: its times count from that chunk's start or, with some vendors
        and models, from the text's; which of them shows by the first."""
        offset_ms = self.audio_ms
        if starts_ms and starts_ms[0] >= offset_ms - SAME_CLOCK_MS:
            offset_ms = 0.0
        if offset_ms:
            starts_ms = [ms + offset_ms for ms in starts_ms]
            ends_ms = [ms + offset_ms for ms in ends_ms]
        self._words += self._aligner.characters(characters, starts_ms, ends_ms)

    def align_words(self, words: Sequence[str], starts_ms: Sequence[float], ends_ms: Sequence[float]) -> None:
        """Times count from the text's start."""
        self._words += self._aligner.words(words, starts_ms, ends_ms)

    def chunk(self, data: bytes) -> SpeechChunk | None:
        """The next audio as it was on the wire; None where it is too little to be given out. Raises
        EndlessSpeechError."""
        if self.audio_ms > self._most_ms:
            raise EndlessSpeechError(f"more audio came than {self._most_ms / 1000:.0f} s for one text")
        pcm = self._decoder.decode(data)
        if not pcm:
            return None
        self._bytes += len(pcm)
        words, self._words = tuple(self._words), []
        return SpeechChunk(pcm, words)

    def last(self) -> SpeechChunk | None:
        """The speech is over: what is left to give out."""
        pcm = self._decoder.flush()
        self._bytes += len(pcm)
        words = (*self._words, *self._aligner.finish(self.audio_ms))
        return SpeechChunk(pcm, words) if pcm or words else None


class Delivery:
    """What a socket's reader delivers for one text until somebody fetches it. Of no more use after `finish` or
    `fail`: what comes later is dropped."""

    __slots__ = ("_chunks", "_end", "_fetcher", "_over")

    def __init__(self) -> None:
        self._chunks: deque[SpeechChunk] = deque()
        self._end: Exception | None = None
        self._over = False
        self._fetcher: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self._over

    def sound(self, utterance: Utterance, data: bytes) -> None:
        """The next audio of `utterance`, as it was on the wire."""
        if not self._over:
            try:
                self.put(utterance.chunk(data))
            except EndlessSpeechError as error:
                self.fail(error)

    def complete(self, utterance: Utterance) -> None:
        """`utterance` is over."""
        self.put(utterance.last())
        self.finish()

    def put(self, chunk: SpeechChunk | None) -> None:
        if chunk is not None and not self._over:
            self._chunks.append(chunk)
            self._wake()

    def finish(self) -> None:
        self._over = True
        self._wake()

    def fail(self, error: ProviderError | SocketLostError) -> None:
        """What came before is fetched first."""
        if not self._over:
            self._over, self._end = True, error
            self._wake()

    async def fetch(self) -> SpeechChunk | None:
        """The next one; None: that was all. Raises what it failed with."""
        while not self._chunks:
            if self._over:
                if self._end is not None:
                    raise self._end
                return None
            self._fetcher = asyncio.get_running_loop().create_future()
            await self._fetcher
        return self._chunks.popleft()

    def _wake(self) -> None:
        if self._fetcher is not None and not self._fetcher.done():
            self._fetcher.set_result(None)
