"""A whole bridge and its Asterisks: who gets which call, what is refused, what a reload changes."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.append(str(Path(__file__).parents[2] / "unit/app"))

from ari_server import AriServer
from free_ports import free_port
from structlog.testing import capture_logs
from test_app_start import config

from bridge.api.control import DialRefused, DialRequest
from bridge.app import Bridge, StartError
from bridge.asterisks import Asterisks, audiosocket_settings
from bridge.audio.clock import MediaClock
from bridge.config import Config
from bridge.events import CallEnded, Cause, Note
from bridge.legs.media import MediaPlane
from bridge.switchboard import Inbound

pytestmark = pytest.mark.usefixtures("ari_password")

AGENTS = {"echo": {"kind": "echo"}, "sales": {"kind": "echo"}}


def with_asterisks(tmp_path: Path, *asterisks: dict[str, Any], **changes: Any) -> Config:
    return config(tmp_path, asterisk=asterisks, agents=AGENTS, **changes)


def pbx(server: AriServer, **settings: Any) -> dict[str, Any]:
    return {"name": "pbx", "url": server.url, "username": "offhook", "password_env": "ARI_PASSWORD", **settings}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settings: Config) -> AsyncIterator[Bridge]:
    async with Bridge.run(settings, lambda line: None) as bridge:
        await until(lambda: all(one.state == "up" for one in bridge.asterisk_status()))
        yield bridge


def ends_of(bridge: Bridge) -> list[CallEnded]:
    """How calls end from now on."""
    ends: list[CallEnded] = []
    bridge.call_log.subscribe(lambda item: ends.append(item.event) if isinstance(item.event, CallEnded) else None)
    return ends


async def test_a_dialplan_names_the_agent(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("c1", args=["agent=sales", "campaign=spring"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        (call,) = bridge.live_calls()
        assert (call.agent, call.trunk, call.leg_kind) == ("sales", "pbx", "asterisk")
        await until(lambda: ("c1", "OFFHOOK_CALL_ID") in ari.variables)
        assert ari.variables["c1", "OFFHOOK_CALL_ID"] == call.id
        await ari.hang_up("c1")
        await until(lambda: not bridge.live_calls() and not ari.channels and not ari.bridges)


async def test_routes_then_the_asterisks_own_agent_take_what_names_nobody(tmp_path: Path, ari: AriServer) -> None:
    routes = [{"to": "7*", "trunk": "pbx", "agent": "sales"}]
    async with running(with_asterisks(tmp_path, pbx(ari, agent="echo"), routes=routes)) as bridge:
        await ari.call_in("c1")
        await ari.call_in("c2", args=["did=200"])
        await until(lambda: len(bridge.live_calls()) == 2)
        assert {call.to: call.agent for call in bridge.live_calls()} == {"700": "sales", "200": "echo"}


@pytest.mark.parametrize(
    ("args", "limits", "cause"),
    [
        (["agent=nobody"], {}, Cause.REFUSED_NO_ROUTE),
        ([], {}, Cause.REFUSED_NO_ROUTE),
        (["agent=sales"], {"calls": 1}, Cause.REFUSED_BUSY),
        (["agent=sales"], {"calls_per_s": 1}, Cause.REFUSED_BUSY),
    ],
)
async def test_a_caller_that_nobody_takes_goes_on_in_the_dialplan(
    tmp_path: Path, ari: AriServer, args: list[str], limits: dict[str, Any], cause: Cause
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari), limits=limits)) as bridge:
        ends = ends_of(bridge)
        await ari.call_in("first", args=["agent=echo"])
        await until(lambda: len(bridge.live_calls()) == 1)
        await ari.call_in("c1", args=args)
        await until(lambda: "c1" in ari.continued)
        assert ari.variables["c1", "OFFHOOK_STATUS"] == "REFUSED"
        assert ari.variables["c1", "OFFHOOK_CAUSE"] == cause.value
        await until(lambda: [end.cause for end in ends] == [cause])
        assert len(bridge.live_calls()) == 1


async def test_a_stopping_bridge_takes_no_more_and_gives_back_what_it_has(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: len(bridge.live_calls()) == 1)
        bridge.stop()
        draining = asyncio.create_task(bridge.serve_until_stopped())
        await until(lambda: bridge.calls.draining)
        await ari.call_in("c2", args=["agent=echo"])
        await until(lambda: "c2" in ari.continued)
        assert ari.variables["c2", "OFFHOOK_CAUSE"] == Cause.REFUSED_DRAINING.value
        assert "c1" not in ari.continued
        await ari.hang_up("c1")
        await draining
    assert not ari.channels
    assert not ari.bridges


async def test_calls_that_are_left_when_the_bridge_closes_go_on_in_the_dialplan(
    tmp_path: Path, ari: AriServer
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
    assert "c1" in ari.continued
    assert ari.variables["c1", "OFFHOOK_STATUS"] == "FAILED"
    assert not ari.channels
    assert not ari.bridges


async def test_an_asterisk_that_is_not_there_keeps_nobody_waiting(tmp_path: Path, ari: AriServer) -> None:
    nowhere = {**pbx(ari), "name": "nowhere", "url": f"http://127.0.0.1:{free_port()}"}
    async with Bridge.run(with_asterisks(tmp_path, nowhere, pbx(ari)), lambda line: None) as bridge:
        await until(lambda: [one.state for one in bridge.asterisk_status()] == ["down", "up"])
        assert bridge.ready() == (True, [])
        with pytest.raises(DialRefused) as refused:
            await bridge.dial(DialRequest(to="PJSIP/1001", agent="echo", trunk="nowhere"))
        assert (refused.value.status, refused.value.code) == (503, "trunk-down")


async def test_what_asterisk_alone_can_do_is_refused_elsewhere(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        for request in (
            DialRequest(to="sip:x@127.0.0.1", agent="echo", machine="talk"),
            DialRequest(to="PJSIP/1001", agent="echo"),
            DialRequest(to="sip:x@127.0.0.1", agent="echo", trunk="pbx"),
        ):
            with pytest.raises(DialRefused) as refused:
                await bridge.dial(request)
            assert refused.value.status == 400
        with pytest.raises(DialRefused, match="known: pbx"):
            await bridge.dial(DialRequest(to="PJSIP/1001", agent="echo", trunk="other"))


async def test_a_caller_with_a_number_that_can_be_none_is_handed_on_all_the_same(
    tmp_path: Path, ari: AriServer
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("c1", args=["agent=echo"], caller={"name": "", "number": 'a\r\nX-Evil: 1"><sip:b'})
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        call = bridge.calls.find(bridge.live_calls()[0].id)
        assert call is not None
        by_asterisk = await bridge.dialler.on_behalf("PJSIP/1001", call.leg, timeout_s=5)
        assert by_asterisk.info.from_ == "aX-Evil: 1sip:b"
        by_sip = await bridge.dialler.on_behalf("sip:x@127.0.0.1:9", call.leg, timeout_s=5)
        assert by_sip.info.from_ == "aX-Evil: 1sip:b"
        for leg in (by_asterisk, by_sip):
            await leg.hangup(Cause.CANCELLED)


async def test_a_reload_adds_and_removes_asterisks_under_live_calls(tmp_path: Path, ari: AriServer) -> None:
    async with AriServer() as other, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: len(bridge.live_calls()) == 1)
        wanted = bridge.config.model_copy(
            update={"asterisk": with_asterisks(tmp_path, {**pbx(other), "name": "other"}).asterisk}
        )
        assert await bridge.reload(wanted) == ()
        await until(lambda: [(one.name, one.state) for one in bridge.asterisk_status()] == [("other", "up")])
        await other.call_in("c2", args=["agent=echo"])
        await until(lambda: len(bridge.live_calls()) == 2)
        await ari.call_in("c3", args=["agent=echo"])
        await until(lambda: "c3" in ari.continued)
        await ari.hang_up("c1")
        await until(lambda: not ari.anybody_there)
        assert not ari.bridges
        assert [call.trunk for call in bridge.live_calls()] == ["other"]


async def test_an_asterisk_that_was_removed_and_is_out_of_order_does_not_keep_the_bridge_from_stopping(
    tmp_path: Path, ari: AriServer
) -> None:
    async with AsyncExitStack() as stack:
        bridge = await stack.enter_async_context(running(with_asterisks(tmp_path, pbx(ari, request_s=0.2))))
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        await bridge.reload(bridge.config.model_copy(update={"asterisk": ()}))
        for method in ("GET", "POST", "DELETE"):
            ari.answer_with(method, "", 500, {"message": "out of order"})
        async with asyncio.timeout(30):
            await stack.aclose()


async def test_a_caller_who_is_being_given_back_is_not_taken_up_again(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        ari.answer_with("POST", "channels/c1/continue", 500, {"message": "out of order"}, times=1)
        assert await bridge.hang_up(bridge.live_calls()[0].id)
        await until(lambda: len(ends) == 1)
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        assert "c1" in ari.channels
        assert "c1" in endpoint.known().channels
        await until(lambda: "c1" in ari.continued)
        await until(lambda: not endpoint.known().channels)
        assert [end.cause for end in ends] == [Cause.API_HUNG_UP]


@pytest.mark.parametrize(("left", "cause"), [("0.3", Cause.MAX_LENGTH), ("60", Cause.CALLER_HUNG_UP)])
async def test_a_hangup_that_is_not_told_is_taken_for_the_end_of_the_time_only_where_that_is_over(
    tmp_path: Path, ari: AriServer, left: str, cause: Cause
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        ari.variables["c1", "TIMEOUT(absolute)"] = left
        ari.lose("ChannelHangupRequest")
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any("TIMEOUT(absolute)" in one.query.values() for one in ari.asked))
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        await ari.hang_up("c1")
        await until(lambda: [end.cause for end in ends] == [cause])


async def test_a_new_start_of_asterisk_is_seen_after_a_look_that_could_not_ask_when_it_began(
    tmp_path: Path, ari: AriServer
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        for channel_id in ("c1", "c2", "c3"):
            await ari.call_in(channel_id, args=["agent=echo"])
        await until(lambda: sum(call.answered_at is not None for call in bridge.live_calls()) == 3)
        await endpoint.look()
        ari.lose("ChannelHangupRequest", "StasisEnd", "ChannelDestroyed")
        # While it runs on, a channel that is gone was hung up.
        await ari.hang_up("c1")
        await endpoint.look()
        await until(lambda: [end.cause for end in ends] == [Cause.CALLER_HUNG_UP])
        ari.answer_with("GET", "asterisk/info", 500, {"message": "out of order"}, times=1)
        await ari.hang_up("c2")
        await endpoint.look()
        ari.started = "2026-11-21T23:00:00.000+0000"
        await ari.hang_up("c3")
        await endpoint.look()
        await until(lambda: [end.cause for end in ends][1:] == [Cause.SIGNALLING_LOST] * 2)


async def test_a_media_channel_of_another_bridge_is_left_to_it(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.call_in("offhook-0badcafe-0123456789ab-media")
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        assert "offhook-0badcafe-0123456789ab-media" in ari.channels
        assert len(bridge.live_calls()) == 1


@pytest.mark.parametrize(
    ("section", "settings"),
    [("audiosocket", {"trunk": "dialplans"}), ("websocket_listener", {})],
)
async def test_a_taken_port_of_a_listener_is_named(
    tmp_path: Path, ari: AriServer, section: str, settings: dict[str, Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = {"listen": "127.0.0.1", "port": taken.getsockname()[1], **settings}
        with pytest.raises(StartError, match=section):
            async with running(
                with_asterisks(
                    tmp_path,
                    pbx(ari, media="websocket", websocket={"connects": "asterisk"}),
                    **{section: listener},
                )
            ):
                pass


async def test_what_is_done_to_a_call_by_the_api_is_on_its_record(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        notes: list[tuple[str, str]] = []
        bridge.call_log.subscribe(
            lambda item: notes.append((item.event.name, item.event.detail)) if isinstance(item.event, Note) else None
        )
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        verbs = bridge.on_call(bridge.live_calls()[0].id)
        assert verbs is not None
        await verbs.hold(True)
        await verbs.hold(True)
        await verbs.hold(False)
        verbs.send_dtmf("12#")
        await verbs.set_variables({"CUSTOMER_ID": "4711", "ROOM": "two\nlines"})
    assert notes[:4] == [
        ("caller-held", "it waits"),
        ("caller-taken-back", "it is with the agent again"),
        ("keys-pressed", "12#"),
        ("variables-set", "CUSTOMER_ID=4711, ROOM=two lines"),
    ]


async def test_the_log_says_by_what_a_call_is_found_in_asterisk(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        with capture_logs() as lines:
            await ari.call_in("c1", args=["agent=echo"])
            await until(lambda: any(call.answered_at for call in bridge.live_calls()))
            await ari.call_in("c2", args=["agent=nobody"])
            await until(lambda: "c2" in ari.continued)
            await until(lambda: any(line["event"] == "call refused" for line in lines))
        (started,) = [line for line in lines if line["event"] == "call started"]
        (refused,) = [line for line in lines if line["event"] == "call refused"]
        assert (started["trunk"], started["leg"], started["channel"]) == ("pbx", "c1", "PJSIP/carrier-00000001")
        assert (refused["trunk"], refused["leg"]) == ("pbx", "c2")


async def test_before_the_start_all_are_known_and_whoever_connects_is_turned_away(
    tmp_path: Path, ari: AriServer
) -> None:
    port = free_port()
    made = with_asterisks(tmp_path, pbx(ari), audiosocket={"listen": "127.0.0.1", "port": port, "trunk": "dialplans"})
    legs: list[Inbound] = []
    clock = MediaClock()
    media = MediaPlane(clock, made.rtp)
    asterisks = Asterisks(made, media, on_leg=legs.append, media_of=lambda info: None)
    await asterisks.listen(made)
    try:
        (status,) = asterisks.status()
        assert (status.name, status.state, status.since) == ("pbx", "connecting", None)
        assert asterisks.dialplan_calls_taken() is not None
        # Asked to reconnect, it waits for the start all the same.
        assert await asterisks.reconnect("pbx")
        assert not await asterisks.reconnect("nobody")
        assert asterisks.status()[0].since is None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x01\x00\x10" + uuid4().bytes)
        async with asyncio.timeout(30):
            assert await reader.read() == b"\x00\x00\x00"
        writer.close()
        assert not legs
        await asterisks.start()
        await until(lambda: asterisks.status()[0].state == "up")
    finally:
        await asterisks.aclose()
        media.close()
        await clock.aclose()


async def test_a_taken_port_is_told_before_anything_is_loaded(tmp_path: Path, ari: AriServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = {"listen": "127.0.0.1", "port": taken.getsockname()[1], "trunk": "dialplans"}
        made = config(tmp_path, asterisk=[pbx(ari)], agents={"echo": {"kind": "conversation"}}, audiosocket=listener)
        with pytest.raises(StartError, match="audiosocket"):
            async with Bridge.run(made, pytest.fail):
                pass


async def test_the_metrics_tell_asterisks_apart(tmp_path: Path, ari: AriServer) -> None:
    async with AriServer() as other, running(with_asterisks(tmp_path, pbx(ari), pbx(other, name="other"))) as bridge:
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        text = bridge.metrics.render().decode()
        assert 'offhook_asterisk_calls{asterisk="pbx"} 1.0' in text
        assert 'offhook_asterisk_calls{asterisk="other"} 0.0' in text
        assert 'offhook_asterisk_up{asterisk="other"} 1.0' in text
        assert 'offhook_asterisk_state{asterisk="other",state="up"} 1.0' in text
        assert 'offhook_asterisk_state{asterisk="other",state="unauthorized"} 0.0' in text
        assert 'offhook_trunk_media_setup_seconds_count{transport="rtp",trunk="pbx"} 1.0' in text


async def test_what_each_metric_of_a_bridge_says_is_a_sentence(tmp_path: Path, ari: AriServer) -> None:
    ami = {"host": "127.0.0.1", "port": free_port(), "username": "offhook", "password_env": "ARI_PASSWORD"}
    made = with_asterisks(
        tmp_path,
        pbx(ari, ami=ami, media="websocket", websocket={"connects": "asterisk"}),
        audiosocket={"listen": "127.0.0.1", "port": free_port(), "trunk": "dialplans"},
        websocket_listener={"listen": "127.0.0.1", "port": free_port()},
        trunks=[{"name": "carrier", "host": "127.0.0.1"}],
    )
    async with running(made) as bridge:
        text = bridge.metrics.render().decode()
    told = [line.split(maxsplit=3) for line in text.splitlines() if line.startswith("# HELP offhook_")]
    assert {name for _, _, name, _ in told} > {"offhook_asterisk_state", "offhook_asterisk_ami_state"}
    assert [name for _, _, name, said in told if not (said[0].isupper() or said[0] == "1") or said[-1] != "."] == []


def test_an_asterisk_whose_address_is_known_may_bring_audio_by_audiosocket(tmp_path: Path) -> None:
    there = {"name": "there", "url": "http://192.168.1.5:8088", "username": "x", "password_env": "ARI_PASSWORD"}
    named = {**there, "name": "named", "url": "http://pbx.example.com:8088"}
    made = with_asterisks(tmp_path, there, named, audiosocket={"networks": ["10.0.0.0/8"]})
    assert audiosocket_settings(made).networks == ("10.0.0.0/8", "192.168.1.5")
