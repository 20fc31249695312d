"""Trunks and bans over HTTP, and as the command line shows them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bridge.sip.registration import RegistrationStatus
from bridge.trunks.guard import Ban
from bridge.trunks.status import LivenessStatus, TrunkStatus
from bridge.view import Api as Address
from bridge.view import ViewError, lift_ban, show_bans, show_trunks

T0 = 1_790_000_000.0


def a_trunk(**changes: Any) -> TrunkStatus:
    registration = RegistrationStatus(
        "registered",
        T0 + 300,
        T0 + 150,
        round_trip_ms=61.0,
        registrar="udp:192.0.2.1:5060",
        seen_as=("203.0.113.7", 40000),
    )
    values = {
        "name": "carrier",
        "host": "sip.example.com",
        "transport": "tls",
        "state": "up",
        "registration": registration,
        "liveness": LivenessStatus("up", 23.4),
        "calls": 3,
        "max_calls": 30,
        "attempts": 120,
        "refused": 2,
        "last_error": "REGISTER: 503 Service Unavailable",
        "last_error_at": T0 - 60,
    }
    return TrunkStatus(**(values | changes))


async def test_trunks_are_listed(api, client) -> None:
    api.bridge.trunks = [a_trunk(), a_trunk(name="pbx", host="", state="unwatched", registration=None, liveness=None)]
    answer = await client.get("/api/trunks")
    assert answer.status_code == 200
    carrier, pbx = answer.json()["trunks"]
    assert carrier["registration"]["state"] == "registered"
    assert carrier["registration"]["seen_as"] == "203.0.113.7:40000"
    assert carrier["liveness"]["round_trip_ms"] == 23.4
    assert (carrier["calls"], carrier["max_calls"], carrier["attempts"], carrier["refused"]) == (3, 30, 120, 2)
    assert carrier["last_error_at"] == "2026-09-21T14:12:20Z"
    assert (pbx["state"], pbx["registration"], pbx["liveness"]) == ("unwatched", None, None)


async def test_a_registration_is_repeated_on_request(api, client) -> None:
    api.bridge.trunks = [a_trunk()]
    assert (await client.post("/api/trunks/carrier/register")).status_code == 202
    assert (await client.post("/api/trunks/nobody/register")).status_code == 404
    assert api.bridge.registered == ["carrier", "nobody"]


async def test_bans_are_listed_and_lifted(api, client) -> None:
    for source in ("192.0.2.1", "2001:db8:1:2::/64"):
        api.bridge.banned[source] = Ban(source, T0, T0 + 900, "wrong password (user 'alice')", 17)
    bans = (await client.get("/api/bans")).json()["bans"]
    assert [ban["source"] for ban in bans] == ["192.0.2.1", "2001:db8:1:2::/64"]
    assert (bans[0]["why"], bans[0]["dropped"]) == ("wrong password (user 'alice')", 17)
    assert (await client.delete("/api/bans/2001:db8:1:2::/64")).status_code == 204
    assert (await client.delete("/api/bans/2001:db8:1:2::/64")).status_code == 404
    assert (await client.delete("/api/bans/nobody")).status_code == 400
    assert list(api.bridge.banned) == ["192.0.2.1"]


@pytest.mark.parametrize("path", ["/api/trunks", "/api/bans"])
async def test_nobody_sees_them_without_the_key(api, path: str) -> None:
    async with api.client(key=None) as stranger:
        assert (await stranger.get(path)).status_code == 401


async def test_a_dial_request_names_trunk_number_and_headers(api, client) -> None:
    wanted = {"to": "+49 (30) 123-456", "agent": "receptionist", "trunk": "carrier", "headers": {"X-Order": "17"}}
    assert (await client.post("/api/calls", json=wanted)).status_code == 202
    (request,) = api.bridge.dialled
    assert (request.to, request.trunk, request.headers) == ("+49 (30) 123-456", "carrier", (("X-Order", "17"),))


@pytest.mark.parametrize(
    "headers", [{"Via": "x"}, {"X-A": "a\r\nX-B: b"}, {"X-A": "\u007f"}, {"X-" + "A" * 80: "x"}, {"X A": "x"}]
)
async def test_headers_that_could_do_harm_are_refused(client, headers: dict[str, str]) -> None:
    wanted = {"to": "+4930123456", "agent": "receptionist", "trunk": "carrier", "headers": headers}
    assert (await client.post("/api/calls", json=wanted)).status_code == 400


# -- the command line ---------------------------------------------------------------------------------------


async def shown(show: Any, *args: Any) -> tuple[int, list[str]]:
    """The command blocks, as it may: the server must go on meanwhile."""
    lines: list[str] = []
    code = await asyncio.to_thread(show, *args, lines.append)
    return code, lines


async def test_the_table_of_trunks_says_what_there_is_to_know(api, address: Address) -> None:
    assert await shown(show_trunks, address) == (0, ["no trunks are configured (trunks: in the configuration)"])
    refused = RegistrationStatus("refused", None, T0 + 840, "403 Forbidden", 1)
    api.bridge.trunks = [a_trunk(), a_trunk(name="b", state="refused", registration=refused, liveness=None, calls=0)]
    code, lines = await shown(show_trunks, address)
    assert code == 1
    head, first, second = lines
    assert head.split()[:2] == ["TRUNK", "STATE"]
    assert first.startswith("carrier  up")
    assert "23 ms" in first and "3/30" in first and "REGISTER: 503 Service Unavailable" in first
    assert "refused, again in" in second


async def test_bans_are_shown_and_lifted_from_the_command_line(api, address: Address) -> None:
    assert await shown(show_bans, address) == (0, ["nobody is banned"])
    api.bridge.banned["192.0.2.1"] = Ban("192.0.2.1", T0, T0 + 900, "INVITE from no trunk", 4)
    code, lines = await shown(show_bans, address)
    assert code == 0
    assert lines[1].startswith("192.0.2.1") and lines[1].endswith("INVITE from no trunk")
    assert await shown(lift_ban, address, "192.0.2.1") == (0, ["192.0.2.1 may call again"])
    assert await shown(lift_ban, address, "192.0.2.1") == (1, ["192.0.2.1 is not banned"])


async def test_without_a_bridge_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_API_KEY", "a-key-that-fits-nothing")
    with pytest.raises(ViewError, match="no bridge answers"):
        await shown(show_trunks, Address("http://127.0.0.1:9", tmp_path))
