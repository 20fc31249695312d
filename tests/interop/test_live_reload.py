"""SIGHUP while a call is up: what is new holds for new calls, what is wrong is refused, and the call goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path

from baresip_peer import Baresip
from bridge_process import BridgeProcess
from certificates import Authority, KeyPair
from free_ports import free_port
from sipp_run import Sipp
from tls_peer import TlsPeer

StartBridge = Callable[..., BridgeProcess]
StartPhone = Callable[..., Baresip]
RunSipp = Callable[..., Sipp]

TRUNK = "trunks:\n  - {name: pbx, networks: [127.0.0.0/8]}\n"
BAD = {
    "trunks: [{name: nowhere}]\n": "it needs host",
    "trunks: [{name: pbx, host: a.test, username: a, password_env: OFFHOOK_TEST_GONE}]\n": "OFFHOOK_TEST_GONE",
    "trunks: [\n": "conf.yaml",
    "guard: {bans: 3}\n": "guard.bans",
}
"""What is wrong, and what is said of it."""
TLS = "tls: {{port: {port}, certificate: {folder}/own.pem, key: {folder}/own.key}}\n"


def trunk_of(bridge: BridgeProcess, run: Sipp) -> str:
    trunk: str = bridge.one_call(run.call_id())["trunk"]
    return trunk


def test_trunks_and_routes_change_under_a_live_call(own_bridge: StartBridge, sipp: RunSipp) -> None:
    bridge = own_bridge()
    live = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(live.call_id())

    bridge.configure(more=TRUNK)
    assert "configuration reloaded" in bridge.reload()[-1]
    assert [trunk["name"] for trunk in bridge.trunks()] == ["pbx"]
    assert trunk_of(bridge, sipp("call_short", bridge.sip_port).finish()) == "pbx"

    bridge.configure(route="desk", more=TRUNK)
    bridge.reload()
    call = bridge.one_call(sipp("not_found", bridge.sip_port).finish().call_id())
    assert call["cause"] == "refused-no-route"

    bridge.configure()
    bridge.reload()
    assert bridge.trunks() == []
    assert trunk_of(bridge, sipp("call_short", bridge.sip_port).finish()) == ""

    assert bridge.call(call_id)["state"] == "up"
    bridge.hang_up(call_id)
    live.finish()
    bridge.wait_until_idle()
    bridge.stop()


def test_bad_configuration_is_refused_and_the_old_one_stays(own_bridge: StartBridge, sipp: RunSipp) -> None:
    bridge = own_bridge(more=TRUNK)
    live = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(live.call_id())
    for more, problem in BAD.items():
        bridge.configure(route="desk", more=more)
        refused = [line for line in bridge.reload() if "configuration refused" in line]
        assert len(refused) == 1, more
        assert problem in refused[0]
        assert [trunk["name"] for trunk in bridge.trunks()] == ["pbx"]
    assert trunk_of(bridge, sipp("call_short", bridge.sip_port).finish()) == "pbx"
    assert bridge.call(call_id)["state"] == "up"
    bridge.hang_up(call_id)
    live.finish()
    bridge.wait_until_idle()
    bridge.stop()


def install(pair: KeyPair, folder: Path) -> str:
    """Put a certificate where the bridge looks for it; as it looks to others."""
    shutil.copy(pair.key, folder / "own.key")
    shutil.copy(pair.certificate, folder / "own.pem")
    return pair.certificate.read_text().strip()


def test_renewed_certificate_is_shown_to_new_connections_and_the_old_one_lives(
    own_bridge: StartBridge, baresip: StartPhone, authority: Authority, tmp_path: Path
) -> None:
    port = free_port()
    first, second = (authority.issue(name) for name in ("first", "second"))

    def shown() -> str:
        with TlsPeer(port, trusts=authority.certificate) as peer:
            assert peer.options() == "SIP/2.0 200 OK"
            return peer.bridge_certificate.strip()

    before = install(first, tmp_path)
    bridge = own_bridge(more=TLS.format(port=port, folder=tmp_path) + TRUNK)
    phone = baresip(transport="tls")
    phone.dial(f"sip:echo@127.0.0.1:{port};transport=tls")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(0.5)
    assert shown() == before

    after = install(second, tmp_path)
    assert after != before
    assert "configuration reloaded" in bridge.reload()[-1]
    assert shown() == after

    (tmp_path / "own.pem").write_text("no certificate")
    assert any("configuration refused" in line for line in bridge.reload())
    assert shown() == after

    # The call's signalling is still on its old connection, both ways.
    heard = phone.heard_s()
    phone.wait_until_heard(heard + 0.5)
    phone.command("hangup")
    assert bridge.wait_until_ended(bridge.one_call()["id"])["cause"] == "caller-hung-up"
    bridge.wait_until_idle()
    bridge.stop()
