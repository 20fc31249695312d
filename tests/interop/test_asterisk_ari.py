"""The ARI client against a real Asterisk: a call, a restart, passwords, an application taken, a socket cut."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asterisk_shop import AsteriskShop
from free_ports import free_port

from bridge.asterisk.ari import AriError, AriNotFoundError, AriRefusedError, AriUnauthorizedError, AriUnavailableError
from bridge.asterisk.ari_events import (
    ApplicationReplaced,
    BridgeDestroyed,
    ChannelDestroyed,
    ChannelEnteredBridge,
    ChannelLeftBridge,
    Connected,
    Disconnected,
    RecordingFinished,
    RecordingStarted,
    StasisEnd,
    StasisStart,
)

sys.path.append(str(Path(__file__).parents[1] / "protocol/asterisk"))

from ari_client import PATIENCE_S, Client
from tcp_relay import TcpRelay

pytestmark = pytest.mark.timeout(180)

DIALPLAN = """
[ari-tests]
exten => stasis,1,Stasis(offhook,agent=reception,campaign=spring)
 same => n,Verbose(0,on in the dialplan with ${STASISSTATUS} and "${SAID}")
 same => n,Wait(60)
exten => other,1,Stasis(other)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), dialplan=DIALPLAN)
    yield started
    started.stop()


Connect = Callable[..., Client]


@pytest.fixture
async def connect(shop: AsteriskShop) -> AsyncIterator[Connect]:
    """Clients; at the end nothing of them is left, here or at Asterisk."""
    clients: list[Client] = []
    before = _open_files()

    def make(url: str = shop.ari_url, *, password: str = shop.password, **settings: Any) -> Client:
        clients.append(Client(url, password=password, **settings))
        return clients[-1]

    yield make
    for client in clients:
        # Also where the test has failed: the next begins with an empty Asterisk.
        with suppress(AriError):
            for bridge in await client.ari.bridges():
                await client.ari.delete_bridge(bridge.id)
        await client.ari.aclose()
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("ari ") and not task.done()]
    assert left == []
    gc.collect()
    await _until(lambda: _open_files() <= before)
    await asyncio.to_thread(shop.hang_up_all)
    await asyncio.to_thread(shop.assert_empty)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def _call(shop: AsteriskShop, client: Client, extension: str = "stasis") -> StasisStart:
    """A caller who plays a tone comes into the application."""
    known = len(client.of(StasisStart))
    await asyncio.to_thread(shop.originate, "Local/tone@world/n", f"{extension}@ari-tests")
    await client.until(lambda: len(client.of(StasisStart)) > known)
    started: StasisStart = client.of(StasisStart)[known]
    return started


async def test_a_call_is_taken_bridged_with_media_recorded_and_given_back(
    shop: AsteriskShop, connect: Connect
) -> None:
    client = await connect().up()
    ari = client.ari
    start = await _call(shop, client)
    caller = start.channel.id
    assert start.args == ("agent=reception", "campaign=spring")
    await ari.create_bridge("ari-test-bridge", name="a name")
    with ari.entering("ari-test-media") as entering:
        media = await ari.external_media("ari-test-media", external_host="127.0.0.1:9", format="ulaw")
        entered = await entering.wait(PATIENCE_S)
    assert int(media.variables["UNICASTRTP_LOCAL_PORT"]) in shop.rtp_range
    assert (entered.app_name, entered.app_data) == ("Stasis", "offhook")
    await ari.add_to_bridge("ari-test-bridge", caller, "ari-test-media")
    assert {channel.id for channel in await ari.channels()} >= {caller, "ari-test-media"}
    (bridge,) = await ari.bridges()
    assert (bridge.name, set(bridge.channels)) == ("a name", {caller, "ari-test-media"})
    assert set((await ari.application("offhook")).channels) >= {caller, "ari-test-media"}
    with ari.entering("ari-test-snoop") as entering:
        await ari.snoop(caller, "ari-test-snoop", spy="both", app_args="role=snoop")
        assert (await entering.wait(PATIENCE_S)).app_data == "offhook,role=snoop"
    await ari.record_channel("ari-test-snoop", "ari/test", if_exists="overwrite")
    await client.until(lambda: bool(client.of(RecordingStarted)))
    await ari.stop_recording("ari/test")
    await client.until(lambda: bool(client.of(RecordingFinished)))
    assert client.of(RecordingStarted) == [RecordingStarted("ari/test", "channel:ari-test-snoop")]
    await ari.hangup("ari-test-snoop")
    await ari.dtmf(caller, "12#", 60, 60)
    await ari.set_variable(caller, "SAID", 'ä + 100%, "yes" & no')
    await ari.set_variable(caller, "CALLERID(name)", "Ada & Co")
    assert await ari.get_variable(caller, "SAID") == 'ä + 100%, "yes" & no'
    assert (await ari.channel(caller)).caller_name == "Ada & Co"
    assert await ari.get_variable(caller, "DIALPLAN_EXISTS(ari-tests,stasis,1)") == "1"
    assert await ari.get_variable(caller, "NOTHING") is None
    await ari.hangup("ari-test-media")
    await ari.delete_bridge("ari-test-bridge")
    await ari.continue_in_dialplan(caller)
    line = await asyncio.to_thread(shop.program.wait_for_line, "on in the dialplan with")
    assert 'with SUCCESS and "ä + 100%, "yes" & no"' in line
    await client.until(lambda: caller in [event.channel.id for event in client.of(StasisEnd)])
    kinds = {type(event) for event in client.events}
    assert kinds >= {BridgeDestroyed, ChannelEnteredBridge, ChannelLeftBridge, ChannelDestroyed}
    assert [event.channel.id for event in client.of(StasisStart)] == [caller]
    assert client.ari.counters["malformed"] == client.ari.counters["timeouts"] == 0
    assert ari.version.startswith("22.") and ari.rest_over_socket


async def test_a_hundred_channels_enter_at_once_on_either_way(shop: AsteriskShop, connect: Connect) -> None:
    client = await connect(request_s=PATIENCE_S).up()

    async def media(number: int, over_http: bool) -> None:
        channel_id = f"ari-burst-{number}-{over_http}"
        with client.ari.entering(channel_id) as entering:
            query = {"channelId": channel_id, "app": "offhook", "external_host": "127.0.0.1:9", "format": "ulaw"}
            await client.ari.request("POST", "channels/externalMedia", query=query, over_http=over_http)
            assert (await entering.wait(PATIENCE_S)).id == channel_id
        await client.ari.hangup(channel_id)

    for over_http in (False, True):
        await asyncio.gather(*(media(number, over_http) for number in range(100)))
    await client.until(lambda: len(client.of(ChannelDestroyed)) == 200)
    assert client.of(StasisStart) == []


async def test_what_asterisk_refuses_is_told(shop: AsteriskShop, connect: Connect) -> None:
    client = await connect().up()
    with pytest.raises(AriNotFoundError, match=r"POST channels/no%2Fbody/answer: 404 Channel not found"):
        await client.ari.answer("no/body")
    with pytest.raises(AriNotFoundError):
        await client.ari.module("res_nothing.so")
    with pytest.raises(AriNotFoundError):
        await client.ari.application("nobody")
    assert (await client.ari.module("app_stasis.so")).status == "Running"
    assert "app_stasis.so" in [module.name for module in await client.ari.modules()]
    with pytest.raises(AriRefusedError, match="413"):
        await client.ari.request("POST", "asterisk/variable", body={"variable": "LONG", "value": "x" * 100_000})
    await client.ari.ping()
    assert client.ari.counters["connects"] == 1


async def test_a_channel_that_never_comes_up_fails_its_waiter(shop: AsteriskShop, connect: Connect) -> None:
    client = await connect().up()
    # Asterisk is to connect, and nobody listens there.
    with client.ari.entering("ari-nobody") as entering:
        await client.ari.external_media(
            "ari-nobody", external_host="offhook", format="slin16", encapsulation="none", transport="websocket"
        )
        with pytest.raises(AriRefusedError, match="ari-nobody: it ended before it entered"):
            await entering.wait(PATIENCE_S)
    # We are to connect, and don't.
    with client.ari.entering("ari-never") as entering:
        await client.ari.external_media(
            "ari-never", format="slin16", encapsulation="none", transport="websocket", connection_type="server"
        )
        with pytest.raises(AriUnavailableError, match="did not enter"):
            await entering.wait(0.3)
    await client.ari.hangup("ari-never")


async def test_media_that_asterisk_waits_for_holds_up_no_other_request(shop: AsteriskShop, connect: Connect) -> None:
    client = await connect(request_s=PATIENCE_S).up()
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    creating = [
        asyncio.create_task(
            client.ari.external_media(
                f"ari-silent-{number}",
                external_host=f"127.0.0.1:{port}",
                format="slin",
                encapsulation="audiosocket",
                transport="tcp",
                data="40325ec2-5efd-4bd3-805f-53576e581d13",
            )
        )
        for number in range(3)
    ]
    await client.ari.ping()
    await client.until(lambda: len(writers) == 3)
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*creating)
    silent.close()


async def test_a_wrong_password_is_told_and_mended(shop: AsteriskShop, connect: Connect) -> None:
    client = connect(password="not-the-password", reconnect_s=0.2)
    client.ari.start()
    await client.is_in("unauthorized")
    assert client.ari.last_error == "GET /ari/events: 401 Authentication required"
    with pytest.raises(AriUnauthorizedError, match="GET channels: 401"):
        await client.ari.channels()
    client.environ["ARI_PASSWORD"] = shop.password
    await client.up()
    assert client.events == [Connected(first=True)]


async def test_the_application_goes_to_the_last_and_comes_back_when_asked(
    shop: AsteriskShop, connect: Connect
) -> None:
    first = await connect(reconnect_s=0.1).up()
    caller = (await _call(shop, first)).channel.id
    second = await connect(reconnect_s=0.1).up()
    await first.is_in("replaced")
    assert first.events[-2:] == [ApplicationReplaced("offhook"), Disconnected(first.ari.last_error)]
    # Its own end does not cost the other its events, and its calls go on.
    assert (await _call(shop, second)).args == ("agent=reception", "campaign=spring")
    assert len(first.of(StasisStart)) == 1
    assert (await first.ari.channel(caller)).app_name == "Stasis"
    await first.ari.reconnect()
    assert first.ari.state == "up"
    await second.is_in("replaced")
    await first.ari.hangup(caller)
    await first.until(lambda: caller in [event.channel.id for event in first.of(StasisEnd)])
    assert caller not in [event.channel.id for event in second.of(StasisEnd)]


async def test_a_cut_socket_costs_no_call(shop: AsteriskShop, connect: Connect) -> None:
    async with TcpRelay(shop.http_port) as relay:
        client = await connect(f"http://127.0.0.1:{relay.port}").up()
        caller = (await _call(shop, client)).channel.id
        relay.cut()
        await client.until(lambda: client.of(Connected) == [Connected(True), Connected(False)])
        await client.up()
        assert (await client.ari.channel(caller)).app_name == "Stasis"
        await client.ari.answer(caller)
        await client.ari.hangup(caller)
        await client.until(lambda: caller in [event.channel.id for event in client.of(StasisEnd)])
        await client.ari.aclose()


async def test_a_network_that_swallows_everything_is_noticed_by_pings(shop: AsteriskShop, connect: Connect) -> None:
    async with TcpRelay(shop.http_port) as relay:
        client = await connect(f"http://127.0.0.1:{relay.port}", heartbeat_s=0.5, request_s=1.0).up()
        await client.until(lambda: client.ari.round_trip_s is not None)
        relay.stall()
        with pytest.raises(AriUnavailableError, match="GET channels"):
            await client.ari.channels()
        await client.until(lambda: bool(client.of(Disconnected)))
        relay.flow()
        await client.until(lambda: len(client.of(Connected)) == 2)
        await client.up()
        await client.ari.ping()
        await client.ari.aclose()


async def test_two_asterisks_at_once_and_a_restart_of_one(
    shop: AsteriskShop, connect: Connect, tmp_path: Path
) -> None:
    other = await asyncio.to_thread(AsteriskShop, tmp_path / "other", dialplan=DIALPLAN)
    try:
        here = await connect().up()
        there = await connect(other.ari_url, password=other.password, app="other", reconnect_s=0.5).up()
        await asyncio.gather(_call(shop, here), _call(other, there, "other"))
        assert [len(client.of(StasisStart)) for client in (here, there)] == [1, 1]
        for end in (other.kill, other.stop):
            known = len(there.of(Connected))
            await asyncio.to_thread(end)
            await there.until(lambda: len(there.of(Disconnected)) == known)  # noqa: B023 - awaited here
            await there.is_in("down")
            with pytest.raises(AriUnavailableError):
                await there.ari.channels()
            await asyncio.to_thread(other.start)
            await there.until(lambda: len(there.of(Connected)) == known + 1)  # noqa: B023 - awaited here
            assert await there.ari.channels() == []
        await there.up()
        await _call(other, there, "other")
        assert here.ari.counters["connects"] == 1 and here.ari.state == "up"
        await there.ari.aclose()
    finally:
        await asyncio.to_thread(other.stop)


async def test_nothing_listens_and_then_asterisk_does(shop: AsteriskShop, connect: Connect) -> None:
    relay = TcpRelay(shop.http_port)
    relay.port = free_port()
    client = connect(f"http://127.0.0.1:{relay.port}", reconnect_s=0.2)
    client.ari.start()
    await client.is_in("down")
    async with relay:
        await client.up()
        await client.ari.aclose()
