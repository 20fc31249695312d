"""Offhook itself beside an old Asterisk, 16 with chan_sip: it takes calls by ARI and RTP and by plain SIP, both sides
hear each other, and calls end from either side, in the dialplan or at the queue."""

from collections.abc import Iterator

import pytest
from asterisk16_shop import Asterisk16
from bridge_process import BridgeProcess

ASTERISK = """
asterisk:
  - {{name: pbx, url: '{url}', username: {user}, password_env: ARI_PASSWORD, agent: echo}}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk16]:
    pbx = Asterisk16(tmp_path_factory.mktemp("shop") / "asterisk")
    yield pbx
    pbx.stop()


@pytest.fixture(scope="module")
def bridge(shop: Asterisk16, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """Where the shop looks for its peer `offhook`."""
    process = BridgeProcess(
        tmp_path_factory.mktemp("bridge") / "box",
        more=ASTERISK.format(url=shop.ari_url, user=shop.username),
        variables={"ARI_PASSWORD": shop.password, "OFFHOOK_SIP_PORT": str(shop.offhook_sip_port)},
    )
    try:
        shop.cli("dialplan set global OFFHOOK_AGENT echo")
        process.wait_for(lambda: process.asterisks()[0]["state"] == "up", 30, "connection to Asterisk")
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.fixture(autouse=True)
def quiet(shop: Asterisk16) -> Iterator[None]:
    yield
    shop.hang_up_all()
    shop.assert_empty()


def talking(shop: Asterisk16, bridge: BridgeProcess) -> str:
    """A caller comes in by chan_sip, and hears his own tone from the agent. The call's id."""
    heard = shop.heard_s("tone")
    shop.call_in("4930123456")
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard, 30, "the caller's own tone from the echo agent")
    call = bridge.calls(live=True)[0]
    assert (call["agent"], call["trunk"], call["to"]) == ("echo", "pbx", "4930123456")
    media = bridge.wait_for_event(call["id"], "media_set_up")
    assert (media["transport"], media["codec"]) == ("rtp", "ulaw")
    call_id: str = call["id"]
    return call_id


def test_a_caller_who_talked_with_an_agent_hangs_up(shop: Asterisk16, bridge: BridgeProcess) -> None:
    call = talking(shop, bridge)
    assert [name for name in shop.channels() if name.startswith("SIP/carrier-in-")]
    for channel in shop.channels():
        if channel.startswith("Local/"):
            shop.cli(f"channel request hangup {channel}")
    ended = bridge.wait_until_ended(call)
    assert ended["cause"] == "caller-hung-up"
    # Its chan_sip told of the caller's line just before.
    assert ended["quality"]["caller_packets_received"] > 0


def test_an_agent_that_is_through_gives_a_call_back_to_the_dialplan(shop: Asterisk16, bridge: BridgeProcess) -> None:
    call = talking(shop, bridge)
    bridge.hang_up(call)
    assert bridge.wait_until_ended(call)["quality"]["caller_packets_received"] > 0
    shop.program.wait_for_line("[s@offhook-after:1]", 30)
    shop.program.wait_for_line("world call ended ANSWER 16", 30)


def test_an_agent_hands_a_call_to_the_queue(shop: Asterisk16, bridge: BridgeProcess) -> None:
    shop.cli("queue add member SIP/desk to office")
    heard = shop.heard_s("desk")
    call = talking(shop, bridge)
    bridge.transfer(call, "queue:office", mode="blind")
    shop.program.wait_for(lambda: shop.heard_s("desk") > heard + 0.5, 30, "tone at the desk")
    assert bridge.wait_until_ended(call)["cause"] == "transferred"


@pytest.mark.parametrize("who", ["caller", "agent"])
def test_a_call_by_plain_sip_is_talked_and_hung_up(shop: Asterisk16, bridge: BridgeProcess, who: str) -> None:
    shop.program.wait_for(lambda: "OK (" in shop.cli("sip show peers"), 30, "peer that is there")
    heard = shop.heard_s("tone")
    shop.originate("Local/701@phones/n", "tone@world")
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard, 30, "its own tone from the echo agent")
    call = bridge.calls(live=True)[0]
    assert (call["agent"], call["leg_kind"]) == ("echo", "sip")
    if who == "agent":
        bridge.hang_up(call["id"])
    else:
        for channel in shop.channels():
            if channel.startswith("Local/"):
                shop.cli(f"channel request hangup {channel}")
    bridge.wait_until_ended(call["id"])
    shop.assert_empty()
