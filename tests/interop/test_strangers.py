"""Who is no trunk: refused, challenged, ignored, banned after it has asked too often, and pardoned."""

import socket
from collections.abc import Callable

from bare_peer import BarePeer
from bridge_process import BridgeProcess
from sipp_run import Sipp

StartBridge = Callable[..., BridgeProcess]
RunSipp = Callable[..., Sipp]

STRANGER = "127.0.0.2"
TRUNKS = """\
trunks:
  - {name: friends, networks: [127.0.0.1/32]}
guard: {failures: 3}
"""


def assert_heard_nothing(bridge: BridgeProcess, stranger: BarePeer) -> None:
    """Behind somebody else's answer: see `BarePeer.heard`."""
    with BarePeer(bridge.sip_port) as friend:
        assert friend.ask().startswith("SIP/2.0 200")
    assert stranger.heard() == []


def connection_is_taken(bridge: BridgeProcess) -> bool:
    """Whether a stranger's connection is answered; a reset may come as soon as in the middle of connecting."""
    try:
        with socket.create_connection(
            ("127.0.0.1", bridge.sip_port), timeout=20, source_address=(STRANGER, 0)
        ) as sock:
            sock.sendall(b"\r\n\r\n")
            return sock.recv(2) == b"\r\n"
    except (ConnectionResetError, BrokenPipeError):
        return False


def test_silent_bridge_is_not_there_for_strangers(own_bridge: StartBridge, sipp: RunSipp) -> None:
    bridge = own_bridge(sip=", allow_from: [], strangers: silent", more=TRUNKS)
    with BarePeer(bridge.sip_port, address=STRANGER) as stranger:
        for method in ("OPTIONS", "REGISTER"):
            stranger.send(method)
        assert_heard_nothing(bridge, stranger)
    sipp("call_short", bridge.sip_port).finish()
    bridge.wait_until_idle()
    bridge.stop()


def test_challenging_bridge_asks_every_stranger_who_it_is(own_bridge: StartBridge) -> None:
    bridge = own_bridge(sip=", allow_from: [], strangers: challenge", more=TRUNKS)
    for method in ("OPTIONS", "REGISTER", "INVITE"):
        with BarePeer(bridge.sip_port, address=STRANGER) as stranger:
            answer = stranger.ask(method)
            assert answer.startswith("SIP/2.0 401")
            assert 'WWW-Authenticate: Digest realm="offhook"' in answer
    assert bridge.calls() == []
    bridge.stop()


def test_stranger_that_goes_on_is_banned_until_the_ban_is_lifted(own_bridge: StartBridge, sipp: RunSipp) -> None:
    bridge = own_bridge(sip=", allow_from: []", more=TRUNKS)
    assert bridge.command("bans").stdout == "nobody is banned\n"
    with BarePeer(bridge.sip_port, address=STRANGER) as stranger:
        assert connection_is_taken(bridge)
        # Time takes a little away of what was counted: the fourth is too much, where three are allowed.
        for _ in range(4):
            assert bridge.bans() == []
            assert stranger.ask().startswith("SIP/2.0 403")
        # No answer any more, and no connection; friends notice nothing of it.
        for _ in range(5):
            stranger.send("OPTIONS")
        assert_heard_nothing(bridge, stranger)
        assert not connection_is_taken(bridge)
        sipp("call_short", bridge.sip_port).finish()

        (ban,) = bridge.bans()
        assert (ban["source"], ban["why"], ban["dropped"]) == (STRANGER, "OPTIONS from no trunk", 5)
        shown = bridge.command("bans")
        assert (shown.returncode, STRANGER in shown.stdout) == (0, True)
        assert any("banned" in line and STRANGER in line for line in bridge.said)

        lifted = bridge.command("bans", "--lift", STRANGER)
        assert (lifted.returncode, lifted.stdout) == (0, f"{STRANGER} may call again\n")
        assert bridge.command("bans", "--lift", STRANGER).returncode == 1
        assert bridge.bans() == []
        assert stranger.ask().startswith("SIP/2.0 403")
        assert connection_is_taken(bridge)
    bridge.wait_until_idle()
    bridge.stop()
