"""Speech to text by recognisers of whole recordings: each pause of the caller's turn is recognised from its windows.

Long turns are cut where they are quiet, and their parts recognised while the caller speaks on; so at a pause only the
last part is waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Literal

import structlog

from bridge.providers.base import Heard, ProviderError, SttEvent, SttFailed
from bridge.providers.local.turn_audio import TurnAudio, Window

log = structlog.get_logger(__name__)

Purpose = Literal["reply", "partial", "early"]
"""What a text is wanted for: a pause that may be the turn's end, a look while the caller speaks, a part that is full
while the caller speaks on."""

Recognise = Callable[[bytes, Purpose], Awaitable[str]]
"""int16 mono PCM to its text. Raises ProviderError; has its own deadline."""

Work = Callable[[], Coroutine[None, None, None]]


class WindowStream:
    """Implements `SttStream`."""

    def __init__(
        self,
        recognise: Recognise,
        *,
        sample_rate: int,
        turn_max_s: float,
        emit: Callable[[SttEvent], None],
        fatal: Callable[[ProviderError], bool],
        partials: bool = True,
        supersedes: bool = False,
    ) -> None:
        """`fatal` says after which failures the stream is of no use. Without `partials` it is deaf to `want_partial`.
        `supersedes`: a pause gives up what the one before still waits for."""
        self._recogniser = recognise
        self._emit = emit
        self._fatal = fatal
        self._partials = partials
        self._supersedes = supersedes
        self._audio = TurnAudio(sample_rate, turn_max_s)
        self._pauses = 0
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: dict[Window, asyncio.Task[None]] = {}
        """Windows filled while the caller speaks on, which are recognised meanwhile."""
        self._settling: asyncio.Task[None] | None = None
        self._partial: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def push(self, pcm: bytes) -> None:
        filled = self._audio.push(pcm)
        if filled is not None and not self._closed:
            self._early[filled] = self._start(lambda: self._recognise_early(filled))

    def speech_started(self) -> None:
        self._audio.speech_started()

    def speech_paused(self) -> None:
        if self._closed:
            return
        self._audio.speech_paused()
        self._pauses += 1
        if self._supersedes:
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
        self._early.clear()
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
            log.exception("a recogniser's stream broke")
            self._tell(SttFailed(type(error).__name__, fatal=True))

    def _tell(self, event: SttEvent) -> None:
        if not self._closed:
            self._emit(event)

    async def _settle(self, pause: int, turn: int) -> None:
        """Everything up to this pause. It is told only if nothing newer is on its way by then."""
        asked_at = self._loop.time()
        windows = list(self._audio.windows)
        early = [self._early[window] for window in windows if window in self._early]
        if early:
            await asyncio.wait(early)
        results = await asyncio.gather(
            *(self._recognise(window, "reply") for window in windows if not window.settled),
            return_exceptions=True,
        )
        failure = next((result for result in results if result is not None), None)
        if failure is not None and not isinstance(failure, ProviderError):
            raise failure
        if turn != self._turn or pause != self._pauses:
            return
        if failure is not None:
            self._tell(SttFailed(str(failure), fatal=self._fatal(failure)))
            return
        text = " ".join(window.text for window in windows if window.text)
        self._tell(Heard(text, True, pause, (self._loop.time() - asked_at) * 1000))

    async def _hear_partial(self, pause: int, turn: int) -> None:
        asked_at = self._loop.time()
        try:
            await self._recognise(self._audio.windows[-1], "partial")
        except ProviderError as error:
            log.debug("no partial text", error=str(error))
            return
        if turn == self._turn and pause == self._pauses and self._audio.speaking:
            self._tell(Heard(self._audio.text, False, 0, (self._loop.time() - asked_at) * 1000))

    async def _recognise_early(self, window: Window) -> None:
        try:
            await self._recognise(window, "early")
        except ProviderError as error:
            log.debug("a part of the turn is left for its end", error=str(error))

    async def _recognise(self, window: Window, purpose: Purpose) -> None:
        """Find the text of what the window has now. Raises ProviderError."""
        audio = bytes(window.audio)
        window.recognised(await self._recogniser(audio, purpose), len(audio))
