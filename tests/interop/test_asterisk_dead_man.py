"""A bridge that dies beside a real Asterisk and stays dead: its callers go on in the dialplan in time, whatever their
audio comes by. Those who talk with people, or whom it has given back, are none of its callers any more."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from ari_proxy import AriProxy
from asterisk_caller import Caller, asterisk_section
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from contract import Listener
from free_ports import free_port
from test_asterisk_faults import echoes
from test_asterisk_leg_found import die

from bridge.events import Answered, Cause, LegEnded
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.base import LegState, TransferFailedError
from bridge.legs.sip import SipLeg

LIMIT_S = 4.0
SHORT = {"dead_man_s": LIMIT_S, "dead_man_refresh_s": 0.5}
LONG = {"dead_man_s": 60.0, "dead_man_refresh_s": 20.0}
PATIENCE_S = 20.0

MEDIA = {"750": "rtp", "751": "websocket", "752": "audiosocket"}
WITHOUT_ARI = ("755", "756")
"""By plain SIP, and by AudioSocket()."""

DIALPLAN = """
[from-carrier]
exten => _75X,1,Set(OFFHOOK_APP=mortal)
 same => n,Goto(offhook,${EXTEN},1)
exten => 755,1,Set(OFFHOOK_AGENT=echo)
 same => n,Goto(offhook-sip,${EXTEN},1)
exten => 756,1,Set(OFFHOOK_AGENT=echo)
 same => n,Goto(offhook-audiosocket,${EXTEN},1)
exten => 760,1,Stasis(offhook)
 same => n,Verbose(0,given back with ${TIMEOUT(absolute)} ${OFFHOOK_OWN_LIMIT}.)
 same => n,Wait(60)
exten => 761,1,Set(TIMEOUT(absolute)=200)
 same => n,Stasis(offhook)
 same => n,Verbose(0,given back with ${TIMEOUT(absolute)} ${OFFHOOK_OWN_LIMIT}.)
 same => n,Wait(60)
exten => 762,1,Set(TIMEOUT(absolute)=2)
 same => n,Stasis(offhook)
exten => T,1,Verbose(0,time is over)
 same => n,Wait(60)

[parked]
exten => s,1,Verbose(0,parked with ${TIMEOUT(absolute)}.)
 same => n,Wait(60)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    sip_port = free_port()
    made = AsteriskShop(
        tmp_path_factory.mktemp("shop") / "asterisk",
        dialplan=DIALPLAN,
        offhook_sip_port=sip_port,
        uncommented=[("pjsip.conf", "#include offhook/pjsip.conf")],
        replaced={
            "offhook/pjsip.conf": [
                ("127.0.0.1:5070\n", f"127.0.0.1:{sip_port}\n", 2),
                ("rtp_timeout = 60\n", f"rtp_timeout = {LIMIT_S:.0f}\n", 1),
                ("qualify_frequency = 15\nqualify_timeout = 3\n", "qualify_frequency = 1\nqualify_timeout = 1\n", 1),
            ]
        },
    )
    yield made
    made.stop()


def clean(shop: AsteriskShop) -> None:
    """What a bridge leaves that died, and that the next one deletes."""
    shop.hang_up_all()
    for bridge_id in shop.bridges():
        httpx.delete(f"{shop.ari_url}/ari/bridges/{bridge_id}", auth=(shop.username, shop.password), timeout=20)
    shop.assert_empty()


def known_without_ari(shop: AsteriskShop, bridge: BridgeProcess) -> None:
    """What the ways without ARI need to know."""
    key = (bridge.folder / "data/api-key").read_text().strip()
    (shop.etc / "offhook/secrets/api.conf").write_text(f" same => n,Set(OFFHOOK_API_KEY={key})\n")
    shop.cli("dialplan reload")
    shop.cli(f"dialplan set global OFFHOOK_API http://127.0.0.1:{bridge.http_port}/api")
    shop.cli("pjsip qualify offhook")
    shop.program.wait_for(lambda: "Avail" in shop.cli("pjsip show contacts"), PATIENCE_S, "bridge by SIP")


async def until(shop: AsteriskShop, condition: Any, what: str) -> None:
    await asyncio.to_thread(shop.program.wait_for, condition, PATIENCE_S, what)


class Console:
    """What the dialplan says from now on."""

    def __init__(self, shop: AsteriskShop) -> None:
        self._program = shop.program
        self._since = len(self._program.said)

    async def says(self, text: str) -> str:
        """What follows `text` on its line."""

        def found() -> str:
            lines = (line for line in self._program.said[self._since :] if text in line and "Executing" not in line)
            return next(lines, "")

        line = await asyncio.to_thread(self._program.wait_for, found, PATIENCE_S, f"line {text!r}")
        return str(line).rpartition(text)[2].strip()


async def armed(line: AsteriskLine, *legs: AsteriskLeg) -> None:
    """Their limits are set."""
    for leg in legs:
        await line.until(lambda leg=leg: leg.dead_man.ran_out(line.endpoint.now() + 1000), "limit")


async def answered(line: AsteriskLine, number: str, caller: Any = None) -> tuple[AsteriskLeg, SipLeg, Listener]:
    near, far = await line.call(number, caller)
    listener = Listener(near)
    await near.answer()
    await up(near, far)
    return near, far, listener


async def limit_of(line: AsteriskLine, channel_id: str) -> float:
    return float(await line.endpoint.ari.get_variable(channel_id, "TIMEOUT(absolute)") or "nan")


# -- a process that is killed ---------------------------------------------------------------------------------


async def test_callers_of_a_bridge_that_died_go_to_people_and_others_stay_where_they_are(
    tmp_path: Path, shop: AsteriskShop
) -> None:
    routes = "".join(
        f"  - {{trunk: pbx, to: '{number}', media: {media}, agent: echo}}\n" for number, media in MEDIA.items()
    )
    settings = f", app: mortal, agent: echo, dead_man_s: {LIMIT_S}, dead_man_refresh_s: 0.5"
    sections = f"audiosocket: {{listen: 127.0.0.1, port: {shop.audiosocket_port}, trunk: dialplan}}\n"
    bridge = BridgeProcess(
        tmp_path,
        variables={"ARI_PASSWORD": shop.password, "OFFHOOK_SIP_PORT": str(shop.offhook_sip_port)},
        more=routes + asterisk_section(shop, more=settings) + sections,
    )
    try:
        known_without_ari(shop, bridge)
        console = Console(shop)
        async with AsyncExitStack() as stack:
            phones: dict[str, Caller] = {}
            for number in (*MEDIA, *WITHOUT_ARI, "753", "754"):
                phone = phones[number] = Caller()
                await phone.open()
                stack.push_async_callback(phone.close)
                await phone.dial(number, shop.sip_port)
                await echoes(phone)
            calls = {call["to"]: call["id"] for call in bridge.calls(live=True)}
            bridge.transfer(calls["753"], "dialplan:s@parked", mode="blind")
            # No longer ours: that of OFFHOOK_LONGEST_S.
            assert float((await console.says("parked with ")).rstrip(".")) > 7000
            bridge.transfer(calls["754"], "PJSIP/tone@carrier", mode="attended")
            await asyncio.to_thread(bridge.wait_until_ended, calls["754"], PATIENCE_S)
            # The limits would have run out meanwhile.
            await asyncio.sleep(LIMIT_S)
            for number in (*MEDIA, *WITHOUT_ARI):
                await echoes(phones[number])
            assert shop.calls_in("offhook-people") == []
            bridge.kill()
            left = len(MEDIA) + len(WITHOUT_ARI)
            await until(shop, lambda: len(shop.calls_in("offhook-people")) == left, "callers with people")
            await asyncio.sleep(LIMIT_S)
            assert shop.calls_in("parked") == ["s"]
            assert not phones["754"].ended.is_set()
            await phones["754"].until_hears(523.0, len(phones["754"].packets))
            for phone in phones.values():
                await phone.hang_up()
    finally:
        bridge.kill()
        clean(shop)


# -- limits that the dialplan has set ---------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "least", "most"), [("760", 0, 0), ("761", 150, 200)])
async def test_a_channel_that_is_given_back_has_its_own_limit_again(
    shop: AsteriskShop, number: str, least: float, most: float
) -> None:
    async with asterisk_line(shop, **LONG) as line:
        near, _far, _listener = await answered(line, number)
        await armed(line, near)
        assert 50 < await limit_of(line, near.channel_id) <= 60
        console = Console(shop)
        await near.hangup(Cause.AGENT_HUNG_UP)
        limit, own = (await console.says("given back with ")).split()
        assert own == "."
        assert least <= float(limit) <= most


async def test_a_bridge_that_stops_gives_its_callers_back(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, **LONG) as line:
        near, *_ = await answered(line, "760")
        await armed(line, near)
        console = Console(shop)
        await line.endpoint.aclose()
        assert await console.says("given back with ") == "0 ."


async def test_the_dialplans_own_limit_is_not_put_off(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, **SHORT) as line:
        console = Console(shop)
        near, _far, listener = await answered(line, "762")
        ended = await listener.event(LegEnded)
        assert isinstance(ended, LegEnded) and (ended.cause, ended.by) == (Cause.MAX_LENGTH, "far")
        await console.says("time is over")
        assert near.state is LegState.ENDED


async def test_callers_taken_up_by_another_process_keep_their_own_limit(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, **LONG) as line:
        timed, *_ = await answered(line, "761")
        free, *_ = await answered(line, "760", line.sip.third)
        await armed(line, timed, free)
        await die(line.endpoint)
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        found = {near.channel_id: near for near in (await line.taken(), await line.taken())}
        await armed(line, *found.values())
        own = found[timed.channel_id].dead_man.own_until
        assert own is not None and 150 < own - line.endpoint.now() <= 200
        assert found[free.channel_id].dead_man.own_until is None


# -- while the call goes on -------------------------------------------------------------------------------------


async def test_joined_parties_have_no_limit_of_ours(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, **LONG) as line:
        first, *_ = await answered(line, "760")
        second, *_ = await answered(line, "761", line.sip.third)
        await armed(line, first, second)
        await first.transfer("760", replacing=second)
        assert await limit_of(line, first.channel_id) == 0
        assert 150 < await limit_of(line, second.channel_id) <= 200


async def test_a_transfer_that_comes_to_nothing_leaves_the_limit_in_force(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, **LONG) as line:
        near, _far, _listener = await answered(line, "760")
        await armed(line, near)
        with pytest.raises(TransferFailedError):
            await near.transfer("sip:nobody@127.0.0.1:9")
        await armed(line, near)
        assert 50 < await limit_of(line, near.channel_id) <= 60


async def test_a_called_party_is_hung_up_on_when_the_limit_runs_out(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, dead_man_s=1.0, dead_man_refresh_s=0.4) as line:
        near = await line.endpoint.place(asterisk_call(line.settings, "PJSIP/tone@carrier"), timeout_s=30)
        listener = Listener(near)
        await listener.event(Answered)
        await armed(line, near)
        await die(line.endpoint)
        await until(shop, lambda: not any("PJSIP/carrier" in name for name in shop.channels()), "end of the call")
        line.endpoint = line.new_endpoint()
        line.endpoint.start()
        await line.up()
        await line.endpoint.look()


async def test_a_caller_whose_limit_could_not_be_put_off_is_no_call_any_more(shop: AsteriskShop) -> None:
    proxy = AriProxy(shop.http_port)
    try:
        async with asterisk_line(shop, url=f"http://127.0.0.1:{proxy.port}", request_s=1.0, **SHORT) as line:
            near, _far, listener = await answered(line, "760")
            await armed(line, near)
            console = Console(shop)
            proxy.refuses = True
            await asyncio.to_thread(proxy.cut)
            await console.says("time is over")
            proxy.refuses = False
            await line.up()
            ended = await listener.event(LegEnded)
            assert isinstance(ended, LegEnded) and ended.cause is Cause.SIGNALLING_LOST
    finally:
        proxy.stop()
