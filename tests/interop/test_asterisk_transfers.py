"""Transfers between a running bridge and Asterisk: REFER both ways, with and without Replaces."""

from collections.abc import Iterator
from typing import Any

import pytest
from asterisk_peer import TONE_HZ, Asterisk
from bridge_process import BridgeProcess
from free_ports import free_port

TRUNK = """\
trunks:
  - {{name: pbx, host: 127.0.0.1, port: {port}, networks: [127.0.0.0/8], accept_refer: true, options_s: 0}}
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BridgeProcess, Asterisk]]:
    """A bridge whose trunk the PBX is; in the end nothing may be left open in it."""
    port = free_port()
    bridge = BridgeProcess(tmp_path_factory.mktemp("bridge") / "box", more=TRUNK.format(port=port))
    try:
        pbx = Asterisk(tmp_path_factory.mktemp("pbx") / "asterisk", bridge_port=bridge.sip_port, port=port)
        try:
            yield bridge, pbx
        finally:
            pbx.stop()
        bridge.wait_until_idle()
        bridge.stop()
    finally:
        bridge.kill()


def live(bridge: BridgeProcess) -> str:
    found: str = bridge.wait_for(
        lambda: next((call["id"] for call in bridge.calls(live=True) if call["state"] == "up"), None), 10, "live call"
    )
    return found


def events(bridge: BridgeProcess, call_id: str, name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in bridge.call(call_id)["events"] if event["name"] == name]


@pytest.mark.parametrize("mode", ["blind", "attended"])
def test_bridge_hands_the_caller_over(both: tuple[BridgeProcess, Asterisk], mode: str) -> None:
    bridge, pbx = both
    pbx.call_from_a_party()
    call_id = live(bridge)
    heard = pbx.heard_s(TONE_HZ)
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) > heard + 0.5, 10, "tone by way of the bridge")
    bridge.transfer(call_id, pbx.address("echo"), mode=mode)
    assert bridge.wait_until_ended(call_id)["cause"] == "transferred"
    # The caller's tone comes back from Asterisk's own echo now, with no call at the bridge.
    bridge.wait_until_idle()
    heard = pbx.heard_s(TONE_HZ)
    pbx.program.wait_for(lambda: pbx.heard_s(TONE_HZ) > heard + 0.5, 10, "tone by way of the target")
    pbx.cli("channel request hangup all")
    pbx.program.wait_for(lambda: pbx.channels() == 0, 5, "end of all channels")


def test_caller_stays_with_the_agent_when_the_target_is_busy(both: tuple[BridgeProcess, Asterisk]) -> None:
    bridge, pbx = both
    pbx.call("echo")
    call_id = live(bridge)
    bridge.transfer(call_id, pbx.address("busy"), mode="attended")
    (result,) = bridge.wait_for(lambda: events(bridge, call_id, "transfer_result"), 10, "result of the transfer")
    assert result["status"] == 486
    heard = pbx.heard_s(TONE_HZ)
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) > heard + 0.5, 10, "tone by way of the bridge")
    pbx.cli("channel request hangup all")
    assert bridge.wait_until_ended(call_id)["cause"] == "caller-hung-up"


def test_bridge_follows_where_the_pbx_sends_it(both: tuple[BridgeProcess, Asterisk]) -> None:
    bridge, pbx = both
    call_id = bridge.dial(pbx.address("referring"), trunk="pbx")
    heard = pbx.heard_s(TONE_HZ)
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) > heard + 1.0, 15, "tone of the other extension")
    bridge.hang_up(call_id)
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    pbx.program.wait_for(lambda: pbx.channels() == 0, 5, "end of all channels")
