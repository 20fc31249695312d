"""SIPp as the called side of a running bridge's calls: early media, forks, challenges, and lost messages."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bridge_process import WAIT_S, BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

ANSWERED = (
    "uas_early_media",
    "uas_forked",
    "uas_hangs_up_with_reason",
    "uas_interval_too_small",
    "uas_lost_ack",
    "uas_lost_invite",
    "uas_lost_ok_of_bye",
    "uas_offers_again",
    "uas_reliable",
    "uas_reliable_repeated",
    "uas_unexpected",
    "uas_update_too_early",
)
BY_TRUNK = ("uas_challenges", "uas_challenges_stale", "uas_proxy_challenges", "uas_redirects")

TRUNK = """\
trunks:
  - {{name: carrier, host: 127.0.0.1, port: {port}, transport: udp, trust_host: false, username: bridge,
      password_env: OFFHOOK_TEST_PASSWORD, follow_redirects: 1, options_s: 0}}
"""


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """One bridge for all tests of this file; in the end nothing may be left open in it."""
    process = BridgeProcess(tmp_path_factory.mktemp("bridge") / "box")
    try:
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


def dialled(bridge: BridgeProcess, run: Sipp, **how: Any) -> dict[str, Any]:
    """A call to SIPp, ended."""
    call_id = bridge.dial(f"sip:someone@127.0.0.1:{run.wait_until_listening().port}", **how)
    call = bridge.wait_until_ended(call_id)
    run.finish()
    return call


@pytest.mark.parametrize("scenario", ANSWERED)
def test_call_is_answered_and_hung_up_there(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    retransmit = scenario not in ("uas_lost_ack", "uas_lost_invite", "uas_lost_ok_of_bye")
    call = dialled(bridge, sipp(scenario, bridge.sip_port, retransmit=retransmit))
    assert (call["cause"], call["direction"]) == ("caller-hung-up", "outbound")
    assert call["answered_at"] is not None


@pytest.mark.parametrize(
    ("scenario", "cause"),
    [("uas_moved", "rejected"), ("uas_busy_with_reason", "busy"), ("uas_cancelled", "no-answer")],
)
def test_call_is_not_answered(bridge: BridgeProcess, sipp: RunSipp, scenario: str, cause: str) -> None:
    call = dialled(bridge, sipp(scenario, bridge.sip_port), timeout_s=2)
    assert (call["cause"], call["answered_at"]) == (cause, None)


@pytest.mark.parametrize("scenario", ["uas_lost_bye", "uas_gone"])
def test_call_is_hung_up_though_the_other_side_does_not_help(
    bridge: BridgeProcess, sipp: RunSipp, scenario: str
) -> None:
    run = sipp(scenario, bridge.sip_port, retransmit=False).wait_until_listening()
    call_id = bridge.dial(f"sip:someone@127.0.0.1:{run.port}")
    bridge.wait_for(lambda: bridge.call(call_id)["state"] == "up", WAIT_S, "answered call")
    bridge.hang_up(call_id)
    run.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"


def test_early_media_changes_its_codec(bridge: BridgeProcess, sipp: RunSipp) -> None:
    call = dialled(bridge, sipp("uas_early_update", bridge.sip_port))
    assert (call["cause"], call["codec"]) == ("caller-hung-up", "PCMA")


def test_holds_that_cross_are_refused_both_ways_and_end_well(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("uas_glare", bridge.sip_port).wait_until_listening()
    call_id = bridge.dial(f"sip:someone@127.0.0.1:{run.port}")
    bridge.wait_for(lambda: bridge.call(call_id)["state"] == "up", WAIT_S, "answered call")
    bridge.hold(call_id)
    run.finish()
    assert bridge.wait_until_ended(call_id)["cause"] == "caller-hung-up"


@pytest.mark.parametrize("scenario", [*BY_TRUNK, "uas_challenges_for_ever"])
def test_call_by_way_of_a_trunk(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, 9).wait_until_listening()
    bridge = own_bridge(more=TRUNK.format(port=run.port), variables={"OFFHOOK_TEST_PASSWORD": "sesame"})
    call = bridge.wait_until_ended(bridge.dial("12345", trunk="carrier"))
    run.finish()
    assert call["cause"] == ("caller-hung-up" if scenario in BY_TRUNK else "rejected")
    assert call["trunk"] == "carrier"
    bridge.wait_until_idle()
    bridge.stop()
