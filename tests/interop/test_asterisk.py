"""Asterisk 22 by chan_pjsip, an independent PBX, against a running bridge with an echo agent."""

from collections.abc import Callable, Iterator

import pytest
from asterisk_peer import TONE_HZ, Asterisk
from bridge_process import BridgeProcess

StartPbx = Callable[..., Asterisk]


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


@pytest.fixture(scope="module")
def pbx(bridge: BridgeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    """One PBX for the tests that need no settings of their own."""
    process = Asterisk(tmp_path_factory.mktemp("pbx") / "asterisk", bridge_port=bridge.sip_port)
    yield process
    process.stop()


def live(bridge: BridgeProcess) -> str:
    found: str = bridge.wait_for(
        lambda: next((call["id"] for call in bridge.calls(live=True) if call["state"] == "up"), None), 10, "live call"
    )
    return found


def test_pbx_calls_the_bridge_and_hears_its_own_tone(bridge: BridgeProcess, pbx: Asterisk) -> None:
    pbx.call("echo")
    call_id = live(bridge)
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) >= 1.0, 15, "tone at Asterisk")
    pbx.cli("channel request hangup all")
    assert bridge.wait_until_ended(call_id)["cause"] == "caller-hung-up"


def test_bridge_calls_an_extension(bridge: BridgeProcess, pbx: Asterisk) -> None:
    call_id = bridge.dial(pbx.address("tone"))
    before = pbx.heard_s(TONE_HZ)
    bridge.wait_for(lambda: bridge.call(call_id)["state"] == "up", 10, "answered call")
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) >= before + 1.0, 15, "tone at Asterisk")
    bridge.hang_up(call_id)
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    pbx.program.wait_for(lambda: pbx.channels() == 0, 5, "end of all channels")


@pytest.mark.parametrize(("extension", "cause"), [("busy", "busy"), ("nobody", "rejected")])
def test_extension_that_refuses(bridge: BridgeProcess, pbx: Asterisk, extension: str, cause: str) -> None:
    call_id = bridge.dial(pbx.address(extension))
    assert bridge.wait_until_ended(call_id)["cause"] == cause


def test_digits_arrive(bridge: BridgeProcess, pbx: Asterisk) -> None:
    call_id = bridge.dial(pbx.address("digits"))

    def digits() -> str:
        events = bridge.call(call_id)["events"]
        return "".join(event["data"]["digit"] for event in events if event["name"] == "dtmf_received")

    bridge.wait_for(lambda: digits() == "1590#", 10, "digits 1590#")
    bridge.hang_up(call_id)
    bridge.wait_until_ended(call_id)


def test_pbx_that_requires_session_timers_and_reliable_responses(
    own_bridge: Callable[..., BridgeProcess], asterisk: StartPbx
) -> None:
    bridge = own_bridge()
    pbx = asterisk(bridge_port=bridge.sip_port, timers="required", session_s=90, reliable="required")
    pbx.cli("pjsip set logger on")
    pbx.call("echo")
    call_id = live(bridge)
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) >= 1.0, 15, "tone at Asterisk")
    pbx.cli("channel request hangup all")
    assert bridge.wait_until_ended(call_id)["cause"] == "caller-hung-up"
    # Both requirements were met: our 180 was acknowledged, and an interval agreed on.
    pbx.program.wait_for_line("PRACK sip:")
    pbx.program.wait_for_line("Session-Expires: 90;refresher=")

    call_id = bridge.dial(pbx.address("early"))
    bridge.wait_for(lambda: bridge.call(call_id)["state"] == "up", 10, "answered call")
    bridge.hang_up(call_id)
    assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    bridge.wait_until_idle()
    bridge.stop()
