"""A bridge beside a real Asterisk when things go wrong: callers who give up in the middle of the set-up, an Asterisk
that is killed, slow or out of order, sockets that are cut, a bridge that dies. Nothing may be left on either side."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from ari_proxy import AriProxy
from asterisk_caller import Caller, asterisk_section
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from free_ports import free_port

NUMBERS = {"rtp": "700", "websocket": "710", "audiosocket": "711"}
"""What is called, by the way that its audio takes."""

POINTS = 33
"""Messages between bridge and Asterisk from a call's StasisStart until its audio flows."""

ECHOED_HZ = 660.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    made = AsteriskShop(tmp_path_factory.mktemp("shop") / "asterisk")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def proxy(shop: AsteriskShop) -> Iterator[AriProxy]:
    made = AriProxy(shop.http_port)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bridge(shop: AsteriskShop, proxy: AriProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    media = f"audiosocket: {{listen: 127.0.0.1, port: {free_port()}}}\n"
    made = start_bridge(tmp_path_factory.mktemp("bridge"), shop, proxy, sections=media)
    yield made
    made.stop()


@pytest.fixture
def whole(shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess) -> Iterator[None]:
    """Everything in order before the test, and after it."""
    wait_for_state(bridge, "up")
    yield
    proxy.fail_status, proxy.delay_s, proxy.refuses = None, 0.0, False
    proxy.release()
    wait_for_state(bridge, "up")
    shop.assert_empty(45)
    bridge.wait_until_idle(20)
    bridge.assert_no_crash()


def start_bridge(
    folder: Path, shop: AsteriskShop, proxy: AriProxy | None = None, more: str = "", sections: str = ""
) -> BridgeProcess:
    """`more`: further settings of the Asterisk. Only with the `sections` for it calls' audio goes by each way."""
    section = asterisk_section(
        shop, port=None if proxy is None else proxy.port, more=f", agent: echo, request_s: 2{more}"
    )
    variables = {"ARI_PASSWORD": shop.password, "OFFHOOK_RTP_MEDIA_TIMEOUT_S": "4"}
    routes = [f"  - {{trunk: pbx, to: '{to}', agent: echo, media: {media}}}" for media, to in NUMBERS.items()]
    return BridgeProcess(folder, variables=variables, more=section + sections, calls_to=routes if sections else ())


def status(bridge: BridgeProcess) -> dict[str, Any]:
    found: dict[str, Any] = bridge.asterisks()[0]
    return found


def wait_for_state(bridge: BridgeProcess, state: str, limit_s: float = 30) -> None:
    bridge.wait_for(lambda: status(bridge)["state"] == state, limit_s, f"Asterisk that is {state}")


@asynccontextmanager
async def caller() -> AsyncIterator[Caller]:
    made = Caller()
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def echoes(*callers: Caller) -> None:
    """The agent's echo of a tone is heard by each, from now on."""
    await asyncio.gather(*(one.is_echoed(ECHOED_HZ) for one in callers))


@asynccontextmanager
async def talking(shop: AsteriskShop) -> AsyncIterator[list[Caller]]:
    """A caller by each way of audio, who hears his echo."""
    async with AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(caller()) for _ in NUMBERS]
        await asyncio.gather(
            *(phone.dial(number, shop.sip_port) for phone, number in zip(phones, NUMBERS.values(), strict=True))
        )
        await echoes(*phones)
        yield phones


async def hang_up(phones: list[Caller]) -> None:
    await asyncio.gather(*(phone.hang_up() for phone in phones))


def causes(bridge: BridgeProcess) -> dict[str, str]:
    """Of the last calls, by the number that was called."""
    return {call["to"]: call["cause"] for call in bridge.calls()[: len(NUMBERS)]}


def has_callers(shop: AsteriskShop) -> bool:
    return any(name.startswith("PJSIP/caller-") for name in shop.channels())


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("point", range(POINTS))
@pytest.mark.parametrize("media", NUMBERS)
async def test_a_caller_gives_up_at_every_point_of_the_setup(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess, media: str, point: int
) -> None:
    async with caller() as phone:
        proxy.arm(hold_at=point)
        phone.begin(NUMBERS[media], shop.sip_port)
        assert await asyncio.to_thread(proxy.wait_until_held), proxy.messages
        phone.give_up()
        await phone.until_ended()
        # Asterisk is through with its caller before the bridge goes on.
        await asyncio.to_thread(shop.program.wait_for, lambda: not has_callers(shop), 20, "end of the caller")
        proxy.release()
        await asyncio.to_thread(shop.assert_empty)
        await asyncio.to_thread(bridge.wait_until_idle)


@pytest.mark.usefixtures("whole")
async def test_a_killed_asterisk_ends_its_calls_and_is_found_again(shop: AsteriskShop, bridge: BridgeProcess) -> None:
    async with talking(shop):
        shop.kill()
        await asyncio.to_thread(bridge.wait_until_idle, 20)
        # Nobody could tell that it was more than its signalling that was lost.
        assert causes(bridge) == dict.fromkeys(NUMBERS.values(), "media-timeout")
        await asyncio.to_thread(shop.start)
        await asyncio.to_thread(wait_for_state, bridge, "up")
    async with talking(shop) as phones:
        await hang_up(phones)


@pytest.mark.usefixtures("whole")
async def test_calls_go_on_while_the_event_socket_is_cut(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess
) -> None:
    async with talking(shop) as phones:
        proxy.cut(events_only=True)
        await echoes(*phones)
        await asyncio.to_thread(wait_for_state, bridge, "up")
        await echoes(*phones)
        await hang_up(phones)
        await asyncio.to_thread(bridge.wait_until_idle)
    assert causes(bridge) == dict.fromkeys(NUMBERS.values(), "caller-hung-up")


@pytest.mark.usefixtures("whole")
async def test_calls_that_ended_while_the_socket_was_down_are_found_to_have_ended(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess
) -> None:
    async with talking(shop) as phones:
        proxy.refuses = True
        proxy.cut(events_only=True)
        await hang_up(phones)
        await asyncio.to_thread(wait_for_state, bridge, "down")
        assert bridge.calls(live=True)
        proxy.refuses = False
        await asyncio.to_thread(bridge.wait_until_idle, 30)


@pytest.mark.usefixtures("whole")
async def test_callers_go_to_people_while_the_bridge_is_cut_off(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess
) -> None:
    proxy.refuses = True
    proxy.cut()
    await asyncio.to_thread(wait_for_state, bridge, "down")
    async with caller() as phone:
        phone.begin("700", shop.sip_port)
        await asyncio.to_thread(
            shop.program.wait_for, lambda: shop.calls_in("offhook-people"), 15, "a caller with people"
        )
        phone.give_up()
        await phone.until_ended()


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
async def test_a_slow_asterisk_delays_the_answer_alone(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess, number: str
) -> None:
    proxy.delay_s = 0.3
    async with caller() as phone:
        await phone.dial(number, shop.sip_port)
        await echoes(phone)
        await phone.hang_up()
        await asyncio.to_thread(bridge.wait_until_idle, 20)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("fault", ["500", "silence"])
async def test_an_asterisk_out_of_order_leaves_nothing_behind(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess, fault: str
) -> None:
    if fault == "500":
        proxy.fail_status = 500
    else:
        proxy.delay_s = 5
    before = len(bridge.calls())
    async with AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(caller()) for _ in NUMBERS]
        for phone, number in zip(phones, NUMBERS.values(), strict=True):
            phone.begin(number, shop.sip_port)
        # They may be over at once.
        wanted = before + len(phones)
        await asyncio.to_thread(bridge.wait_for, lambda: len(bridge.calls()) == wanted, 20, "calls")
        await asyncio.to_thread(bridge.wait_until_idle, 40)
        assert causes(bridge) == dict.fromkeys(NUMBERS.values(), "signalling-lost")
        proxy.fail_status, proxy.delay_s = None, 0.0
        for phone in phones:
            phone.give_up()
        await asyncio.gather(*(phone.until_ended() for phone in phones))


@pytest.mark.usefixtures("whole")
async def test_an_asterisk_that_fails_in_the_middle_of_calls_does_not_keep_its_callers(
    shop: AsteriskShop, proxy: AriProxy, bridge: BridgeProcess
) -> None:
    async with talking(shop) as phones:
        proxy.fail_status = 500
        for call in bridge.calls(live=True):
            bridge.hang_up(call["id"])
        await asyncio.to_thread(bridge.wait_until_idle, 20)
        proxy.fail_status = None
        # What could not be said then is said when the two are compared.
        await asyncio.gather(*(phone.until_ended(60) for phone in phones))


async def test_a_bridge_that_died_takes_its_callers_up_again(tmp_path: Path, shop: AsteriskShop) -> None:
    first = start_bridge(tmp_path / "first", shop, more=", app: mortal")
    shop.cli("dialplan add extension 750,1,Stasis,mortal into from-carrier")
    try:
        async with caller() as phone:
            await phone.dial("750", shop.sip_port)
            await echoes(phone)
            first.kill()
            second = await asyncio.to_thread(start_bridge, tmp_path / "second", shop, more=", app: mortal")
            try:
                await asyncio.to_thread(second.wait_for, lambda: second.calls(live=True), 20, "call")
                await echoes(phone)
                assert [call["state"] for call in second.calls()] == ["up"]
                assert len(shop.bridges()) == 1
                assert len(shop.channels()) == 2
                assert status(second)["orphans_cleaned"] == 2
                await phone.hang_up()
                await asyncio.to_thread(second.wait_until_idle)
                shop.assert_empty()
            finally:
                second.stop()
    finally:
        shop.cli("dialplan remove extension 750@from-carrier")


async def test_an_application_that_another_bridge_takes_is_left_to_it_with_its_calls_watched(
    tmp_path: Path, shop: AsteriskShop
) -> None:
    shop.cli("dialplan add extension 751,1,Stasis,wanted into from-carrier")
    first = start_bridge(tmp_path / "first", shop, more=", app: wanted")
    try:
        async with caller() as phone, caller() as other:
            await phone.dial("751", shop.sip_port)
            await echoes(phone)
            second = await asyncio.to_thread(start_bridge, tmp_path / "second", shop, more=", app: wanted")
            try:
                await asyncio.to_thread(wait_for_state, first, "replaced")
                await echoes(phone)
                assert not second.calls()
                await other.dial("751", shop.sip_port)
                await echoes(other)
                assert len(second.calls(live=True)) == len(first.calls(live=True)) == 1
                await phone.hang_up()
                await asyncio.to_thread(first.wait_until_idle)
                await other.hang_up()
                await asyncio.to_thread(second.wait_until_idle)
            finally:
                second.stop()
        shop.assert_empty()
    finally:
        first.stop()
        shop.cli("dialplan remove extension 751@from-carrier")


async def test_a_stopping_bridge_lets_its_calls_finish_and_sends_new_ones_to_people(
    tmp_path: Path, shop: AsteriskShop
) -> None:
    shop.cli("dialplan add extension 752,1,Stasis,leaving into from-carrier")
    shop.cli("dialplan add extension 752,2,Goto,offhook-after,s,1 into from-carrier")
    bridge = start_bridge(tmp_path, shop, more=", app: leaving")
    try:
        async with caller() as phone, caller() as late:
            await phone.dial("752", shop.sip_port)
            await echoes(phone)
            bridge.terminate()
            await asyncio.to_thread(bridge.wait_for, lambda: "draining" in bridge.tail(), 10, "drain")
            late.begin("752", shop.sip_port)
            await asyncio.to_thread(
                shop.program.wait_for, lambda: shop.calls_in("offhook-people"), 15, "a caller with people"
            )
            late.give_up()
            await echoes(phone)
            await phone.hang_up()
            await asyncio.to_thread(bridge.expect_exit)
        shop.assert_empty()
    finally:
        shop.cli("dialplan remove extension 752@from-carrier")
