"""Kamailio between a phone and the bridge: as proxy that records its route, and as registrar."""

from collections.abc import Callable

import pytest
from baresip_peer import Baresip
from bridge_process import BridgeProcess
from kamailio_peer import DOMAIN, PASSWORD, Kamailio

StartBridge = Callable[..., BridgeProcess]
StartProxy = Callable[..., Kamailio]
StartPhone = Callable[..., Baresip]


def registered_phone(baresip: StartPhone, proxy: Kamailio, *, transport: str = "udp", user: str = "phone") -> Baresip:
    port = proxy.tls_port if transport == "tls" else proxy.port
    outbound = f"sip:127.0.0.1:{port};transport={transport}"
    phone = baresip(user=user, domain=DOMAIN, account=f';auth_pass="{PASSWORD}";outbound="{outbound}";regint=600')
    phone.wait_until_registered()
    return phone


@pytest.mark.parametrize("by_bridge", [True, False], ids=["bridge hangs up", "phone hangs up"])
def test_call_through_the_proxy_has_its_requests_go_that_way(
    own_bridge: StartBridge, kamailio: StartProxy, baresip: StartPhone, by_bridge: bool
) -> None:
    bridge = own_bridge()
    proxy = kamailio(neighbour_port=bridge.sip_port)
    phone = registered_phone(baresip, proxy)
    phone.dial(f"sip:echo@{DOMAIN}")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    (call,) = bridge.calls(live=True)
    if by_bridge:
        bridge.hang_up(call["id"])
        phone.wait_for_event("CALL_CLOSED")
    else:
        phone.command("hangup")
    cause = bridge.wait_until_ended(call["id"])["cause"]
    assert cause == ("api-hung-up" if by_bridge else "caller-hung-up")
    proxy.program.wait_for_line("in dialog: ACK")
    proxy.program.wait_for_line("in dialog: BYE")
    bridge.wait_until_idle()
    bridge.stop()
