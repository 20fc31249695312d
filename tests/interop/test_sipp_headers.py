"""Header fields beyond the call itself: what comes in is on record, what goes out is what the configuration says."""

from collections.abc import Callable

from bridge_process import BridgeProcess
from sipp_run import Sipp

StartBridge = Callable[..., BridgeProcess]
RunSipp = Callable[..., Sipp]

TRUNK = """\
trunks:
  - {{name: carrier, host: 127.0.0.1, port: {port}, transport: udp, trust_host: false, options_s: 0,
      headers: {{X-Account: "4711"}}, allow_headers: [X-Campaign], caller: "100", identity: asserted}}
"""


def test_headers_of_a_call_are_on_record(own_bridge: StartBridge, sipp: RunSipp) -> None:
    bridge = own_bridge()
    run = sipp("identity_headers", bridge.sip_port).finish()
    call = bridge.one_call(run.call_id())
    assert bridge.wait_for_event(call["id"], "call_started")["headers"] == {
        "p-asserted-identity": '"Ada" <sip:+14085550100@127.0.0.1>',
        "privacy": "id",
        "diversion": "<sip:+14085550111@127.0.0.1>;reason=unconditional",
        "history-info": "<sip:+14085550111@127.0.0.1>;index=1",
        "x-campaign": "spring",
    }
    bridge.wait_until_idle()
    bridge.stop()


def test_own_headers_go_out_as_the_trunk_allows(own_bridge: StartBridge, sipp: RunSipp) -> None:
    run = sipp("uas_answers", 9).wait_until_listening()
    bridge = own_bridge(more=TRUNK.format(port=run.port))
    refused = bridge.try_dial("12345", trunk="carrier", headers={"X-Secret": "1"})
    assert (refused.status_code, "X-Secret" in refused.text) == (400, True)
    bridge.wait_until_ended(bridge.dial("12345", trunk="carrier", headers={"X-Campaign": "spring"}))
    run.finish()
    (invite,) = run.received("INVITE")
    fields = dict(line.split(": ", 1) for line in invite.split("\n\n")[0].replace("\r", "").splitlines()[1:])
    assert {name: text for name, text in fields.items() if name.startswith(("X-", "P-"))} == {
        "X-Account": "4711",
        "X-Campaign": "spring",
        "P-Asserted-Identity": "<sip:100@127.0.0.1>",
    }
    bridge.wait_until_idle()
    bridge.stop()


def test_what_a_caller_brings_along_goes_to_nobody_else(own_bridge: StartBridge, sipp: RunSipp) -> None:
    desk = sipp("uas_until_bye", 9).wait_until_listening()
    bridge = own_bridge()
    run = sipp("brings_headers", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.transfer(call_id, f"sip:desk@127.0.0.1:{desk.port}", mode="bridge")
    bridge.wait_for_event(call_id, "bridged")
    bridge.hang_up(call_id)
    run.finish()
    (invite,) = desk.finish().received("INVITE")
    assert "spring" not in invite
    bridge.wait_until_idle()
    bridge.stop()
