"""Asterisks over HTTP, and as the command line shows them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from ami_standin import AmiStandin

from bridge.asterisk.ami import Ami
from bridge.asterisk.settings import AmiSettings
from bridge.asterisk.status import AsteriskStatus
from bridge.view_asterisk import reconnect, show_asterisk, show_asterisks

T0 = 1_790_000_000.0
NOW = datetime.fromtimestamp(T0 + 600, UTC)


def an_asterisk(**changes: Any) -> AsteriskStatus:
    values = {
        "name": "pbx",
        "url": "http://192.0.2.5:8088",
        "app": "offhook",
        "state": "up",
        "since": T0,
        "last_error": "no answer to a ping",
        "last_error_at": T0 + 300,
        "version": "22.10.1",
        "rest_over_socket": True,
        "calls": 3,
        "max_calls": 30,
        "media_kinds": ("rtp", "websocket"),
        "orphans_cleaned": 2,
        "ami_state": "up",
    }
    return AsteriskStatus(**(values | changes))


@pytest.fixture
async def ami(api):
    """The manager interface of `pbx`, connected to a stand-in that the fixture gives with it."""
    async with AmiStandin() as server:
        settings = AmiSettings(host="127.0.0.1", port=server.port, username="offhook", password_env="AMI")
        manager = Ami(settings, "pbx", environ={"AMI": "right"})
        manager.start()
        await api.until(lambda: manager.state == "up")
        api.bridge.managers["pbx"] = manager
        api.bridge.asterisks = [an_asterisk()]
        yield server
        await manager.aclose()


async def test_asterisks_are_listed(api, client) -> None:
    api.bridge.asterisks = [an_asterisk(), an_asterisk(name="old", state="replaced", since=None, ami_state="off")]
    answer = await client.get("/api/asterisk")
    assert answer.status_code == 200
    pbx, old = answer.json()["asterisks"]
    assert pbx == {
        "name": "pbx",
        "url": "http://192.0.2.5:8088",
        "app": "offhook",
        "state": "up",
        "since": "2026-09-21T14:13:20Z",
        "last_error": "no answer to a ping",
        "last_error_at": "2026-09-21T14:18:20Z",
        "version": "22.10.1",
        "rest_over_socket": True,
        "calls": 3,
        "max_calls": 30,
        "media": "rtp",
        "media_kinds": ["rtp", "websocket"],
        "orphans_cleaned": 2,
        "joined": 0,
        "ami_state": "up",
        "ami_error": "",
        "ami_error_at": None,
    }
    assert (old["state"], old["since"], old["ami_state"]) == ("replaced", None, "off")


async def test_a_bridge_without_asterisks_says_so(client, address) -> None:
    assert (await client.get("/api/asterisk")).json() == {"asterisks": []}
    said: list[str] = []
    assert await asyncio.to_thread(show_asterisks, address, said.append) == 0
    assert said == ["no Asterisk is configured (asterisk: in the configuration)"]


async def test_a_reconnect_is_asked_for(api, client) -> None:
    api.bridge.asterisks = [an_asterisk()]
    assert (await client.post("/api/asterisk/pbx/reconnect")).status_code == 202
    answer = await client.post("/api/asterisk/nobody/reconnect")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no-such-asterisk")
    assert api.bridge.reconnected == ["pbx", "nobody"]


async def test_queues_are_shown(ami, client) -> None:
    (queue,) = (await client.get("/api/asterisk/pbx/queues")).json()["queues"]
    assert (queue["name"], queue["waiting"], queue["available"]) == ("support", 2, 1)
    assert queue["members"][0]["name"] == "Änne Müller"
    assert queue["members"][0]["last_call_at"] == "2026-09-21T14:13:20Z"
    assert queue["callers"][0]["caller_number"] == "+4930123456"
    await client.get("/api/asterisk/pbx/queues", params={"queue": "support"})
    assert ami.named("QueueStatus")[-1]["Queue"] == "support"
    for queue in ("a\r\nb", "\0"):
        assert (await client.get("/api/asterisk/pbx/queues", params={"queue": queue})).status_code == 400


async def test_a_device_is_shown(ami, client) -> None:
    ami.answers["getvar"] = lambda fields: [(("Response", "Success"), ("Value", "INUSE"))]
    answer = await client.get("/api/asterisk/pbx/devices/PJSIP/1001")
    assert answer.json() == {"device": "PJSIP/1001", "state": "INUSE"}
    assert ami.named("Getvar")[0]["Variable"] == "DEVICE_STATE(PJSIP/1001)"
    assert (await client.get("/api/asterisk/pbx/devices/SHELL(x)")).status_code == 400


async def test_each_failure_of_the_manager_interface_has_its_own_answer(api, ami, client) -> None:
    refuse = [(("Response", "Error"), ("Message", "Permission denied"))]
    ami.answers["queuestatus"] = lambda _: refuse
    answer = await client.get("/api/asterisk/pbx/queues")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "asterisk-refused")
    assert "manager.conf" in answer.json()["error"]["message"]
    ami.answers["getvar"] = lambda _: [(("Response", "Success"), ("Value", ""))]
    assert "func_devstate" in (await client.get("/api/asterisk/pbx/devices/PJSIP/1")).json()["error"]["message"]
    api.bridge.asterisks.append(an_asterisk(name="bare", ami_state="off"))
    answer = await client.get("/api/asterisk/bare/queues")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no-manager-interface")
    assert (await client.get("/api/asterisk/nobody/queues")).status_code == 404
    await ami.stop()
    await api.until(lambda: api.bridge.managers["pbx"].state == "down")
    answer = await client.get("/api/asterisk/pbx/queues")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "asterisk-unavailable")
    assert answer.headers["retry-after"] == "5"
    await ami.start()


async def test_the_command_shows_a_line_each_and_fails_while_one_is_not_up(api, address) -> None:
    api.bridge.asterisks = [an_asterisk(last_error="")]
    said: list[str] = []
    assert await asyncio.to_thread(show_asterisks, address, said.append, NOW) == 0
    assert said == [
        "ASTERISK  STATE  SINCE   VERSION  APP      MEDIA          CALLS  CLEANED  AMI  LAST ERROR",
        "pbx       up     10 min  22.10.1  offhook  rtp,websocket  3/30   2        up   -",
    ]
    api.bridge.asterisks = [an_asterisk(ami_state="unauthorized", ami_error="user 'offhook' is refused")]
    assert await asyncio.to_thread(show_asterisks, address, said.append, NOW) == 1


async def test_an_error_is_shown_with_its_age_until_it_matters_no_more(api, address) -> None:
    async def shown(at: datetime) -> str:
        said: list[str] = []
        await asyncio.to_thread(show_asterisks, address, said.append, at)
        return said[1].split("  ")[-1].strip()

    long_after = datetime.fromtimestamp(T0 + 2 * 86400, UTC)
    api.bridge.asterisks = [an_asterisk()]
    assert await shown(NOW) == "no answer to a ping (5 min ago)"
    assert await shown(long_after) == "-"
    api.bridge.asterisks = [an_asterisk(state="down")]
    assert await shown(long_after) == "no answer to a ping (48 h ago)"
    api.bridge.asterisks = [an_asterisk(last_error="", ami_error="refused", ami_error_at=T0)]
    assert await shown(NOW) == "AMI: refused (10 min ago)"
    assert await shown(long_after) == "-"


async def test_while_the_bridge_starts_its_asterisks_are_listed_as_connecting(api, address) -> None:
    not_yet = {"state": "connecting", "since": None, "last_error": "", "last_error_at": None}
    api.bridge.asterisks = [an_asterisk(**not_yet)]
    said: list[str] = []
    assert await asyncio.to_thread(show_asterisks, address, said.append, NOW) == 1
    assert said[1].split()[1] == "connecting"
    assert said[2:] == ["the bridge is still starting, and connects when it is ready for calls"]


async def test_the_command_shows_one_in_full_and_how_a_taken_application_comes_back(api, address) -> None:
    api.bridge.asterisks = [an_asterisk(state="replaced")]
    said: list[str] = []
    assert await asyncio.to_thread(lambda: show_asterisk(address, "pbx", said.append, now=NOW)) == 1
    assert said[0].split() == ["state:", "replaced,", "since", "10", "min"]
    assert said[-1].endswith("`offhook asterisk pbx --reconnect` takes it back")
    api.bridge.asterisks = [an_asterisk()]
    assert await asyncio.to_thread(reconnect, address, "pbx", said.append) == 0
    assert await asyncio.to_thread(reconnect, address, "nobody", said.append) == 1
    assert await asyncio.to_thread(show_asterisk, address, "nobody", said.append) == 1


async def test_the_command_shows_queues(api, ami, address) -> None:
    said: list[str] = []
    assert await asyncio.to_thread(lambda: show_asterisk(address, "pbx", said.append, queues=True, now=NOW)) == 0
    assert said == [
        "support (rrmemory): 2 waiting, 1 of 2 members free; 31 answered after 14 s on average, 4 gave up",
        "  MEMBER       INTERFACE   STATE      PAUSED  TAKEN  LAST CALL",
        "  Änne Müller  PJSIP/1001  not inuse  no      17     10 min ago",
        "  Ben          PJSIP/1002  not inuse  lunch   0      -",
        "  1. +4930123456           Ms Caller  41 s",
        "  2. PJSIP/trunk-0000001a             3 s",
    ]
    assert await asyncio.to_thread(lambda: show_asterisk(address, "nobody", said.append, queues=True)) == 1
