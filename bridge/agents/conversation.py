"""The agent made of speech recognition, language model and voice, for any number of calls."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.conversation_call import Conversation
from bridge.agents.settings import ConversationSettings
from bridge.agents.smart_turn import SmartTurn
from bridge.agents.tools_agent import AgentTools
from bridge.providers.base import Llm, Stt, Tts

log = structlog.get_logger(__name__)

WARM_S = 5.0
"""Connections that are not open by then are left to the first request."""


class ConversationAgent:
    """An `Agent` with its engines, for any number of calls at once. The engines are started and closed by others."""

    def __init__(
        self,
        name: str,
        settings: ConversationSettings,
        *,
        stt: Stt,
        llm: Llm,
        tts: Tts,
        wall_clock: Callable[[], datetime] | None = None,
        tools: AgentTools | None = None,
    ) -> None:
        """`wall_clock` gives the caller's date and time; by default the machine's, in `settings.time_zone`. `tools`,
        by default those of `settings`, are started and closed by others, too."""
        self.name = name
        self.settings = settings
        self.stt = stt
        self.llm = llm
        self.tts = tts
        self.tools = tools or AgentTools(settings)
        model = settings.turns.semantic_model
        self.semantic = SmartTurn(model) if model is not None else None
        zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
        self.wall_clock = wall_clock or (lambda: datetime.now(zone).astimezone(zone))

    async def warm(self) -> None:
        """Have the engines open their connections (see `Agent`)."""
        engines = (self.stt, self.llm, self.tts)
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                warming = [engine.warm() for engine in engines]
                if self.semantic is not None:
                    warming.append(self.semantic.warm())
                results = await asyncio.gather(*warming, return_exceptions=True)
                for engine, result in zip(engines, results, strict=False):
                    if isinstance(result, Exception):
                        log.warning("warming failed", provider=engine.name, error=repr(result))

    async def run(self, session: CallSession) -> AgentDone:
        """Converse until the call is to end (see `Agent.run`)."""
        conversation = Conversation(
            self.settings,
            session,
            stt=self.stt,
            llm=self.llm,
            tts=self.tts,
            tools=self.tools,
            semantic=self.semantic,
            began_at=self.wall_clock(),
        )
        return await conversation.run()
