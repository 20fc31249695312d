"""SIPp against a running bridge: each scenario as SIPp judges it, then what the bridge has on record of it."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bridge_process import WAIT_S, BridgeProcess, send_garbage
from cancel_burst import cancel_at_once
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

COMPLETED = ("hold_inactive", "compact_and_folded")
REFUSED_ON_RECORD = {
    "no_common_codec": "refused-media",
    "no_audio": "refused-media",
    "unknown_user": "refused-no-route",
}
REFUSED_ON_SIGHT = (
    "bye_unknown_dialog",
    "malformed_cseq",
    "malformed_sdp",
    "options",
    "prack_outside_a_dialog",
    "unknown_extension",
    "unknown_method",
)
GARBAGE = (
    b"",
    b"\x00",
    b"\r\n\r\n",
    b"\xff" * 1400,
    os.urandom(200),
    b"INVITE",
    b"INVITE sip:echo@127.0.0.1 SIP/2.0\r\n\r\n",
    b"SIP/2.0 200 OK\r\nVia: nothing\r\n\r\n",
    b"BYE sip:echo SIP/2.0\r\nContent-Length: -5\r\n\r\n",
    b"OPTIONS sip:echo@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP [::::\r\nCSeq: 99999999999 OPTIONS\r\n\r\n",
    b"\x80\x00\x00",
    b"\x9f\xff" + b"\x00" * 10,
    b"\xb0\x00" + b"\xff" * 12,
    b"\x81\xc8\xff\xff" + b"\x00" * 4,
)


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


def ended(bridge: BridgeProcess, run: Sipp, number: int = 1) -> dict[str, Any]:
    """The one call on record of call `number` of a run, ended."""

    def found() -> list[dict[str, Any]]:
        calls = bridge.calls(leg_id=run.call_id(number))
        return calls if calls and all(call["state"] == "ended" for call in calls) else []

    calls: list[dict[str, Any]] = bridge.wait_for(found, 10, f"ended call {run.call_id(number)}")
    assert len(calls) == 1
    return calls[0]


def event_names(bridge: BridgeProcess, call: dict[str, Any]) -> list[str]:
    return [event["name"] for event in bridge.call(call["id"])["events"]]


def assert_held_and_resumed(bridge: BridgeProcess, call: dict[str, Any]) -> None:
    """The record says so, and the echo of what came in during the hold (1.5 s, 75 packets) was not sent."""
    names = event_names(bridge, call)
    assert names.index("held") < names.index("resumed")
    quality = call["quality"]
    assert 0 < quality["packets_sent"] < quality["packets_received"] - 40


def origin_versions(run: Sipp) -> list[int]:
    """The version in `o=` of each description that the bridge sent; the other fields of `o=` must not change."""
    origins = [re.findall(r"^o=(\S+ \S+) (\d+) (.*?)\s*$", m, re.MULTILINE) for m in run.received("SIP/2.0 200")]
    found = [origin[0] for origin in origins if origin]
    assert len({(user_and_id, address) for user_and_id, _, address in found}) == 1
    return [int(version) for _, version, _ in found]


# -- calls that come in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", COMPLETED)
def test_call_runs_to_the_callers_bye(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    call = ended(bridge, sipp(scenario, bridge.sip_port).finish())
    assert (call["cause"], call["agent"], call["to"]) == ("caller-hung-up", "echo", "echo")
    assert call["answered_at"] is not None


@pytest.mark.parametrize("scenario", ["call_with_rtp", "late_offer"])
def test_rtp_goes_both_ways(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    call = ended(bridge, sipp(scenario, bridge.sip_port).finish())
    assert call["cause"] == "caller-hung-up"
    quality = call["quality"]
    assert quality["packets_received"] > 25
    assert quality["packets_sent"] > 25
    assert quality["packets_rejected"] == 0


def test_hold_is_answered_recvonly_and_resume_sendrecv(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("hold_and_resume", bridge.sip_port).finish()
    call = ended(bridge, run)
    assert call["cause"] == "caller-hung-up"
    versions = origin_versions(run)
    assert len(versions) == 3
    assert versions == [versions[0], versions[0] + 1, versions[0] + 2]
    assert_held_and_resumed(bridge, call)


def test_hold_by_null_address_is_held_and_resumed(bridge: BridgeProcess, sipp: RunSipp) -> None:
    call = ended(bridge, sipp("hold_null_address", bridge.sip_port).finish())
    assert call["cause"] == "caller-hung-up"
    assert_held_and_resumed(bridge, call)


def test_refused_reinvite_leaves_the_session_as_it_was(bridge: BridgeProcess, sipp: RunSipp) -> None:
    call = ended(bridge, sipp("reinvite_unusable", bridge.sip_port).finish())
    assert call["cause"] == "caller-hung-up"
    assert not {"held", "resumed"} & set(event_names(bridge, call))


@pytest.mark.parametrize("after_trying", [False, True], ids=["in one burst", "behind the 100"])
def test_cancel_ends_the_call_whichever_is_faster(bridge: BridgeProcess, after_trying: bool) -> None:
    # SIPp reads between two messages that it sends, and gives up on either of two possible answers.
    for number in range(10):
        call_id = f"cancel-{number}-{after_trying}-{os.getpid()}@interop"
        status = cancel_at_once(bridge.sip_port, call_id, after_trying=after_trying)

        def found(call_id: str = call_id) -> list[dict[str, Any]]:
            return [call for call in bridge.calls(leg_id=call_id) if call["state"] == "ended"]

        (call,) = bridge.wait_for(found, 10, f"ended call {call_id}")
        assert call["cause"] == {487: "cancelled", 200: "caller-hung-up"}[status]


def test_retransmitted_invite_is_one_call_with_one_tag(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("retransmitted_invite", bridge.sip_port, retransmit=False).finish()
    assert ended(bridge, run)["cause"] == "caller-hung-up"
    answers = [m for m in run.received("SIP/2.0 200") if "INVITE" in m]
    assert len(answers) >= 3
    assert len({tag for m in answers for tag in re.findall(r"^To:.*tag=(\S+)", m, re.MULTILINE)}) == 1


def test_answer_is_repeated_until_its_ack(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("lost_ack", bridge.sip_port, retransmit=False).finish()
    assert ended(bridge, run)["cause"] == "caller-hung-up"


def test_call_that_is_never_acknowledged_is_hung_up(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(t1_ms=50)
    run = sipp("never_ack", bridge.sip_port, retransmit=False).finish()
    assert ended(bridge, run)["cause"] == "signalling-lost"
    assert len([m for m in run.received("SIP/2.0 200") if "INVITE" in m]) > 5
    bridge.wait_until_idle()
    bridge.stop()


@pytest.mark.parametrize("scenario", sorted(REFUSED_ON_RECORD))
def test_refused_call_is_on_record_with_its_cause(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    call = ended(bridge, sipp(scenario, bridge.sip_port).finish())
    assert call["cause"] == REFUSED_ON_RECORD[scenario]
    assert call["answered_at"] is None


@pytest.mark.parametrize("scenario", REFUSED_ON_SIGHT)
def test_request_that_makes_no_call(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, bridge.sip_port).finish()
    assert bridge.calls(leg_id=run.call_id()) == []


@pytest.mark.parametrize("scenario", ["hung_up_by_bridge", "record_route"])
def test_call_is_hung_up_by_the_api(bridge: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, bridge.sip_port)
    bridge.hang_up(bridge.wait_for_live(run.call_id()))
    run.finish()
    assert ended(bridge, run)["cause"] == "api-hung-up"


def test_bye_names_the_recorded_route_in_order(bridge: BridgeProcess, sipp: RunSipp) -> None:
    run = sipp("record_route", bridge.sip_port)
    bridge.hang_up(bridge.wait_for_live(run.call_id()))
    run.finish()
    (bye,) = run.received("BYE")
    route = ", ".join(re.findall(r"^Route:\s*(.*?)\s*$", bye, re.MULTILINE))
    assert route.index("hop=near") < route.index("hop=far")
    (answer,) = [m for m in run.received("SIP/2.0 200") if "INVITE" in m]
    recorded = ", ".join(re.findall(r"^Record-Route:\s*(.*?)\s*$", answer, re.MULTILINE))
    assert recorded.index("hop=near") < recorded.index("hop=far")


# -- calls that go out --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "cause"),
    [
        ("uas_answers", "caller-hung-up"),
        ("uas_busy", "busy"),
        ("uas_declines", "rejected"),
        ("uas_no_answer", "no-answer"),
    ],
)
def test_outbound_call(bridge: BridgeProcess, sipp: RunSipp, scenario: str, cause: str) -> None:
    run = sipp(scenario, bridge.sip_port).wait_until_listening()
    call_id = bridge.dial(f"sip:someone@127.0.0.1:{run.port}", timeout_s=2 if scenario == "uas_no_answer" else 20)
    call = bridge.wait_until_ended(call_id)
    run.finish()
    assert (call["cause"], call["direction"], call["to"]) == (cause, "outbound", "someone")
    assert (call["answered_at"] is not None) == (scenario == "uas_answers")
    if scenario == "uas_answers":
        assert call["quality"]["packets_received"] > 25


# -- trouble ------------------------------------------------------------------------------------------------


def test_garbage_on_all_ports_harms_no_call(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(rtp_ports=40)
    run = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    send_garbage(range(bridge.rtp_min, bridge.rtp_max + 1), GARBAGE)
    for _ in range(20):
        send_garbage([bridge.sip_port], GARBAGE)
    # Proof that it still answers others too, while the call is up.
    sipp("options", bridge.sip_port).finish()
    assert bridge.call(call_id)["state"] == "up"
    bridge.hang_up(call_id)
    run.finish()
    assert ended(bridge, run)["cause"] == "api-hung-up"
    bridge.wait_until_idle()
    bridge.stop()


def test_draining_bridge_refuses_new_calls_and_lets_the_live_one_finish(
    own_bridge: Callable[..., BridgeProcess], sipp: RunSipp
) -> None:
    bridge = own_bridge()
    run = sipp("call_long", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.terminate()
    bridge.wait_for(lambda: any("draining" in line for line in bridge.said), WAIT_S, "draining in the log")
    sipp("refused_draining", bridge.sip_port).finish()
    sipp("options_draining", bridge.sip_port).finish()
    assert bridge.call(call_id)["state"] == "up"
    run.finish()
    bridge.expect_exit()
    assert any("call ended" in line and "caller-hung-up" in line for line in bridge.said)


def test_bridge_that_is_stopped_twice_hangs_up_the_live_call(
    own_bridge: Callable[..., BridgeProcess], sipp: RunSipp
) -> None:
    bridge = own_bridge()
    run = sipp("hung_up_by_bridge", bridge.sip_port)
    bridge.wait_for_live(run.call_id())
    bridge.terminate()
    bridge.wait_for(lambda: any("draining" in line for line in bridge.said), WAIT_S, "draining in the log")
    bridge.terminate()
    run.finish()
    bridge.expect_exit()
    assert any("call ended" in line and "drained" in line for line in bridge.said)
