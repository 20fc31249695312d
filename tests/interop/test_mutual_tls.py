"""Trunks that are known by the certificate they show."""

from collections.abc import Callable
from pathlib import Path

import pytest
from baresip_peer import Baresip
from bridge_process import BridgeProcess
from certificates import Authority, KeyPair
from free_ports import free_port
from tls_peer import TlsPeer

StartBridge = Callable[..., BridgeProcess]
StartPhone = Callable[..., Baresip]

CONFIG = """\
tls: {{port: {port}, certificate: {own.certificate}, key: {own.key}, ca: {ca}, client: {client}}}
trunks:
  - {{name: pbx, certificate_names: [pbx.example]}}
"""


def config(port: int, authority: Authority, client: str) -> str:
    return CONFIG.format(port=port, own=authority.issue("bridge"), ca=authority.certificate, client=client)


def as_one_file(pair: KeyPair, both: Path) -> Path:
    both.write_text(pair.certificate.read_text() + pair.key.read_text())
    return both


def test_phone_is_known_by_its_certificate(
    own_bridge: StartBridge, baresip: StartPhone, authority: Authority, tmp_path: Path
) -> None:
    port = free_port()
    bridge = own_bridge(sip=", allow_from: []", more=config(port, authority, "require"))

    def phone_of(name: str) -> Baresip:
        both = as_one_file(authority.issue(name, host=name), tmp_path / f"{name}.pem")
        phone = baresip(transport="tls", extra=f"sip_certificate {both}")
        phone.dial(f"sip:echo@127.0.0.1:{port};transport=tls")
        return phone

    stranger = phone_of("other.example")
    assert "403" in stranger.wait_for_event("CALL_CLOSED")["param"]
    assert bridge.calls() == []
    phone = phone_of("pbx.example")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.command("hangup")
    call = bridge.one_call()
    ended = bridge.wait_until_ended(call["id"])
    assert (ended["cause"], ended["trunk"]) == ("caller-hung-up", "pbx")
    bridge.wait_until_idle()
    bridge.stop()


def test_certificate_that_nobody_vouches_for_gets_no_connection(
    own_bridge: StartBridge, authority: Authority, tmp_path: Path
) -> None:
    port = free_port()
    bridge = own_bridge(sip=", allow_from: []", more=config(port, authority, "require"))
    forged = Authority(tmp_path / "forger").issue("forged", host="pbx.example")
    for certificate in (forged, None):
        with (
            pytest.raises(OSError, match=r"."),
            TlsPeer(port, trusts=authority.certificate, certificate=certificate) as peer,
        ):
            peer.options()
    right = authority.issue("right", host="pbx.example")
    with TlsPeer(port, trusts=authority.certificate, certificate=right) as peer:
        assert peer.options() == "SIP/2.0 200 OK"
    bridge.stop()


def test_certificate_that_is_only_asked_for_may_be_missing(own_bridge: StartBridge, authority: Authority) -> None:
    port = free_port()
    bridge = own_bridge(sip=", allow_from: []", more=config(port, authority, "request"))
    with TlsPeer(port, trusts=authority.certificate) as stranger:
        assert stranger.options() == "SIP/2.0 403 Forbidden"
    right = authority.issue("right", host="pbx.example")
    with TlsPeer(port, trusts=authority.certificate, certificate=right) as peer:
        assert peer.options() == "SIP/2.0 200 OK"
    bridge.stop()
