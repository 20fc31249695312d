"""A caller put through to somebody who is told first: what both phones hear on the wire, to the end of every way."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import say, tone
from sip_calls import AGENT_HZ, CALLER_HZ, HOLD_HZ, THIRD_HZ, Party, Stage, stage, until
from test_legs_transfers import ACCEPTS, desk, obeys

from bridge.agents.base import AgentDone, Introduction
from bridge.events import (
    Bridged,
    CallEnded,
    Cause,
    FarPartyChanged,
    LegEnded,
    Note,
    SecondEnded,
    TransferResult,
)
from bridge.legs.base import Leg, LegError, LegState, NotCapableError
from bridge.legs.sip import SipLegOptions

SUMMARY = Introduction("Ada is on the line.", accept_key="1", refuse_key="2", key_s=20)
PLAIN = Introduction("Ada is on the line.")


class ToneVoice:
    """Says every text as the agent's tone."""

    def __init__(self, length_ms: int = 900) -> None:
        self.length_ms = length_ms
        self.said: list[str] = []
        self.stopped = False

    async def __call__(self, leg: Leg, text: str) -> None:
        self.said.append(text)
        say(leg, tone(leg, AGENT_HZ, self.length_ms))
        try:
            await until(lambda: not leg.playout.speaking)
        finally:
            self.stopped = leg.playout.speaking
            leg.playout.drop()


async def introduced(on: Stage, voice: ToneVoice, introduction: Introduction = PLAIN) -> tuple[Party, Party]:
    """The agent hands its caller over; returns the caller and who has answered, who is being told."""
    on.call.transfers.lend_voice(voice)
    caller = Party(on.caller, CALLER_HZ)
    caller.hum()
    await on.agent_hears(CALLER_HZ)
    await on.call.transfers.hand_over(desk(on), introduction)
    third = await on.third()
    await caller.hears_our_tone(HOLD_HZ)
    await on.agent_hears()
    await third.pick_up()
    await third.hears(AGENT_HZ)
    # The caller hears none of it, nor is it heard.
    await caller.hears()
    return caller, third


async def back(on: Stage, caller: Party, status: int) -> None:
    """The caller is with the agent, which knows why."""
    await until(lambda: "Resumed" in on.agent.kinds())
    (result,) = [event for event in on.agent.told if isinstance(event, TransferResult)]
    assert result.status == status
    await caller.hears(AGENT_HZ)
    await on.agent_hears(CALLER_HZ)
    assert on.agent.kinds() == ["Held", "TransferResult", "Resumed"]
    assert not on.task.done()


async def test_told_first_and_then_the_two_talk_through_us(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=SipLegOptions(transfer="bridge")) as on:
        voice = ToneVoice()
        caller, third = await introduced(on, voice)
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert on.agent.told[-1] == TransferResult(200, "bridged")
        on.agent.finish.set_result(AgentDone(Cause.TRANSFERRED, "desk"))
        assert (await on.recorded(Bridged)).agent == "left"
        assert voice.said == [PLAIN.text]
        assert [note.detail for note in on.of(Note) if note.name == "announced"] == [PLAIN.text]
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await caller.event(LegEnded)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED


async def test_told_first_and_then_connected_by_the_carrier_without_us(tmp_path: Path) -> None:
    tasks: set[asyncio.Task[None]] = set()
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        obeys(on.caller, on.line.far, tasks)
        caller, third = await introduced(on, ToneVoice())
        await third.event(FarPartyChanged)
        await until(lambda: TransferResult in map(type, on.agent.told))
        on.agent.finish.set_result(AgentDone(Cause.TRANSFERRED, "desk"))
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert on.line.at_third.empty(), "the desk's phone does not ring again"


async def test_carrier_that_refuses_to_join_them_is_done_without(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller, third = await introduced(on, ToneVoice())
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert [event.status for event in on.agent.told if isinstance(event, TransferResult)] == [200]


async def test_who_hangs_up_while_being_told_gives_the_caller_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        voice = ToneVoice(20_000)
        caller, third = await introduced(on, voice)
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await back(on, caller, 480)
        assert on.of(SecondEnded)[0].by == "far"


async def test_key_refuses_and_another_takes_the_call(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller, third = await introduced(on, ToneVoice(20_000), SUMMARY)
        third.sip.send_dtmf("2")
        await third.event(LegEnded)
        await back(on, caller, 603)
    async with stage(tmp_path) as on:
        voice = ToneVoice(20_000)
        caller, third = await introduced(on, voice, SUMMARY)
        third.sip.send_dtmf("1")
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert voice.stopped


async def test_mailbox_that_presses_no_key_gets_no_caller(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        introduction = Introduction("Ada is on the line.", accept_key="1", key_s=0.3)
        caller, third = await introduced(on, ToneVoice(400), introduction)
        await third.event(LegEnded)
        await back(on, caller, 408)


@pytest.mark.parametrize(("cause", "status"), [(Cause.BUSY, 486), (Cause.API_HUNG_UP, 603)])
async def test_who_does_not_answer_gives_the_caller_back(tmp_path: Path, cause: Cause, status: int) -> None:
    async with stage(tmp_path) as on:
        on.call.transfers.lend_voice(ToneVoice())
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await on.call.transfers.hand_over(desk(on), PLAIN)
        third = await on.third()
        await caller.hears_our_tone(HOLD_HZ)
        await third.sip.hangup(cause)
        await back(on, caller, status)


async def test_caller_who_hangs_up_meanwhile_frees_who_is_being_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        voice = ToneVoice(20_000)
        caller, third = await introduced(on, voice)
        await caller.sip.hangup(Cause.CALLER_HUNG_UP)
        await third.event(LegEnded)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.CALLER_HUNG_UP
        assert voice.stopped


async def test_agent_that_gives_up_waiting_has_its_caller_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller, third = await introduced(on, ToneVoice(20_000))
        on.agent.line.stop_transfer()
        await third.event(LegEnded)
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
        assert on.agent.kinds() == ["Held", "Resumed"]


async def test_somebody_consulted_already_can_be_told_and_given_the_caller(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        voice = ToneVoice()
        on.call.transfers.lend_voice(voice)
        caller = Party(on.caller, CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(desk(on)))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.begin_transfer(desk(on), "attended", announce="Ada is on the line.")
        await third.hears(AGENT_HZ)
        await caller.hears(THIRD_HZ)
        assert on.agent.cancelled


async def test_nothing_is_announced_without_a_voice(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(LegError, match="no voice"):
            on.call.transfers.begin_transfer(desk(on), "attended", announce="Ada is on the line.")
        assert on.call.transfers.second is None


# -- targets and variables that a SIP call does not have ----------------------------------------------------


@pytest.mark.parametrize("target", ["queue:support", "dialplan:s@sales", "PJSIP/1001"])
async def test_places_in_an_asterisk_are_refused_in_words(tmp_path: Path, target: str) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(NotCapableError, match="a place in an Asterisk"):
            await on.near.transfer(target)
        on.call.transfers.begin_transfer(target, "blind")
        result = await on.recorded(TransferResult)
        assert result.status == 501 and target in result.reason
        assert on.near.state is LegState.UP
        await Party(on.caller, CALLER_HZ).hears(AGENT_HZ)


async def test_sip_call_has_no_variables(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(NotCapableError, match="a call by sip has no variables"):
            await on.call.transfers.set_variables({"A": "b"})
