"""A trunk told by its certificate calls a bridge over TLS with SRTP; certificates are renewed at a reload."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from sip_certificates import Authority

from bridge.app import Bridge
from bridge.config import Config
from bridge.events import Cause
from bridge.legs.base import LegState
from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.legs.sip import SipLeg
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.reload import ReloadError
from bridge.sip.tls import CertificateFiles, TlsSettings


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def settings(tmp_path: Path, files: CertificateFiles, ca: Path, **trunk: Any) -> Config:
    data: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "sip": {"listen": "127.0.0.1", "port": free_port(), "allow_from": []},
        "tls": {
            "port": free_port(),
            "certificate": files.certificate,
            "key": files.key,
            "ca": ca,
            "client": "request",
        },
        "http": {"port": free_port()},
        "rtp": {"port_min": 46000, "port_max": 46100},
        "trunks": [{"name": "sbc", "certificate_names": ["sbc.example.com"], **trunk}],
        "agents": {"echo": {"kind": "echo"}},
        "routes": [{"trunk": "sbc", "agent": "echo"}],
    }
    return Config(**data)


async def call(bridge: Bridge, ca: Path, files: CertificateFiles | None, profile: LegProfile) -> SipLeg:
    """A call over TLS that is up, or over; the endpoint stays with the bridge's stack."""
    phone = SipEndpoint(
        SipEndpointSettings(host="127.0.0.1", port=0, tcp=False, tls=TlsSettings(own=files, ca=ca), tls_port=0),
        bridge.media,
    )
    await phone.start()
    bridge._stack.push_async_callback(phone.aclose)
    target = f"sip:echo@127.0.0.1:{bridge.config.tls.port};transport=tls"
    leg = await phone.place(OutboundCall(target, "sip:1@sbc.example.com", profile=profile))
    await until(lambda: leg.state is not LegState.OFFERED)
    return leg


async def test_a_peer_is_told_by_its_certificate_and_gets_srtp(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    config = settings(tmp_path, authority.issue("127.0.0.1"), authority.ca, srtp="required")
    async with Bridge.run(config, lambda line: None) as bridge:
        secured = LegProfile(srtp="required")
        leg = await call(bridge, authority.ca, authority.issue("sbc.example.com"), secured)
        assert leg.state is LegState.UP
        assert [live.trunk for live in bridge.live_calls()] == ["sbc"]
        await leg.hangup(Cause.AGENT_HUNG_UP)
        for files in (authority.issue("other.example.com"), None):
            leg = await call(bridge, authority.ca, files, secured)
            assert leg.state is LegState.ENDED
        leg = await call(bridge, authority.ca, authority.issue("sbc.example.com"), LegProfile(srtp="off"))
        assert leg.state is LegState.ENDED


async def test_a_reload_shows_the_renewed_certificate_to_new_connections_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue("127.0.0.1")
    config = settings(tmp_path, shown, authority.ca)

    async def certificate() -> bytes:
        context = ssl.create_default_context(cafile=str(authority.ca))
        _, writer = await asyncio.open_connection("127.0.0.1", config.tls.port, ssl=context)
        seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        assert isinstance(seen, bytes)
        return seen

    async with Bridge.run(config, lambda line: None) as bridge:
        leg = await call(bridge, authority.ca, authority.issue("sbc.example.com"), LegProfile())
        before = await certificate()
        renewed = authority.issue("127.0.0.1")
        assert renewed.key is not None and shown.key is not None
        shown.key.write_bytes(renewed.key.read_bytes())
        shown.certificate.write_bytes(renewed.certificate.read_bytes())
        assert await bridge.reload(config) == ()
        assert await certificate() != before
        assert leg.state is LegState.UP
        shown.certificate.write_bytes(b"nothing")
        with pytest.raises(ReloadError):
            await bridge.reload(config)
        assert await certificate() != before
        await leg.hangup(Cause.AGENT_HUNG_UP)
