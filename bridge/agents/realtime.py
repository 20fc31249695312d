"""The agent whose model hears and speaks by itself, for any number of calls."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.realtime_call import RealtimeCall
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.tools_agent import AgentTools
from bridge.providers.base import Tts
from bridge.providers.chain import Member
from bridge.providers.realtime import Realtime

WARM_S = 5.0
"""A connection that is not open by then is left to the call."""


class RealtimeAgent:
    """An `Agent` with its providers, for any number of calls at once. They are started and closed by others."""

    def __init__(
        self,
        name: str,
        settings: RealtimeSettings,
        *,
        members: Sequence[Member[Realtime]],
        tts: Tts | None = None,
        tools: AgentTools | None = None,
        wall_clock: Callable[[], datetime] | None = None,
    ) -> None:
        """`tts` speaks what is fixed (greeting, apology, goodbyes) in place of the model; without it the model does,
        and an apology for its own failure is a tone. `wall_clock` gives the caller's date and time."""
        self.name = name
        self.settings = settings
        self.members = tuple(members)
        self.tts = tts
        self.tools = tools or AgentTools(settings)
        zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
        self.wall_clock = wall_clock or (lambda: datetime.now(zone).astimezone(zone))

    async def warm(self) -> None:
        """Have the first provider open a connection (see `Agent`)."""
        first = next((member for member in self.members if member.health.usable), self.members[0])
        engines = (first.provider, self.tts)
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                await asyncio.gather(*(engine.warm() for engine in engines if engine is not None))

    async def run(self, session: CallSession) -> AgentDone:
        """Talk until the call is to end (see `Agent.run`)."""
        call = RealtimeCall(
            self.settings.spoken_in(self.settings.first_language),
            session,
            members=self.members,
            tts=self.tts,
            tools=self.tools,
            hears_in=self.settings.language,
            began_at=self.wall_clock(),
        )
        return await call.run()
