"""A call's packets as a capture file, read back by tcpdump."""

import asyncio
import subprocess

import pytest

from bridge.capture import Capture, record
from bridge.sip.flow import Flow
from bridge.sip.trace import TracedMessage

OPTIONS = (
    b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\nCall-ID: one\r\n"
    b'Authorization: Digest username="u", response="secret"\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n'
)
V4 = Flow("udp", ("192.0.2.7", 5062), ("192.0.2.1", 5060))
V6 = Flow("tls", ("2001:db8::7", 5061), ("2001:db8::1", 5061))


def tcpdump(data: bytes) -> str:
    """What tcpdump reads in it: every packet in full detail, checksums verified."""
    done = subprocess.run(
        ["tcpdump", "-r", "-", "-n", "-vv", "-tt", "-A"], input=data, capture_output=True, check=True, timeout=30
    )
    return done.stdout.decode("utf-8", "replace")


async def collect(capture: Capture) -> bytes:
    return b"".join([chunk async for chunk in capture.chunks()])


def test_sip_and_rtp_of_both_families_read_well_with_right_checksums():
    capture = Capture()
    capture.sip(TracedMessage(1_700_000_000.25, True, V4, OPTIONS))
    capture.sip(TracedMessage(1_700_000_000.5, False, V6, OPTIONS))
    for number in range(3):
        packet = bytes([0x80, 0, 0, number]) + bytes(8) + b"\x7f" * (159 + number)
        capture.rtp(1_700_000_001.0 + number / 50, number != 1, ("192.0.2.1", 20000), ("192.0.2.7", 4000), packet)
    capture.finish()
    text = tcpdump(asyncio.run(collect(capture)))
    assert text.count("udp sum ok") == 5
    assert "bad" not in text
    assert "1700000000.250000 IP " in text
    assert "192.0.2.7.5062 > 192.0.2.1.5060" in text
    assert "2001:db8::1.5061 > 2001:db8::7.5061" in text
    assert "192.0.2.1.20000 > 192.0.2.7.4000" in text
    assert "OPTIONS sip:a@192.0.2.1" in text
    assert "secret" not in text


def test_a_datagram_whose_sum_is_zero_is_marked_as_summed():
    # The payload that makes the sum come out as 0 must be written as 0xFFFF.
    for low in range(65536):
        entry = record(0, ("192.0.2.7", 1), ("192.0.2.1", 2), low.to_bytes(2, "big"))
        if entry[16 + 26 : 16 + 28] == b"\xff\xff":
            break
    else:
        pytest.fail("no payload of two bytes gives that sum")
    assert entry[16 + 26 : 16 + 28] != b"\0\0"


def test_a_slow_reader_loses_packets_and_the_bridge_no_memory():
    capture = Capture(limit_bytes=2000)
    for _ in range(100):
        capture.rtp(1.0, True, ("192.0.2.1", 20000), ("192.0.2.7", 4000), bytes(172))
    capture.finish()
    assert capture.dropped > 80
    assert len(asyncio.run(collect(capture))) <= 2000


def test_what_comes_after_the_end_is_not_kept():
    capture = Capture()
    capture.finish()
    capture.rtp(1.0, True, ("192.0.2.1", 20000), ("192.0.2.7", 4000), bytes(172))
    assert len(asyncio.run(collect(capture))) == 24


def test_addresses_that_do_not_fit_are_counted_not_raised():
    capture = Capture()
    capture.rtp(1.0, True, ("192.0.2.1", 20000), ("2001:db8::7", 4000), bytes(172))
    capture.rtp(1.0, True, ("192.0.2.1", 20000), ("no address", 4000), bytes(172))
    assert capture.dropped == 2


def test_chunks_come_while_the_call_goes_on():
    async def scenario() -> list[int]:
        capture = Capture()
        sizes: list[int] = []
        async for chunk in capture.chunks():
            sizes.append(len(chunk))
            if len(sizes) < 3:
                capture.rtp(1.0, True, ("192.0.2.1", 20000), ("192.0.2.7", 4000), bytes(172))
            else:
                capture.finish()
        return sizes

    assert asyncio.run(scenario()) == [24, 16 + 28 + 172, 16 + 28 + 172]
