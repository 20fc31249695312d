"""RTCP packets: whole compounds are read and written, broken ones refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rtp.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    SenderReport,
    SourceDescription,
    Unknown,
    parse_compound,
    serialise_compound,
)

U32 = st.integers(0, 0xFFFFFFFF)
BLOCKS = st.lists(
    st.builds(
        ReportBlock,
        ssrc=U32,
        fraction_lost=st.integers(0, 255),
        lost=st.integers(-0x800000, 0x7FFFFF),
        highest_sequence=U32,
        jitter=U32,
        last_report=U32,
        delay_since=U32,
    ),
    max_size=31,
).map(tuple)
NAME = st.text(max_size=60)
PACKETS = st.one_of(
    st.builds(SenderReport, U32, st.integers(0, 2**64 - 1), U32, U32, U32, BLOCKS),
    st.builds(ReceiverReport, U32, BLOCKS),
    st.builds(SourceDescription, st.lists(st.tuples(U32, NAME), max_size=31).map(tuple)),
    st.builds(Goodbye, st.lists(U32, max_size=31).map(tuple), NAME),
    st.builds(
        Unknown, st.integers(204, 207), st.integers(0, 31), st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4])
    ),
)
REPORT = ReportBlock(7, 25, 100, 0x1FFFF, 80, 0xAABBCCDD, 65536)


@given(st.lists(PACKETS, min_size=1, max_size=4))
def test_what_is_written_reads_the_same(packets: list[object]) -> None:
    assert list(parse_compound(serialise_compound(packets))) == packets  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_junk_is_refused_in_our_own_words(data: bytes) -> None:
    try:
        parse_compound(data)
    except RtcpError:
        return


@given(st.lists(PACKETS, min_size=1, max_size=3), st.data())
def test_damage_is_read_or_refused(packets: list[object], data: st.DataObject) -> None:
    whole = bytearray(serialise_compound(packets))  # type: ignore[arg-type]
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_compound(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except RtcpError:
        return


def test_sender_report_on_the_wire() -> None:
    """Field by field, as RFC 3550 6.4.1 draws it."""
    data = serialise_compound([SenderReport(1, 2 << 32 | 3, 4, 5, 6, (REPORT,))])
    assert data.hex(" ", 4) == (
        "81c8000c 00000001 00000002 00000003 00000004 00000005 00000006 "
        "00000007 19000064 0001ffff 00000050 aabbccdd 00010000"
    )


def test_source_description_ends_each_chunk_with_zeros() -> None:
    data = serialise_compound([SourceDescription(((1, "ab"), (2, "abcd")))])
    assert data.hex(" ", 4) == "82ca0007 00000001 01026162 00000000 00000002 01046162 63640000".replace(
        "0007", "0006"
    )


def test_loss_beyond_24_bits_is_told_as_the_most() -> None:
    (report,) = parse_compound(serialise_compound([ReceiverReport(1, (replace(REPORT, lost=1 << 30),))]))
    assert isinstance(report, ReceiverReport) and report.blocks[0].lost == 0x7FFFFF


def test_padding_counts_only_at_the_end() -> None:
    padded = bytes([0xA0, 201, 0, 2, 0, 0, 0, 9, 0, 0, 0, 4])
    assert parse_compound(padded) == (ReceiverReport(9),)
    with pytest.raises(RtcpError, match="before the last"):
        parse_compound(padded + serialise_compound([ReceiverReport(1)]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([0x80, 201, 0]),
        bytes([0x80, 201, 0, 2, 0, 0, 0, 9]),
        bytes([0x81, 201, 0, 1, 0, 0, 0, 9]),
        bytes([0x40, 201, 0, 1, 0, 0, 0, 9]),
        bytes([0x80, 0, 0, 1, 0, 0, 0, 9]),
        bytes([0xA0, 201, 0, 1, 0, 0, 0, 9]),
        bytes([0x81, 202, 0, 2, 0, 0, 0, 9, 1, 200, 65, 66]),
        bytes([0x81, 202, 0, 2, 0, 0, 0, 9, 1, 2, 65, 66]),
        bytes([0x81, 203, 0, 2, 0, 0, 0, 9, 9, 65, 66, 67]),
    ],
)
def test_broken_compounds_are_refused(data: bytes) -> None:
    with pytest.raises(RtcpError):
        parse_compound(data)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RtcpError):
        serialise_compound([ReceiverReport(1 << 32)])
    with pytest.raises(RtcpError):
        serialise_compound([ReceiverReport(1, (REPORT,) * 32)])
    with pytest.raises(RtcpError):
        serialise_compound([Unknown(204, 0, b"abc")])
