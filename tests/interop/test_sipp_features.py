"""SIPp as a caller against a running bridge: what carriers and PBXs use beyond a plain call."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bridge_process import BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

COMPLETED = (
    "bye_repeated",
    "bye_with_reason",
    "codec_change",
    "cseq_goes_back",
    "early_bye",
    "hold_reinvites_in_a_row",
    "identity_headers",
    "info_dtmf",
    "info_dtmf_bare",
    "info_unknown",
    "invite_by_two_ways",
    "multipart_body",
    "options_in_a_call",
    "reinvite_repeated",
    "reliable_late_prack",
    "reliable_ringing",
    "stray_responses",
    "timer_refreshed_by_reinvite",
    "timer_refreshed_by_update",
    "update_hold_and_resume",
)
NO_CALL = (
    "accepts_no_sdp",
    "options_without_hops",
    "register_refused",
    "replaces_twice",
    "replaces_unknown",
    "subscribe_refused",
)
AS_LOST_MESSAGES = ("bye_repeated", "invite_by_two_ways", "reinvite_repeated")
"""They repeat by the scenario what SIPp would repeat by itself."""


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


def ended(bridge: BridgeProcess, leg_id: str) -> dict[str, Any]:
    """The one call on record with this Call-ID, ended."""

    def found() -> list[dict[str, Any]]:
        calls = bridge.calls(leg_id=leg_id)
        return calls if calls and all(call["state"] == "ended" for call in calls) else []

    calls: list[dict[str, Any]] = bridge.wait_for(found, 10, f"ended call {leg_id}")
    assert len(calls) == 1
    return calls[0]


def events(bridge: BridgeProcess, call: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in bridge.call(call["id"])["events"] if event["name"] == name]


@pytest.mark.parametrize("scenario", COMPLETED)
def test_call_runs_to_the_callers_bye(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, bridge.sip_port, retransmit=scenario not in AS_LOST_MESSAGES).finish()
    call = ended(bridge, run.call_id())
    assert (call["cause"], call["agent"]) == ("caller-hung-up", "echo")
    assert call["answered_at"] is not None


@pytest.mark.parametrize("scenario", NO_CALL)
def test_request_that_makes_no_call(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, bridge.sip_port).finish()
    assert bridge.calls(leg_id=run.call_id()) == []


def test_interval_that_is_too_short_is_refused_and_then_taken(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("timer_too_short", bridge.sip_port).finish()
    assert ended(bridge, run.call_id())["cause"] == "caller-hung-up"


@pytest.mark.parametrize(("scenario", "digits"), [("info_dtmf", "5#"), ("info_dtmf_bare", "7")])
def test_digits_by_info_are_on_record(bridge: BridgeProcess, sipp: RunSipp, scenario: str, digits: str) -> None:
    call = ended(bridge, sipp(scenario, bridge.sip_port).finish().call_id())
    assert "".join(event["digit"] for event in events(bridge, call, "dtmf_received")) == digits


def test_hold_by_update_is_on_record(bridge: BridgeProcess, sipp: RunSipp) -> None:
    call = ended(bridge, sipp("update_hold_and_resume", bridge.sip_port).finish().call_id())
    assert len(events(bridge, call, "held")) == len(events(bridge, call, "resumed")) == 1
    assert 0 < call["quality"]["packets_sent"] < call["quality"]["packets_received"] - 25


def test_holds_that_cross_are_refused_both_ways_and_end_well(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("glare", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.hold(call_id)
    run.finish()
    assert ended(bridge, run.call_id())["cause"] == "caller-hung-up"


def test_reason_of_the_callers_bye_is_on_record(bridge: BridgeProcess, sipp: RunSipp) -> None:
    call = ended(bridge, sipp("bye_with_reason", bridge.sip_port).finish().call_id())
    assert "cause=31" in str(bridge.call(call["id"])["events"])


def test_call_is_taken_over_by_replaces(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("replaces_takes_over", bridge.sip_port).finish()
    call = ended(bridge, run.call_id())
    # One call to the agent and on record: another caller took the leg's place.
    assert call["cause"] == "caller-hung-up"
    # ... and is known by either's Call-ID.
    assert [one["id"] for one in bridge.calls(leg_id=f"second///{run.call_id()}")] == [call["id"]]


def test_calls_over_tcp(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("call_tcp", bridge.sip_port, calls=10, tcp=True).finish()
    calls = [ended(bridge, run.call_id(number)) for number in range(1, 11)]
    assert Counter(call["cause"] for call in calls) == {"caller-hung-up": 10}
    assert all(call["quality"]["packets_received"] > 25 for call in calls)
    sipp("options_tcp", bridge.sip_port, tcp=True).finish()


@pytest.mark.parametrize("percent", [5, 20])
def test_calls_survive_lost_messages(bridge: BridgeProcess, sipp: RunSipp, percent: int) -> None:
    run = sipp("lossy_call", bridge.sip_port, calls=30, rate=10, lost_percent=percent, limit_s=80).finish()
    causes = Counter(ended(bridge, run.call_id(number))["cause"] for number in range(1, 31))
    assert causes == {"caller-hung-up": 30}
