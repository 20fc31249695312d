"""What an endpoint finds on Asterisk that events did not tell: lost calls, orphans, callers in dead air, and calls of
another process, which are its business while it lives."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from ari_proxy import AriProxy
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import TONE_HZ, AsteriskShop
from contract import Listener, say, tone

from bridge.events import Cause, LegEnded
from bridge.legs.asterisk.endpoint import AsteriskEndpoint
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.names import bridge_of, media_of
from bridge.legs.base import LegState
from bridge.legs.sip import SipLeg

DIALPLAN = """
[from-carrier]
exten => 801,1,Stasis(offhook,agent=sales)
 same => n,Verbose(0,after ${OFFHOOK_STATUS} ${OFFHOOK_CAUSE})
 same => n,Answer()
 same => n,Playtones(523)
 same => n,Wait(60)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), dialplan=DIALPLAN)
    yield started
    started.stop()


@pytest.fixture
def proxy(shop: AsteriskShop) -> Iterator[AriProxy]:
    started = AriProxy(shop.http_port)
    yield started
    started.stop()


async def answered(line: AsteriskLine, caller: Any = None) -> tuple[AsteriskLeg, SipLeg, Listener, Listener]:
    near, far = await line.call("801", caller)
    near_side, far_side = Listener(near), Listener(far)
    await near.answer()
    await up(near, far)
    return near, far, near_side, far_side


async def die(endpoint: AsteriskEndpoint) -> None:
    """As if its process were killed: Asterisk is told nothing."""
    await endpoint.ari.aclose()
    await endpoint.aclose()


async def test_a_caller_who_left_while_the_socket_was_down_is_found_to_be_gone(
    shop: AsteriskShop, proxy: AriProxy
) -> None:
    async with asterisk_line(shop, url=f"http://127.0.0.1:{proxy.port}") as line:
        _near, far, near_side, _far_side = await answered(line)
        staying, other, staying_side, other_side = await answered(line, line.sip.third)
        proxy.refuses = True
        await asyncio.to_thread(proxy.cut)
        await far.hangup(Cause.AGENT_HUNG_UP)
        await line.until(lambda: line.endpoint.ari.state == "down", "loss of the socket")
        say(other, tone(other, 880, 3000))
        await staying_side.hears_tone(880)
        proxy.refuses = False
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert (ended.cause, ended.by) == (Cause.CALLER_HUNG_UP, "far")
        assert staying.state is LegState.UP
        say(staying, tone(staying, 440, 3000))
        await other_side.hears_tone(440)
        await line.up()


async def test_calls_are_set_up_and_ended_while_the_event_socket_is_down_for_requests(
    shop: AsteriskShop, proxy: AriProxy
) -> None:
    async with asterisk_line(shop, url=f"http://127.0.0.1:{proxy.port}") as line:
        near, _far, *_, far_side = await answered(line)
        await asyncio.to_thread(proxy.cut)
        await near.hangup(Cause.AGENT_HUNG_UP)
        await far_side.hears_tone(round(TONE_HZ / 5) * 5.0)


async def test_orphans_of_ours_are_deleted(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        stem = line.endpoint.names.new_leg()
        ari = line.endpoint.ari
        with ari.entering(media_of(stem)) as entering:
            await ari.external_media(media_of(stem), external_host="127.0.0.1:9", format="ulaw")
            await entering.wait(10)
        await ari.create_bridge(bridge_of(stem), name=line.endpoint.names.bridge)
        await ari.create_bridge("somebody-elses", name="conference")
        await line.endpoint.look()
        assert shop.bridges() == ["somebody-elses"]
        assert shop.channels() == []
        assert line.endpoint.status().orphans_cleaned == 2
        await ari.delete_bridge("somebody-elses")


async def test_callers_of_a_process_that_died_are_taken_up(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        former, far, *_, far_side = await answered(line)
        await die(line.endpoint)
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        near = await line.taken()
        assert (near.info.agent, near.info.id) == ("sales", former.info.id)
        assert near.state is LegState.OFFERED
        near_side = Listener(near)
        await near.ringing()
        await near.answer()
        say(near, tone(near, 440, 3000))
        say(far, tone(far, 880, 3000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert line.endpoint.status().orphans_cleaned == 2
        assert len(shop.bridges()) == 1


async def test_calls_of_another_process_are_left_to_it_while_it_lives(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        former = line.endpoint
        near, far, near_side, far_side = await answered(line)
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        await line.until(lambda: former.ari.state == "replaced", "loss of the application")
        await line.up()
        await line.endpoint.look()
        assert line.endpoint.status().orphans_cleaned == 0 and line.incoming.empty()
        say(near, tone(near, 440, 3000))
        await far_side.hears_tone(440)
        # Its calls are over when Asterisk no longer has them, though no event tells it.
        await far.hangup(Cause.AGENT_HUNG_UP)
        await near_side.event(LegEnded)
        await line.until(lambda: not former.busy, "end of the call's remains")
        await former.aclose()


async def test_a_caller_whom_another_process_is_about_to_answer_is_left_to_it(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        former = line.endpoint
        near, _far = await line.call()
        await near.ringing()
        await near.line.ready()
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        await line.until(lambda: former.ari.state == "replaced", "loss of the application")
        await line.up()
        await line.endpoint.look()
        assert line.endpoint.status().orphans_cleaned == 0 and line.incoming.empty()
        await near.answer()
        await near.hangup(Cause.AGENT_HUNG_UP)
        await line.until(lambda: not former.busy, "end of the call's remains")
        await former.aclose()


async def test_a_killed_asterisk_ends_its_calls_and_the_next_one_is_found(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shop = AsteriskShop(tmp_path_factory.mktemp("mortal"), dialplan=DIALPLAN)
    try:
        async with asterisk_line(shop) as line:
            _near, far, near_side, _far_side = await answered(line)
            await asyncio.to_thread(shop.kill)
            await asyncio.to_thread(shop.start)
            ended = await near_side.event(LegEnded)
            assert isinstance(ended, LegEnded)
            assert (ended.cause, ended.by) == (Cause.SIGNALLING_LOST, "network")
            await line.up()
            await far.hangup(Cause.AGENT_HUNG_UP)
            _near, far, near_side, _far_side = await answered(line)
            say(far, tone(far, 880, 3000))
            await near_side.hears_tone(880)
    finally:
        shop.stop()
