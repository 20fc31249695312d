"""RTP packets: parse of serialise is the identity, and nothing else gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rtp.packet import RtpError, RtpPacket, is_rtcp, payload_bounds

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
    csrcs=st.lists(st.integers(0, 0xFFFFFFFF), max_size=15).map(tuple),
    extension=st.none()
    | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40).map(lambda data: data[: len(data) // 4 * 4])),
    padding=st.integers(0, 255),
)


@given(packets)
def test_parse_of_serialise_is_the_identity(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.serialize()) == packet


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: b"\xbf" + data))
def test_random_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    assert RtpPacket.parse(packet.serialize()) == packet


@given(packets, st.data())
def test_cut_packet_is_refused_or_shorter(packet: RtpPacket, data: st.DataObject) -> None:
    whole = packet.serialize()
    size = data.draw(st.integers(0, len(whole) - 1))
    try:
        start, end = payload_bounds(whole[:size])
    except RtpError:
        return
    assert 12 <= start <= end <= size


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes([0x80]) + bytes(10), "less than the RTP header"),
        (bytes([0x40]) + bytes(20), "version 1"),
        (bytes([0x83]) + bytes(20), "header says 24 bytes"),
        (bytes([0x90]) + bytes(12), "extension is cut off"),
        (bytes([0x90]) + bytes(13) + b"\xff\xff" + bytes(30), "header says"),
        (bytes([0xA0]) + bytes(15), "0 bytes of padding"),
        (bytes([0xA0]) + bytes(14) + b"\x05", "5 bytes of padding"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with pytest.raises(RtpError, match=why):
        RtpPacket.parse(data)


@pytest.mark.parametrize(
    "packet",
    [
        RtpPacket(128, 0, 0, 0),
        RtpPacket(0, 0x10000, 0, 0),
        RtpPacket(0, 0, -1, 0),
        RtpPacket(0, 0, 0, 0, csrcs=(1,) * 16),
        RtpPacket(0, 0, 0, 0, padding=256),
        RtpPacket(0, 0, 0, 0, extension=(0, b"abc")),
    ],
)
def test_field_out_of_range_is_not_serialised(packet: RtpPacket) -> None:
    with pytest.raises(RtpError):
        packet.serialize()


def test_rtcp_is_told_from_rtp_by_its_type() -> None:
    assert is_rtcp(bytes([0x80, 200, 0, 6]))
    assert not is_rtcp(RtpPacket(0, 1, 2, 3, marker=True).serialize())
    assert not is_rtcp(b"\x80")
