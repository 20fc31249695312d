"""A call's line to the model that talks: one session of the first provider that works, replaced when it breaks or its
time runs out."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from bridge.agents.realtime_settings import RealtimeLimits
from bridge.audio.frames import FRAME_MS
from bridge.providers.base import ProviderError, ProviderTimeoutError, Switched, ToolCall
from bridge.providers.chain import Course, Member
from bridge.providers.realtime import Realtime, RealtimeEvent, RealtimeSession, RealtimeSetup

LEAD_MS = 300
"""Audio before a voice's onset that belongs to it."""

KEEP_MS = 15_000
"""Audio that the model has not answered, kept for another session."""

CLOSE_S = 2.0
"""A session that does not close in this time is left to itself."""


class Line:
    """Feed it with `Leg.listen(line.push)`. What the session tells goes to `emit`, that of one which was replaced is
    not told any more. Its other methods do nothing while there is no session."""

    def __init__(
        self,
        members: Sequence[Member[Realtime]],
        setup: Callable[[Member[Realtime]], RealtimeSetup],
        limits: RealtimeLimits,
        *,
        emit: Callable[[RealtimeEvent], None],
        switched: Callable[[Switched], None],
    ) -> None:
        """`setup` is asked for each session anew, as history grows."""
        self._course: Course[Realtime] = Course(members)
        self._setup = setup
        self._limits = limits
        self._emit = emit
        self._switched = switched
        self._session: RealtimeSession | None = None
        self.number = 0
        """Of the present session, 0 while there is none yet."""
        self.breaks = 0
        """Sessions that broke."""
        self._kept: deque[bytes] = deque(maxlen=LEAD_MS // FRAME_MS)
        self._deaf = False
        self._closed = False

    @property
    def up(self) -> bool:
        return self._session is not None

    @property
    def name(self) -> str:
        """Of the provider."""
        return self._course.present.name

    # -- sessions ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open a session with the first provider that works, and give it the audio that is kept. Raises
        ProviderError, the last one's; those before were told to `switched`."""
        await self._open(self._course.order())

    async def replace(self, error: ProviderError) -> None:
        """The session broke: go on with another one, of the next provider if there is one. Raises ProviderError when
        there is none, or too many broke."""
        broken = self._course.present
        broken.health.failed(error)
        self.breaks += 1
        await self._drop()
        if self.breaks > self._limits.reopens:
            raise error
        order = self._course.order()
        order = [*(member for member in order if member is not broken), broken]
        if order[0] is not broken:
            broken.health.switched()
        self._switched(Switched("realtime", broken.name, order[0].name, error))
        await self._open(order)

    async def renew(self) -> None:
        """The session's time runs out: go on with another one of the same provider. Raises ProviderError."""
        old, self._session = self._session, None
        try:
            await self._open(self._course.order())
        finally:
            if old is not None:
                await _close(old)

    async def _open(self, order: Sequence[Member[Realtime]]) -> None:
        for place, member in enumerate(order):
            try:
                await self._open_with(member)
            except ProviderError as error:
                rest = order[place + 1 :]
                if not rest:
                    raise
                member.health.switched()
                self._switched(Switched("realtime", member.name, rest[0].name, error))
            else:
                return

    async def _open_with(self, member: Member[Realtime]) -> None:
        self.number += 1
        number, settled = self.number, False

        def tell(event: RealtimeEvent) -> None:
            if number == self.number and not self._closed:
                self._emit(event)

        since = member.health.began()
        open_s = self._limits.open_ms / 1000
        try:
            async with asyncio.timeout(open_s):
                session = await member.provider.open(self._setup(member), tell)
            settled = True
        except TimeoutError:
            error = ProviderTimeoutError(member.name, f"no session within {open_s:g} s")
            member.health.failed(error)
            settled = True
            raise error from None
        except ProviderError as error:
            member.health.failed(error)
            settled = True
            raise
        finally:
            if not settled:
                member.health.gave_up()
        if self._closed:
            await _close(session)
            return
        member.health.answered(since)
        member.health.succeeded()
        self._course.present = member
        self._session = session
        for pcm in self._kept:
            session.push(pcm)

    async def _drop(self) -> None:
        self.number += 1
        session, self._session = self._session, None
        if session is not None:
            await _close(session)

    async def aclose(self) -> None:
        self._closed = True
        await self._drop()

    # -- the caller's audio -----------------------------------------------------------------------------------

    def push(self, pcm: bytes, now: float) -> None:
        """One frame of the caller; a `FrameSink`."""
        if self._deaf:
            return
        self._kept.append(pcm)
        if self._session is not None:
            self._session.push(pcm)

    def hear(self, on: bool) -> None:
        """Let it hear the caller, or (music on hold, the agent's last words) not."""
        self._deaf = not on
        if self._deaf:
            self._kept.clear()

    def keep(self, on: bool) -> None:
        """Keep the caller's audio from now on, as nobody has answered it; or (it is answered or written down) not."""
        length = (KEEP_MS if on else LEAD_MS) // FRAME_MS
        if self._kept.maxlen != length:
            self._kept = deque(self._kept, maxlen=length)

    # -- what the session is told -----------------------------------------------------------------------------

    def say(self, text: str, mark: str) -> None:
        if self._session is not None:
            self._session.say(text, mark)

    def tell(self, text: str) -> None:
        if self._session is not None:
            self._session.tell(text)

    def respond(self) -> None:
        if self._session is not None:
            self._session.respond()

    def interrupt(self, item: str, heard_ms: float) -> None:
        if self._session is not None:
            self._session.interrupt(item, heard_ms)

    def tool_result(self, number: int, call: ToolCall, content: str, *, go_on: bool) -> None:
        """`number` is that of the session which asked: another one only hears of it."""
        if self._session is None:
            return
        if number == self.number:
            self._session.tool_result(call, content, go_on=go_on)
        elif go_on:
            self._session.tell(f"(The tool {call.name}, called before the line broke off, came to: {content})")


async def _close(session: RealtimeSession) -> None:
    with suppress(TimeoutError, ProviderError):
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()
