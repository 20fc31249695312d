"""Callers of a real Asterisk joined with who answers there: announced, with music for one and a summary for the
other, or without a word."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from asterisk_line import WAIT_S, AsteriskLine, asterisk_line
from asterisk_shop import MUSIC_HZ, AsteriskShop
from contract import Listener, say, tone
from sip_calls import ToneAgent

from bridge.agents.base import AgentDone, Introduction
from bridge.call import Call, CallServices
from bridge.events import CallEnded, CallEvent, Cause, LegEnded, SecondEnded, TransferResult
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.base import Leg
from bridge.legs.sip import SipLeg

AGENT_HZ, CALLER_HZ, DESK_HZ = 700.0, 880.0, 440.0
SUMMARY = Introduction("Ada is on the line.", accept_key="1", refuse_key="2")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"))
    yield started
    started.stop()


async def long_tone(leg: Leg, text: str) -> None:
    """The agent's voice: its tone, for as long as anybody listens."""
    say(leg, tone(leg, AGENT_HZ, 60_000))
    try:
        await asyncio.Event().wait()
    finally:
        leg.playout.drop()


@dataclass
class Office:
    """`caller` is with an agent by way of Asterisk, and `desk` can be called there."""

    line: AsteriskLine
    call: Call
    near: AsteriskLeg
    agent: ToneAgent
    caller: Listener
    task: "asyncio.Task[None]"
    events: list[CallEvent] = field(default_factory=list)

    @property
    def desk(self) -> str:
        host, port = self.line.sip.third.address
        return f"PJSIP/carrier/sip:desk@{host}:{port}"

    async def told(self) -> tuple[SipLeg, Listener]:
        """The agent hands its caller over; somebody picks up, and is being told."""
        self.call.transfers.lend_voice(long_tone)
        await self.caller.hears_tone(AGENT_HZ)
        await self.call.transfers.hand_over(self.desk, SUMMARY)
        phone = await asyncio.wait_for(self.line.sip.at_third.get(), WAIT_S)
        await self.caller.hears_tone(round(MUSIC_HZ / 5) * 5.0)
        await phone.answer()
        desk = Listener(phone)
        await desk.hears_tone(AGENT_HZ)
        await self.caller.hears_tone(round(MUSIC_HZ / 5) * 5.0)
        return phone, desk


@asynccontextmanager
async def office(shop: AsteriskShop) -> AsyncIterator[Office]:
    async with asterisk_line(shop) as line:

        async def dial(target: str, caller: Leg, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float) -> Leg:
            return await line.endpoint.place(asterisk_call(line.settings, target), timeout_s=timeout_s)

        near, far = await line.call()
        agent, events = ToneAgent(), list[CallEvent]()
        services = CallServices(
            record=lambda call_id, event: events.append(event),
            open_voice=lambda rate, handler: None,
            open_recording=lambda call_id, rate, failed, at: None,
            clock=line.sip.clock.time,
            max_call_s=60,
            dial=dial,
        )
        call = Call(near, agent, services, record=False)
        task = asyncio.create_task(call.run(), name="call")
        await asyncio.wait_for(agent.started.wait(), WAIT_S)
        caller = Listener(far)
        say(far, tone(far, CALLER_HZ, 60_000))
        try:
            yield Office(line, call, near, agent, caller, task, events)
        finally:
            call.end(Cause.API_HUNG_UP)
            await asyncio.wait_for(task, WAIT_S)


async def test_who_takes_the_call_is_joined_with_the_caller_without_us(shop: AsteriskShop) -> None:
    async with office(shop) as at:
        phone, desk = await at.told()
        phone.send_dtmf("1")
        await asyncio.wait_for(asyncio.shield(at.task), WAIT_S)
        say(phone, tone(phone, DESK_HZ, 60_000))
        await desk.hears_tone(CALLER_HZ)
        await at.caller.hears_tone(DESK_HZ)
        assert at.line.endpoint.status().joined == 1 and not at.line.endpoint.legs
        (ended,) = [event for event in at.events if isinstance(event, CallEnded)]
        assert ended.cause is Cause.TRANSFERRED
        # The agent knew that it worked before its line was gone.
        assert [type(event) for event in at.agent.told][-2:] == [TransferResult, LegEnded]
        await phone.hangup(Cause.AGENT_HUNG_UP)
        await at.caller.event(LegEnded)


async def test_who_is_joined_without_a_word_hears_no_music_over_the_other(shop: AsteriskShop) -> None:
    async with office(shop) as at:
        transfer = asyncio.create_task(at.call.transfers.transfer(at.desk, "attended"))
        phone = await asyncio.wait_for(at.line.sip.at_third.get(), WAIT_S)
        await phone.answer()
        desk = Listener(phone)
        say(phone, tone(phone, DESK_HZ, 60_000))
        assert (await asyncio.wait_for(transfer, WAIT_S)).status == 200
        await desk.hears_tone(CALLER_HZ)
        # Music that was asked for just before would begin a little later.
        joined = len(at.caller.frames)
        await at.caller.until(lambda: len(at.caller.frames) > joined + 50)
        await at.caller.hears_tone(DESK_HZ)
        await phone.hangup(Cause.AGENT_HUNG_UP)
        await at.caller.event(LegEnded)


async def test_who_refuses_leaves_the_caller_with_the_agent_and_without_music(shop: AsteriskShop) -> None:
    async with office(shop) as at:
        phone, desk = await at.told()
        phone.send_dtmf("2")
        await desk.event(LegEnded)
        await at.caller.hears_tone(AGENT_HZ)
        (result,) = [event for event in at.agent.told if isinstance(event, TransferResult)]
        assert result.status == 603
        assert [event.by for event in at.events if isinstance(event, SecondEnded)] == ["us"]
        at.agent.finish.set_result(AgentDone(Cause.AGENT_HUNG_UP))
        await at.caller.event(LegEnded)


async def test_caller_who_hangs_up_meanwhile_frees_the_desk(shop: AsteriskShop) -> None:
    async with office(shop) as at:
        _, desk = await at.told()
        caller = at.caller.leg
        await caller.hangup(Cause.CALLER_HUNG_UP)
        await desk.event(LegEnded)
        await asyncio.wait_for(asyncio.shield(at.task), WAIT_S)
