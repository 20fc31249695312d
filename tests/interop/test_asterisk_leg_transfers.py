"""Callers of an Asterisk handed on: in the dialplan, to a queue, by REFER, and two of them joined without us."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import MUSIC_HZ, TONE_HZ, AsteriskShop
from contract import Listener, say, tone

from bridge.events import Answered, Cause, FarPartyChanged, LegEnded, TransferAsked, TransferResult
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.base import LegError, LegState, TransferFailedError, TransferRefusedError
from bridge.legs.sip import SipLeg, SipLegOptions

OTHER_HZ = 700.0

DIALPLAN = """
[offhook-transfer]
exten => 555,1,Verbose(0,handed over ${OFFHOOK_STATUS} ${OFFHOOK_TARGET} ${OFFHOOK_CAUSE} ${NOTE})
 same => n,Goto(tone,1)
exten => tone,1,Playtones(523)
 same => n,Wait(60)

[from-carrier]
exten => 880,1,Dial(PJSIP/tone@carrier)
exten => 881,1,Answer()
 same => n,Playtones(700)
 same => n,Wait(60)

[lab]
exten => 7,1,Playtones(523)
 same => n,Wait(60)
 same => n(here),Playtones(700)
 same => n,Wait(60)
"""

QUEUES = """
[waiting]
musicclass = default
joinempty = yes
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), dialplan=DIALPLAN, queues=QUEUES)
    yield started
    started.stop()


async def answered(line: AsteriskLine, caller: Any = None) -> tuple[AsteriskLeg, SipLeg, Listener, Listener]:
    near, far = await line.call(caller=caller)
    near_side, far_side = Listener(near), Listener(far)
    await near.ringing()
    await near.answer()
    await up(near, far)
    return near, far, near_side, far_side


def heard(hz: float) -> float:
    """As `hears_tone` measures it."""
    return round(hz / 5) * 5.0


def ends(listener: Listener) -> list[Any]:
    return [event for event in listener.events if isinstance(event, TransferResult | LegEnded)]


@pytest.mark.parametrize(
    ("target", "hz"),
    [
        ("555", TONE_HZ),
        ("dialplan:7@lab", TONE_HZ),
        ("dialplan:7@lab,here", OTHER_HZ),
        ("dialplan:7@lab,3", OTHER_HZ),
        ("queue:waiting", MUSIC_HZ),
    ],
)
async def test_a_caller_goes_on_in_the_dialplan(shop: AsteriskShop, target: str, hz: float) -> None:
    async with asterisk_line(shop) as line:
        near, _far, near_side, far_side = await answered(line)
        await near.transfer(target)
        assert near.state is LegState.ENDED
        result, ended = ends(near_side)
        assert isinstance(result, TransferResult) and result.status == 200
        assert ended == LegEnded(Cause.TRANSFERRED, target)
        # What was known of the caller's line, before the channel was no more ours to ask about.
        assert near.quality.caller_line is not None
        await far_side.hears_tone(heard(hz))


async def test_the_dialplan_reads_what_was_said_of_the_call(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, *_ = await answered(line)
        await near.set_variables({"NOTE": "line one\nline two"})
        await near.transfer("555")
        shop.program.wait_for_line("handed over TRANSFER 555 transferred line one line two")


@pytest.mark.parametrize(
    "target", ["999", "dialplan:8@lab", "dialplan:7@nowhere", "dialplan:7@lab,there", "queue:none"]
)
async def test_a_place_that_does_not_exist_is_refused_and_the_call_goes_on(shop: AsteriskShop, target: str) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, _far_side = await answered(line)
        with pytest.raises(TransferFailedError) as refused:
            await near.transfer(target)
        assert refused.value.status == 404
        assert near.state is far.state is LegState.UP
        say(far, tone(far, 880, 3000))
        await near_side.hears_tone(880)


async def test_music_ends_before_the_caller_goes_on(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _far, _near_side, far_side = await answered(line)
        await near.music(True)
        await far_side.hears_tone(heard(MUSIC_HZ))
        await near.transfer("555")
        await far_side.hears_tone(heard(TONE_HZ))


async def test_a_caller_is_sent_on_by_refer(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, far_side = await answered(line)
        far.options = SipLegOptions(accept_refer=True)
        host, port = line.sip.third.address
        moving = asyncio.create_task(near.transfer(f"sip:human@{host}:{port}"))
        asked = await far_side.event(TransferAsked)
        assert isinstance(asked, TransferAsked)
        far.follow_transfer(await line.sip.far.dial(asked.target, from_user="caller"))
        human = await asyncio.wait_for(line.sip.at_third.get(), 10)
        await human.answer()
        await moving
        await far_side.event(FarPartyChanged)
        result, ended = ends(near_side)
        assert isinstance(result, TransferResult) and result.status == 200
        assert isinstance(ended, LegEnded) and (ended.cause, ended.by) == (Cause.TRANSFERRED, "far")
        say(human, tone(human, 660, 3000))
        await far_side.hears_tone(660)


async def test_a_refer_whose_target_is_busy_brings_the_caller_back(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, far_side = await answered(line)
        far.options = SipLegOptions(accept_refer=True)
        host, port = line.sip.third.address
        moving = asyncio.create_task(near.transfer(f"sip:human@{host}:{port}"))
        asked = await far_side.event(TransferAsked)
        assert isinstance(asked, TransferAsked)
        far.follow_transfer(await line.sip.far.dial(asked.target, from_user="caller"))
        human = await asyncio.wait_for(line.sip.at_third.get(), 10)
        await human.hangup(Cause.BUSY)
        with pytest.raises(TransferFailedError):
            await moving
        assert near.state is far.state is LegState.UP
        say(far, tone(far, 880, 3000))
        await near_side.hears_tone(880)
        say(near, tone(near, 440, 3000))
        await far_side.hears_tone(440)
        near.send_dtmf("5")
        await far_side.until(lambda: any(getattr(event, "digit", "") == "5" for event in far_side.events))


async def test_a_refer_that_nobody_waits_for_any_more_brings_the_caller_back(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, far_side = await answered(line)
        far.options = SipLegOptions(accept_refer=True)
        host, port = line.sip.third.address
        moving = asyncio.create_task(near.transfer(f"sip:human@{host}:{port}"))
        asked = await far_side.event(TransferAsked)
        assert isinstance(asked, TransferAsked)
        far.follow_transfer(await line.sip.far.dial(asked.target, from_user="caller"))
        human = await asyncio.wait_for(line.sip.at_third.get(), 10)
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        with pytest.raises(LegError):
            await near.transfer("555")
        await human.hangup(Cause.BUSY)
        say(far, tone(far, 880, 20_000))
        await near_side.hears_tone(880)
        say(near, tone(near, 440, 20_000))
        await far_side.hears_tone(440)


async def test_a_caller_of_another_technology_can_not_be_redirected(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, *_ = await answered(line)
        with pytest.raises(TransferRefusedError):
            await near.transfer("IAX2/1001")
        with pytest.raises(TransferRefusedError):
            await near.transfer("PJSIP/nosuch")
        with pytest.raises(TransferFailedError):
            await near.transfer("no target at all")
        assert near.state is LegState.UP


async def test_two_callers_are_joined_without_us(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, far_side = await answered(line)
        second, third, second_side, third_side = await answered(line, line.sip.third)
        await near.transfer("the other", replacing=second)
        result, ended = ends(near_side)
        assert isinstance(result, TransferResult) and result.status == 200
        assert ended == LegEnded(Cause.TRANSFERRED, "the other")
        assert [event.cause for event in ends(second_side)] == [Cause.TRANSFERRED]
        assert line.endpoint.status().joined == 1
        say(far, tone(far, 880, 3000))
        say(third, tone(third, 440, 3000))
        await third_side.hears_tone(880)
        await far_side.hears_tone(440)
        assert not line.sip.media.ports.in_use - 2  # Those of the two callers.
        assert len(shop.bridges()) == 1
        # One leaves: the other goes on in its dialplan, which here is at its end.
        await far.hangup(Cause.AGENT_HUNG_UP)
        await third_side.event(LegEnded)
        await line.until(lambda: line.endpoint.status().joined == 0, "end of the pair")


async def test_a_joined_pair_outlives_us_and_is_watched_by_who_comes_after(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, *_, far_side = await answered(line)
        second, third, _second_side, third_side = await answered(line, line.sip.third)
        await near.transfer("the other", replacing=second)
        await line.endpoint.aclose()
        assert len(shop.bridges()) == 1
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        await line.until(lambda: line.endpoint.status().joined == 1, "adoption of the pair")
        say(far, tone(far, 880, 3000))
        await third_side.hears_tone(880)
        await third.hangup(Cause.AGENT_HUNG_UP)
        await far_side.event(LegEnded)


async def test_an_end_during_a_transfer_is_told(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, *_ = await answered(line)
        await far.hangup(Cause.AGENT_HUNG_UP)
        with pytest.raises(LegError):
            await near.transfer("555")


async def test_a_phone_that_transfers_its_call_to_the_agent_leaves_another_party(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, _far_side = await answered(line)
        other = await line.dial("880")
        await Listener(other).event(Answered)
        await far.transfer("", replacing=other)
        changed = await near_side.event(FarPartyChanged)
        assert isinstance(changed, FarPartyChanged) and changed.id == near.info.id
        await near_side.hears_tone(heard(TONE_HZ))
        assert near.state is LegState.UP
        await near.hangup(Cause.AGENT_HUNG_UP)


async def test_a_phone_that_sends_its_call_to_an_extension_leaves_that_with_the_agent(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far, near_side, _far_side = await answered(line)
        await far.transfer(shop.address("881"))
        await near_side.event(FarPartyChanged)
        await near_side.hears_tone(OTHER_HZ)
        # There is no dialplan behind that channel: it ends with the agent.
        await near.hangup(Cause.AGENT_HUNG_UP)
