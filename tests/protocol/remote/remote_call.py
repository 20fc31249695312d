"""One call that a remote bot gets, on a leg in memory that runs in real time."""

import asyncio
import uuid
from contextlib import suppress

from agents_loopback import FrameVoiceDetector, LoopbackLeg
from remote_bot import Bot

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.remote import RemoteAgent, RemoteCalls
from bridge.agents.remote_settings import RemoteSettings
from bridge.events import AgentEvent

SECRET = "bot-secret-0123456789"


class BotCall:
    def __init__(self, bot: Bot, *, leg: LoopbackLeg | None = None, **settings: object) -> None:
        loop = asyncio.get_running_loop()
        self.id = uuid.uuid4().hex
        self.leg = leg or LoopbackLeg()
        self.leg.transfer_s = 0.05
        self.events: list[AgentEvent] = []
        self.detectors: list[FrameVoiceDetector] = []
        values = {"url": bot.url, "protocol": bot.protocol, "password_env": "BOT_SECRET", **settings}
        self.agent = RemoteAgent("bot", RemoteSettings.model_validate(values), RemoteCalls(), {"BOT_SECRET": SECRET})

        def open_voice(rate: int, handler: object) -> FrameVoiceDetector:
            self.detectors.append(FrameVoiceDetector(handler))  # type: ignore[arg-type]  # an event handler
            return self.detectors[-1]

        session = CallSession(self.id, self.leg, self.events.append, open_voice, loop.time, loop.time())
        self.clock = asyncio.create_task(self.leg.run_clock())
        self.task: asyncio.Task[AgentDone] = asyncio.create_task(self.agent.run(session))

    async def done(self) -> AgentDone:
        async with asyncio.timeout(30):
            return await self.task

    async def end(self) -> None:
        """The caller hangs up, where the call is not over."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.clock.cancel()

    def heard(self, code: int) -> int:
        """Frames of the given sample value that went out to the caller."""
        return sum(int.from_bytes(frame[80:82], "little", signed=True) == code for _, frame in self.leg.sent)
