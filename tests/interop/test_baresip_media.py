"""baresip's media against ours: SRTP and RTCP of an independent implementation, and what we make of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from baresip_peer import Baresip
from bridge_process import BridgeProcess

StartPhone = Callable[..., Baresip]

REPORTS_S = 16
"""Long enough for two reports each way, whatever the dice say."""


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    process = BridgeProcess(tmp_path_factory.mktemp("bridge") / "box")
    try:
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


def call_echo(bridge: BridgeProcess, phone: Baresip, seconds: float) -> dict[str, Any]:
    """The record of a call to the echo agent that was heard for so long."""
    phone.dial(f"sip:echo@127.0.0.1:{bridge.sip_port}")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(seconds, limit_s=3 * seconds + 10)
    phone.command("hangup")
    found: dict[str, Any] = bridge.wait_until_ended(bridge.calls()[0]["id"])
    return found


@pytest.mark.parametrize("mode", ["srtp", "srtp-mand"])
def test_encrypted_call_is_heard(bridge: BridgeProcess, baresip: StartPhone, mode: str) -> None:
    call = call_echo(bridge, baresip(account=f";mediaenc={mode}"), 1.0)
    assert call["srtp"] == "AES_CM_128_HMAC_SHA1_80"
    assert call["quality"]["packets_rejected"] == 0
    assert call["one_way"] == ""


@pytest.mark.parametrize("account", ["", ";mediaenc=srtp-mand;rtcp_mux=yes"])
def test_reports_are_understood(bridge: BridgeProcess, baresip: StartPhone, account: str) -> None:
    call = call_echo(bridge, baresip(account=account), REPORTS_S)
    quality = call["quality"]
    # What is read wrongly is off by far more than a busy machine's pauses make of it.
    assert 0 <= quality["round_trip_ms"] < 1000
    assert quality["remote_loss_percent"] < 1
    assert quality["remote_jitter_ms"] < 200
    assert quality["mos"] > 3 and quality["mos_remote"] > 3
    assert call["one_way"] == ""
