"""A carrier that is a name with several servers: where the first does not take the call, the next one does."""

from collections.abc import Callable

import pytest
from bridge_process import BridgeProcess
from free_ports import free_port
from name_server import NameServer
from sipp_run import Sipp

StartBridge = Callable[..., BridgeProcess]
RunSipp = Callable[..., Sipp]

TRUNK = """\
trunks:
  - {name: carrier, host: carrier.test, transport: udp, options_s: 0}
"""


def zone(*ports: int) -> dict[str, list[str]]:
    """The carrier's servers, the preferred one first."""
    servers = [f"{10 * (i + 1)} 1 {port} gw{i}.carrier.test." for i, port in enumerate(ports)]
    return {"_sip._udp.carrier.test SRV": servers} | {
        f"gw{i}.carrier.test A": ["127.0.0.1"] for i in range(len(ports))
    }


@pytest.mark.parametrize("first", ["takes no calls", "is not there"])
def test_second_server_gets_the_call(own_bridge: StartBridge, sipp: RunSipp, first: str) -> None:
    busy = sipp("uas_unavailable", 9).wait_until_listening() if first == "takes no calls" else None
    second = sipp("uas_answers", 9).wait_until_listening()
    with NameServer(zone(busy.port if busy is not None else free_port(), second.port)) as dns:
        bridge = own_bridge(sip=f", nameservers: ['127.0.0.1:{dns.port}']", more=TRUNK)
        call = bridge.wait_until_ended(bridge.dial("12345", trunk="carrier"))
        second.finish()
        assert call["cause"] == "caller-hung-up"
        (invite,) = second.received("INVITE")
        assert invite.startswith("INVITE sip:12345@carrier.test")
        if busy is not None:
            # The same call: only its transaction is another.
            (refused,) = busy.finish().received("INVITE")
            assert f"Call-ID: {call['leg_id']}" in refused
            assert f"Call-ID: {call['leg_id']}" in invite
        bridge.wait_until_idle()
        bridge.stop()


def test_call_that_no_server_takes_is_refused_with_what_the_last_said(own_bridge: StartBridge, sipp: RunSipp) -> None:
    servers = [sipp("uas_unavailable", 9).wait_until_listening() for _ in range(2)]
    with NameServer(zone(*(server.port for server in servers))) as dns:
        bridge = own_bridge(sip=f", nameservers: ['127.0.0.1:{dns.port}']", more=TRUNK)
        call = bridge.wait_until_ended(bridge.dial("12345", trunk="carrier"))
        for server in servers:
            server.finish()
        assert (call["cause"], call["answered_at"]) == ("rejected", None)
        assert "503" in bridge.trunks()[0]["last_error"]
        bridge.stop()
