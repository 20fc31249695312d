"""AudioSocket with a real Asterisk 22: as the media of calls by ARI, and for dialplans that have no ARI."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asterisk_line import WAIT_S, AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from contract import LegContract, Listener, say, tone
from fastapi import FastAPI
from free_ports import free_port, free_ports
from sip_line import Line, line

from bridge.api.audiosocket import audiosocket_router
from bridge.api.server import HttpServer
from bridge.asterisk.dialplan_calls import DialplanCalls
from bridge.asterisk.settings import AsteriskSettings, AudioSocketSettings
from bridge.events import Cause, LegEnded, LegEvent, TransferResult
from bridge.legs.asterisk.audiosocket import AudioSocketTransport
from bridge.legs.audiosocket import AudioSocketEndpoint, AudioSocketLeg
from bridge.legs.audiosocket_server import AudioSocketServer
from bridge.legs.base import Capability, Leg, LegState, NotCapableError
from bridge.legs.sip import SipLeg
from bridge.rtp.format import DEFAULT_LIMITS
from bridge.rtp.settings import RtpSettings

SETTINGS = """
[caller](+type=endpoint)
moh_passthrough=yes
"""
"""Hold is the phone's own business: Asterisk tells it, and plays no music of its own."""

DIALPLAN = """
[from-carrier](+)
; As shipped: announced by CURL(), asked for afterwards.
exten => 702,1,Goto(offhook-audiosocket,702,1)
; The least that there is: nobody says anything of the call.
exten => 703,1,Answer()
 same => n,AudioSocket(${UUID()},${OFFHOOK_AUDIOSOCKET})
 same => n,Verbose(0,bare call went on)
 same => n,Goto(world,tone,1)
; For Asterisks whose AudioSocket() hangs up at its end, and that have TryExec() for the other case.
exten => 704,1,Answer()
 same => n,Dial(AudioSocket/${OFFHOOK_AUDIOSOCKET}/${UUID()}/c(slin),,g)
 same => n,Verbose(0,dialled call went on ${DIALSTATUS})
 same => n,Goto(world,tone,1)
[offhook-transfer](+)
exten => 2000,1,Goto(world,tone,1)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), pjsip=SETTINGS, dialplan=DIALPLAN)
    started.cli(f"dialplan set global OFFHOOK_AUDIOSOCKET 127.0.0.1:{started.audiosocket_port}")
    yield started
    started.stop()


@asynccontextmanager
async def by_ari(shop: AsteriskShop, codec: str = "slin") -> AsyncIterator[tuple[AsteriskLine, AudioSocketServer]]:
    """Calls by ARI whose audio comes by AudioSocket."""
    servers: list[AudioSocketServer] = []

    def make(sip: Line, settings: AsteriskSettings) -> Any:
        server = AudioSocketServer(AudioSocketSettings(listen="127.0.0.1", port=free_port()), sip.clock)
        servers.append(server)
        return {"audiosocket": AudioSocketTransport(server, settings, DEFAULT_LIMITS)}

    try:
        async with asterisk_line(shop, more=make, media="audiosocket", audiosocket={"codec": codec}) as line:
            (server,) = servers
            await server.start()
            yield line, server
        # Channels, bridges and legs are gone by now.
        await line.until(lambda: not len(server), "end of all connections")
    finally:
        for server in servers:
            await server.aclose()


class TestAsteriskLegByAudioSocket(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with by_ari(self.shop) as (line, _server):
            near, far = await line.call()
            yield near, far


class WithoutAri:
    """Calls of a dialplan without ARI: `sip.far` calls the shop, `incoming` are the legs."""

    def __init__(self, shop: AsteriskShop, sip: Line) -> None:
        self.shop = shop
        self.sip = sip
        self.calls = DialplanCalls()
        self.incoming: asyncio.Queue[AudioSocketLeg] = asyncio.Queue()
        settings = AudioSocketSettings(listen="127.0.0.1", port=shop.audiosocket_port, trunk="pbx")
        self.server = AudioSocketServer(settings, sip.clock)
        self.endpoint = AudioSocketEndpoint(
            self.server, settings.trunk, self.calls, self.incoming.put_nowait, DEFAULT_LIMITS
        )
        app = FastAPI()
        app.include_router(audiosocket_router(lambda: self.calls, sip.clock.time))
        self.http = HttpServer(app, "127.0.0.1", shop.api_port)

    async def call(self, number: str) -> tuple[AudioSocketLeg, SipLeg]:
        far = await self.sip.far.dial(self.shop.address(number), from_user="+4930111", timeout_s=60)
        return await asyncio.wait_for(self.incoming.get(), WAIT_S), far

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no {what} within {WAIT_S} s; Asterisk said:\n{self.shop.program.tail()}") from None


@asynccontextmanager
async def without_ari(shop: AsteriskShop) -> AsyncIterator[WithoutAri]:
    """Leaving it checks that nothing is left, here or on Asterisk."""
    first = free_ports(40, rtp=True)
    async with line(rtp=RtpSettings(port_min=first, port_max=first + 39)) as sip:
        made = WithoutAri(shop, sip)
        await made.server.start()
        await made.http.start()
        try:
            yield made
            for leg in sip.far.legs:
                await leg.hangup(Cause.AGENT_HUNG_UP)
            await asyncio.to_thread(shop.assert_empty)
            await made.until(lambda: not len(made.server) and not made.endpoint.legs, "end of all connections")
        finally:
            await made.http.aclose()
            await made.server.aclose()


class TestAudioSocketLeg(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with without_ari(self.shop) as calls:
            near, far = await calls.call("702")
            yield near, far


def told(leg: Leg) -> list[LegEvent]:
    events: list[LegEvent] = []
    leg.subscribe(events.append)
    return events


async def test_who_calls_is_known_and_the_agent_that_the_dialplan_wants(shop: AsteriskShop) -> None:
    shop.cli("dialplan set global OFFHOOK_AGENT sales")
    try:
        async with without_ari(shop) as calls:
            near, _far = await calls.call("702")
    finally:
        shop.cli('dialplan set global OFFHOOK_AGENT ""')
    info = near.info
    assert (info.kind, info.from_, info.to, info.trunk, info.agent) == (
        "audiosocket",
        "+4930111",
        "702",
        "pbx",
        "sales",
    )
    assert Capability.DTMF_RECEIVE in near.capabilities


async def test_a_transfer_is_carried_out_by_the_dialplan(shop: AsteriskShop) -> None:
    async with without_ari(shop) as calls:
        near, far = await calls.call("702")
        heard = Listener(far)
        await near.answer()
        events = told(near)
        await near.set_variables({"OFFHOOK_SUMMARY": "Wants ten bicycles."})
        await near.transfer("2000")
        await calls.until(lambda: near.state is LegState.ENDED, "end of the leg")
        assert events == [
            TransferResult(200, "the dialplan goes on with the caller"),
            LegEnded(Cause.TRANSFERRED, "2000", "us"),
        ]
        await heard.hears_tone(525)
        assert shop.calls_in("world") == ["tone"]


async def test_a_refused_call_goes_on_in_the_dialplan(shop: AsteriskShop) -> None:
    async with without_ari(shop) as calls:
        near, far = await calls.call("702")
        await near.hangup(Cause.REFUSED_BUSY, "full")
        found = calls.calls.find(near.uuid, calls.sip.clock.time())
        assert found is not None and (found.status, found.cause) == ("REFUSED", Cause.REFUSED_BUSY)
        # To the shop's people: its queue, as shipped.
        await calls.until(lambda: bool(shop.calls_in("offhook-people")), "caller at the people")
        assert far.state is LegState.UP


@pytest.mark.parametrize(
    ("number", "went_on"), [("703", "bare call went on"), ("704", "dialled call went on ANSWER")]
)
async def test_a_call_that_nobody_announced_goes_on_when_we_hang_up(
    shop: AsteriskShop, number: str, went_on: str
) -> None:
    async with without_ari(shop) as calls:
        near, far = await calls.call(number)
        assert (near.info.from_, near.info.agent) == ("", "")
        heard = Listener(far)
        await near.answer()
        with pytest.raises(NotCapableError):
            await near.transfer("2000")
        with pytest.raises(NotCapableError):
            await near.set_variables({"A": "b"})
        say(near, tone(near, 440, 3000))
        await heard.hears_tone(440)
        await near.hangup(Cause.AGENT_HUNG_UP)
        await asyncio.to_thread(shop.program.wait_for_line, went_on)
        await heard.hears_tone(525)


async def test_wideband_goes_both_ways(shop: AsteriskShop) -> None:
    async with by_ari(shop, "slin16") as (line, _server):
        near, far = await line.call()
        near_side, far_side = Listener(near), Listener(far)
        assert near.sample_rate == 16000
        await near.answer()
        await up(near, far)
        say(near, tone(near, 440, 3000))
        say(far, tone(far, 880, 3000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert near.quality.codec == "slin16"


@pytest.mark.parametrize("at_once", [1, 10])
async def test_a_hundred_media_channels_are_set_up_and_none_hangs(shop: AsteriskShop, at_once: int) -> None:
    """Some drivers wait in a header that is not there, and the request for the channel with them."""
    took_s: list[float] = []
    async with by_ari(shop) as (line, server):
        ari = line.endpoint.ari
        transport = AudioSocketTransport(server, line.settings, DEFAULT_LIMITS)

        async def set_up(name: str) -> None:
            began = line.sip.clock.time()
            media = await transport.open(ari, name)
            took_s.append(line.sip.clock.time() - began)
            await ari.hangup(name)
            media.close()

        for index in range(0, 100, at_once):
            await asyncio.gather(*(set_up(f"offhook-test-{index + n}") for n in range(at_once)))
    took_s.sort()
    print(
        f"median {took_s[50] * 1000:.1f} ms, 95th percentile {took_s[95] * 1000:.1f} ms, longest {took_s[-1]:.3f} s"
    )
    # A request that hangs is given up after 10 s, and fails.
    assert len(took_s) == 100


async def test_an_asterisk_that_is_killed_leaves_nothing_behind(shop: AsteriskShop) -> None:
    async with without_ari(shop) as calls:
        near, _far = await calls.call("702")
        await near.answer()
        events = told(near)
        offered, _waiting = await calls.call("703")
        shop.kill()
        try:
            await calls.until(lambda: near.state is offered.state is LegState.ENDED, "end of both legs")
            await calls.until(lambda: not len(calls.server), "end of both connections")
        finally:
            shop.start()
        (end,) = (event for event in events if isinstance(event, LegEnded))
        assert end.by in ("far", "network")
        again, _far = await calls.call("702")
        assert again.state is LegState.OFFERED
