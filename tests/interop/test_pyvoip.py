"""A phone made with pyVoIP, registered at Kamailio, against a running bridge with an echo agent."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bridge_process import BridgeProcess
from free_ports import free_port, free_ports
from kamailio_peer import PASSWORD, Kamailio
from peer_program import PeerProgram

StartBridge = Callable[..., BridgeProcess]
StartProxy = Callable[..., Kamailio]
StartPhone = Callable[..., PeerProgram]

RTP_PORTS = 22
"""What the phone takes one of."""


@pytest.fixture
def pyvoip(tmp_path: Path) -> Iterator[StartPhone]:
    """Starts phones."""
    started: list[PeerProgram] = []

    def start(proxy: Kamailio, number: str, *, seconds: float = 1.0, end: str = "bye") -> PeerProgram:
        script = Path(__file__).parent / "pyvoip_phone.py"
        ports = [str(proxy.port), str(free_port()), str(free_ports(RTP_PORTS, rtp=True))]
        command = [sys.executable, str(script), *ports, "phone", PASSWORD, number, str(seconds), end]
        started.append(PeerProgram("pyVoIP", command, tmp_path))
        started[-1].wait_for_line("status REGISTERED")
        return started[-1]

    yield start
    for phone in started:
        phone.stop()


def test_phone_calls_and_hears_its_own_voice(
    own_bridge: StartBridge, kamailio: StartProxy, pyvoip: StartPhone
) -> None:
    bridge = own_bridge()
    proxy = kamailio(neighbour_port=bridge.sip_port, calls_need_password=False)
    phone = pyvoip(proxy, "echo")
    phone.wait_for_line("call ANSWERED")
    phone.wait_for_line("heard 1.")
    phone.wait_for_line("over")
    assert bridge.wait_until_ended(bridge.one_call()["id"])["cause"] == "caller-hung-up"
    bridge.wait_until_idle()
    bridge.stop()


def test_bridge_calls_the_phone_and_hangs_up(
    own_bridge: StartBridge, kamailio: StartProxy, pyvoip: StartPhone
) -> None:
    bridge = own_bridge()
    proxy = kamailio(calls_need_password=False)
    phone = pyvoip(proxy, "answer", end="wait")
    call_id = bridge.dial(f"sip:phone@127.0.0.1:{proxy.port}")
    phone.wait_for_line("call ANSWERED")
    phone.wait_for_line("heard 1.")
    bridge.hang_up(call_id)
    phone.wait_for_line("over")
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    bridge.wait_until_idle()
    bridge.stop()
