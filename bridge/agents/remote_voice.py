"""A remote bot's audio on its way through the playout: bursts buffered, marks sent back when they were played."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from bridge.audio.frames import FRAME_S, duration_ms
from bridge.audio.playout import Playout, PlayoutEvent, UtteranceFinished, UtteranceStarted

GAP_S = 0.4
"""A bot that has sent nothing for so long, with all played, has finished what it said."""


class Turns(Protocol):
    """Who puts the bot's speech on record; times in s."""

    def agent_started(self, at: float) -> None: ...

    def agent_ended(self, at: float, heard_ms: float, *, interrupted: bool) -> None: ...

    def tick(self, now: float) -> None: ...


class RemoteVoice:
    """One call's. It is told of each tick by the playout (`tick`, `played`)."""

    def __init__(self, playout: Playout, buffer_ms: float, mark_played: Callable[[str], None], turns: Turns) -> None:
        self._playout = playout
        self._buffer_ms = buffer_ms
        self._mark_played = mark_played
        self._turns = turns
        self._generation: int | None = None
        """Of the utterance under way."""
        self._written_ms = 0.0
        self._marks: deque[tuple[float, str]] = deque()
        """How much of the utterance must have been heard for each."""
        self._buffering_until: float | None = None
        self._last_audio_at = 0.0
        self._started = False
        self._finished = asyncio.Event()
        self._finished.set()

    def media(self, pcm: bytes, now: float) -> None:
        """The next audio, int16 mono at the playout's rate, of any length."""
        if not pcm:
            return
        playout = self._playout
        if self._generation is None or self._generation != playout.generation or not playout.speaking:
            self._begin(now)
        elif playout.queued_bytes == 0 and self._buffering_until is None:
            self._buffer(now)
        assert self._generation is not None
        playout.write(self._generation, pcm)
        self._written_ms += duration_ms(len(pcm), playout.sample_rate)
        self._last_audio_at = now
        if self._buffering_until is not None and playout.queued_ms >= self._buffer_ms:
            self._play()

    def mark(self, name: str) -> None:
        """To be sent back once what was sent before it was heard: at once if all was."""
        if self._generation is None or self._playout.heard_ms >= self._written_ms:
            self._mark_played(name)
        else:
            self._marks.append((self._written_ms, name))

    def clear(self, now: float) -> None:
        """Drop what was not played; its marks are sent back."""
        if self._generation is not None and self._generation == self._playout.generation:
            heard_ms, left = self._playout.heard_ms, self._playout.queued_bytes > 0
            self._playout.drop()
            self._end(now, heard_ms, interrupted=left)
        self._return_marks()

    def drop(self) -> None:
        """The bot is gone: what it said last ends in the middle."""
        self._marks.clear()
        self._playout.drop()
        self._generation = None

    def tick(self, pcm: bytes, now: float) -> None:
        """A frame went out; a `FrameSink` of the playout."""
        self._turns.tick(now)
        playout = self._playout
        if self._generation is None or self._generation != playout.generation:
            return
        if self._buffering_until is not None and now >= self._buffering_until:
            self._play()
        while self._marks and playout.heard_ms >= self._marks[0][0]:
            self._mark_played(self._marks.popleft()[1])
        if not playout.queued_bytes and now - self._last_audio_at >= GAP_S:
            playout.end(self._generation)

    def played(self, event: PlayoutEvent) -> None:
        """A handler of the playout's events."""
        if event.generation != self._generation:
            return
        match event:
            case UtteranceStarted():
                self._started = True
                self._turns.agent_started(event.at)
            case UtteranceFinished():
                # The bot fell silent GAP_S ago: that is when its turn was over.
                self._end(max(0.0, event.at - GAP_S), self._playout.sent_ms, interrupted=False)
                self._return_marks()

    async def drained(self) -> None:
        """Return when all was played."""
        if self._generation is not None:
            if self._buffering_until is not None:
                self._play()
            self._playout.end(self._generation)
        await self._finished.wait()

    async def sound(self, pcm: bytes) -> None:
        """Play a sound of our own to its end, in the place of what the bot said."""
        generation = self._playout.begin()
        self._generation = None
        self._playout.write(generation, pcm)
        self._playout.end(generation)
        left_s = duration_ms(len(pcm), self._playout.sample_rate) / 1000
        while self._playout.generation == generation and self._playout.speaking and left_s > -1:
            await asyncio.sleep(FRAME_S)
            left_s -= FRAME_S

    def close(self) -> None:
        """The call is over, for the bot at least."""
        self._marks.clear()
        if self._generation is not None and self._generation == self._playout.generation:
            self._end(self._last_audio_at, self._playout.heard_ms, interrupted=self._playout.queued_bytes > 0)
            self._playout.drop()
            self._playout.resume()

    def _begin(self, now: float) -> None:
        self._generation = self._playout.begin()
        self._written_ms = 0.0
        self._started = False
        self._finished.clear()
        self._buffer(now)

    def _buffer(self, now: float) -> None:
        """Hold the beginning of a burst back until there is some of it."""
        if self._buffer_ms:
            self._playout.pause()
            self._buffering_until = now + self._buffer_ms / 1000

    def _play(self) -> None:
        self._buffering_until = None
        self._playout.resume()

    def _end(self, at: float, heard_ms: float, *, interrupted: bool) -> None:
        self._generation, self._buffering_until = None, None
        self._finished.set()
        if self._started:
            self._started = False
            self._turns.agent_ended(at, heard_ms, interrupted=interrupted)

    def _return_marks(self) -> None:
        while self._marks:
            self._mark_played(self._marks.popleft()[1])
