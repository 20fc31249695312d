"""A second leg: consulted, joined with the caller, parted and ended, by whoever; over real sockets."""

import asyncio
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import digits
from sip_calls import (
    AGENT_HZ,
    CALLER_HZ,
    HOLD_HZ,
    RINGBACK_HZ,
    THIRD_HZ,
    Party,
    stage,
)
from sip_line import uri

from bridge.audio.tones import tone_level
from bridge.events import (
    Bridged,
    CallEnded,
    Cause,
    Held,
    LegEnded,
    Note,
    Resumed,
    SecondAnswered,
    SecondDialled,
    SecondEnded,
    Unbridged,
)
from bridge.legs.base import LegError, LegStateError
from bridge.second_leg import SecondLegError
from bridge.sip.offer_answer import L16_16K, PCMA, PCMU


async def test_a_caller_waits_is_put_through_and_comes_back(tmp_path: Path) -> None:
    async with stage(tmp_path, record=True) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await caller.hears_our_tone(HOLD_HZ)
        await caller.hears()
        await on.agent_hears()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("muted")
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        await on.agent_hears()
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
        assert on.agent.kinds() == ["Held", "Resumed"]
        assert [
            type(e) for e in on.events if isinstance(e, SecondDialled | SecondAnswered | SecondEnded | Bridged)
        ] == [
            SecondDialled,
            SecondAnswered,
            Bridged,
            SecondEnded,
        ]
        (over,) = on.of(SecondEnded)
        assert (over.cause, over.by, over.q850) == (Cause.CALLER_HUNG_UP, "far", 16)
        assert len(on.of(Unbridged)) == 1
        call_id = on.call.id
    with wave.open(str(tmp_path / f"{call_id}.wav")) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = both[:, 0].tobytes(), both[:, 1].tobytes()
    assert sound(left, CALLER_HZ) and not sound(left, THIRD_HZ)
    assert sound(right, AGENT_HZ) and sound(right, THIRD_HZ) and not sound(right, CALLER_HZ)


def sound(pcm: bytes, hz: float) -> bool:
    """Whether a tone is anywhere in it."""
    return any(tone_level(pcm[at : at + 1600], hz, 8000) > 3000 for at in range(0, len(pcm), 800))


async def test_a_caller_may_talk_on_while_the_second_leg_rings(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk"), caller="talks"))
        third = await on.third()
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
        await third.pick_up()
        await consulting
        await third.hears_our_tone(HOLD_HZ)
        on.call.transfers.bridge("mixed")
        await caller.hears(AGENT_HZ, THIRD_HZ)
        await third.hears(AGENT_HZ, CALLER_HZ)
        await on.agent_hears(CALLER_HZ, THIRD_HZ)
        on.call.transfers.unbridge()
        await caller.hears(AGENT_HZ)
        await third.hears()
        await on.call.transfers.release()
        assert on.agent.kinds() == []
        assert on.of(SecondEnded)[0].by == "us"


@pytest.mark.parametrize(
    ("cause", "status", "expected"),
    [
        (Cause.BUSY, 486, Cause.BUSY),
        (Cause.API_HUNG_UP, 603, Cause.REJECTED),
        (Cause.NO_ANSWER, 480, Cause.NO_ANSWER),
    ],
)
async def test_a_refused_second_leg_gives_the_caller_back_with_the_reason(
    tmp_path: Path, cause: Cause, status: int, expected: Cause
) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.sip.hangup(cause)
        with pytest.raises(SecondLegError) as raised:
            await consulting
        assert raised.value.status == status
        assert on.of(SecondEnded)[0].cause is expected
        await caller.hears(AGENT_HZ)
        assert on.agent.kinds() == ["Held", "Resumed"]


async def test_nobody_answers_the_second_leg(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(SecondLegError) as raised:
            await on.call.transfers.consult(uri(on.line.third, "desk"), ring_s=0.3)
        assert raised.value.status == 408
        third = await on.third()
        await third.event(LegEnded)


async def test_a_target_that_can_not_be_dialled_is_told_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        with pytest.raises(SecondLegError):
            await on.call.transfers.consult("tel:+4930123456")
        await caller.hears(AGENT_HZ)


async def test_early_media_of_the_second_leg_reaches_the_waiting_caller(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        on.call.transfers.begin_transfer(uri(on.line.third, "desk"), "bridge")
        third = await on.third()
        await caller.hears_our_tone(RINGBACK_HZ)
        await third.sip.early_media()
        third.hum()
        await caller.hears(THIRD_HZ)


async def test_a_caller_who_hangs_up_takes_the_ringing_second_leg_along(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await on.caller.hangup(Cause.AGENT_HUNG_UP)
        await on.ended()
        ended = await third.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.cause is Cause.CANCELLED
        with pytest.raises(LegError):
            await consulting
        assert on.of(CallEnded)[0].cause is Cause.CALLER_HUNG_UP


async def test_an_agent_that_left_is_not_missed_until_somebody_hangs_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("left")
        left = await on.recorded(Note)
        assert left.name == "agent-left" and on.agent.cancelled
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        with pytest.raises(LegStateError):
            on.call.transfers.unbridge()
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await caller.event(LegEnded)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED


async def test_a_caller_hangs_up_on_the_second_party(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("left")
        await on.recorded(Note)
        await on.caller.hangup(Cause.AGENT_HUNG_UP)
        await third.event(LegEnded)
        await on.ended()
        (end,) = on.of(CallEnded)
        assert (end.cause, end.by) == (Cause.TRANSFERRED, "far")


async def test_digits_pass_between_joined_parties_and_are_kept_from_a_muted_agent(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("muted")
        on.caller.send_dtmf("12", tone_ms=60, gap_ms=60)
        third.sip.send_dtmf("*#", tone_ms=60, gap_ms=60)
        await third.until(lambda: digits(third) == "12")
        await caller.until(lambda: digits(caller) == "*#")
        assert "DtmfReceived" not in on.agent.kinds()


async def test_a_party_on_hold_hears_the_music_of_who_holds_it_or_the_hold_tone(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("muted")
        await on.caller.hold(True)
        await third.hears(CALLER_HZ)
        await on.caller.hold(False)
        # No verb of ours asks for `inactive`, as some phones do.
        on.caller.agent.reinvite(on.caller.key, on.caller._media.offer("inactive"), on.caller.now())
        on.caller.flush()
        await third.hears()
        await third.hears_our_tone(HOLD_HZ)
        assert on.agent.kinds() == ["Held"]
        await on.call.transfers.release()
        assert on.agent.kinds() == ["Held"], "the caller itself still holds"


@pytest.mark.parametrize("third_codec", [PCMA, L16_16K])
async def test_parties_with_different_codecs_understand_each_other(tmp_path: Path, third_codec) -> None:
    async with stage(tmp_path, codecs=(PCMU, PCMA, L16_16K), third_codecs=(third_codec,)) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        await third.pick_up()
        await consulting
        on.call.transfers.bridge("mixed")
        assert third.leg.sample_rate == third_codec.sample_rate and caller.leg.sample_rate == 8000
        await third.hears(CALLER_HZ, AGENT_HZ)
        await caller.hears(THIRD_HZ, AGENT_HZ)


async def test_only_one_second_leg_at_a_time_and_none_to_join_without_one(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(LegStateError):
            on.call.transfers.bridge()
        consulting = asyncio.create_task(on.call.transfers.consult(uri(on.line.third, "desk")))
        third = await on.third()
        with pytest.raises(LegStateError):
            await on.call.transfers.consult(uri(on.line.third, "other"))
        with pytest.raises(LegError):
            on.call.transfers.bridge()
        await third.pick_up()
        await consulting


async def test_a_caller_on_hold_waits_with_the_tone_and_the_agent_waits_as_well(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await on.agent_hears(CALLER_HZ)
        await on.call.transfers.hold(True)
        await caller.event(Held)
        await caller.hears()
        await caller.hears_our_tone(HOLD_HZ)
        with pytest.raises(LegStateError):
            on.call.transfers.begin_consult(uri(on.line.third, "desk"))
        await on.call.transfers.hold(False)
        await caller.event(Resumed)
        await caller.hears(AGENT_HZ)
        assert on.agent.kinds() == ["Held", "Resumed"]


async def test_a_hold_that_is_taken_back_before_it_is_answered_is_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        holding = asyncio.create_task(on.call.transfers.hold(True))
        await asyncio.sleep(0)
        with pytest.raises(LegError):
            await on.call.transfers.hold(False)
        await holding
        await caller.event(Held)
        await on.call.transfers.hold(False)
        await caller.event(Resumed)
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
