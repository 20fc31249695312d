"""Callers handed over: by REFER, by REFER with Replaces, through us; asked for by us or by the far side."""

import asyncio
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import Listener
from sip_calls import AGENT_HZ, CALLER_HZ, THIRD_HZ, Party, Stage, stage, until
from sip_line import taken, uri
from test_legs_second import sound

from bridge.agents.base import AgentDone
from bridge.events import (
    Answered,
    Bridged,
    CallEnded,
    Cause,
    FarPartyChanged,
    LegEnded,
    LegEvent,
    Note,
    SecondEnded,
    TransferAsked,
    TransferResult,
)
from bridge.legs.base import LegStateError, TransferFailedError, TransferRefusedError
from bridge.legs.outbound import LegProfile
from bridge.legs.sip import SipLeg, SipLegOptions
from bridge.legs.sip_endpoint import SipEndpoint
from bridge.sip.offer_answer import L16_16K, PCMU
from bridge.transfers import TransferLimits

ACCEPTS = SipLegOptions(accept_refer=True)


def obeys(leg: SipLeg, endpoint: SipEndpoint, tasks: set["asyncio.Task[None]"]) -> None:
    """The far side does as it is asked: dials whom a REFER names."""

    async def follow(asked: TransferAsked) -> None:
        dialled = await endpoint.dial(asked.target, from_user="caller", timeout_s=20, headers=asked.headers)
        leg.follow_transfer(dialled)

    def on_event(event: LegEvent) -> None:
        if isinstance(event, TransferAsked):
            task = asyncio.create_task(follow(event))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    leg.subscribe(on_event)


@pytest.fixture
def tasks() -> set["asyncio.Task[None]"]:
    return set()


def desk(on: Stage) -> str:
    return uri(on.line.third, "desk")


async def test_a_blind_transfer_connects_the_caller_and_ends_our_part(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        obeys(on.caller, on.line.far, tasks)
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on), "blind"))
        third = await on.third()
        await third.pick_up()
        assert (await moving).status == 200
        await on.ended()
        (end,) = on.of(CallEnded)
        assert (end.cause, end.detail, end.by) == (Cause.TRANSFERRED, desk(on), "us")
        # The caller's phone goes on with the desk: the same leg, another party.
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert [type(event) for event in caller.events][-1] is FarPartyChanged
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await caller.event(LegEnded)


async def test_a_transfer_to_a_busy_desk_returns_the_caller_to_the_agent(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        obeys(on.caller, on.line.far, tasks)
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on), "auto"))
        third = await on.third()
        await third.sip.hangup(Cause.BUSY)
        assert (await moving).status == 486
        await caller.hears(AGENT_HZ)
        await on.agent_hears(CALLER_HZ)
        assert on.of(TransferResult) == [TransferResult(486, "Busy Here")]
        # And once more, with better luck.
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on), "auto"))
        await (await on.third()).pick_up()
        assert (await moving).status == 200


@pytest.mark.parametrize(
    "near_options", [SipLegOptions(), SipLegOptions(transfer="bridge")], ids=["refused", "configured"]
)
async def test_where_the_carrier_does_no_transfers_the_caller_is_put_through_by_us(
    tmp_path: Path, near_options: SipLegOptions
) -> None:
    async with stage(tmp_path, near_options=near_options) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on)))
        third = await on.third()
        await third.pick_up()
        assert await moving == TransferResult(200, "bridged")
        assert on.of(TransferResult) == [TransferResult(200, "bridged")]
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert (await on.recorded(Note)).name == "agent-left"


@pytest.mark.parametrize("mode", ["blind", "auto"])
async def test_a_refused_transfer_that_may_not_go_through_us_fails(tmp_path: Path, mode) -> None:
    options = SipLegOptions(transfer="refer") if mode == "auto" else SipLegOptions()
    async with stage(tmp_path, near_options=options) as on:
        assert (await on.call.transfers.transfer(desk(on), mode)).status == 603
        assert on.line.at_third.empty()
        await Party(on.caller, CALLER_HZ).hears(AGENT_HZ)


async def test_a_leg_tells_a_carrier_that_does_no_transfers_from_one_that_failed(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path) as on:
        with pytest.raises(TransferRefusedError) as refused:
            await on.near.transfer(desk(on))
        assert refused.value.status == 603
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        with pytest.raises(TransferFailedError) as failed:
            await on.near.transfer("tel:+4930123456")
        assert failed.value.status == 416 and not isinstance(failed.value, TransferRefusedError)


async def test_an_attended_transfer_connects_the_two_without_us(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        obeys(on.caller, on.line.far, tasks)
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        consulting = asyncio.create_task(on.call.transfers.consult(desk(on)))
        third = await on.third()
        await third.pick_up()
        await consulting
        assert (await on.call.transfers.transfer("", "attended")).status == 200
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        assert on.line.at_third.empty(), "the desk's phone does not ring again"
        changed = await third.event(FarPartyChanged)
        assert isinstance(changed, FarPartyChanged) and changed.why == "Replaces"


async def test_an_attended_transfer_that_is_refused_goes_through_us(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on), "attended"))
        third = await on.third()
        await third.pick_up()
        assert await moving == TransferResult(200, "bridged")
        await caller.hears(THIRD_HZ)


async def test_an_attended_transfer_that_fails_leaves_both_with_us(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.subscribed = on.caller.subscribe(
            lambda event: on.caller.refuse_transfer(500) if isinstance(event, TransferAsked) else None
        )
        moving = asyncio.create_task(on.call.transfers.transfer(desk(on), "attended"))
        third = await on.third()
        await third.pick_up()
        assert (await moving).status == 500
        await caller.hears(AGENT_HZ)
        on.call.transfers.bridge("muted")
        await caller.hears(THIRD_HZ)


async def agent_hands_over(on: Stage) -> None:
    await on.agent.line.transfer(desk(on))


async def test_the_agent_puts_its_caller_through_and_leaves(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await agent_hands_over(on)
        third = await on.third()
        # It may say something about it meanwhile.
        await caller.hears(AGENT_HZ)
        await third.pick_up()
        await on.recorded(TransferResult)
        assert on.agent.told == [TransferResult(200, "bridged")]
        on.agent.finish.set_result(AgentDone(Cause.TRANSFERRED, "desk"))
        assert (await on.recorded(Note)).name == "agent-left"
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED


async def test_the_agent_is_told_why_its_caller_came_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await agent_hands_over(on)
        third = await on.third()
        await third.sip.hangup(Cause.BUSY)
        result = await on.recorded(TransferResult)
        assert result.status == 486 and on.agent.told == [result]
        await Party(on.caller, CALLER_HZ).hears(AGENT_HZ)


async def test_an_agent_that_waits_no_longer_stops_the_ringing(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await agent_hands_over(on)
        third = await on.third()
        on.agent.line.stop_transfer()
        await third.event(LegEnded)
        over = await on.recorded(SecondEnded)
        assert over.cause is Cause.CANCELLED
        # The way is free for another attempt.
        await agent_hands_over(on)
        await (await on.third()).pick_up()
        await on.recorded(Bridged)


async def test_only_one_transfer_at_a_time(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.call.transfers.begin_transfer(desk(on))
        with pytest.raises(LegStateError):
            on.call.transfers.begin_transfer(desk(on))
        with pytest.raises(LegStateError):
            await agent_hands_over(on)
        await on.third()


async def test_a_carrier_that_never_tells_the_outcome_is_given_up(tmp_path: Path) -> None:
    async with stage(tmp_path, far_options=ACCEPTS, limits=TransferLimits(ring_s=20, outcome_s=0.3)) as on:
        held_up: list[TransferAsked] = []
        on.caller.subscribe(lambda event: held_up.append(event) if isinstance(event, TransferAsked) else None)

        async def rings_for_ever(asked: Callable[[], bool]) -> None:
            listener = Listener(on.caller)
            await listener.event(TransferAsked)
            on.caller.follow_transfer(await on.line.far.dial(desk(on), from_user="caller"))

        ringing = asyncio.create_task(rings_for_ever(lambda: bool(held_up)))
        assert (await on.call.transfers.transfer(desk(on), "blind")).status == 408
        await ringing
        await Party(on.caller, CALLER_HZ).hears(AGENT_HZ)
        # The next attempt is asked for all the same.
        again = await on.call.transfers.transfer(desk(on), "blind")
        assert "the far side refused the transfer" in again.reason


async def test_the_far_side_transfers_our_agent_to_somebody_else(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=ACCEPTS, record=True) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await on.agent_hears(CALLER_HZ)
        await on.caller.transfer(desk(on))
        third = await on.third()
        await third.sip.ringing()
        await third.pick_up()
        result = await caller.event(TransferResult)
        assert result == TransferResult(200, "OK")
        await third.hears(AGENT_HZ)
        await on.agent_hears(THIRD_HZ)
        changed = await on.recorded(FarPartyChanged)
        assert changed.from_ == "desk"
        assert on.near.info.id == third.sip.info.id
        await caller.event(LegEnded)
        assert "Held" not in on.agent.kinds() and on.of(CallEnded) == []
        call_id = on.call.id
    with wave.open(str(tmp_path / f"{call_id}.wav")) as file:
        left = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0].tobytes()
    assert sound(left, CALLER_HZ) and sound(left, THIRD_HZ)


async def test_the_far_sides_transfer_to_nobody_leaves_it_with_our_agent(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=ACCEPTS) as on:
        caller = Party(on.caller, CALLER_HZ)
        await on.caller.transfer(desk(on))
        third = await on.third()
        await third.sip.hangup(Cause.BUSY)
        result = await caller.event(TransferResult)
        assert isinstance(result, TransferResult) and result.status == 486
        await caller.hears(AGENT_HZ)


async def test_another_phone_takes_the_callers_place(tmp_path: Path) -> None:
    """Somebody else's attended transfer: the INVITE that comes names the caller's dialog."""
    async with stage(tmp_path, record=True) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        await on.agent_hears(CALLER_HZ)
        replaces = on.caller.agent.replaces_header(on.caller.key)
        # The third party names the dialog as its peer, the caller, sees it.
        third = Party(
            await on.line.third.dial(
                uri(on.line.near, "agent"),
                from_user="colleague",
                headers=[("Replaces", replaces), ("Require", "replaces")],
            ),
            THIRD_HZ,
        )
        await third.until(lambda: third.sip.state.name == "UP")
        third.hum()
        await caller.event(LegEnded)
        await third.hears(AGENT_HZ)
        await on.agent_hears(THIRD_HZ)
        assert [event.from_ for event in on.of(FarPartyChanged)] == ["colleague"]
        assert on.of(CallEnded) == [] and on.line.incoming.empty()
        # It is a call like any other from here on.
        await on.near.hold(True)
        await on.near.hold(False)
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.CALLER_HUNG_UP


async def test_who_takes_the_callers_place_may_have_another_codec(tmp_path: Path) -> None:
    async with stage(tmp_path, codecs=(PCMU, L16_16K), third_codecs=(L16_16K,)) as on:
        leg = await on.line.third.dial(
            uri(on.line.near, "agent"),
            from_user="colleague",
            headers=[("Replaces", on.caller.agent.replaces_header(on.caller.key))],
        )
        third = Party(leg, THIRD_HZ)
        await third.event(Answered)
        third.hum()
        await third.hears(AGENT_HZ)
        await on.agent_hears(THIRD_HZ)
        assert on.near.sample_rate == 8000 and leg.sample_rate == 16000


async def test_a_caller_on_hold_is_replaced_and_the_agent_goes_on(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        await on.caller.hold(True)
        await on.line.third.dial(
            uri(on.line.near, "agent"),
            from_user="colleague",
            headers=[("Replaces", on.caller.agent.replaces_header(on.caller.key))],
        )
        await on.recorded(FarPartyChanged)
        assert on.agent.kinds() == ["Held", "FarPartyChanged", "Resumed"]


async def test_a_call_that_replaces_nothing_is_refused(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        third = Party(
            await on.line.third.dial(
                uri(on.line.near, "agent"), from_user="x", headers=[("Replaces", "no@where;to-tag=a;from-tag=b")]
            ),
            THIRD_HZ,
        )
        ended = await third.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.status == 481


async def test_a_leg_that_rings_at_us_is_picked_up_elsewhere(tmp_path: Path) -> None:
    """An outbound call of ours rings; another phone takes it by Replaces of the early dialog."""
    async with stage(tmp_path) as on:
        dialled = await on.line.near.dial(desk(on), from_user="offhook")
        listener = Listener(dialled)
        ringing = await taken(on.line.at_third)
        await ringing.ringing()
        await listener.until(lambda: bool(listener.events))
        picked_up = await on.line.far.dial(
            uri(on.line.near, "x"),
            from_user="colleague",
            headers=[("Replaces", ringing.agent.replaces_header(ringing.key, early_only=True))],
        )
        third = Party(picked_up, THIRD_HZ)
        await listener.until(lambda: dialled.state.name == "UP")
        third.hum()
        await listener.hears_tone(THIRD_HZ)
        await Party(ringing, CALLER_HZ).event(LegEnded)
        await dialled.hangup(Cause.AGENT_HUNG_UP)


async def test_a_transfer_that_succeeds_after_all_ends_our_part(tmp_path: Path, tasks) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        obeys(on.caller, on.line.far, tasks)
        await agent_hands_over(on)
        third = await on.third()
        on.agent.line.stop_transfer()
        await third.pick_up()
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED


async def test_a_number_is_transferred_to_at_the_peers_own_address(tmp_path: Path) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        caller = Party(on.caller, CALLER_HZ)
        referring = asyncio.create_task(on.near.transfer("200"))
        asked = await caller.event(TransferAsked)
        assert isinstance(asked, TransferAsked)
        assert asked.target == uri(on.line.far, "200")
        assert asked.referred_by == f"<{uri(on.line.near, 'agent')}>"
        on.caller.refuse_transfer(404)
        with pytest.raises(TransferFailedError, match="404"):
            await referring


async def test_a_call_is_not_replaced_by_way_of_another_trunk(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.line.near._profile_of = lambda request, flow: LegProfile(trunk="other")
        leg = await on.line.third.dial(
            uri(on.line.near, "agent"),
            from_user="stranger",
            headers=[("Replaces", on.caller.agent.replaces_header(on.caller.key))],
        )
        ended = await Party(leg, THIRD_HZ).event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.status == 403
        await Party(on.caller, CALLER_HZ).hears(AGENT_HZ)


async def test_who_hangs_up_while_its_transfer_rings_leaves_us_with_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=ACCEPTS) as on:
        await on.caller.transfer(desk(on))
        third = await on.third()
        await on.caller.hangup(Cause.AGENT_HUNG_UP)
        await until(lambda: on.agent.kinds()[-1:] == ["Held"])
        await third.sip.ringing()
        await third.pick_up()
        await third.hears(AGENT_HZ)
        assert on.agent.kinds()[-1] == "Resumed"
        await on.agent_hears(THIRD_HZ)
        assert on.of(CallEnded) == []
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.CALLER_HUNG_UP


async def test_who_left_us_with_nobody_has_hung_up(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=ACCEPTS) as on:
        await on.caller.transfer(desk(on))
        third = await on.third()
        await on.caller.hangup(Cause.AGENT_HUNG_UP)
        await third.sip.hangup(Cause.BUSY)
        await on.ended()
        (end,) = on.of(CallEnded)
        assert (end.cause, end.by) == (Cause.CALLER_HUNG_UP, "far")


async def test_a_call_that_ends_takes_the_transfer_that_was_asked_for_along(tmp_path: Path) -> None:
    async with stage(tmp_path, near_options=ACCEPTS) as on:
        await on.caller.transfer(desk(on))
        third = await on.third()
        on.call.end(Cause.API_HUNG_UP)
        ended = await third.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.cause is Cause.CANCELLED


async def test_an_agent_that_crashes_during_a_transfer_does_not_take_the_caller_along(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        caller.hum()
        on.call.transfers.begin_transfer(desk(on), "bridge")
        third = await on.third()
        on.agent.finish.set_exception(RuntimeError("out of words"))
        await until(lambda: not on.call._agent_present())
        await third.pick_up()
        await caller.hears(THIRD_HZ)
        await third.hears(CALLER_HZ)
        await third.sip.hangup(Cause.AGENT_HUNG_UP)
        await on.ended()
        assert on.of(CallEnded)[0].cause is Cause.TRANSFERRED


async def test_an_agent_that_crashes_during_a_transfer_that_fails_ends_the_call(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.call.transfers.begin_transfer(desk(on), "bridge")
        third = await on.third()
        on.agent.finish.set_exception(RuntimeError("out of words"))
        await third.sip.hangup(Cause.BUSY)
        await on.ended()
        (end,) = on.of(CallEnded)
        assert end.cause is Cause.INTERNAL_ERROR and "out of words" in end.detail
        assert on.of(TransferResult) == [TransferResult(486, "busy 486 Busy Here")]


async def test_a_consulted_party_is_not_taken_for_another_target(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        caller = Party(on.caller, CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(desk(on)))
        third = await on.third()
        await third.pick_up()
        await consulting
        for mode in ("attended", "bridge"):
            with pytest.raises(LegStateError, match="desk"):
                await on.call.transfers.transfer(uri(on.line.third, "boss"), mode)
        await on.call.transfers.release()
        await caller.hears(AGENT_HZ)


async def test_an_attended_transfer_that_can_not_be_asked_for_gives_the_caller_back(tmp_path: Path) -> None:
    async with stage(tmp_path, far_options=ACCEPTS) as on:
        caller = Party(on.caller, CALLER_HZ)
        consulting = asyncio.create_task(on.call.transfers.consult(desk(on)))
        third = await on.third()
        await third.pick_up()
        await consulting
        # The agent's own leg asks meanwhile, and the far side takes its time.
        asked = asyncio.create_task(on.near.transfer(desk(on)))
        await caller.event(TransferAsked)
        assert (await on.call.transfers.transfer("", "attended")).status == 500
        await caller.hears(AGENT_HZ)
        on.caller.refuse_transfer(480)
        with pytest.raises(TransferFailedError):
            await asked
