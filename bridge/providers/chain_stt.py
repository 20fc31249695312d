"""A chain of recognisers: one stream a call, moved to the next provider when it dies, stalls or does not open.

The audio of the present turn is kept, and said again to the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bridge.audio.frames import FRAME_MS
from bridge.providers.base import (
    Heard,
    ProviderError,
    ProviderTimeoutError,
    Stt,
    SttEvent,
    SttFailed,
    SttStream,
    Switched,
)
from bridge.providers.chain import CLOSE_S, Course, FallbackSettings, Member, probe_all, warm_first

Emit = Callable[[SttEvent], None]

LAST_SHARE = 0.95
"""The last recogniser fails this much before the conversation would give up by itself."""

LEAST_S = 0.5
"""Even the last of a long chain gets this long to open."""

LEAD_MS = 300
"""Audio before a voice's onset that belongs to it (`SttStream.speech_started`)."""

SHORT_MS = 700
"""Voice of which a recogniser may make nothing, and say nothing: it is given the time that it gives itself."""

KEEP_MS = 30_000
"""Audio of the present turn kept for the next provider."""


class ChainStt:
    """An `Stt` over `members`. `for_call` makes one that stays with the recogniser that works."""

    def __init__(
        self,
        members: Sequence[Member[Stt]],
        settings: FallbackSettings,
        *,
        open_s: float,
        now: Callable[[], float],
    ) -> None:
        """`open_s` is how long the conversation waits for a stream, whatever the chain does."""
        self._members = tuple(members)
        self._settings = settings
        self._open_s = open_s
        self._now = now
        self._course: Course[Stt] = Course(self._members)

    def for_call(self) -> "ChainStt":
        return ChainStt(self._members, self._settings, open_s=self._open_s, now=self._now)

    @property
    def name(self) -> str:
        """Of the recogniser that listens at present."""
        return self._course.present.name

    async def start(self) -> None:
        """Nothing to do: who made the members starts them."""

    async def probe(self) -> str:
        return await probe_all(self._members)

    async def warm(self) -> None:
        await warm_first(self._course)

    async def aclose(self) -> None:
        """Nothing to do: who made the members closes them."""

    async def open(self, *, sample_rate: int, language: str, emit: Emit) -> SttStream:
        """Open the first that opens. Raises the last one's ProviderError when none does."""
        line = _Line(sample_rate, language, self._settings, self._now)
        stream = ChainSttStream(self._course, line, emit)
        await stream.open(self._now() + self._open_s * LAST_SHARE)
        return stream


@dataclass(frozen=True, slots=True)
class _Line:
    """What every stream of a call is opened with."""

    sample_rate: int
    language: str
    settings: FallbackSettings
    now: Callable[[], float]


class _Tap:
    """One provider's stream, and what is known of it."""

    def __init__(self, member: Member[Stt], pauses_before: int, begun: float) -> None:
        self.member = member
        self.stream: SttStream | None = None
        """None until it is open."""
        self.pauses_before = pauses_before
        """Pauses told to the streams before: its numbers begin after them."""
        self.begun = begun
        self.proven = False
        """It has settled a text: only then its opening counts as a success."""


class ChainSttStream:
    """Implements `SttStream`. The pause numbers of what it emits are its own, whatever provider answers."""

    def __init__(self, course: Course[Stt], line: _Line, emit: Emit) -> None:
        self._course = course
        self._line = line
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._tap: _Tap | None = None
        """The stream that is listened to; None while the next one opens."""
        self._tried: set[str] = set()
        """Providers that failed since a text was settled last."""
        self._kept: deque[bytes] = deque(maxlen=LEAD_MS // FRAME_MS)
        self._speaking = False
        """Voice was told since the last commit."""
        self._paused = False
        """...and the last thing told was a pause."""
        self._voice_frames = 0
        """Pushed in this turn from a voice's onset to its pause."""
        self._understood = False
        """There is text in this turn."""
        self._pauses = 0
        self._asked_at: float | None = None
        """When the text of the present pause was asked for; None: none is owed."""
        self._timer: asyncio.TimerHandle | None = None
        self._moving: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, deadline: float) -> None:
        """Open the first that opens, the last of them by `deadline`. Raises its ProviderError."""
        await self._open_next(deadline)

    # -- what is told to it ---------------------------------------------------------------------------------

    def push(self, pcm: bytes) -> None:
        self._kept.append(pcm)
        self._voice_frames += self._speaking and not self._paused
        if (stream := self._stream) is not None:
            stream.push(pcm)

    def speech_started(self) -> None:
        if not self._speaking:
            self._speaking = True
            self._kept = deque(self._kept, maxlen=KEEP_MS // FRAME_MS)
        self._paused = False
        self._owe_nothing()
        if (stream := self._stream) is not None:
            stream.speech_started()

    def speech_paused(self) -> None:
        self._pauses += 1
        self._paused = True
        tap = self._tap
        if tap is not None and tap.stream is not None:
            if tap.proven:
                tap.begun = tap.member.health.began()
            self._ask(tap.stream)

    def want_partial(self) -> None:
        if (stream := self._stream) is not None:
            stream.want_partial()

    def commit(self) -> None:
        tap, asked_at = self._tap, self._asked_at
        speaking = self._speaking and not self._paused
        self._speaking = speaking
        dubious, self._understood, self._voice_frames = self._dubious, False, 0
        self._paused = False
        self._owe_nothing()
        # A voice that goes on belongs to the next turn, with its lead.
        kept = list(self._kept)[-(LEAD_MS // FRAME_MS) :]
        self._kept = deque(kept, maxlen=(KEEP_MS if speaking else LEAD_MS) // FRAME_MS)
        if tap is None or tap.stream is None:
            return
        overdue_s = 0.0 if asked_at is None else self._line.now() - asked_at
        if overdue_s >= self._line.settings.stt_settle_s and not dubious:
            # Nobody waits any more. A stream that answered nothing is dead, whether it knows or not.
            self._lost(tap, ProviderTimeoutError(tap.member.name, f"no settled text within {overdue_s:.1f} s"))
        else:
            tap.stream.commit()

    async def aclose(self) -> None:
        self._closed = True
        self._owe_nothing()
        tap, self._tap = self._tap, None
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait([self._moving])
        if tap is not None:
            if not tap.proven:
                tap.member.health.gave_up()
            self._let_go(tap)
        if self._closing:
            await asyncio.wait(self._closing)

    @property
    def _stream(self) -> SttStream | None:
        return None if self._tap is None else self._tap.stream

    # -- what providers tell --------------------------------------------------------------------------------

    def _told(self, tap: _Tap, event: SttEvent) -> None:
        if self._closed or tap is not self._tap:
            return
        if tap.stream is None:
            if isinstance(event, SttFailed) and event.fatal:
                # Still in `open`, which finds out.
                self._tap = None
            return
        match event:
            case Heard():
                pause = event.pause + tap.pauses_before if event.pause else 0
                self._understood = self._understood or bool(event.text)
                if event.settled and pause == self._pauses:
                    self._settled(tap)
                self._emit(replace(event, pause=pause))
            case SttFailed(error=error, fatal=fatal):
                if fatal or (self._asked_at is not None and self._somebody_else(tap)):
                    self._lost(tap, ProviderError(tap.member.name, error))
                else:
                    tap.member.health.failed(ProviderError(tap.member.name, error))
                    self._owe_nothing()
                    self._emit(replace(event, provider=tap.member.name))
            case _:
                self._emit(event)

    def _settled(self, tap: _Tap) -> None:
        if self._asked_at is not None:
            tap.member.health.answered(self._asked_at)
        tap.proven = True
        tap.member.health.succeeded()
        self._tried.clear()
        self._owe_nothing()

    # -- the present pause ----------------------------------------------------------------------------------

    def _ask(self, stream: SttStream) -> None:
        """Ask for the settled text, and see that it comes."""
        self._owe_nothing()
        self._asked_at = self._line.now()
        self._timer = self._loop.call_later(self._line.settings.stt_settle_s, self._overdue)
        stream.speech_paused()

    def _owe_nothing(self) -> None:
        self._asked_at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _dubious(self) -> bool:
        """Perhaps there was nothing to recognise: a cough, a click."""
        return not self._understood and self._voice_frames * FRAME_MS < SHORT_MS

    def _overdue(self) -> None:
        self._timer = None
        tap = self._tap
        # With nobody else to ask, the conversation decides how long it waits.
        if tap is not None and self._somebody_else(tap) and not self._dubious:
            settle_s = self._line.settings.stt_settle_s
            self._lost(tap, ProviderTimeoutError(tap.member.name, f"no settled text within {settle_s:.1f} s"))

    # -- moving on ------------------------------------------------------------------------------------------

    def _somebody_else(self, tap: _Tap) -> bool:
        return any(member is not tap.member and member.name not in self._tried for member in self._course.members)

    def _lost(self, tap: _Tap, error: ProviderError) -> None:
        """The present stream is of no use any more: go on with the next provider."""
        self._tap = None
        self._owe_nothing()
        tap.member.health.failed(error)
        self._let_go(tap)
        if self._somebody_else(tap):
            self._tried.add(tap.member.name)
            self._moving = self._loop.create_task(self._move(tap, error), name="next recogniser")
        else:
            self._fail(error)

    async def _move(self, left: _Tap, error: ProviderError) -> None:
        try:
            await self._open_next(None, (left.member, error))
        except ProviderError as failure:
            self._fail(failure)

    def _fail(self, error: ProviderError) -> None:
        """Nobody is left."""
        self._tried.clear()
        if not self._closed:
            self._emit(SttFailed(error.said, fatal=True, provider=error.provider))

    async def _open_next(self, deadline: float | None, left: tuple[Member[Stt], ProviderError] | None = None) -> None:
        """Open the first of those not tried yet that opens, and tell it what the caller said so far.

        Raises the last one's ProviderError."""
        order = [member for member in self._course.order() if member.name not in self._tried]
        for place, member in enumerate(order):
            if left is not None:
                left[0].health.switched()
                self._emit(Switched("stt", left[0].name, member.name, left[1]))
            # Whoever opens next in this call need not begin with those that failed.
            self._course.present = member
            open_s = self._line.settings.stt_open_s
            if place == len(order) - 1 and member.health.usable:
                open_s = open_s * 2 if deadline is None else max(LEAST_S, deadline - self._line.now())
            try:
                await self._open(member, open_s)
            except ProviderError as error:
                member.health.failed(error)
                self._tried.add(member.name)
                if place == len(order) - 1:
                    self._tried.clear()
                    raise
                left = member, error
            else:
                return
        assert left is not None, "a chain has members"
        raise left[1]

    async def _open(self, member: Member[Stt], open_s: float) -> None:
        line = self._line
        tap = _Tap(member, 0, member.health.began())

        def emit(event: SttEvent) -> None:
            self._told(tap, event)

        self._tap = tap
        try:
            async with asyncio.timeout(open_s):
                stream = await member.provider.open(sample_rate=line.sample_rate, language=line.language, emit=emit)
        except TimeoutError:
            self._tap = None
            raise ProviderTimeoutError(member.name, f"did not open within {open_s:.1f} s") from None
        except BaseException as error:
            self._tap = None
            if not isinstance(error, ProviderError):
                member.health.gave_up()
            raise
        tap.stream = stream
        if self._tap is not tap:
            self._let_go(tap)
            raise ProviderError(member.name, "the stream died at once")
        self._catch_up(tap, stream)

    def _catch_up(self, tap: _Tap, stream: SttStream) -> None:
        """Tell a new stream what was said in the present turn."""
        tap.pauses_before = self._pauses
        if self._speaking:
            # First: of what is pushed before it, a stream may take no more than the lead for speech.
            stream.speech_started()
        for pcm in self._kept:
            stream.push(pcm)
        if self._speaking and self._paused:
            tap.pauses_before -= 1
            self._ask(stream)

    def _let_go(self, tap: _Tap) -> None:
        if tap.stream is not None:
            task = self._loop.create_task(_close(tap.stream), name="leaving a recogniser")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close(stream: SttStream) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await stream.aclose()
    except (TimeoutError, ProviderError):
        pass  # It is broken or hangs: there is nothing left to free that we could reach.
