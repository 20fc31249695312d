"""Codecs beyond G.711, and SRTP, between the bridge and independent stacks."""

from collections.abc import Callable

import pytest
from asterisk_peer import TONE_HZ, Asterisk
from baresip_peer import Baresip
from bridge_process import WAIT_S, BridgeProcess
from certificates import Authority
from free_ports import free_port

StartBridge = Callable[..., BridgeProcess]
StartPhone = Callable[..., Baresip]
StartPbx = Callable[..., Asterisk]

TRUNK = "trunks:\n  - {{name: phones, networks: [127.0.0.0/8], {settings}}}\n"


@pytest.mark.parametrize(("codec", "named"), [("G722/16000/1", "G722"), ("opus/48000/2", "opus")])
def test_wideband_codec_carries_the_tone_both_ways(
    own_bridge: StartBridge, baresip: StartPhone, codec: str, named: str
) -> None:
    bridge = own_bridge(more=TRUNK.format(settings=f"codecs: [{named}, PCMU]"))
    phone = baresip(codec=codec)
    phone.dial(f"sip:echo@127.0.0.1:{bridge.sip_port}")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    phone.command("hangup")
    call = bridge.one_call()
    ended = bridge.wait_until_ended(call["id"])
    assert (ended["cause"], ended["codec"].lower()) == ("caller-hung-up", named.lower())
    bridge.wait_until_idle()
    bridge.stop()


@pytest.mark.parametrize("wanted", ["offered", "required"])
def test_phone_calls_over_tls_with_srtp(
    own_bridge: StartBridge, baresip: StartPhone, authority: Authority, wanted: str
) -> None:
    pair = authority.issue(f"bridge-{wanted}")
    port = free_port()
    bridge = own_bridge(
        more=f"tls: {{port: {port}, certificate: {pair.certificate}, key: {pair.key}, ca: {authority.certificate}}}\n"
        + TRUNK.format(settings=f"srtp: {wanted}"),
    )
    phone = baresip(account=";mediaenc=srtp-mand", transport="tls")
    phone.dial(f"sip:echo@127.0.0.1:{port};transport=tls")
    phone.wait_for_event("CALL_ESTABLISHED")
    phone.wait_until_heard(1.0)
    phone.command("hangup")
    call = bridge.one_call()
    ended = bridge.wait_until_ended(call["id"])
    assert (ended["cause"], ended["srtp"]) == ("caller-hung-up", "AES_CM_128_HMAC_SHA1_80")
    bridge.wait_until_idle()
    bridge.stop()


def test_phone_without_srtp_is_refused_where_it_is_required(own_bridge: StartBridge, baresip: StartPhone) -> None:
    bridge = own_bridge(more=TRUNK.format(settings="srtp: required"))
    phone = baresip()
    phone.dial(f"sip:echo@127.0.0.1:{bridge.sip_port}")
    phone.wait_for_event("CALL_CLOSED")
    call = bridge.one_call()
    assert bridge.wait_until_ended(call["id"])["cause"] == "refused-media"
    bridge.stop()


def test_asterisk_calls_with_srtp(own_bridge: StartBridge, asterisk: StartPbx) -> None:
    bridge = own_bridge(more=TRUNK.format(settings="srtp: required"))
    pbx = asterisk(bridge_port=bridge.sip_port, media_encryption="sdes")
    pbx.call("echo")
    call = bridge.wait_for(lambda: bridge.calls(live=True), WAIT_S, "live call")[0]
    bridge.wait_for(lambda: pbx.heard_s(TONE_HZ) >= 1.0, WAIT_S, "tone at Asterisk")
    pbx.cli("channel request hangup all")
    ended = bridge.wait_until_ended(call["id"])
    assert (ended["cause"], ended["srtp"]) == ("caller-hung-up", "AES_CM_128_HMAC_SHA1_80")
    bridge.stop()
