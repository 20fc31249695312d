"""baresip, an independent phone, against a running bridge with an echo agent."""

from collections.abc import Callable, Iterator

import pytest
from baresip_peer import Baresip
from bridge_process import WAIT_S, BridgeProcess

StartPhone = Callable[..., Baresip]


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


def echo_of(bridge: BridgeProcess) -> str:
    return f"sip:echo@127.0.0.1:{bridge.sip_port}"


def ended(bridge: BridgeProcess) -> dict[str, object]:
    """The newest call, ended."""
    found: dict[str, object] = bridge.wait_until_ended(bridge.calls()[0]["id"])
    return found


@pytest.mark.parametrize("codec", ["PCMU/8000/1", "PCMA/8000/1"])
def test_phone_calls_and_hears_its_own_voice(bridge: BridgeProcess, baresip: StartPhone, codec: str) -> None:
    phone = baresip(codec=codec)
    phone.dial(echo_of(bridge))
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    phone.command("hangup")
    assert ended(bridge)["cause"] == "caller-hung-up"


@pytest.mark.parametrize("by_bridge", [True, False], ids=["bridge hangs up", "phone hangs up"])
def test_bridge_calls_the_phone(bridge: BridgeProcess, baresip: StartPhone, by_bridge: bool) -> None:
    phone = baresip()
    call_id = bridge.dial(phone.contact)
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    if by_bridge:
        bridge.hang_up(call_id)
        phone.wait_for_event("CALL_CLOSED")
        assert bridge.wait_until_ended(call_id)["cause"] == "api-hung-up"
    else:
        phone.command("hangup")
        assert bridge.wait_until_ended(call_id)["cause"] == "caller-hung-up"


def test_phone_refuses_the_bridges_call(bridge: BridgeProcess, baresip: StartPhone) -> None:
    phone = baresip(answers=False)
    call_id = bridge.dial(phone.contact)
    phone.wait_for_event("CALL_INCOMING")
    phone.command("hangup")
    assert bridge.wait_until_ended(call_id)["cause"] in ("busy", "rejected")


def test_phone_holds_and_resumes(bridge: BridgeProcess, baresip: StartPhone) -> None:
    phone = baresip()
    phone.dial(echo_of(bridge))
    phone.wait_until_heard(0.5)
    call_id = bridge.calls(live=True)[0]["id"]

    def told(name: str) -> bool:
        return name in [event["name"] for event in bridge.call(call_id)["events"]]

    phone.command("hold")
    bridge.wait_for(lambda: told("held"), WAIT_S, "hold on record")
    phone.command("resume")
    bridge.wait_for(lambda: told("resumed"), WAIT_S, "end of the hold on record")
    # Its own player does not start again after a hold: what it says is heard by the bridge, and sent back.
    said = phone.said_s()
    phone.program.wait_for(lambda: phone.said_s() > said + 1.5, WAIT_S, "1.5 s more of its tone")
    phone.command("hangup")
    call = ended(bridge)
    assert call["cause"] == "caller-hung-up"
    quality = call["quality"]
    assert isinstance(quality, dict)
    assert quality["packets_sent"] > 25 + 60
