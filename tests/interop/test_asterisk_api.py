"""A running bridge and a real Asterisk, by the HTTP API and the commands: places that are dialled, what is refused
and how, calls found by what Asterisk calls them, settings that change under live calls."""

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
    username: {username}
    password_env: {password}
    agent: echo
    reconnect_s: 0.5
    {more}
trunks:
  - {{name: carrier, host: 127.0.0.1}}
"""

SECOND = """
[second]
type = user
read_only = no
password = another
"""

Both = tuple[BridgeProcess, AsteriskShop]


def settings(shop: AsteriskShop, *, username: str = "offhook", password: str = "FIRST", more: str = "") -> str:
    return ASTERISK.format(url=shop.ari_url, username=username, password=password, more=more)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A bridge whose trunk the Asterisk is; in the end nothing may be left on either side."""
    shop = AsteriskShop(tmp_path_factory.mktemp("shop"))
    try:
        with (shop.etc / "ari.conf").open("a") as ari:
            ari.write(SECOND)
        shop.cli("module reload res_ari.so")
        bridge = BridgeProcess(
            tmp_path_factory.mktemp("bridge") / "box",
            more=settings(shop),
            variables={"FIRST": shop.password, "SECOND": "another"},
        )
        try:
            yield bridge, shop
            bridge.wait_until_idle()
            shop.assert_empty()
            bridge.stop()
        finally:
            bridge.kill()
    finally:
        shop.stop()


@pytest.fixture
def both(started: Both) -> Iterator[Both]:
    bridge, shop = started
    bridge.wait_for(lambda: bridge.asterisks()[0]["state"] == "up", 20, "connection to Asterisk")
    yield started
    bridge.wait_until_idle()
    shop.assert_empty()


def api(bridge: BridgeProcess) -> httpx.Client:
    key = (bridge.folder / "data/api-key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{bridge.http_port}/api/calls/", headers=headers, timeout=30)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def connections(bridge: BridgeProcess) -> int:
    """To Asterisk, so far."""
    name = 'offhook_asterisk_ari_connects_total{asterisk="pbx"}'
    (found,) = (line.split()[-1] for line in bridge.metrics_text().splitlines() if line.startswith(name))
    return int(float(found))


def call_in(bridge: BridgeProcess, shop: AsteriskShop) -> dict[str, Any]:
    """A caller whom an agent talks with."""
    known = {call["id"] for call in bridge.calls()}
    shop.call_in("700")

    def up() -> list[dict[str, Any]]:
        return [call for call in bridge.calls(live=True) if call["id"] not in known and call["state"] == "up"]

    (call,) = bridge.wait_for(up, 20, "call that is up")
    found: dict[str, Any] = call
    return found


# -- places that are dialled ----------------------------------------------------------------------------------------


def test_a_place_in_the_dialplan_is_called(both: Both) -> None:
    bridge, shop = both
    call_id = bridge.dial("dialplan:tone@world", trunk="pbx")
    bridge.wait_for_event(call_id, "answered")
    # The echo agent gives the tone back, through both halves of the channel.
    heard = shop.heard_s("tone")
    bridge.wait_for(lambda: shop.heard_s("tone") > heard + 0.5, 20, "tone at the called party")
    bridge.hang_up(call_id)
    assert bridge.wait_until_ended(call_id)["to"] == "dialplan:tone@world"


def test_a_machine_is_told_from_people_in_the_dialplan_too(both: Both) -> None:
    bridge, _ = both
    call_id = bridge.dial("dialplan:machine@world", trunk="pbx", machine="hangup")
    assert bridge.wait_for_event(call_id, "answered_by", 20)["who"] == "machine"
    assert bridge.wait_until_ended(call_id)["cause"] == "agent-hung-up"


def test_a_queue_is_called_and_answered_by_who_takes_the_call(both: Both) -> None:
    bridge, shop = both
    shop.cli("queue add member PJSIP/deaf to office")
    call_id = bridge.dial("queue:office", trunk="pbx", timeout_s=60)
    bridge.wait_for(lambda: "office" in shop.calls_in("offhook-queue"), 20, "call in the queue")
    bridge.wait_for(lambda: any("deaf" in name for name in shop.channels()), 20, "member that rings")
    assert bridge.call(call_id)["state"] == "ringing"
    shop.cli("queue remove member PJSIP/deaf from office")
    shop.cli("queue add member PJSIP/desk to office")
    try:
        shop.cli("channel request hangup " + next(name for name in shop.channels() if "PJSIP/deaf" in name))
        bridge.wait_for_event(call_id, "answered", 40)
        bridge.wait_for(lambda: any("desk" in name for name in shop.channels()), 20, "member on the call")
        bridge.hang_up(call_id)
        bridge.wait_until_ended(call_id)
    finally:
        shop.cli("queue remove member PJSIP/desk from office")


@pytest.mark.parametrize(
    ("to", "more", "expected", "words"),
    [
        ("queue:nix", {"trunk": "pbx"}, (404, "no-such-target"), "no queue 'nix'"),
        ("PJSIP/nix", {"trunk": "pbx"}, (404, "no-such-target"), "no endpoint PJSIP/nix"),
        ("Local/tone@world", {"trunk": "pbx"}, (403, "not-permitted"), "`dial`"),
        ("dialplan:tone@world,2", {"trunk": "pbx"}, (400, "bad-target"), "begins at priority 1"),
        ("sip:x@127.0.0.1", {"trunk": "pbx"}, (400, "bad-target"), "endpoint of its own"),
        ("DAHDI/1", {"trunk": "pbx"}, (502, "trunk-refused"), "can't call 'DAHDI/1'"),
        ("dialplan:tone@world", {"trunk": "carrier"}, (400, "bad-target"), "known: pbx"),
        ("queue:office", {"trunk": "carrier"}, (400, "bad-target"), "known: pbx"),
        ("queue:office", {}, (400, "bad-target"), "known: pbx"),
        ("queue:office", {"trunk": "nix"}, (404, "no-such-trunk"), "known: carrier, pbx"),
    ],
)
def test_what_can_not_be_called_is_refused_at_once(
    both: Both, to: str, more: dict[str, str], expected: tuple[int, str], words: str
) -> None:
    bridge, shop = both
    answer = bridge.try_dial(to, **more)
    assert refusal(answer) == expected
    assert words in answer.json()["error"]["message"]
    assert shop.password not in answer.text


def test_nobody_is_sent_where_no_pattern_of_dial_fits(both: Both) -> None:
    bridge, shop = both
    bridge.configure(more=settings(shop, more='dial: ["PJSIP/10??", "PJSIP/*@carrier", "queue:office"]'))
    assert any("configuration reloaded" in line for line in bridge.reload())
    try:
        call = call_in(bridge, shop)
        assert refusal(bridge.try_dial("dialplan:tone@world", trunk="pbx")) == (403, "not-permitted")
        with api(bridge) as client:
            for endpoint in ("PJSIP/desk", "dialplan:tone@world", "Local/desk@world"):
                answer = client.post(f"{call['id']}/supervise", json={"endpoint": endpoint})
                assert refusal(answer) == (403, "not-permitted")
        for target in ("dialplan:s@offhook-people", "PJSIP/desk"):
            bridge.transfer(call["id"], target, mode="blind")
            told = bridge.wait_for_event(call["id"], "transfer_result")
            assert (told["status"], "`dial`" in told["reason"]) == (403, True)
        assert bridge.call(call["id"])["state"] == "up"
        bridge.hang_up(call["id"])
    finally:
        bridge.configure(more=settings(shop))
        bridge.reload()


# -- by what it is found --------------------------------------------------------------------------------------------


def test_a_call_is_found_by_what_asterisk_and_the_phone_call_it(both: Both) -> None:
    bridge, shop = both
    call = call_in(bridge, shop)
    (started,) = (one["data"] for one in bridge.call(call["id"])["events"] if one["name"] == "call_started")
    name, sip = started["headers"]["asterisk-channel"], started["headers"]["call-id"]
    console = shop.cli(f"core show channel {name}")
    unique = next(line.strip() for line in console.splitlines() if line.strip().startswith("UniqueID"))
    assert call["leg_id"] in unique
    assert [one["id"] for one in bridge.calls(leg_id=name)] == [call["id"]]
    shown = bridge.command("turns", unique)
    assert shown.stdout == "nobody has said anything in this call\n", shown
    traced = bridge.command("trace", f"Call-ID: {sip}")
    assert traced.returncode == 1
    assert f"`core show channel {name}`" in traced.stdout
    assert [one["id"] for one in bridge.calls(leg_id=sip)] == [call["id"]]
    bridge.hang_up(call["id"])


def test_a_call_of_ours_is_found_by_the_call_id_that_its_phone_saw(both: Both) -> None:
    bridge, shop = both
    call_id = bridge.dial("PJSIP/tone@carrier", trunk="pbx")
    bridge.wait_for_event(call_id, "answered")
    (channel,) = (one for one in shop.channels() if one.startswith("PJSIP/carrier-"))
    console = shop.cli(f"core show channel {channel}")
    assert call_id in console, "OFFHOOK_CALL_ID is set"
    assert [one["id"] for one in bridge.calls(leg_id=channel)] == [call_id]
    (started,) = (one["data"] for one in bridge.call(call_id)["events"] if one["name"] == "call_started")
    assert [one["id"] for one in bridge.calls(leg_id=started["headers"]["call-id"])] == [call_id]
    bridge.hang_up(call_id)


# -- settings that change -------------------------------------------------------------------------------------------


def test_the_login_changes_under_a_live_call(both: Both) -> None:
    bridge, shop = both
    call = call_in(bridge, shop)
    before = connections(bridge)
    bridge.configure(more=settings(shop, username="second", password="SECOND", more="music: another"))
    assert any("configuration reloaded" in line for line in bridge.reload())
    bridge.wait_for(lambda: connections(bridge) == before + 1, 20, "second connection")
    assert shop.cli("ari show apps").count("offhook") == 1
    heard = shop.heard_s("tone")
    bridge.wait_for(lambda: shop.heard_s("tone") > heard + 0.5, 20, "audio as before")
    second = call_in(bridge, shop)
    # Only an event tells at once that somebody has hung up.
    (name,) = (
        one["data"]["headers"]["asterisk-channel"]
        for one in bridge.call(call["id"])["events"]
        if one["name"] == "call_started"
    )
    shop.cli(f"channel request hangup {name}")
    assert bridge.wait_until_ended(call["id"])["cause"] == "caller-hung-up"
    bridge.hang_up(second["id"])
    assert not any("taken by another" in line for line in bridge.said)


def test_a_login_that_is_not_taken_changes_nothing(both: Both) -> None:
    bridge, shop = both
    call = call_in(bridge, shop)
    bridge.configure(more=settings(shop, username="nobody"))
    (refused,) = [line for line in bridge.reload() if "configuration refused" in line]
    assert "asterisk pbx" in refused
    assert shop.password not in refused
    assert bridge.asterisks()[0]["state"] == "up"
    assert bridge.call(call["id"])["state"] == "up"
    bridge.hang_up(call["id"])


# -- Asterisk that is gone ------------------------------------------------------------------------------------------


def test_while_asterisk_is_down_the_answer_is_503_and_when_to_try_again(both: Both) -> None:
    bridge, shop = both
    call = call_in(bridge, shop)
    shop.kill()
    try:
        with api(bridge) as client:
            for method, below, body in (
                ("POST", "supervise", {"endpoint": "PJSIP/desk"}),
                ("PUT", "variables", {"variables": {"A": "x"}}),
                ("PUT", "hold", None),
            ):
                answer = client.request(method, f"{call['id']}/{below}", json=body)
                assert refusal(answer) == (503, "trunk-down"), below
                assert answer.headers["retry-after"] == "5"
                assert shop.password not in answer.text
        bridge.wait_for(lambda: bridge.asterisks()[0]["state"] == "down", 20, "loss of the connection")
        answer = bridge.try_dial("PJSIP/tone@carrier", trunk="pbx")
        assert refusal(answer) == (503, "trunk-down")
        assert answer.headers["retry-after"] == "5"
        bridge.try_hang_up(call["id"])
        bridge.wait_until_ended(call["id"])
    finally:
        shop.start()
