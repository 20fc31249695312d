"""The trace and the capture of a call over HTTP."""

import asyncio
import struct
from pathlib import Path

import pytest

from bridge.api.trace import MAX_CAPTURES
from bridge.events import LegJoined
from bridge.legs.base import PacketTap
from bridge.sip.flow import Flow
from bridge.tracing import CallPackets
from bridge.view import Api as Address
from bridge.view import ViewError, save_packets, show_trace

PHONE = Flow("udp", ("192.0.2.7", 5060), ("192.0.2.1", 5060))


def bye(call_id: str, extra: str = "") -> bytes:
    return (
        f"BYE sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\nCall-ID: {call_id}\r\n"
        f"{extra}From: <sip:b@h>;tag=1\r\nTo: <sip:a@h>;tag=2\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class Line:
    """A leg whose packets the test sends."""

    def __init__(self) -> None:
        self.taps: list[PacketTap] = []

    def tap_packets(self, tap: PacketTap):
        self.taps.append(tap)
        return lambda: self.taps.remove(tap)

    def send(self, packet: bytes) -> None:
        for tap in list(self.taps):
            tap(True, ("192.0.2.1", 20000), ("192.0.2.7", 4000), packet)


def packets_of(data: bytes) -> list[bytes]:
    """The UDP payloads of a pcap file."""
    found, at = [], 24
    assert struct.unpack("<I", data[:4]) == (0xA1B2C3D4,)
    while at < len(data):
        (length,) = struct.unpack("<I", data[at + 8 : at + 12])
        found.append(data[at + 16 + 28 : at + 16 + length])
        at += 16 + length
    return found


def live(api, call_id: str = "c1") -> Line:
    line = Line()
    packets = api.bridge.packets[call_id] = CallPackets()
    packets.join(f"{call_id}@pbx", line)
    api.bridge.begin(call_id)
    return line


def show(api, data: bytes, at: float = 1.0) -> None:
    api.bridge.tracing.trace.tap(True, data, PHONE, at)


async def test_a_call_s_messages_are_shown_without_secrets(api, client):
    live(api)
    show(api, bye("c1@pbx", 'Authorization: Digest username="u", response="secret"\r\n'))
    show(api, bye("other@pbx"))
    (message,) = (await client.get("/api/calls/c1/trace")).json()["messages"]
    assert message["received"] is True
    assert (message["transport"], message["local"], message["remote"]) == ("udp", "192.0.2.1:5060", "192.0.2.7:5060")
    assert message["summary"] == "BYE"
    assert message["text"].startswith("BYE sip:a@192.0.2.1 SIP/2.0\r\n")
    assert "secret" not in message["text"]


async def test_the_ladder_is_text(api, client):
    live(api)
    show(api, bye("c1@pbx"))
    answer = await client.get("/api/calls/c1/trace", params={"as": "ladder"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "192.0.2.7:5060" in answer.text
    assert "- BYE ---" in answer.text


async def test_messages_of_a_call_that_has_ended_are_found_by_the_ids_of_all_its_legs(api, client):
    api.bridge.whole_call("c1", extra=[LegJoined("second@pbx", 100.0)])
    show(api, bye("c1@pbx"))
    show(api, bye("second@pbx"))
    assert len((await client.get("/api/calls/c1/trace")).json()["messages"]) == 2
    assert (await client.get("/api/calls/nobody/trace")).status_code == 404


async def test_a_call_id_without_a_record_is_found_too(api, client):
    show(api, bye("stranger@pbx"))
    found = await client.get("/api/sip/trace", params={"call_id": "stranger@pbx"})
    assert len(found.json()["messages"]) == 1
    assert (await client.get("/api/sip/trace", params={"call_id": "x"})).json() == {"messages": []}


async def test_a_capture_has_what_was_said_before_and_everything_until_the_call_ends(api, client):
    line = live(api)
    show(api, bye("c1@pbx"))
    async with client.stream("GET", "/api/calls/c1/pcap") as stream:
        assert stream.headers["content-type"] == "application/vnd.tcpdump.pcap"
        data = b""
        async for chunk in stream.aiter_bytes():
            data += chunk
            if len(packets_of(data)) == 1:
                second = Line()
                api.bridge.packets["c1"].join("second@pbx", second)
                line.send(b"first leg")
                second.send(b"second leg")
                show(api, bye("second@pbx"))
                show(api, bye("other@pbx"))
                api.bridge.packets["c1"].over()
    first, *rest = packets_of(data)
    assert first.startswith(b"BYE ")
    assert rest[:2] == [b"first leg", b"second leg"]
    assert b"Call-ID: second@pbx" in rest[2]
    assert len(rest) == 3
    await api.until(lambda: not line.taps and not second.taps and not api.bridge.tracing.captures)


async def test_a_reader_who_leaves_ends_the_capture(api, client):
    line = live(api)
    async with client.stream("GET", "/api/calls/c1/pcap") as stream:
        async for _ in stream.aiter_bytes():
            break
        assert len(line.taps) == 1
    # The server notices when it next has something to send.
    for _ in range(100):
        line.send(b"more")
        await asyncio.sleep(0.05)
        if not line.taps:
            break
    assert not line.taps
    assert api.bridge.tracing.captures == 0


async def test_no_more_captures_than_the_box_can_carry(api, client):
    line = live(api)
    readers = [client.stream("GET", "/api/calls/c1/pcap") for _ in range(MAX_CAPTURES)]
    for reader in readers:
        stream = await reader.__aenter__()
        assert stream.status_code == 200
    await api.until(lambda: len(line.taps) == MAX_CAPTURES)
    answer = await client.get("/api/calls/c1/pcap")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too-many-captures")
    api.bridge.packets["c1"].over()
    for reader in readers:
        await reader.__aexit__(None, None, None)


async def test_of_a_call_that_has_ended_the_kept_messages_are_had(api, client):
    api.bridge.whole_call("c1")
    show(api, bye("c1@pbx"))
    answer = await client.get("/api/calls/c1/pcap")
    assert len(packets_of(answer.content)) == 1
    assert (await client.get("/api/calls/nobody/pcap")).status_code == 404


# -- the command --------------------------------------------------------------------------------------------


async def said(work, *args, **options) -> tuple[int, str]:
    """What a command prints, with its exit code; run beside the server's loop, as it would be."""
    lines: list[str] = []
    code = await asyncio.to_thread(work, *args, lines.append, **options)
    return code, "\n".join(lines)


async def test_the_command_shows_a_call_by_its_id_or_its_call_id(api, address: Address):
    live(api)
    show(api, bye("c1@pbx"))
    for call in ("c1", "c1@pbx"):
        code, text = await said(show_trace, address, call)
        assert code == 0
        assert "- BYE ---" in text
    code, text = await said(show_trace, address, "c1", whole=True)
    assert code == 0
    assert "192.0.2.7:5060 -> 192.0.2.1:5060  udp\nBYE sip:a@192.0.2.1 SIP/2.0\nVia:" in text
    code, text = await said(show_trace, address, "nobody@pbx")
    assert code == 1
    assert "no messages" in text


async def test_the_command_writes_a_capture_until_the_call_ends(api, address: Address, tmp_path: Path):
    line = live(api)
    show(api, bye("c1@pbx"))
    file = tmp_path / "call.pcap"
    saving = asyncio.create_task(said(save_packets, address, "c1", file))
    await api.until(lambda: bool(line.taps))
    line.send(b"packet")
    api.bridge.packets["c1"].over()
    code, text = await saving
    assert code == 0
    assert packets_of(file.read_bytes())[1] == b"packet"
    assert str(file.stat().st_size) in text


async def test_the_command_says_what_is_wrong(api, address: Address, tmp_path: Path):
    code, text = await said(save_packets, address, "nobody", tmp_path / "x.pcap")
    assert code == 1
    assert "nobody" in text
    live(api)
    with pytest.raises(ViewError, match="can't be written"):
        await said(save_packets, address, "c1", tmp_path / "no" / "x.pcap")
    with pytest.raises(ViewError, match="no bridge answers"):
        await said(show_trace, Address("http://127.0.0.1:1", api.dir), "c1")
