"""Speech to text by files: each pause of the caller's turn is sent as a WAV and answered with its text.

What is not a stream behind `SttStream`: it works with every server that has OpenAI's `/audio/transcriptions`.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from bridge.audio.frames import BYTES_PER_SAMPLE, duration_ms
from bridge.providers.base import Heard, ProviderError, SttEvent, SttFailed
from bridge.providers.local.transcript import SILENCE_DBFS, clean, loudest_dbfs
from bridge.providers.local.turn_audio import TurnAudio, Window

log = structlog.get_logger(__name__)

Transcribe = Callable[[bytes], Awaitable[str]]
"""A WAV file to its text. Raises ProviderError; has its own deadline."""

Work = Callable[[], Coroutine[None, None, None]]

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


class FileSttStream:
    """Implements `SttStream`. Long turns are cut where they are quiet, and their parts sent while the caller speaks
    on; so at a pause only the last part is waited for."""

    def __init__(
        self,
        transcribe: Transcribe,
        *,
        sample_rate: int,
        turn_max_s: float,
        partials: bool,
        emit: Callable[[SttEvent], None],
    ) -> None:
        self._transcribe = transcribe
        self._rate = sample_rate
        self._partials = partials
        self._emit = emit
        self._audio = TurnAudio(sample_rate, turn_max_s)
        self._pauses = 0
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._filled: dict[Window, asyncio.Task[None]] = {}
        """Parts that are sent while the caller speaks on."""
        self._settling: asyncio.Task[None] | None = None
        self._partial: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def push(self, pcm: bytes) -> None:
        filled = self._audio.push(pcm)
        if filled is not None and not self._closed:
            self._filled[filled] = self._start(lambda: self._recognise_filled(filled))

    def speech_started(self) -> None:
        self._audio.speech_started()

    def speech_paused(self) -> None:
        if self._closed:
            return
        self._audio.speech_paused()
        self._pauses += 1
        # What the pause before waits for is part of what this one asks.
        for task in (self._settling, self._partial):
            if task is not None:
                task.cancel()
        pause, turn = self._pauses, self._turn
        self._settling = self._start(lambda: self._settle(pause, turn))

    def want_partial(self) -> None:
        under_way = self._partial is not None and not self._partial.done()
        if self._closed or not self._partials or under_way or not self._audio.speaking:
            return
        pause, turn = self._pauses, self._turn
        self._partial = self._start(lambda: self._hear_partial(pause, turn))

    def commit(self) -> None:
        self._turn += 1
        self._audio.commit()
        self._filled.clear()
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Work) -> asyncio.Task[None]:
        task = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Work) -> None:
        try:
            await work()
        except Exception as error:  # the task's outermost edge: a bug here must not leave the caller unheard
            log.exception("an ear by files broke")
            self._tell(SttFailed(type(error).__name__, fatal=True))

    def _tell(self, event: SttEvent) -> None:
        if not self._closed:
            self._emit(event)

    async def _settle(self, pause: int, turn: int) -> None:
        """Everything up to this pause. It is told only if nothing newer is on its way by then."""
        asked_at = self._loop.time()
        windows = list(self._audio.windows)
        early = [self._filled[window] for window in windows if window in self._filled]
        if early:
            await asyncio.wait(early)
        results = await asyncio.gather(
            *(self._recognise(window) for window in windows if not window.settled), return_exceptions=True
        )
        for result in results:
            if isinstance(result, ProviderError):
                if turn == self._turn and pause == self._pauses:
                    # The next one could work, but a caller waits for this one: another provider, or once more.
                    self._tell(SttFailed(str(result), fatal=True))
                return
            if result is not None:
                raise result
        if turn == self._turn and pause == self._pauses:
            text = " ".join(window.text for window in windows if window.text)
            self._tell(Heard(text, True, pause, (self._loop.time() - asked_at) * 1000))

    async def _hear_partial(self, pause: int, turn: int) -> None:
        asked_at = self._loop.time()
        try:
            await self._recognise(self._audio.windows[-1])
        except ProviderError as error:
            log.debug("no partial text", error=str(error))
            return
        if turn == self._turn and pause == self._pauses and self._audio.speaking:
            self._tell(Heard(self._audio.text, False, 0, (self._loop.time() - asked_at) * 1000))

    async def _recognise_filled(self, window: Window) -> None:
        try:
            await self._recognise(window)
        except ProviderError as error:
            log.debug("a part of the turn is left for its end", error=str(error))

    async def _recognise(self, window: Window) -> None:
        """Find the text of what the window has now. Raises ProviderError."""
        audio = bytes(window.audio)
        length_ms = duration_ms(len(audio), self._rate)
        text = ""
        if length_ms >= SHORTEST_MS and loudest_dbfs(audio, self._rate) > SILENCE_DBFS:
            text = clean(await self._transcribe(wav(audio, self._rate)), seconds=length_ms / 1000)
        window.recognised(text, len(audio))
