"""REFER between SIPp and a running bridge: asked by the one and by the other, taken, refused, and in vain."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bridge_process import BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

TRUNK = """\
trunks:
  - {name: pbx, networks: [127.0.0.0/8], accept_refer: true}
"""


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """One bridge for all tests of this file; in the end nothing may be left open in it."""
    process = BridgeProcess(tmp_path_factory.mktemp("bridge") / "box", more=TRUNK)
    try:
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


def target_of(run: Sipp) -> str:
    return f"sip:desk@127.0.0.1:{run.port}"


def events(bridge: BridgeProcess, call_id: str, name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in bridge.call(call_id)["events"] if event["name"] == name]


def called(bridge: BridgeProcess, run: Sipp) -> str:
    """The id of the one call that a run made."""
    call_id: str = bridge.one_call(run.call_id())["id"]
    return call_id


# -- the caller transfers the bridge ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["refer_followed", "refer_lingers"])
def test_bridge_goes_on_with_whom_the_caller_names(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    desk = sipp("uas_until_bye", bridge.sip_port).wait_until_listening()
    run = sipp(scenario, bridge.sip_port, keys={"target_port": desk.port}).finish()
    call_id = called(bridge, run)
    (invite,) = desk.received("INVITE")
    assert f"Referred-By: <sip:sipp@127.0.0.1:{run.port}>" in invite
    assert bridge.call(call_id)["state"] == "up"
    assert bridge.wait_for_event(call_id, "far_party_changed")["peer"] == f"127.0.0.1:{desk.port}"
    bridge.hang_up(call_id)
    desk.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"


def test_caller_whose_target_is_busy_stays_with_the_agent(bridge: BridgeProcess, sipp: RunSipp) -> None:
    desk = sipp("uas_busy", bridge.sip_port).wait_until_listening()
    run = sipp("refer_busy", bridge.sip_port, keys={"target_port": desk.port}).finish()
    desk.finish()
    call = bridge.wait_until_ended(called(bridge, run))
    assert call["cause"] == "caller-hung-up"
    assert call["quality"]["packets_sent"] > 25
    assert not events(bridge, call["id"], "far_party_changed")


def test_transfer_to_what_can_not_be_called_is_refused(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("refer_unusable", bridge.sip_port).finish()
    assert bridge.wait_until_ended(called(bridge, run))["cause"] == "caller-hung-up"


def test_trunk_that_may_not_transfer_gets_603(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge()
    run = sipp("refer_declined", bridge.sip_port, keys={"target_port": 9}).finish()
    call = bridge.wait_until_ended(called(bridge, run))
    assert call["cause"] == "caller-hung-up"
    assert len(bridge.calls()) == 1
    bridge.stop()


# -- the bridge transfers the caller ------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["referred", "referred_hangs_up"])
def test_caller_is_handed_over_by_refer(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.transfer(call_id, "sip:desk@127.0.0.1", mode="blind")
    run.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "transferred"
    assert [result["status"] for result in events(bridge, call_id, "transfer_result")] == [200]


def test_caller_whom_nobody_takes_comes_back_to_the_agent(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("referred_in_vain", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.transfer(call_id, "sip:desk@127.0.0.1", mode="auto")
    assert bridge.wait_for_event(call_id, "transfer_result")["status"] == 486
    run.finish()
    call = bridge.wait_until_ended(call_id)
    assert call["cause"] == "caller-hung-up"
    assert call["quality"]["packets_sent"] > 25


def test_caller_whose_side_does_no_transfers_is_bridged_by_us(bridge: BridgeProcess, sipp: RunSipp) -> None:
    desk = sipp("uas_until_bye", bridge.sip_port).wait_until_listening()
    run = sipp("referred_refuses", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.transfer(call_id, target_of(desk), mode="auto")
    assert bridge.wait_for_event(call_id, "transfer_result") == {"status": 200, "reason": "bridged"}
    assert bridge.wait_for_event(call_id, "bridged")["agent"] == "left"
    bridge.hang_up(call_id)
    run.finish()
    desk.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"


def test_caller_is_connected_with_whom_the_bridge_has_talked_to(bridge: BridgeProcess, sipp: RunSipp) -> None:
    desk = sipp("uas_until_bye", bridge.sip_port).wait_until_listening()
    run = sipp("referred_replaces", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.transfer(call_id, target_of(desk), mode="attended")
    run.finish()
    desk.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "transferred"
    # What the caller is asked to replace is the very call that the desk has with us.
    (invite,) = desk.received("INVITE")
    leg_id = next(line.split(":", 1)[1].strip() for line in invite.splitlines() if line.startswith("Call-ID:"))
    (refer,) = run.received("REFER")
    assert f"?Replaces={leg_id.replace('@', '%40')}%3B" in refer
    assert f"sip:sipp@127.0.0.1:{desk.port}" in refer
