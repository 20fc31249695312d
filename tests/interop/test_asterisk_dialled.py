"""Calls that a running bridge makes through a real Asterisk, and their supervisors, by the HTTP API: on record with
what came of them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess

ASTERISK = """\
asterisk:
  - name: pbx
    url: {url}
    username: offhook
    password_env: ASTERISK_PASSWORD
    reconnect_s: 0.5
    recording: asterisk
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BridgeProcess, AsteriskShop]]:
    """A bridge whose trunk the Asterisk is; in the end nothing may be left on either side."""
    shop = AsteriskShop(tmp_path_factory.mktemp("shop"))
    try:
        bridge = BridgeProcess(
            tmp_path_factory.mktemp("bridge") / "box",
            more=ASTERISK.format(url=shop.ari_url),
            variables={"ASTERISK_PASSWORD": shop.password},
        )
        try:
            bridge.wait_for(lambda: bridge.asterisks()[0]["state"] == "up", 20, "connection to Asterisk")
            yield bridge, shop
            bridge.wait_until_idle()
            shop.assert_empty()
            bridge.stop()
        finally:
            bridge.kill()
    finally:
        shop.stop()


def api(bridge: BridgeProcess) -> httpx.Client:
    key = (bridge.folder / "data/api-key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{bridge.http_port}/api/calls/", headers=headers, timeout=30)


def notes(bridge: BridgeProcess, call_id: str, name: str) -> list[str]:
    events: list[dict[str, Any]] = bridge.call(call_id)["events"]
    return [one["data"]["detail"] for one in events if one["name"] == "note" and one["data"]["name"] == name]


def test_a_call_is_made_supervised_recorded_and_hung_up(both: tuple[BridgeProcess, AsteriskShop]) -> None:
    bridge, shop = both
    call_id = bridge.dial("PJSIP/tone@carrier", trunk="pbx", **{"from": "+4930111"})
    media = bridge.wait_for_event(call_id, "media_set_up")
    assert (media["transport"], media["codec"]) == ("rtp", "ulaw")
    # The echo agent gives the called party its own tone back.
    bridge.wait_for(lambda: shop.heard_s("tone") > 0.5, 20, "tone at the called party")
    with api(bridge) as client:
        answer = client.post(f"{call_id}/supervise", json={"endpoint": "PJSIP/desk"})
        assert answer.status_code == 202, answer.text
        bridge.wait_for(lambda: shop.heard_s("desk") > 0.5, 20, "tone at the supervisor")
        (supervisor,) = client.get(f"{call_id}/supervise").json()["supervisors"]
        assert supervisor == {"id": "1", "endpoint": "PJSIP/desk", "mode": "listen", "state": "connected"}
        assert client.put(f"{call_id}/supervise/1", json={"mode": "barge"}).json()["mode"] == "barge"
        assert client.post(f"{call_id}/supervise", json={"endpoint": "PJSIP/nix"}).status_code == 404
    bridge.hang_up(call_id)
    record = bridge.wait_until_ended(call_id)
    assert (record["cause"], record["to"], record["from"]) == ("api-hung-up", "PJSIP/tone@carrier", "+4930111")
    shop.assert_empty()
    supervised = ["is called (listen)", "listens", "speaks to both"]
    assert notes(bridge, call_id, "supervisor") == [f"PJSIP/desk {what}" for what in supervised]
    (recorded,) = notes(bridge, call_id, "asterisk-recording")
    assert (shop.folder / "spool/recording" / recorded).stat().st_size > 44


@pytest.mark.parametrize(
    ("to", "cause", "status", "q850"),
    [
        ("PJSIP/busy@carrier", "busy", 486, 17),
        ("PJSIP/nobody@carrier", "rejected", 404, 1),
        ("PJSIP/1001", "no-answer", 480, 20),
        ("1001", "no-answer", 480, 20),
        ("1777", "rejected", 404, 3),
        ("PJSIP/ring@carrier", "no-answer", None, 19),
    ],
)
def test_what_came_of_a_call_is_on_record(
    both: tuple[BridgeProcess, AsteriskShop], to: str, cause: str, status: int | None, q850: int
) -> None:
    bridge, _ = both
    call_id = bridge.dial(to, trunk="pbx", timeout_s=1)
    record = bridge.wait_until_ended(call_id)
    assert record["cause"] == cause
    ended = bridge.wait_for_event(call_id, "leg_ended")
    assert (ended["status"], ended["q850"]) == (status, q850)


def test_what_can_not_be_called_is_refused(both: tuple[BridgeProcess, AsteriskShop]) -> None:
    bridge, _ = both
    refused = bridge.try_dial("PJSIP/nix", trunk="pbx")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no-such-target")
    assert "no endpoint PJSIP/nix" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("to", "who", "cause"), [("human", "human", None), ("machine", "machine", "agent-hung-up")])
def test_who_took_the_call_is_on_record(
    both: tuple[BridgeProcess, AsteriskShop], to: str, who: str, cause: str | None
) -> None:
    bridge, _ = both
    call_id = bridge.dial(f"PJSIP/{to}@carrier", trunk="pbx", machine="hangup")
    taken = bridge.wait_for_event(call_id, "answered_by", 20)
    assert taken["who"] == who, taken
    if cause is None:
        bridge.wait_for_event(call_id, "answered")
        bridge.hang_up(call_id)
        cause = "api-hung-up"
    assert bridge.wait_until_ended(call_id)["cause"] == cause
