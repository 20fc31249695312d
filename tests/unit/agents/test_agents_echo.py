"""The echo agent: same tick, no growing delay, nothing left behind."""

import asyncio
from contextlib import suppress

from agents_fake_time import in_fake_time
from agents_loopback import FrameVoiceDetector, LoopbackLeg, WordCode, noise

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.echo import EchoAgent
from bridge.agents.settings import EchoSettings
from bridge.events import AgentEvent, Cause, Note


class EchoCall:
    def __init__(self, **settings: int) -> None:
        loop = asyncio.get_running_loop()
        self.leg = LoopbackLeg()
        self.events: list[AgentEvent] = []
        self.detectors: list[FrameVoiceDetector] = []

        def open_voice(rate: int, handler: object) -> FrameVoiceDetector:
            self.detectors.append(FrameVoiceDetector(handler))  # type: ignore[arg-type]  # an event handler
            return self.detectors[-1]

        session = CallSession("call", self.leg, self.events.append, open_voice, loop.time, loop.time())
        self.task: asyncio.Task[AgentDone] = asyncio.create_task(
            EchoAgent("echo", EchoSettings(**settings)).run(session)
        )

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0.02)
            self.leg.tick(asyncio.get_running_loop().time())

    async def hang_up(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


def test_what_is_heard_goes_out_in_the_same_tick() -> None:
    async def main() -> None:
        call = EchoCall()
        await call.ticks(1)
        code = WordCode()
        call.leg.hear(b"".join(code.pcm(word, 20) for word in ("a", "b", "c", "d")))
        heard = list(call.leg.incoming)
        await call.ticks(4)
        assert [frame for _, frame in call.leg.sent[-4:]] == heard
        await call.hang_up()

    in_fake_time(main)


def test_frames_that_come_too_fast_are_dropped_not_queued() -> None:
    async def main() -> None:
        call = EchoCall(max_delay_ms=40)
        await call.ticks(1)
        for _ in range(10):
            for sink in call.leg.sinks:
                sink(noise(20), 0.0)
        assert call.leg.playout.queued_ms == 40
        await call.hang_up()
        (note,) = (event for event in call.events if isinstance(event, Note))
        assert note.detail == "voice bursts: 1, frames dropped: 8"

    in_fake_time(main)


def test_voice_is_detected_counted_and_all_is_closed_at_the_end() -> None:
    async def main() -> None:
        call = EchoCall(max_call_s=3)
        await call.ticks(1)
        for _ in range(2):
            call.leg.hear(noise(300))
            await call.ticks(50)
        await call.ticks(60)
        done = await call.task
        assert done.cause is Cause.MAX_LENGTH
        (note,) = (event for event in call.events if isinstance(event, Note))
        assert note.detail == "voice bursts: 2, frames dropped: 0"
        assert call.leg.sinks == [] and call.detectors[0].closed and not call.leg.playout.speaking

    in_fake_time(main)
