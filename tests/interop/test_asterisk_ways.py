"""Each way that the shipped dialplan hands a call over, to a running bridge with an echo agent: ARI, plain SIP,
AudioSocket. (With no bridge there, the same calls are in test_asterisk_dialplan.)"""

from collections.abc import Iterator

import pytest
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess

CONFIG = """
asterisk:
  - {{name: pbx, url: '{url}', username: {user}, password_env: ARI_PASSWORD, agent: echo}}
audiosocket: {{listen: 127.0.0.1, port: {audiosocket}, trunk: dialplan}}
"""

DESTINATIONS = """
[destinations]
exten => ari,1,Set(FROM_DID=+4930123456)
 same => n,Goto(offhook,s,1)
exten => sip,1,Set(FROM_DID=+4930123456)
 same => n,Goto(offhook-sip,s,1)
exten => audiosocket,1,Set(FROM_DID=+4930123456)
 same => n,Goto(offhook-audiosocket,s,1)
"""
"""As FreePBX has them: the extension is no number."""

CARRIER = """
[from-carrier](+)
exten => 702,1,Set(OFFHOOK_ARGS=campaign=spring sale,language=de)
 same => n,Goto(offhook-audiosocket,${EXTEN},1)
"""

WAYS = {"ari": "700", "sip": "701", "audiosocket": "702"}
"""Numbers of the shop's phones."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    pbx = AsteriskShop(
        tmp_path_factory.mktemp("shop") / "asterisk",
        dialplan=DESTINATIONS + CARRIER,
        uncommented=[("pjsip.conf", "#include offhook/pjsip.conf")],
    )
    yield pbx
    pbx.stop()


@pytest.fixture(scope="module")
def bridge(shop: AsteriskShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """A bridge where the shop's configuration looks for it."""
    process = BridgeProcess(
        tmp_path_factory.mktemp("bridge") / "box",
        more=CONFIG.format(url=shop.ari_url, user=shop.username, audiosocket=shop.audiosocket_port),
        variables={"ARI_PASSWORD": shop.password, "OFFHOOK_SIP_PORT": str(shop.offhook_sip_port)},
    )
    try:
        key = (process.folder / "data/api-key").read_text().strip()
        (shop.etc / "offhook/secrets/api.conf").write_text(f" same => n,Set(OFFHOOK_API_KEY={key})\n")
        shop.cli("dialplan reload")
        shop.cli(f"dialplan set global OFFHOOK_API http://127.0.0.1:{process.http_port}/api")
        shop.cli("dialplan set global OFFHOOK_AGENT echo")
        process.wait_for(lambda: process.asterisks()[0]["state"] == "up", 30, "connection to Asterisk")
        shop.cli("pjsip qualify offhook")
        shop.program.wait_for(lambda: "Avail" in shop.cli("pjsip show contacts"), 30, "bridge by SIP")
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.fixture(autouse=True)
def quiet(shop: AsteriskShop) -> Iterator[None]:
    yield
    shop.hang_up_all()
    shop.cli("queue remove member PJSIP/desk from office")
    shop.assert_empty()


def ring_up(shop: AsteriskShop, number: str) -> None:
    """A phone of the shop, that plays and hears as the world's `tone`, dials `number`."""
    shop.originate(f"Local/{number}@phones/n", "tone@world")


@pytest.mark.parametrize("way", WAYS)
def test_a_call_talks_with_an_agent(shop: AsteriskShop, bridge: BridgeProcess, way: str) -> None:
    heard = shop.heard_s("tone")
    ring_up(shop, WAYS[way])
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard + 1, 30, "its own tone from the echo agent")
    call = bridge.calls(live=True)[0]
    assert (call["agent"], call["trunk"]) == ("echo", {"ari": "pbx", "sip": "", "audiosocket": "dialplan"}[way])
    # The phone alone: `all` would take the media channel as well, and whichever goes first is the cause.
    for channel in shop.channels():
        if channel.startswith("Local/"):
            shop.cli(f"channel request hangup {channel}")
    assert bridge.wait_until_ended(call["id"])["cause"] == "caller-hung-up"


@pytest.mark.parametrize("way", WAYS)
def test_a_call_whose_agent_is_through_ends(shop: AsteriskShop, bridge: BridgeProcess, way: str) -> None:
    heard = shop.heard_s("tone")
    ring_up(shop, WAYS[way])
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard, 30, "its own tone from the echo agent")
    bridge.hang_up(bridge.calls(live=True)[0]["id"])
    # Nobody waits at the queue: it was not meant to go there.
    shop.assert_empty()


@pytest.mark.parametrize("way", WAYS)
def test_a_destination_that_is_no_number_goes_by_the_did(shop: AsteriskShop, bridge: BridgeProcess, way: str) -> None:
    heard = shop.heard_s("tone")
    shop.originate(f"Local/{way}@destinations/n", "tone@world")
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard, 30, "its own tone from the echo agent")
    call = bridge.calls(live=True)[0]
    # By SIP the user that is called is the agent, where the dialplan names one.
    assert (call["agent"], call["to"]) == ("echo", "echo" if way == "sip" else "+4930123456")
    if way == "sip":
        assert bridge.wait_for_event(call["id"], "call_started")["headers"]["x-offhook-did"] == "+4930123456"


def test_a_call_without_ari_has_its_arguments_and_is_found_by_its_names_in_asterisk_and_sip(
    shop: AsteriskShop, bridge: BridgeProcess
) -> None:
    shop.call_in("702")
    bridge.wait_for(lambda: bool(bridge.calls(live=True)), 30, "the call")
    call = bridge.calls(live=True)[0]
    told = bridge.wait_for_event(call["id"], "call_started")["headers"]
    assert (call["leg_kind"], told["campaign"], told["language"]) == ("audiosocket", "spring sale", "de")
    assert told["asterisk-channel"] in shop.channels()
    for name in (told["call-id"], told["asterisk-channel"], told["asterisk-uniqueid"]):
        shown = bridge.command("trace", name).stdout
        assert f"channel {told['asterisk-channel']} ({told['asterisk-uniqueid']})" in shown
        assert f"SIP Call-ID {told['call-id']}: `pjsip set logger on`" in shown


def test_an_api_key_that_is_wrong_is_said_on_both_sides(shop: AsteriskShop, bridge: BridgeProcess) -> None:
    file = shop.etc / "offhook/secrets/api.conf"
    right = file.read_text()
    try:
        file.write_text(" same => n,Set(OFFHOOK_API_KEY=not-the-one-of-this-box)\n")
        shop.cli("dialplan reload")
        ring_up(shop, WAYS["audiosocket"])
        bridge.wait_for(lambda: any("nobody announced" in line for line in bridge.said), 30, "the call")
        assert any("wrong API key" in line and "/api/audiosocket/" in line for line in bridge.said)
        advice = "is OFFHOOK_API_KEY in offhook/secrets/api.conf what its file api-key has?"
        shop.program.wait_for(lambda: any(advice in line for line in shop.problems()), 30, "advice in its log")
    finally:
        file.write_text(right)
        shop.cli("dialplan reload")


@pytest.mark.parametrize("way", ["ari", "audiosocket"])
def test_an_agent_hands_a_call_to_the_queue(shop: AsteriskShop, bridge: BridgeProcess, way: str) -> None:
    shop.cli("queue add member PJSIP/desk to office")
    heard = shop.heard_s("tone"), shop.heard_s("desk")
    ring_up(shop, WAYS[way])
    shop.program.wait_for(lambda: shop.heard_s("tone") > heard[0], 30, "its own tone from the echo agent")
    call = bridge.calls(live=True)[0]["id"]
    bridge.transfer(call, "queue:office", mode="blind")
    shop.program.wait_for(lambda: shop.heard_s("desk") > heard[1] + 0.5, 30, "tone at the desk")
    assert bridge.wait_until_ended(call)["cause"] == "transferred"
