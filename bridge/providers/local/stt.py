"""Speech to text with the embedded engines: each pause of the caller's turn is recognised in the worker pool."""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from bridge.providers.base import (
    Heard,
    ProviderError,
    ProviderUnavailableError,
    ProviderUnfitError,
    SttEvent,
    SttFailed,
    SttStream,
)
from bridge.providers.local.jobs import Priority
from bridge.providers.local.pool import PROVIDER, EnginePool
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.transcript import SILENCE_DBFS, loudest_dbfs
from bridge.providers.local.turn_audio import TurnAudio, Window

log = structlog.get_logger(__name__)

SAMPLE_RATES = (8000, 16000)

Emit = Callable[[SttEvent], None]
Work = Callable[[], Coroutine[None, None, None]]


class LocalStt:
    """Implements `Stt`. The pool is started and closed by its owner."""

    def __init__(self, pool: EnginePool, settings: EngineSettings) -> None:
        self._pool = pool
        self._settings = settings

    @property
    def name(self) -> str:
        return PROVIDER

    async def start(self) -> None:
        """Nothing to do: the pool is warm."""

    async def probe(self) -> str:
        return "the embedded recogniser"

    async def warm(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to do: streams are closed by whom they were opened for."""

    async def open(self, *, sample_rate: int, language: str, emit: Emit) -> SttStream:
        """Raises ProviderUnfitError for a rate or a language that the engine does not know."""
        if sample_rate not in SAMPLE_RATES:
            raise ProviderUnfitError(PROVIDER, f"{sample_rate} Hz; known: {SAMPLE_RATES}")
        engine = self._pool.engines.get("stt")
        if engine == "moonshine" and language.partition("-")[0].lower() != "en":
            raise ProviderUnfitError(
                PROVIDER, f"Moonshine hears English only, not {language!r}; pip install 'offhook[whisper]' hears more"
            )
        return LocalSttStream(self._pool, self._settings, sample_rate, language, emit)


class LocalSttStream:
    """Implements `SttStream`."""

    def __init__(
        self, pool: EnginePool, settings: EngineSettings, sample_rate: int, language: str, emit: Emit
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._fields = {"sample_rate": sample_rate, "language": language}
        self._rate = sample_rate
        self._emit = emit
        self._audio = TurnAudio(sample_rate, settings.turn_max_s)
        self._pauses = 0
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: dict[Window, asyncio.Task[None]] = {}
        """Windows filled while the caller speaks on, which are recognised meanwhile."""
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
        pause, turn = self._pauses, self._turn
        self._start(lambda: self._settle(pause, turn))

    def want_partial(self) -> None:
        under_way = self._partial is not None and not self._partial.done()
        if self._closed or under_way or not self._audio.speaking:
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
            log.exception("the embedded ear broke")
            self._tell(SttFailed(f"{type(error).__name__}: {error}", fatal=True))

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
        deadline_s = self._settings.stt_deadline_s
        results = await asyncio.gather(
            *(self._recognise(window, Priority.REPLY, deadline_s) for window in windows if not window.settled),
            return_exceptions=True,
        )
        failure = next((result for result in results if isinstance(result, BaseException)), None)
        if failure is not None and not isinstance(failure, ProviderError):
            raise failure
        if turn != self._turn or pause != self._pauses:
            return
        if failure is not None:
            self._tell(SttFailed(str(failure), fatal=isinstance(failure, ProviderUnavailableError)))
            return
        text = " ".join(window.text for window in windows if window.text)
        self._tell(Heard(text, True, pause, (self._loop.time() - asked_at) * 1000))

    async def _hear_partial(self, pause: int, turn: int) -> None:
        asked_at = self._loop.time()
        try:
            await self._recognise(self._audio.windows[-1], Priority.PARTIAL, self._settings.partial_deadline_s)
        except ProviderError as error:
            log.debug("no partial text", error=str(error))
            return
        if turn == self._turn and pause == self._pauses and self._audio.speaking:
            self._tell(Heard(self._audio.text, False, 0, (self._loop.time() - asked_at) * 1000))

    async def _recognise_early(self, window: Window) -> None:
        try:
            await self._recognise(window, Priority.PARTIAL, self._settings.stt_deadline_s)
        except ProviderError as error:
            log.debug("a part of the turn is left for its end", error=str(error))

    async def _recognise(self, window: Window, priority: Priority, deadline_s: float) -> None:
        """Find the text of what the window has now. Raises ProviderError."""
        audio = bytes(window.audio)
        text = ""
        if loudest_dbfs(audio, self._rate) > SILENCE_DBFS:
            reply = await self._pool.run("stt", self._fields, audio, priority=priority, deadline_s=deadline_s)
            text = reply.fields["text"]
        window.recognised(text, len(audio))
