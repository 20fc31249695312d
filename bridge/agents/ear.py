"""The conversation's ear: one speech-to-text stream per call, reopened when it breaks, losing none of the turn."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from bridge.agents.errors import EngineError
from bridge.audio.frames import FRAME_MS
from bridge.providers.base import (
    Heard,
    ProviderError,
    ProviderTimeoutError,
    Stt,
    SttEvent,
    SttFailed,
    SttStream,
)

LEAD_MS = 300
"""Audio before a voice's onset that belongs to it (`SttStream.speech_started`)."""

KEEP_MS = 15_000
"""Audio of the present turn kept for a new stream, should this one break."""

CLOSE_S = 1.0
"""A stream that does not close in this time is left to itself."""

OPEN_ATTEMPTS = 2
MAX_REOPENS = 3
"""Broken streams in one call; an engine that breaks more often is not worth listening with."""


class Ear:
    """Feed it with `Leg.listen(ear.push)`; tell it voice, pauses and the turn's end; it emits what is heard.

    The pause numbers of what it emits are its own, counted over the call, whatever stream answers."""

    def __init__(
        self,
        stt: Stt,
        *,
        sample_rate: int,
        language: str,
        emit: Callable[[SttEvent], None],
        failed: Callable[[ProviderError], None],
        open_s: float,
    ) -> None:
        self._stt = stt
        self._sample_rate = sample_rate
        self._language = language
        self._emit = emit
        self._failed = failed
        self._open_s = open_s
        self._stream: SttStream | None = None
        self._opening = asyncio.Lock()
        self._streams = 0
        self._heeded = 0
        """Number of the stream that is listened to; 0 when it broke."""
        self._pauses = 0
        self._stream_pauses = 0
        """Pauses told before the present stream: its numbers begin after them."""
        self._speaking = False
        """Voice was told since the last commit."""
        self._paused = False
        """...and the last thing told was a pause."""
        self._kept: deque[bytes] = deque(maxlen=LEAD_MS // FRAME_MS)
        self._closed = False

    async def open(self) -> None:
        """Open the stream, and give it what was said meanwhile. Raises EngineError."""
        async with self._opening:
            await self._open()

    async def _open(self) -> None:
        error: ProviderError | None = None
        for _ in range(OPEN_ATTEMPTS):
            try:
                await self._open_once()
            except ProviderError as failure:
                error = failure
                self._failed(failure)
            else:
                return
        assert error is not None
        raise EngineError("stt", error)

    async def reopen(self) -> None:
        """Replace a stream that broke. Raises EngineError."""
        async with self._opening:
            await self._close_stream()
            if self._streams > MAX_REOPENS:
                raise EngineError("stt", ProviderError(self._stt.name, f"broke {self._streams} times in one call"))
            await self._open()

    async def _open_once(self) -> None:
        number = self._heeded = self._streams = self._streams + 1

        def emit(event: SttEvent) -> None:
            self._told(number, event)

        try:
            async with asyncio.timeout(self._open_s):
                stream = await self._stt.open(sample_rate=self._sample_rate, language=self._language, emit=emit)
        except TimeoutError:
            raise ProviderTimeoutError(self._stt.name, f"did not open within {self._open_s * 1000:.0f} ms") from None
        if self._closed:
            await stream.aclose()
            return
        self._stream_pauses = self._pauses
        if self._speaking:
            # First: of what is pushed before it, a stream may take no more than the lead for speech.
            stream.speech_started()
        for pcm in self._kept:
            stream.push(pcm)
        if self._speaking and self._paused:
            self._stream_pauses -= 1
            stream.speech_paused()
        self._stream = stream

    def _told(self, number: int, event: SttEvent) -> None:
        if self._closed or number != self._heeded:
            return
        match event:
            case Heard():
                pause = event.pause + self._stream_pauses if event.pause else 0
                self._emit(replace(event, pause=pause))
            case SttFailed():
                if event.fatal:
                    self._heeded = 0
                self._emit(event)
            case _:
                self._emit(event)

    def push(self, pcm: bytes, now: float) -> None:
        """One frame of the caller; a `FrameSink`."""
        self._kept.append(pcm)
        if self._stream is not None:
            self._stream.push(pcm)

    def speech_started(self) -> None:
        if not self._speaking:
            self._speaking = True
            self._kept = deque(self._kept, maxlen=KEEP_MS // FRAME_MS)
        self._paused = False
        if self._stream is not None:
            self._stream.speech_started()

    def speech_paused(self) -> None:
        """A settled text is wanted; the emitted one has the count of these calls as its `pause`."""
        self._pauses += 1
        self._paused = True
        if self._stream is not None:
            self._stream.speech_paused()

    def want_partial(self) -> None:
        if self._stream is not None:
            self._stream.want_partial()

    def commit(self, *, speaking: bool = False) -> None:
        """The turn is over. `speaking`: its voice goes on, into the next one."""
        self._speaking = speaking
        self._paused = False
        self._kept = deque(self._kept, maxlen=(KEEP_MS if speaking else LEAD_MS) // FRAME_MS)
        if speaking:
            while len(self._kept) > LEAD_MS // FRAME_MS:
                self._kept.popleft()
        if self._stream is not None:
            self._stream.commit()

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await stream.aclose()
            except (TimeoutError, ProviderError):
                pass  # It is broken or hangs: there is nothing left to free that we could reach.

    async def aclose(self) -> None:
        self._closed = True
        await self._close_stream()
