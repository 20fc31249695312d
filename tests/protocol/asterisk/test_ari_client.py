"""The ARI client against a stand-in that misbehaves: connections, requests and what is left at the end."""

import asyncio
import json
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from ari_client import PATIENCE_S, Client
from ari_server import AriServer
from tcp_relay import TcpRelay

from bridge.asterisk.ari import (
    AriError,
    AriNotFoundError,
    AriRefusedError,
    AriUnauthorizedError,
    AriUnavailableError,
)
from bridge.asterisk.ari_errors import AriTimeoutError
from bridge.asterisk.ari_events import (
    ApplicationReplaced,
    AriEvent,
    ChannelDestroyed,
    ChannelVarset,
    Connected,
    Disconnected,
    StasisStart,
)

sys.path.append(str(Path(__file__).parents[2] / "interop"))

from certificates import Authority

Connect = Callable[..., Client]


@pytest.fixture
async def server() -> AsyncIterator[AriServer]:
    async with AriServer() as server:
        yield server


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Clients; at the end nothing of them is left."""
    clients: list[Client] = []

    def make(url: str, **settings: Any) -> Client:
        clients.append(Client(url, **settings))
        return clients[-1]

    before = asyncio.all_tasks()
    yield make
    for client in clients:
        await client.ari.aclose()
        assert client.ari.state == "closed"
    left = {task for task in asyncio.all_tasks() - before if not task.done() and task.get_name().startswith("ari ")}
    assert left == set()


# -- connecting ---------------------------------------------------------------------------------------------------


async def test_it_connects_with_a_header_and_tells_before_all_other_events(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url).up()
    await server.call_in("c1", args=["agent=reception", "campaign=spring"])
    await client.until(lambda: bool(client.of(StasisStart)))
    assert client.events[0] == Connected(first=True)
    start = client.of(StasisStart)[0]
    assert start.args == ("agent=reception", "campaign=spring")
    assert (start.channel.caller_number, start.channel.caller_name) == ("+4930123", "Ada")
    assert client.ari.version == "22.10.1"
    assert client.ari.local_address() == "127.0.0.1"
    assert client.ari.connected_at is not None and client.ari.state_since is not None
    (socket,) = [one for one in server.exchanges if one.is_socket]
    assert socket.headers["authorization"].startswith("Basic ")
    assert dict(socket.query) == {"app": ["offhook"]}


async def test_an_asterisk_that_knows_no_requests_on_its_socket_gets_them_over_http(connect: Connect) -> None:
    async with AriServer(rest_over_socket=False) as server:
        client = await connect(server.url).up(over_socket=False)
        await server.call_in("c1")
        await client.ari.answer("c1")
        assert (await client.ari.channel("c1")).state == "Up"
        assert not client.ari.rest_over_socket
        assert client.ari.version == "22.10.1"
        assert not any(one.over_socket for one in server.asked)
        await client.ari.aclose()
        await server.all_closed()


async def test_nobody_there_is_tried_again_until_somebody_is(server: AriServer, connect: Connect) -> None:
    await server.down()
    client = connect(server.url, reconnect_s=0.2)
    client.ari.start()
    await client.is_in("down")
    assert "refused" in client.ari.last_error or "Connect call failed" in client.ari.last_error
    with pytest.raises(AriUnavailableError, match="GET channels"):
        await client.ari.channels()
    await server.up()
    await client.up()
    assert client.events == [Connected(first=True)]


async def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(
    server: AriServer, connect: Connect
) -> None:
    server.misbehave(stall="answer", times=1)
    client = connect(server.url, request_s=0.2, reconnect_s=0.2)
    client.ari.start()
    await client.is_in("down")
    assert client.ari.last_error == "no connection within 0.2 s"
    await client.up()
    server.behave()


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_a_refused_upgrade_is_told_and_tried_again(server: AriServer, connect: Connect, status: int) -> None:
    server.misbehave(status=status, body={"message": "not now"}, times=2, path="/ari/events")
    client = connect(server.url, reconnect_s=0.2)
    client.ari.start()
    await client.is_in("down")
    assert client.ari.last_error == f"GET /ari/events: {status} not now"
    await client.up()


async def test_a_redirect_is_not_followed_with_the_password(server: AriServer, connect: Connect) -> None:
    async with AriServer() as elsewhere:
        for path in ("/ari/events", "/ari/channels"):
            location = f"{elsewhere.http_url if path.endswith('channels') else elsewhere.ws_url}{path}"
            server.misbehave(status=302, headers={"location": location}, path=path)
        client = connect(server.url, reconnect_s=0.2)
        client.ari.start()
        await client.is_in("down")
        with pytest.raises(AriRefusedError, match="302"):
            await client.ari.channels()
        assert elsewhere.exchanges == []


async def test_a_wrong_password_is_logged_once_tried_slowly_and_mended(server: AriServer, connect: Connect) -> None:
    with structlog.testing.capture_logs() as logs:
        client = connect(server.url, password="wrong-of-ari", reconnect_s=0.05)
        client.ari.start()
        await client.is_in("unauthorized")
        await client.until(lambda: len(server.exchanges) > 3)
        with pytest.raises(AriUnauthorizedError, match="401 Authentication required"):
            await client.ari.channels()
        client.environ["ARI_PASSWORD"] = "s3cret-of-ari"
        await client.up()
    assert [one["log_level"] for one in logs].count("error") == 1
    assert client.events == [Connected(first=True)]


async def test_a_missing_password_is_named_and_nothing_is_sent(server: AriServer, connect: Connect) -> None:
    client = connect(server.url, reconnect_s=0.05)
    del client.environ["ARI_PASSWORD"]
    client.ari.start()
    await client.is_in("unauthorized")
    assert "ARI_PASSWORD is not set" in client.ari.last_error
    with pytest.raises(AriUnauthorizedError, match="ARI_PASSWORD"):
        await client.ari.channels()
    assert server.exchanges == []


async def test_the_password_is_in_no_error_and_no_log(
    server: AriServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        client = await connect(server.url, reconnect_s=0.1, request_s=0.5).up()
        await client.ari.request("GET", "channels", over_http=True)
        server.misbehave(status=401, body={"message": "Authentication required"}, times=2)
        errors = []
        with pytest.raises(AriUnauthorizedError) as refused:
            await client.ari.request("GET", "channels", over_http=True)
        errors.append(refused.value)
        server.drop_all()
        await client.is_in("unauthorized")
        await client.up()
        server.misbehave(garbage="x" * 300)
    # The stand-in logs what it gets, and is no part of the matter.
    records = [one.getMessage() for one in caplog.records if not one.name.startswith("websockets.server")]
    assert records
    written = repr(records) + repr(logs) + repr(errors) + client.ari.last_error
    for secret in ("s3cret", server.exchanges[0].headers["authorization"].split()[1]):
        assert secret not in written
    for exchange in server.exchanges:
        assert "s3cret" not in f"{exchange.path}{exchange.query}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_https_is_spoken_where_the_address_says_so(authority: Authority, connect: Connect) -> None:
    pair = authority.issue("asterisk")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    async with AriServer() as server, TcpRelay(server.port, tls=context) as relay:
        client = await connect(f"https://localhost:{relay.port}", verify=False).up()
        assert await client.ari.request("GET", "channels", over_http=True) == []
        strict = connect(f"https://localhost:{relay.port}")
        strict.ari.start()
        await strict.is_in("down")
        assert "certificate" in strict.ari.last_error
        with pytest.raises(AriUnavailableError, match="certificate"):
            await strict.ari.channels()
        await strict.ari.aclose()
        await client.ari.aclose()


async def test_ipv6_and_a_prefix_in_the_path(connect: Connect) -> None:
    async with AriServer(prefix="/pbx/one") as server, TcpRelay(server.port, host="::1") as relay:
        client = connect(f"http://[::1]:{relay.port}/pbx/one/")
        assert client.ari.local_address() == "::1"
        await client.up()
        assert client.ari.local_address() == "::1"
        assert await client.ari.request("GET", "bridges", over_http=True) == []
        assert await client.ari.bridges() == []
        await client.ari.aclose()


async def test_no_address_of_ours_is_known_for_a_name_that_was_never_reached(connect: Connect) -> None:
    client = connect("http://pbx.example.com:8088")
    with pytest.raises(AriUnavailableError, match="not reached yet"):
        client.ari.local_address()


# -- losing the socket --------------------------------------------------------------------------------------------


async def test_a_cut_socket_is_told_and_opened_again(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    server.drop_all()
    await client.until(lambda: len(client.of(Connected)) == 2)
    assert client.events == [Connected(True), Disconnected("the connection was lost"), Connected(False)]
    assert client.ari.last_error == "the connection was lost"
    await client.up()
    await client.ari.ping()


async def test_a_socket_that_asterisk_closes_says_why(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    server.close_all(1001, "going down")
    await client.until(lambda: bool(client.of(Disconnected)))
    assert client.of(Disconnected) == [Disconnected("closed by Asterisk: 1001 going down")]


async def test_a_server_that_is_gone_for_a_while_is_found_again(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url, reconnect_s=0.2).up()
    await server.down()
    await client.is_in("down")
    assert client.ari.connected_at is None and not client.ari.rest_over_socket
    await server.up()
    await client.up()
    assert client.ari.counters["connects"] == 2


async def test_a_socket_on_which_pings_stay_unanswered_is_opened_anew(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url, heartbeat_s=0.2).up()
    await client.until(lambda: client.ari.round_trip_s is not None)
    server.misbehave(deaf=True, times=1, path="/ari/events")
    await client.until(lambda: len(client.of(Connected)) == 2)
    assert "ping" in client.of(Disconnected)[0].reason


async def test_a_server_that_always_hangs_up_is_not_hammered(server: AriServer, connect: Connect) -> None:
    server.misbehave(close=1011, path="/ari/events")
    client = connect(server.url, reconnect_s=60)
    client.ari.start()
    await client.until(lambda: client.ari.counters["connects"] == 3)
    assert [type(event) for event in client.events[:5]] == [
        Connected,
        Disconnected,
        Connected,
        Disconnected,
        Connected,
    ]


async def test_requests_that_wait_end_with_the_socket_and_what_can_be_repeated_goes_on_over_http(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url, request_s=PATIENCE_S).up()
    await server.call_in("c1")
    server.hold("channels")
    reading = asyncio.create_task(client.ari.channels())
    answering = asyncio.create_task(client.ari.answer("c1"))
    writing = asyncio.create_task(client.ari.dtmf("c1", "1"))
    await server.until(lambda: bool(server.requests("channels")))
    server.misbehave(drop=True, times=1, path="/ari/events")
    with pytest.raises(AriUnavailableError, match=r"POST channels/c1/dtmf: the event socket is lost"):
        await writing
    server.let_go()
    assert [channel.id for channel in await reading] == ["c1"]
    await answering
    assert client.ari.counters["failed"] == 1


async def test_requests_go_over_http_while_the_socket_is_down(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url, reconnect_s=60).up()
    await server.call_in("c1")
    server.misbehave(status=503, path="/ari/events")
    server.drop_all()
    await client.is_in("down")
    await client.ari.set_variable("c1", "OFFHOOK_STATUS", "ANSWERED")
    assert await client.ari.get_variable("c1", "OFFHOOK_STATUS") == "ANSWERED"


# -- the application's name ---------------------------------------------------------------------------------------


async def test_who_loses_the_application_stays_away_until_told_to_reconnect(
    server: AriServer, connect: Connect
) -> None:
    first = await connect(server.url, reconnect_s=0.05).up()
    await server.call_in("c1")
    second = await connect(server.url, reconnect_s=0.05).up()
    await first.is_in("replaced")
    assert first.events[-2:] == [ApplicationReplaced("offhook"), Disconnected(first.ari.last_error)]
    assert "'offhook'" in first.ari.last_error
    # Its live calls can still be looked after.
    assert [channel.id for channel in await first.ari.channels()] == ["c1"]
    await server.call_in("c2")
    await second.until(lambda: bool(second.of(StasisStart)))
    assert len(first.of(StasisStart)) == 1 and first.ari.counters["connects"] == 1

    await first.ari.reconnect()
    assert first.ari.state == "up"
    assert first.of(Connected) == [Connected(True), Connected(False)]
    await second.is_in("replaced")
    await server.call_in("c3")
    await first.until(lambda: len(first.of(StasisStart)) == 2)
    assert len(second.of(StasisStart)) == 1


async def test_reconnect_returns_when_it_was_tried(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url, reconnect_s=60).up()
    await client.ari.reconnect()
    assert client.ari.state == "up" and client.ari.counters["connects"] == 2
    await server.down()
    await client.is_in("down")
    await client.ari.reconnect()
    assert client.ari.state == "down"
    await server.up()
    await client.ari.reconnect()
    assert client.ari.state == "up"
    await client.ari.aclose()
    await client.ari.reconnect()
    assert client.ari.state == "closed"


# -- requests -----------------------------------------------------------------------------------------------------


async def test_answers_find_their_requests_whatever_their_number(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    for number in range(200):
        server.variables["c1", f"V{number}"] = f"value {number}"
    await server.call_in("c1")
    names = [f"V{number}" for number in range(200)]
    values = await asyncio.gather(*(client.ari.get_variable("c1", name) for name in names))
    assert values == [f"value {number}" for number in range(200)]
    assert all(one.over_socket for one in server.requests("channels"))
    assert len([one for one in server.exchanges if not one.is_socket]) == 0


async def test_a_burst_without_the_socket_takes_few_connections(connect: Connect) -> None:
    async with AriServer(rest_over_socket=False) as server:
        client = await connect(server.url, request_s=PATIENCE_S).up(over_socket=False)
        ids = [f"offhook-x-{number}-media" for number in range(100)]
        host = "127.0.0.1:4000"
        channels = await asyncio.gather(
            *(client.ari.external_media(one, external_host=host, format="ulaw") for one in ids)
        )
        assert [channel.id for channel in channels] == ids
        assert channels[0].variables["UNICASTRTP_LOCAL_PORT"] == "40000"
        assert server.connections_made <= 34
        await client.ari.aclose()
        await server.all_closed()


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_request_without_an_answer_ends_in_time_and_harms_no_other(
    server: AriServer, connect: Connect, over_http: bool
) -> None:
    client = await connect(server.url, request_s=0.2).up()
    server.hold("bridges")
    for _ in range(3):
        with pytest.raises(AriUnavailableError, match=r"GET bridges: no answer within 0\.2 s"):
            await client.ari.request("GET", "bridges", over_http=over_http)
    assert client.ari.counters["timeouts"] == 3
    server.let_go()
    # Answers that come too late are for nobody.
    assert await client.ari.request("GET", "bridges", over_http=over_http, timeout_s=PATIENCE_S) == []
    assert client.ari.state == "up"


async def test_of_many_requests_none_is_given_up_while_those_before_it_are_answered(
    server: AriServer, connect: Connect
) -> None:
    limit_s, at_once = 3.0, 4
    client = await connect(server.url, request_s=limit_s).up()
    gates = [f"bridges/{number}" for number in range(at_once)]
    for gate in gates:
        server.hold(gate)
    loop = asyncio.get_running_loop()
    began = loop.time()
    asking = [asyncio.create_task(client.ari.delete_bridge(str(number))) for number in range(at_once)]
    for gate in gates:
        # Each is slow, none too slow.
        await asyncio.sleep(0.4 * limit_s)
        server.let_go(gate)
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert loop.time() - began > limit_s
    assert all(isinstance(one, AriNotFoundError) for one in results), results
    # One that is stuck is given up in time, and those behind it with it.
    server.hold("bridges")
    began = loop.time()
    results = await asyncio.gather(*(client.ari.bridges() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, AriTimeoutError) for one in results), results
    assert loop.time() - began < 2 * limit_s
    server.let_go()


@pytest.mark.parametrize("over_http", [False, True])
async def test_errors_say_which_request_and_what_asterisk_said(
    server: AriServer, connect: Connect, over_http: bool
) -> None:
    client = await connect(server.url).up()

    async def ask(path: str) -> Any:
        return await client.ari.request("GET", path, over_http=over_http)

    with pytest.raises(AriNotFoundError, match="GET channels/nobody: 404 Channel not found"):
        await ask("channels/nobody")
    server.answer_with("GET", "bridges", 500, {"message": "Allocation failed"})
    with pytest.raises(AriRefusedError, match="GET bridges: 500 Allocation failed") as refused:
        await ask("bridges")
    assert refused.value.status == 500
    server.answer_with("GET", "asterisk", 403, {"message": "Write access denied"})
    with pytest.raises(AriUnauthorizedError, match="Write access denied"):
        await ask("asterisk/ping")
    assert client.ari.counters["failed"] == 3
    assert client.ari.state == "up"


async def test_answers_that_are_none_are_errors(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    server.misbehave(status=200, body="<html>login</html>", path="/ari/channels")
    with pytest.raises(AriError, match="is this address Asterisk's"):
        await client.ari.request("GET", "channels", over_http=True)
    server.answer_with("GET", "channels", 200, {"message": "hello"})
    with pytest.raises(AriError, match="no list"):
        await client.ari.channels()
    server.answer_with("GET", "bridges", 200, [{"name": "without an id"}])
    with pytest.raises(AriError, match="no bridge"):
        await client.ari.bridges()
    server.misbehave(drop=True, path="/ari/applications")
    with pytest.raises(AriUnavailableError, match="GET applications"):
        await client.ari.request("GET", "applications", over_http=True)


async def test_a_request_too_large_for_the_socket_goes_over_http(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    await server.call_in("c1")
    body = {"variables": {"LONG": "x" * 40_000}}
    await client.ari.request("POST", "channels/c1/variables", body=body)
    assert [one.over_socket for one in server.requests("channels/c1")] == [False]
    assert server.requests("channels/c1")[0].body == body
    assert client.ari.counters["connects"] == 1


async def test_media_that_asterisk_connects_for_does_not_hold_up_the_socket(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url, request_s=PATIENCE_S).up()
    server.hold("channels/externalMedia")
    creating = asyncio.create_task(
        client.ari.external_media("m", format="slin", encapsulation="audiosocket", transport="tcp", data="u-u-i-d")
    )
    await server.until(lambda: bool(server.requests("channels/externalMedia")))
    await client.ari.ping()
    server.let_go()
    assert (await creating).id == "m"


async def test_the_verbs_ask_what_their_names_say(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    ari = client.ari
    await server.call_in("PJSIP/1")
    await ari.ring("PJSIP/1")
    await ari.dtmf("PJSIP/1", "1#*", 80, 60)
    await ari.start_music("PJSIP/1", "jazz")
    await ari.stop_music("PJSIP/1")
    await ari.create_bridge("b", name="offhook-joined")
    await ari.add_to_bridge("b", "PJSIP/1")
    assert (await ari.bridge("b")).channels == ("PJSIP/1",)
    await ari.record_channel("PJSIP/1", "a/b", longest_s=60, if_exists="overwrite")
    assert (await ari.snoop("PJSIP/1", "s", "both", app_args="role=snoop")).name.startswith("Snoop/")
    created = await ari.create_channel(
        "o", "PJSIP/1001", app_args=["a=1", "b=2"], formats="ulaw", variables={"X": "1"}
    )
    assert created.state == "Down"
    await ari.dial("o", "PJSIP/1", timeout_s=20)
    await ari.continue_in_dialplan("PJSIP/1", "queue", "support", 1)
    assert server.continued["PJSIP/1"] == {"context": "queue", "extension": "support", "priority": "1"}
    await ari.hangup("o", 17)
    assert await ari.get_variable("gone", "X") is None
    asked = [(one.method, one.path, dict(one.query)) for one in server.asked]
    assert ("POST", "channels/PJSIP/1/dtmf", {"dtmf": "1#*", "duration": "80", "between": "60"}) in asked
    assert ("POST", "channels/PJSIP/1/moh", {"mohClass": "jazz"}) in asked
    assert ("POST", "channels/o/dial", {"caller": "PJSIP/1", "timeout": "20"}) in asked
    assert ("DELETE", "channels/o", {"reason_code": "17"}) in asked
    (create,) = server.requests("channels/create")
    assert create.query == {
        "endpoint": "PJSIP/1001",
        "app": "offhook",
        "channelId": "o",
        "appArgs": "a=1,b=2",
        "formats": "ulaw",
    }
    assert create.body == {"variables": {"X": "1"}}
    (record,) = server.requests("channels/PJSIP/1/record")
    assert record.query["name"] == "a/b" and record.query["ifExists"] == "overwrite"


# -- events -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        b"\x00\x01\x02\xff",
        "[1, 2]",
        json.dumps({"type": "StasisStart", "channel": 5}),
        json.dumps({"type": "RESTResponse", "request_id": 5}),
        json.dumps({"type": "RESTResponse", "request_id": "999", "status_code": 200}),
        json.dumps({"type": "SomethingOfTomorrow", "channel": {"id": "x"}}),
        "[" * 50_000,
        "",
    ],
)
async def test_messages_that_say_nothing_change_nothing(
    server: AriServer, connect: Connect, garbage: str | bytes
) -> None:
    client = await connect(server.url).up()
    await server.say(garbage)
    await server.call_in("c1")
    await client.until(lambda: bool(client.of(StasisStart)))
    await client.ari.ping()
    assert client.ari.counters["connects"] == 1 and len(client.events) == 2


async def test_a_message_beyond_all_measure_costs_only_the_connection(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    await server.say("x" * (17 * 1024 * 1024))
    await client.until(lambda: len(client.of(Connected)) == 2)
    await client.up()


async def test_a_handler_that_fails_or_dawdles_is_counted_and_the_next_event_comes(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url).up()

    def fail(event: AriEvent) -> None:
        if isinstance(event, StasisStart) and event.channel.id == "c1":
            raise RuntimeError("a bug")

    client.on_event = fail
    await server.call_in("c1")
    await server.call_in("c2")
    await client.until(lambda: len(client.of(StasisStart)) == 2)
    assert client.ari.counters["failed_handlers"] == 1
    assert client.ari.slowest_handler_ms > 0


async def test_a_flood_of_events_leaves_the_loop_to_others(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    channel = {"id": "c1", "name": "PJSIP/x", "state": "Up"}
    message = json.dumps({"type": "ChannelVarset", "channel": channel, "variable": "X", "value": "y" * 500})
    other = asyncio.create_task(others())
    for _ in range(3000):
        await server.say(message)
    await client.until(lambda: len(client.of(ChannelVarset)) == 3000)
    other.cancel()
    assert turns > 10
    assert client.ari.state == "up"


# -- channels that enter ------------------------------------------------------------------------------------------


async def test_a_channel_of_ours_goes_to_its_waiter_even_before_the_answer(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url).up()
    with client.ari.entering("m") as entering:
        await client.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        channel = await entering.wait(PATIENCE_S)
    assert (channel.id, channel.app_name) == ("m", "Stasis")
    assert client.of(StasisStart) == []


async def test_a_late_entrance_is_waited_for_and_after_that_it_is_anybodys(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url).up()
    server.lose("StasisStart")
    with client.ari.entering("m") as entering:
        await client.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        waiting = asyncio.create_task(entering.wait(PATIENCE_S))
        server.lose()
        await server.event("StasisStart", channel=server.channels["m"], args=[])
        assert (await waiting).id == "m"
        with (
            client.ari.entering("n") as never,
            pytest.raises(AriUnavailableError, match="channel n: it did not enter the application"),
        ):
            await never.wait(0.05)
    await server.call_in("n")
    await client.until(lambda: bool(client.of(StasisStart)))


async def test_a_channel_that_ends_instead_of_entering_fails_its_waiter(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    server.lose("StasisStart")
    with client.ari.entering("m") as entering:
        await client.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        await server.hang_up("m", 3)
        with pytest.raises(AriRefusedError, match=r"channel m: it ended before .*\(3\)"):
            await entering.wait(PATIENCE_S)
    assert [event.cause for event in client.of(ChannelDestroyed)] == [3]


async def test_an_entrance_lost_with_the_socket_is_found_after_it(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url).up()
    server.lose("StasisStart", "ChannelDestroyed")
    with client.ari.entering("m") as there, client.ari.entering("gone") as gone:
        await client.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        await client.ari.external_media("gone", external_host="127.0.0.1:4000", format="ulaw")
        await server.hang_up("gone")
        server.drop_all()
        assert (await there.wait(PATIENCE_S)).app_data == "offhook"
        with pytest.raises(AriRefusedError, match="not there"):
            await gone.wait(PATIENCE_S)


async def test_a_connection_lost_before_the_channel_is_made_does_not_end_it(
    server: AriServer, connect: Connect
) -> None:
    client = await connect(server.url).up()
    with client.ari.entering("m") as entering:
        server.drop_all()
        await client.until(lambda: client.ari.counters["connects"] == 2)
        # Time enough to find nothing.
        await client.ari.request("GET", "channels", over_http=True)
        await client.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        assert (await entering.wait(PATIENCE_S)).id == "m"


async def test_an_entrance_told_to_who_took_the_application_is_found(server: AriServer, connect: Connect) -> None:
    first = await connect(server.url).up()
    with first.ari.entering("m") as entering:
        second = await connect(server.url).up()
        await first.until(lambda: first.ari.state == "replaced")
        await first.ari.external_media("m", external_host="127.0.0.1:4000", format="ulaw")
        assert (await entering.wait(PATIENCE_S)).id == "m"
    await second.until(lambda: [event.channel.id for event in second.of(StasisStart)] == ["m"])


# -- the end ------------------------------------------------------------------------------------------------------


async def test_closing_ends_what_waits_and_leaves_nothing(server: AriServer, connect: Connect) -> None:
    client = await connect(server.url, request_s=PATIENCE_S).up()
    await client.ari.request("GET", "channels", over_http=True)
    server.hold("bridges")
    asking = asyncio.create_task(client.ari.bridges())
    posting = asyncio.create_task(client.ari.create_bridge("b"))
    with client.ari.entering("m") as entering:
        waiting = asyncio.create_task(entering.wait(PATIENCE_S))
        await server.until(lambda: bool(server.requests("bridges")))
        await asyncio.gather(client.ari.aclose(), client.ari.aclose())
        for task in (asking, posting, waiting):
            with pytest.raises(AriUnavailableError):
                await task
    with pytest.raises(AriUnavailableError, match="closed"):
        await client.ari.channels()
    assert client.of(Disconnected) == []
    assert [one.close_code for one in server.exchanges if one.is_socket and one.over.is_set()] in ([], [1000])
    server.let_go()
    await server.all_closed()


async def test_closing_while_connecting_leaves_nothing(server: AriServer, connect: Connect) -> None:
    server.misbehave(stall="answer")
    client = connect(server.url)
    client.ari.start()
    await server.until(lambda: server.connections_made == 1)
    await client.ari.aclose()
    server.behave()
    await server.all_closed()
    client.ari.start()
    assert client.ari.state == "closed" and client.events == []


async def test_a_client_that_was_never_started_closes(connect: Connect) -> None:
    client = connect("http://127.0.0.1:9")
    assert client.ari.state == "connecting" and client.ari.state_since is None
    await client.ari.aclose()
