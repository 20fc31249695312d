"""A whole bridge and its trunks: registered, watched, calling both ways, limited; and reloaded under a live call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from app_carrier import Carrier
from test_app_start import config

from bridge.api.control import DialRefused, DialRequest
from bridge.app import Bridge
from bridge.config import Config
from bridge.events import CallEnded, CallStarted, Cause
from bridge.legs.base import LegState
from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.legs.sip import SipLeg
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.reload import ReloadError
from bridge.sip.digest import Credentials
from bridge.store.records import Recorded

ALICE = {"username": "alice", "password_env": "CARRIER_PASSWORD"}


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", "open sesame")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def with_trunks(tmp_path: Path, *trunks: dict[str, Any], **changes: Any) -> Config:
    made = config(tmp_path, trunks=trunks, **changes)
    return made.model_copy(update={"sip": made.sip.model_copy(update={"allow_from": ()})})


@asynccontextmanager
async def carrier() -> AsyncIterator[Carrier]:
    opened = await Carrier().start()
    try:
        yield opened
    finally:
        opened.close()


@asynccontextmanager
async def phone(bridge: Bridge) -> AsyncIterator[SipEndpoint]:
    opened = SipEndpoint(SipEndpointSettings(host="127.0.0.1", port=0, tcp=False), bridge.media)
    await opened.start()
    try:
        yield opened
    finally:
        await opened.aclose()


async def call(bridge: Bridge, caller: SipEndpoint, user: str = "echo", password: str = "open sesame") -> SipLeg:
    """A call that is up, or over."""
    profile = LegProfile(credentials=Credentials("bob", password))
    leg = await caller.place(
        OutboundCall(f"sip:{user}@127.0.0.1:{bridge.config.sip.port}", "sip:+49301@pbx.example", profile=profile)
    )
    await until(lambda: leg.state is not LegState.OFFERED)
    return leg


def recorded(bridge: Bridge) -> list[Recorded]:
    items: list[Recorded] = []
    bridge.call_log.subscribe(items.append)
    return items


def of_carrier(opened: Carrier, **changes: Any) -> dict[str, Any]:
    return {"name": "carrier", "host": "127.0.0.1", "port": opened.port, **ALICE, **changes}


async def test_a_trunk_is_registered_watched_and_taken_back(tmp_path: Path) -> None:
    async with carrier() as far:
        settings = with_trunks(tmp_path, of_carrier(far, register=True))
        async with Bridge.run(settings, lambda line: None) as bridge:
            await until(lambda: bridge.trunk_status()[0].state == "up")
            (status,) = bridge.trunk_status()
            assert status.registration is not None and status.registration.state == "registered"
            assert status.liveness is not None and status.liveness.round_trip_ms is not None
            register = far.of("REGISTER")[-1]
            assert register.uri == f"sip:127.0.0.1:{far.port}"
            assert str(register.contact) == f"<sip:alice@127.0.0.1:{settings.sip.port}>"
            bridge.stop()
            await bridge.serve_until_stopped()
            assert far.of("REGISTER")[-1].headers.get("Expires") == "0"
            assert bridge.trunk_status()[0].state == "unregistered"


async def test_a_wrong_password_is_seen_and_a_new_one_tried_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", "open barley")
    async with carrier() as far:
        settings = with_trunks(tmp_path, of_carrier(far, register=True, options_s=0))
        async with Bridge.run(settings, lambda line: None) as bridge:
            await until(lambda: bridge.trunk_status()[0].state == "refused")
            assert bridge.trunk_status()[0].last_error == "REGISTER: 401 Unauthorized"
            monkeypatch.setenv("CARRIER_PASSWORD", "open sesame")
            assert await bridge.reload(settings) == ()
            await until(lambda: bridge.trunk_status()[0].state == "up")
            assert bridge.register_again("carrier")
            assert not bridge.register_again("nobody")


async def test_a_call_goes_out_by_the_trunk_as_it_is_configured(tmp_path: Path) -> None:
    async with carrier() as far:
        trunk = of_carrier(
            far,
            options_s=0,
            register=True,
            caller="+4930999",
            from_host="acme.example",
            identity="asserted",
            anonymous=True,
            headers={"X-Telnyx-Username": "acme"},
            allow_headers=["X-Order*"],
        )
        async with Bridge.run(with_trunks(tmp_path, trunk), lambda line: None) as bridge:
            items = recorded(bridge)
            await until(lambda: bridge.trunk_status()[0].state == "up")
            request = DialRequest("+49 30 (123)", "echo", trunk="carrier", headers=(("X-Order-Id", "17"),))
            await bridge.dial(request)
            await until(lambda: any(isinstance(item.event, CallEnded) for item in items))
            first, second = far.of("INVITE")
            assert "Authorization" not in first.headers
            assert "Authorization" in second.headers
            assert second.uri == f"sip:+4930123@127.0.0.1:{far.port}"
            assert second.from_.uri.host == "anonymous.invalid"
            assert second.headers.get("P-Asserted-Identity") == "<sip:+4930999@acme.example>"
            assert second.headers.get("Privacy") == "id"
            assert second.headers.get("X-Telnyx-Username") == "acme"
            assert second.headers.get("X-Order-Id") == "17"
            assert second.headers.get("Route") == "<sip:edge.carrier.example;lr>"
            started = next(item.event for item in items if isinstance(item.event, CallStarted))
            assert (started.trunk, started.from_, started.to) == ("carrier", "+4930999", "+4930123")
            (status,) = bridge.trunk_status()
            assert (status.attempts, status.calls, status.refused) == (1, 0, 0)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (DialRequest("+4930", "echo", trunk="nobody"), 404, "no-such-trunk"),
        (DialRequest("+4930", "echo", trunk="inbound"), 400, "bad-target"),
        (DialRequest("+4930", "echo"), 400, "bad-target"),
        (DialRequest("sip:a@elsewhere.example", "echo", trunk="carrier"), 400, "bad-target"),
        (DialRequest("+4930", "echo", trunk="carrier", headers=(("X-Other", "1"),)), 400, "bad-target"),
        (DialRequest("sip:a@127.0.0.1", "echo", headers=(("X-A", "1"),)), 400, "bad-target"),
    ],
)
async def test_what_a_trunk_does_not_do_is_refused(
    tmp_path: Path, request_: DialRequest, status: int, code: str
) -> None:
    trunks = (
        {"name": "inbound", "networks": ["10.0.0.0/8"]},
        {"name": "carrier", "host": "127.0.0.1", "port": 9, "options_s": 0, "allow_headers": ["X-Order"]},
    )
    async with Bridge.run(with_trunks(tmp_path, *trunks), lambda line: None) as bridge:
        with pytest.raises(DialRefused) as caught:
            await bridge.dial(request_)
        assert (caught.value.status, caught.value.code) == (status, code)


PBX = {"name": "pbx", "users": [{"username": "bob", "password_env": "CARRIER_PASSWORD"}]}


async def test_a_caller_with_the_password_is_the_trunks_and_routed_by_it(tmp_path: Path) -> None:
    routes = [{"trunk": "other*", "agent": "other"}, {"trunk": "pbx", "to": "echo", "agent": "echo"}]
    settings = with_trunks(tmp_path, PBX, agents={"echo": {"kind": "echo"}, "other": {"kind": "echo"}}, routes=routes)
    async with Bridge.run(settings, lambda line: None) as bridge, phone(bridge) as caller:
        leg = await call(bridge, caller)
        assert leg.state is LegState.UP
        (live,) = bridge.live_calls()
        assert (live.trunk, live.agent, live.from_) == ("pbx", "echo", "+49301")
        assert bridge.trunk_status()[0].calls == 1
        await leg.hangup(Cause.AGENT_HUNG_UP)
        await until(lambda: bridge.trunk_status()[0].calls == 0)


async def test_wrong_passwords_are_refused_banned_and_forgiven(tmp_path: Path) -> None:
    settings = with_trunks(tmp_path, PBX, guard={"failures": 3})
    async with Bridge.run(settings, lambda line: None) as bridge, phone(bridge) as caller:
        while not bridge.bans():
            leg = await call(bridge, caller, password="open barley")
            assert leg.state is LegState.ENDED
        (ban,) = bridge.bans()
        assert ban.source == "127.0.0.1"
        assert "wrong password" in ban.why
        assert bridge.lift_ban("127.0.0.1")
        assert (await call(bridge, caller)).state is LegState.UP


async def test_calls_beyond_a_trunks_limit_get_503_and_leave_a_row(tmp_path: Path) -> None:
    trunk = {"name": "pbx", "networks": ["127.0.0.1/32"], "calls": 1}
    async with Bridge.run(with_trunks(tmp_path, trunk), lambda line: None) as bridge, phone(bridge) as caller:
        items = recorded(bridge)
        first = await call(bridge, caller)
        second = await call(bridge, caller)
        assert (first.state, second.state) == (LegState.UP, LegState.ENDED)
        ended = [item.event for item in items if isinstance(item.event, CallEnded)]
        assert [(event.cause, event.detail) for event in ended] == [
            (Cause.REFUSED_BUSY, "1 calls are live on trunk pbx (calls)")
        ]
        (status,) = bridge.trunk_status()
        assert (status.attempts, status.refused, status.calls) == (2, 1, 1)
        await first.hangup(Cause.AGENT_HUNG_UP)
        await until(lambda: bridge.trunk_status()[0].calls == 0)
        assert (await call(bridge, caller)).state is LegState.UP


async def test_calls_beyond_the_rate_get_503(tmp_path: Path) -> None:
    settings = with_trunks(tmp_path, {"name": "pbx", "networks": ["127.0.0.1/32"]}, limits={"calls_per_s": 0.1})
    async with Bridge.run(settings, lambda line: None) as bridge, phone(bridge) as caller:
        assert (await call(bridge, caller)).state is LegState.UP
        assert (await call(bridge, caller)).state is LegState.ENDED


async def test_a_reload_changes_trunks_routes_and_limits_and_leaves_the_live_call_alone(tmp_path: Path) -> None:
    before = with_trunks(tmp_path, {"name": "pbx", "networks": ["127.0.0.1/32"]})
    async with Bridge.run(before, lambda line: None) as bridge, phone(bridge) as caller:
        leg = await call(bridge, caller)
        assert (await call(bridge, caller, "new")).state is LegState.ENDED
        wanted = with_trunks(
            tmp_path,
            {"name": "renamed", "networks": ["127.0.0.0/8"]},
            agents={"fresh": {"kind": "echo"}},
            routes=[{"to": "new", "trunk": "renamed", "agent": "fresh"}],
            limits={"calls": 2},
            rtp={"port_min": 44000, "port_max": 44100},
        )
        waiting = await bridge.reload(wanted)
        assert set(waiting) == {"sip.port", "http.port", "rtp.port_min", "rtp.port_max"}
        assert leg.state is LegState.UP
        new = await call(bridge, caller, "new")
        assert new.state is LegState.UP
        assert [(live.trunk, live.agent) for live in bridge.live_calls()] == [("pbx", "echo"), ("renamed", "fresh")]
        assert (await call(bridge, caller, "new")).state is LegState.ENDED
        await leg.hangup(Cause.AGENT_HUNG_UP)
        await until(lambda: len(bridge.live_calls()) == 1)
        assert (await call(bridge, caller, "echo")).state is LegState.ENDED


async def test_a_bad_configuration_is_refused_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_trunks(tmp_path, {"name": "pbx", "networks": ["127.0.0.1/32"]})
    async with Bridge.run(settings, lambda line: None) as bridge, phone(bridge) as caller:
        monkeypatch.delenv("CARRIER_PASSWORD")
        with pytest.raises(ReloadError, match="CARRIER_PASSWORD is not set"):
            await bridge.reload(with_trunks(tmp_path, PBX))
        assert [status.name for status in bridge.trunk_status()] == ["pbx"]
        assert (await call(bridge, caller)).state is LegState.UP


async def test_a_caller_is_handed_on_by_the_trunk_that_he_came_by(tmp_path: Path) -> None:
    async with carrier() as far:
        trunk = of_carrier(far, options_s=0, networks=["127.0.0.1/32"], diversion=True, caller="+4930999")
        async with Bridge.run(with_trunks(tmp_path, trunk), lambda line: None) as bridge, phone(bridge) as caller:
            far.call_status = 503
            await call(bridge, caller)
            (live,) = bridge.live_calls()
            found = bridge.calls.find(live.id)
            assert found is not None
            second = await bridge.dialler.on_behalf("+44123", found.leg, timeout_s=30)
            assert bridge.trunk_status()[0].calls == 2
            await until(lambda: second.state is LegState.ENDED)
            invite = far.of("INVITE")[-1]
            assert invite.uri == f"sip:+44123@127.0.0.1:{far.port}"
            assert invite.from_.uri.user == "+49301"
            assert invite.headers.get("Diversion") == "<sip:echo@127.0.0.1>;reason=unconditional"
            (status,) = bridge.trunk_status()
            assert (status.calls, status.last_error) == (1, "INVITE: 503 Service Unavailable")


async def test_all_lines_of_a_header_reach_the_calls_facts(tmp_path: Path) -> None:
    settings = with_trunks(tmp_path, {"name": "pbx", "networks": ["127.0.0.1/32"]})
    async with Bridge.run(settings, lambda line: None) as bridge, phone(bridge) as caller:
        headers = (
            ("Diversion", "<sip:a@x>"),
            ("P-Asserted-Identity", "<sip:+4930@x>"),
            ("P-Asserted-Identity", "<tel:+4930>"),
            ("History-Info", "<sip:b@x>;index=1"),
            ("Privacy", "id"),
            ("X-Call-Leg", "17"),
        )
        target = f"sip:echo@127.0.0.1:{bridge.config.sip.port}"
        leg = await caller.place(OutboundCall(target, "sip:+49301@pbx.example", headers=headers))
        await until(lambda: leg.state is not LegState.OFFERED)
        found = bridge.calls.find(bridge.live_calls()[0].id)
        assert found is not None
        assert found.leg.info.headers == {
            "diversion": "<sip:a@x>",
            "p-asserted-identity": "<sip:+4930@x>, <tel:+4930>",
            "history-info": "<sip:b@x>;index=1",
            "privacy": "id",
            "x-call-leg": "17",
        }


async def test_a_trunk_that_has_moved_is_looked_up_anew_and_its_old_place_forgotten(tmp_path: Path) -> None:
    there = with_trunks(tmp_path, {"name": "pbx", "host": "127.0.0.1", "options_s": 0})
    async with Bridge.run(there, lambda line: None) as bridge, phone(bridge) as caller:
        await until(lambda: [trunk.addresses for trunk in bridge.trunks] == [{"127.0.0.1"}])
        assert (await call(bridge, caller)).state is LegState.UP
        await bridge.reload(with_trunks(tmp_path, {"name": "pbx", "host": "127.0.0.2", "options_s": 0}))
        assert (await call(bridge, caller)).state is LegState.ENDED
        await until(lambda: [trunk.addresses for trunk in bridge.trunks] == [{"127.0.0.2"}])


async def test_a_caller_of_a_trunk_without_host_is_handed_on_over_his_connection(tmp_path: Path) -> None:
    rung: asyncio.Queue[SipLeg] = asyncio.Queue()
    settings = with_trunks(tmp_path, {"name": "pbx", "networks": ["127.0.0.1/32"], "codecs": ["PCMA"]})
    async with Bridge.run(settings, lambda line: None) as bridge:
        pbx = SipEndpoint(SipEndpointSettings(host="127.0.0.1", port=0, udp=False), bridge.media, rung.put_nowait)
        await pbx.start()
        try:
            target = f"sip:echo@127.0.0.1:{bridge.config.sip.port}"
            leg = await pbx.place(OutboundCall(target, "sip:+49301@pbx.example", transport="tcp"))
            await until(lambda: leg.state is LegState.UP)
            found = bridge.calls.find(bridge.live_calls()[0].id)
            assert found is not None
            second = await bridge.dialler.on_behalf("200", found.leg, timeout_s=5)
            rings = await asyncio.wait_for(rung.get(), 30)
            assert (rings.info.to, second.info.trunk) == ("200", "pbx")
            await rings.answer()
            await until(lambda: second.state is LegState.UP)
            assert second.quality.codec == "PCMA"
            await second.hangup(Cause.AGENT_HUNG_UP)
        finally:
            await pbx.aclose()


async def test_an_agent_that_is_taken_out_finishes_the_call_that_it_is_dialling(tmp_path: Path) -> None:
    async with Bridge.run(with_trunks(tmp_path), lambda line: None) as bridge, phone(bridge) as called:
        talker = bridge.talkers["echo"]
        leg = await bridge.dialler.dial(DialRequest(to=f"sip:x@127.0.0.1:{called.address[1]}", agent="echo"))
        bridge.talkers.apply(bridge.config, {})
        assert bridge.calls.begin(leg, talker).agent_name == "echo"
        await until(lambda: bridge.live_calls() == [] and bridge.sip.legs == ())


async def test_a_trunk_is_not_blamed_for_our_want_of_ports(tmp_path: Path) -> None:
    async with carrier() as far:
        trunk = of_carrier(far, options_s=0)
        few = with_trunks(tmp_path, trunk, rtp={"port_min": 20780, "port_max": 20782})
        async with Bridge.run(few, lambda line: None) as bridge:
            await bridge.dial(DialRequest(to="100", agent="echo", trunk="carrier"))
            with pytest.raises(DialRefused, match="no RTP port left"):
                await bridge.dial(DialRequest(to="101", agent="echo", trunk="carrier"))
            assert "RTP" not in bridge.trunk_status()[0].last_error
