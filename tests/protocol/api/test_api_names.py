"""A call is found by what others call it: a SIP Call-ID behind an Asterisk, its channel's id and name, other legs."""

import asyncio

import pytest

from bridge.events import FarPartyChanged, LegJoined, MediaSetUp
from bridge.view import Api as Address
from bridge.view import copied, save_packets, show_trace
from bridge.view_turns import show_turns

HEADERS = {"call-id": "3f0c7a1b@203.0.113.10", "asterisk-channel": "PJSIP/carrier-00000a12", "campaign": "spring"}
NAMES = ["1763745600.12", *list(HEADERS.values())[:2], "offhook-0badcafe-1-out", "8d1c@host", "x9"]


def has_happened(api, call_id: str = "c1") -> None:
    api.bridge.begin(call_id, leg_id="1763745600.12", kind="asterisk", headers=HEADERS)
    api.bridge.log.record(call_id, LegJoined("offhook-0badcafe-1-out", 900.0, ("8d1c@host",)))
    api.bridge.log.record(call_id, FarPartyChanged("x9", "10.0.0.1:5060", "200", "it was transferred"))


async def found(client, **params: str) -> list[str]:
    return [call["id"] for call in (await client.get("/api/calls", params=params)).json()["calls"]]


@pytest.mark.parametrize("name", NAMES)
async def test_a_call_is_found_by_each_of_its_names(api, client, name) -> None:
    has_happened(api)
    api.bridge.begin("other", leg_id="1763745600.13", kind="asterisk", headers={"call-id": "someone@else"})
    assert await found(client, leg_id=name) == ["c1"]
    api.bridge.end("c1")
    assert await found(client, leg_id=name, live="false") == ["c1"]
    assert await found(client, leg_id="spring") == []


async def test_live_calls_are_found_by_their_names_without_the_record(api, client) -> None:
    has_happened(api)
    for name in NAMES[:3]:
        assert await found(client, leg_id=name, live="true") == ["c1"]
    assert await found(client, leg_id="nobody", live="true") == []


async def test_of_two_calls_on_a_channel_of_that_name_the_newest_is_shown_first(api, client) -> None:
    # Asterisk counts its channels from 0 at each start.
    for number in range(2):
        at = 1_790_000_000.0 + number
        api.bridge.begin(f"c{number}", at=at, leg_id=f"17637456{number}.1", kind="asterisk", headers=HEADERS)
    assert await found(client, leg_id="PJSIP/carrier-00000a12") == ["c1", "c0"]


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("3f0c@host", "3f0c@host"),
        (" 3f0c@host\r\n", "3f0c@host"),
        ("Call-ID: 3f0c@host", "3f0c@host"),
        ("call-id:  <3f0c@host>", "3f0c@host"),
        ("i: 3f0c@host", "3f0c@host"),
        ("i:3f0c@host", "i:3f0c@host"),
        ("UniqueID: 1763745600.12", "1763745600.12"),
        ("Name: PJSIP/carrier-00000a12", "PJSIP/carrier-00000a12"),
    ],
)
def test_an_id_is_taken_as_it_was_copied(text: str, id: str) -> None:
    assert copied(text) == id


async def test_the_commands_find_it_as_it_is_copied(api, address: Address, tmp_path) -> None:
    has_happened(api)
    api.bridge.say("c1", 0)
    for name in [*NAMES, "Call-ID: 3f0c7a1b@203.0.113.10"]:
        lines: list[str] = []
        assert await asyncio.to_thread(show_turns, address, name, lines.append) == 0
        assert any("Good" in line for line in lines)
    lines = []
    assert await asyncio.to_thread(show_trace, address, "UniqueID: 1763745600.12", lines.append) == 1
    assert lines == [
        "call c1 came by Asterisk 'private', which speaks SIP for it: no messages are here",
        "there it is the channel PJSIP/carrier-00000a12 (1763745600.12): `core show channel PJSIP/carrier-00000a12`",
        "with SIP Call-ID 3f0c7a1b@203.0.113.10: `pjsip set logger on`, `pjsip show history`",
        "its RTP between there and us can be had: --pcap FILE",
    ]
    lines = []
    file = tmp_path / "call.pcap"
    assert await asyncio.to_thread(save_packets, address, "PJSIP/carrier-00000a12", file, lines.append) == 0
    assert await asyncio.to_thread(save_packets, address, "nobody@host", file, lines.append) == 1
    assert lines[-1] == "there is no call 'nobody@host' on the record"
    # Its audio may have no packets of its own.
    api.bridge.log.record("c1", MediaSetUp("websocket", "slin16", 4.0))
    lines = []
    assert await asyncio.to_thread(show_trace, address, "c1", lines.append) == 1
    assert lines[-1] == "its audio comes to us by websocket, which has no packets to show"
    assert await asyncio.to_thread(save_packets, address, "c1", file, lines.append) == 0
    assert "which has no packets: only those of further legs are written" in lines[-3]
