"""A call's agent is warmed while the phone rings: the answer does not wait for it, and the call's end ends it."""

import asyncio

from agents_call import Call as Conversing
from agents_call import conversing
from agents_loopback import FrameVoiceDetector, LoopbackLeg

from bridge.agents.base import AgentDone, CallSession
from bridge.audio.recording import StereoRecorder
from bridge.call import Call, CallServices
from bridge.events import CallAnswered, CallEnded, CallEvent, Cause


class RingingLeg(LoopbackLeg):
    """It rings for `rings_s` until its answer is through."""

    def __init__(self, rings_s: float) -> None:
        super().__init__()
        self.rings_s = rings_s

    async def answer(self) -> None:
        await asyncio.sleep(self.rings_s)


class SlowAgent:
    """Warms for `warms_s`, then talks until the call ends."""

    name = "slow"

    def __init__(self, warms_s: float, error: Exception | None = None) -> None:
        self.warms_s = warms_s
        self.error = error
        self.did: list[str] = []

    async def warm(self) -> None:
        self.did.append("warming")
        try:
            await asyncio.sleep(self.warms_s)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.did.append("warming cancelled")
            raise
        self.did.append("warm")

    async def run(self, session: CallSession) -> AgentDone:
        self.did.append("talking")
        await asyncio.sleep(1.0)
        return AgentDone(Cause.AGENT_HUNG_UP)


def no_recording(*_: object) -> StereoRecorder:
    raise AssertionError("this call is not recorded")


def services(events: list[CallEvent]) -> CallServices:
    return CallServices(
        record=lambda call, event: events.append(event),
        open_voice=lambda rate, handler: FrameVoiceDetector(handler),
        open_recording=no_recording,
        clock=asyncio.get_running_loop().time,
        max_call_s=60,
    )


@conversing
async def test_agent_is_warm_before_the_answer() -> None:
    agent = SlowAgent(warms_s=0.2)
    await Call(RingingLeg(0.5), agent, services([]), record=False).run()
    assert agent.did == ["warming", "warm", "talking"]


@conversing
async def test_answer_does_not_wait_for_a_slow_warming_and_the_end_of_the_call_ends_it() -> None:
    agent, events = SlowAgent(warms_s=30), list[CallEvent]()
    await Call(RingingLeg(0.5), agent, services(events), record=False).run()
    assert agent.did == ["warming", "talking", "warming cancelled"]
    (answered,) = (event for event in events if isinstance(event, CallAnswered))
    assert answered.setup_ms == 500


@conversing
async def test_call_goes_on_when_warming_crashes() -> None:
    agent, events = SlowAgent(0.1, ValueError("a bug")), list[CallEvent]()
    await Call(RingingLeg(0.5), agent, services(events), record=False).run()
    (ended,) = (event for event in events if isinstance(event, CallEnded))
    assert ended.cause is Cause.AGENT_HUNG_UP


@conversing
async def test_conversation_warms_all_of_its_engines_at_once_and_gives_up_on_one_that_hangs() -> None:
    call = Conversing()
    call.stt.warm_s = 60
    begun = call.now
    await call.agent.warm()
    assert (call.stt.warmed, call.llm.warmed, call.tts.warmed) == (1, 1, 1)
    assert call.now - begun == 5
