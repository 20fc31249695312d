"""Kamailio between a phone and the bridge: as proxy that records its route, and as registrar."""

from collections.abc import Callable

import pytest
from baresip_peer import Baresip
from bridge_process import WAIT_S, BridgeProcess
from certificates import Authority
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


def trunk_at(proxy: Kamailio, transport: str) -> str:
    port = proxy.tls_port if transport == "tls" else proxy.port
    return (
        "trunks:\n"
        f"  - {{name: pbx, host: {DOMAIN}, outbound_proxy: 'sip:127.0.0.1:{port};transport={transport}',\n"
        f"      transport: {transport}, username: echo, password_env: OFFHOOK_TEST_PASSWORD, register: true,\n"
        "      register_expires_s: 60, options_s: 1}\n"
    )


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_bridge_registers_and_is_called_and_calls_by_way_of_the_registrar(
    own_bridge: StartBridge, kamailio: StartProxy, baresip: StartPhone, authority: Authority, transport: str
) -> None:
    proxy = kamailio(tls=authority.issue(f"kamailio-{transport}"))
    bridge = own_bridge(
        more=f"tls: {{ca: {authority.certificate}}}\n{trunk_at(proxy, transport)}",
        variables={"OFFHOOK_TEST_PASSWORD": PASSWORD},
    )
    proxy.program.wait_for_line(f"registers: echo expires 60 over {transport}")
    bridge.wait_for(lambda: bridge.trunks()[0]["registration"]["state"] == "registered", WAIT_S, "registration")
    phone = registered_phone(baresip, proxy, user="1001")

    phone.dial(f"sip:echo@{DOMAIN}")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    (call,) = bridge.calls(live=True)
    assert call["trunk"] == "pbx"
    phone.command("hangup")
    assert bridge.wait_until_ended(call["id"])["cause"] == "caller-hung-up"

    call_id = bridge.dial("1001", trunk="pbx")
    phone.wait_for_event("CALL_ESTABLISHED", count=2)
    phone.wait_until_heard(2.0)
    bridge.hang_up(call_id)
    phone.wait_for_event("CALL_CLOSED", count=2)
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    bridge.wait_until_idle()
    bridge.stop()
    proxy.program.wait_for_line(f"registers: echo expires 0 over {transport}")


def test_wrong_password_shows_in_the_trunks_state(own_bridge: StartBridge, kamailio: StartProxy) -> None:
    proxy = kamailio()
    bridge = own_bridge(more=trunk_at(proxy, "udp"), variables={"OFFHOOK_TEST_PASSWORD": "wrong"})
    bridge.wait_for(lambda: "401" in str(bridge.trunks()[0]), WAIT_S, "refused registration")
    bridge.stop()
