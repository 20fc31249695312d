"""Starting and stopping a bridge: what is in the way is said in one line, and nothing is left behind."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port, free_ports

from bridge.api.control import DialRefused, DialRequest
from bridge.app import Bridge, StartError
from bridge.config import Config
from bridge.events import CallEnded, Cause
from bridge.legs.base import LegState
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.store.records import Recorded

RTP_PORTS = 40


def config(tmp_path: Path, **changes: Any) -> Config:
    """The limit of lateness is out of the way: a machine that tests may be busy."""
    rtp = free_ports(RTP_PORTS, rtp=True)
    limits = {"clock_lateness_ms": 1000, **changes.pop("limits", {})}
    data: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "sip": {"listen": "127.0.0.1", "port": free_port()},
        "http": {"port": free_port()},
        "rtp": {"port_min": rtp, "port_max": rtp + RTP_PORTS - 1},
        "limits": limits,
        "agents": {"echo": {"kind": "echo"}},
        "routes": [{"to": "echo", "agent": "echo"}],
    }
    return Config(**(data | changes))


async def start_error(settings: Config) -> str:
    with pytest.raises(StartError) as caught:
        async with Bridge.run(settings, lambda line: None):
            pass
    return str(caught.value)


async def test_a_taken_sip_port_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", settings.sip.port))
        said = await start_error(settings)
    assert f"sip 127.0.0.1:{settings.sip.port}/udp is taken" in said
    assert "OFFHOOK_SIP_PORT" in said


async def test_a_sip_port_taken_for_tcp_alone_is_named_so(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", settings.sip.port))
        other.listen()
        said = await start_error(settings)
    assert f"sip 127.0.0.1:{settings.sip.port}/tcp is taken" in said


async def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "/nowhere.pem" in await start_error(config(tmp_path, tls={"certificate": "/nowhere.pem"}))


async def test_a_trunks_missing_password_is_named(tmp_path: Path) -> None:
    trunk = {"name": "carrier", "host": "a.example", "username": "u", "password_env": "NOT_SET"}
    assert "trunk 'carrier': the environment variable NOT_SET is not set" in await start_error(
        config(tmp_path, trunks=[trunk])
    )


async def test_a_taken_http_port_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", settings.http.port))
        other.listen()
        said = await start_error(settings)
    assert f"{settings.http.port} is taken" in said


async def test_a_second_bridge_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with Bridge.run(config(tmp_path), lambda line: None):
        assert "another bridge runs" in await start_error(config(tmp_path))


async def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "offhook.sqlite3").write_bytes(b"not a database at all, not even close" * 50)
    assert "offhook.sqlite3" in await start_error(config(tmp_path))


async def test_a_start_after_a_failed_start_works(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", settings.http.port))
        other.listen()
        await start_error(settings)
    async with Bridge.run(settings, lambda line: None) as bridge:
        assert bridge.ready() == (True, [])


async def test_no_task_is_left_after_a_stop(tmp_path: Path) -> None:
    async with Bridge.run(config(tmp_path), lambda line: None):
        pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_dialling_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with Bridge.run(config(tmp_path), lambda line: None) as bridge:
        with pytest.raises(DialRefused) as caught:
            await bridge.dial(DialRequest("sip:x@127.0.0.1", "ghost"))
        assert caught.value.status == 404
        with pytest.raises(DialRefused) as caught:
            await bridge.dial(DialRequest("tel:112", "echo"))
        assert caught.value.status == 400


async def test_an_outbound_call_talks_and_is_hung_up_by_the_api(tmp_path: Path) -> None:
    recorded: list[Recorded] = []
    async with Bridge.run(config(tmp_path), lambda line: None) as bridge:
        ended = asyncio.Event()

        def on_recorded(item: Recorded) -> None:
            recorded.append(item)
            if isinstance(item.event, CallEnded):
                ended.set()

        bridge.call_log.subscribe(on_recorded)
        answering: list[asyncio.Task[None]] = []
        far = SipEndpoint(
            SipEndpointSettings(host="127.0.0.1", port=0),
            bridge.media,
            lambda leg: answering.append(asyncio.ensure_future(leg.answer())),
        )
        await far.start()
        call_id = await bridge.dial(DialRequest(f"sip:human@127.0.0.1:{far.address[1]}", "echo"))
        async with asyncio.timeout(30):
            while bridge.live_calls()[0].answered_at is None:
                await asyncio.sleep(0.01)
        assert await bridge.hang_up(call_id)
        async with asyncio.timeout(30):
            await ended.wait()
        assert not await bridge.hang_up(call_id)
        await far.aclose()
        assert bridge.live_calls() == []
    end = recorded[-1].event
    assert isinstance(end, CallEnded)
    assert end.cause is Cause.API_HUNG_UP


async def test_a_stop_drains_until_the_last_call_is_over(tmp_path: Path) -> None:
    async with Bridge.run(config(tmp_path), lambda line: None) as bridge:
        phone = SipEndpoint(SipEndpointSettings(host="127.0.0.1", port=0), bridge.media)
        await phone.start()
        leg = await phone.dial(f"sip:echo@127.0.0.1:{bridge.config.sip.port}", from_user="phone")
        async with asyncio.timeout(30):
            while leg.state is not LegState.UP:
                await asyncio.sleep(0.01)
        draining = asyncio.create_task(bridge.serve_until_stopped())
        bridge.stop()
        late = await phone.dial(f"sip:echo@127.0.0.1:{bridge.config.sip.port}", from_user="phone")
        async with asyncio.timeout(30):
            while late.state is not LegState.ENDED:
                await asyncio.sleep(0.01)
        assert leg.state is LegState.UP
        assert not draining.done()
        assert bridge.ready() == (False, ["the bridge is draining"])
        await leg.hangup(Cause.AGENT_HUNG_UP)
        async with asyncio.timeout(30):
            await draining
        await phone.aclose()
