"""A reload with other settings for an Asterisk that stays: new calls have them, live ones go on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ari_server import AriServer
from tcp_relay import TcpRelay
from test_asterisk_bridge import ends_of, pbx, running, until, with_asterisks

from bridge.api.control import DialRefused, DialRequest
from bridge.app import Bridge
from bridge.config import Config
from bridge.events import CallEvent, DtmfReceived
from bridge.reload import ReloadError

MANY = 8
"""Calls that a bridge takes at once."""


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARI_PASSWORD", "s3cret-of-ari")
    monkeypatch.setenv("OTHER_PASSWORD", "0ther")


def changed(bridge: Bridge, folder: Path, *asterisks: dict[str, Any]) -> Config:
    return bridge.config.model_copy(update={"asterisk": with_asterisks(folder, *asterisks).asterisk})


async def call_in(bridge: Bridge, ari: AriServer, channel_id: str) -> None:
    """A call that is up."""
    before = len(bridge.live_calls())
    await ari.call_in(channel_id, args=["agent=echo"])
    await until(lambda: len([one for one in bridge.live_calls() if one.answered_at]) == before + 1)


def digits_of(bridge: Bridge) -> list[str]:
    """Those that are pressed from now on."""
    digits: list[str] = []

    def note(event: CallEvent) -> None:
        if isinstance(event, DtmfReceived):
            digits.append(event.digit)

    bridge.call_log.subscribe(lambda item: note(item.event))
    return digits


async def is_heard(bridge: Bridge, ari: AriServer, channel_id: str) -> None:
    """Events of the channel reach its call."""
    digits = digits_of(bridge)
    await ari.event("ChannelDtmfReceived", channel=ari.channels[channel_id], digit="5", duration_ms=100)
    await until(lambda: digits == ["5"])


def connects(bridge: Bridge) -> float:
    return bridge.asterisks.readings()['asterisk_ari_connects_total{asterisk="pbx"}']


async def test_what_the_connection_does_not_depend_on_holds_at_once(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await call_in(bridge, ari, "c1")
        more = {"agent": "sales", "after": "hangup", "variables": ["CAMPAIGN"], "dial": ["PJSIP/10??"], "calls": 2}
        assert await bridge.reload(changed(bridge, tmp_path, pbx(ari, rtp={"codec": "alaw"}, **more))) == ()
        assert connects(bridge) == 1
        ari.variables["c2", "CAMPAIGN"] = "spring"
        await ari.call_in("c2")
        await until(lambda: len(bridge.live_calls()) == 2)
        (second,) = [call for call in bridge.live_calls() if call.agent == "sales"]
        found = bridge.calls.find(second.id)
        assert found is not None and found.leg.info.headers["campaign"] == "spring"
        await until(lambda: [one.query.get("format") for one in ari.requests("channels/externalMedia")][-1] == "alaw")
        with pytest.raises(DialRefused) as refused:
            await bridge.dial(DialRequest(to="PJSIP/1001", agent="echo", trunk="pbx"))
        assert (refused.value.status, refused.value.code) == (503, "busy")
        with pytest.raises(DialRefused) as refused:
            await bridge.dial(DialRequest(to="PJSIP/2001", agent="echo", trunk="pbx"))
        assert (refused.value.status, refused.value.code) == (403, "not-permitted")
        await is_heard(bridge, ari, "c1")


async def test_another_login_is_changed_to_under_live_calls(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        states: list[str] = []
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        await call_in(bridge, ari, "c1")
        ari.username, ari.password = "other", "0ther"
        before = len(ari.asked)
        login = {"username": "other", "password_env": "OTHER_PASSWORD"}
        assert await bridge.reload(changed(bridge, tmp_path, pbx(ari, **login))) == ()
        while connects(bridge) < 2:
            states.append(endpoint.ari.state)
            await asyncio.sleep(0)
        assert set(states) == {"up"}
        assert bridge.asterisks.get("pbx") is endpoint
        assert len(ari.applications["offhook"].sockets) == 1
        assert len(ari.asked) > before
        await is_heard(bridge, ari, "c1")
        await call_in(bridge, ari, "c2")
        await ari.hang_up("c1")
        await until(lambda: len(bridge.live_calls()) == 1)


async def test_nobody_finds_the_application_empty_while_the_login_changes(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ari.username, ari.password = "other", "0ther"
        wanted = changed(bridge, tmp_path, pbx(ari, username="other", password_env="OTHER_PASSWORD"))
        reloading = asyncio.create_task(bridge.reload(wanted))
        calls = 0
        while connects(bridge) < 2:
            assert ari.anybody_there
            if calls < MANY:
                calls += 1
                await ari.call_in(f"c{calls}", args=["agent=echo"])
            await asyncio.sleep(0)
        await reloading
        await until(lambda: len([one for one in bridge.live_calls() if one.answered_at]) == calls)


async def test_the_same_asterisk_by_another_address_keeps_its_calls(tmp_path: Path, ari: AriServer) -> None:
    async with TcpRelay(ari.port) as relay, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        endpoint = bridge.asterisks.get("pbx")
        await call_in(bridge, ari, "c1")
        url = f"http://127.0.0.1:{relay.port}"
        assert await bridge.reload(changed(bridge, tmp_path, {**pbx(ari), "url": url})) == ()
        await until(lambda: connects(bridge) == 2)
        assert bridge.asterisks.get("pbx") is endpoint
        assert [(one.url, one.calls) for one in bridge.asterisk_status()] == [(url, 1)]
        await is_heard(bridge, ari, "c1")


async def test_calls_of_the_asterisk_that_was_go_on_to_their_ends(tmp_path: Path, ari: AriServer) -> None:
    async with AriServer() as other, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        await call_in(bridge, ari, "c1")
        assert await bridge.reload(changed(bridge, tmp_path, pbx(other))) == ()
        await until(lambda: [(one.state, one.url) for one in bridge.asterisk_status()] == [("up", other.url)])
        await call_in(bridge, other, "c2")
        await is_heard(bridge, ari, "c1")
        await ari.call_in("c3", args=["agent=echo"])
        await until(lambda: "c3" in ari.continued)
        assert "another Asterisk has taken this one's place" in ari.variables["c3", "OFFHOOK_DETAIL"]
        assert {call.trunk for call in bridge.live_calls()} == {"pbx"}
        await ari.hang_up("c1")
        await until(lambda: not ari.anybody_there)
        assert [end.cause.value for end in ends] == ["refused-draining", "caller-hung-up"]
        assert not ari.bridges and len(bridge.live_calls()) == 1


async def test_another_application_is_another_endpoint(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await call_in(bridge, ari, "c1")
        assert await bridge.reload(changed(bridge, tmp_path, pbx(ari, app="second"))) == ()
        await until(lambda: [(one.state, one.app) for one in bridge.asterisk_status()] == [("up", "second")])
        await ari.call_in("c2", args=["agent=echo"], app="second")
        await until(lambda: len(bridge.live_calls()) == 2)
        await is_heard(bridge, ari, "c1")
        await ari.hang_up("c1")
        await until(lambda: not ari.applications["offhook"].sockets)


async def test_a_login_that_is_not_taken_changes_nothing_and_says_so(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        before = bridge.config
        for login in ({"username": "nobody"}, {"password_env": "NO_SUCH_VARIABLE"}):
            wanted = changed(bridge, tmp_path, pbx(ari, agent="sales", **login))
            with pytest.raises(ReloadError, match=r"asterisk pbx: .*") as refused:
                await bridge.reload(wanted)
            assert "s3cret" not in str(refused.value)
        manager = {"host": "127.0.0.1", "username": "offhook", "password_env": "NO_SUCH_VARIABLE"}
        with pytest.raises(ReloadError, match=r"asterisk pbx: ami: .* NO_SUCH_VARIABLE is not set"):
            await bridge.reload(changed(bridge, tmp_path, pbx(ari, agent="sales", ami=manager)))
        assert bridge.config is before
        assert connects(bridge) == 1
        await call_in(bridge, ari, "c1")


async def test_an_asterisk_that_is_not_there_yet_is_waited_for_and_the_former_keeps_its_calls(
    tmp_path: Path, ari: AriServer
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari, reconnect_s=0.2))) as bridge, TcpRelay(1) as nowhere:
        await call_in(bridge, ari, "c1")
        url = f"http://127.0.0.1:{nowhere.port}"
        assert await bridge.reload(changed(bridge, tmp_path, {**pbx(ari, reconnect_s=0.2), "url": url})) == ()
        await until(lambda: [one.state for one in bridge.asterisk_status()] == ["down"])
        await is_heard(bridge, ari, "c1")
        # And back again.
        assert await bridge.reload(changed(bridge, tmp_path, pbx(ari))) == ()
        await until(lambda: [one.state for one in bridge.asterisk_status()] == ["up"])
        await call_in(bridge, ari, "c2")


async def test_what_was_asked_before_the_change_is_answered_after_it(tmp_path: Path) -> None:
    # One that takes requests by HTTP alone.
    async with AriServer(rest_over_socket=False) as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        ari.hold("bridges")
        asked = asyncio.create_task(endpoint.ari.bridges())
        await until(lambda: bool(ari.requests("bridges")))
        await bridge.reload(changed(bridge, tmp_path, pbx(ari, heartbeat_s=9)))
        await until(lambda: connects(bridge) == 2)
        ari.let_go()
        assert await asked == []


async def test_an_application_that_another_process_has_is_not_taken_back_by_a_reload(
    tmp_path: Path, ari: AriServer
) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        await ari.event("ApplicationReplaced")
        await until(lambda: bridge.asterisk_status()[0].state == "replaced")
        assert await bridge.reload(changed(bridge, tmp_path, pbx(ari, heartbeat_s=9, agent="sales"))) == ()
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        await until(lambda: not endpoint.busy)
        assert (bridge.asterisk_status()[0].state, connects(bridge)) == ("replaced", 1)
        assert await bridge.reconnect_asterisk("pbx")
        assert (bridge.asterisk_status()[0].state, connects(bridge)) == ("up", 2)
