"""RTCP of one leg: when it reports, what it says, and what it learns from the far end."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rtp.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    parse_compound,
    serialise_compound,
)
from bridge.rtp.rtcp_session import INTERVAL_S, RtcpSession
from bridge.rtp.session import Reception, SenderInfo

US, THEM = 1111, 2222


class Stream:
    """The counters of an RTP session."""

    def __init__(self) -> None:
        self.reception: Reception | None = None
        self.sender = SenderInfo(US, 0, 0, 0, 100.0, 8000)

    def send(self, packets: int, *, at: float = 100.0) -> None:
        sender = self.sender
        self.sender = replace(sender, packets=sender.packets + packets, octets=sender.octets + 160 * packets, at=at)

    def hear(self, expected: int, received: int, *, ssrc: int = THEM, jitter: float = 16.0) -> None:
        before = self.reception
        if before is None or before.ssrc != ssrc:
            before = Reception(ssrc, 500, 0, 0, 0.0, 8000)
        self.reception = Reception(
            ssrc,
            before.highest_sequence + expected,
            before.expected + expected,
            before.received + received,
            jitter,
            8000,
        )


def start(stream: Stream, *, now: float = 100.0, draw: float = 0.5) -> RtcpSession:
    return RtcpSession(stream, cname="x@y", now=now, unix_time=1_700_000_000.0, draw=lambda: draw)


def report_at(rtcp: RtcpSession, now: float) -> SenderReport | ReceiverReport:
    rtcp.due = now
    data = rtcp.poll(now)
    assert data is not None
    first, names = parse_compound(data)
    assert names == SourceDescription(((US, "x@y"),))
    assert isinstance(first, SenderReport | ReceiverReport)
    return first


def block_about_us(**fields: int) -> ReportBlock:
    values = {"fraction_lost": 0, "lost": 0, "highest_sequence": 1, "jitter": 0, "last_report": 0, "delay_since": 0}
    return ReportBlock(US, **(values | fields))


def tell(rtcp: RtcpSession, now: float, *blocks: ReportBlock) -> None:
    rtcp.receive(serialise_compound([ReceiverReport(THEM, blocks)]), now)


# -- when -----------------------------------------------------------------------------------------------------


def test_reports_come_about_every_five_seconds_and_never_in_step() -> None:
    draws = iter([i / 997 * 613 % 1 for i in range(1000)])
    stream = Stream()
    rtcp = RtcpSession(stream, cname="x", now=0.0, unix_time=0.0, draw=lambda: next(draws))
    times = list(_sent_until(rtcp, 1000.0))
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] <= INTERVAL_S * 1.5 / 1.2 / 2 + 0.02
    assert min(gaps) >= 0.5 * INTERVAL_S / 1.22 and max(gaps) <= 1.5 * INTERVAL_S / 1.21 + 0.02
    assert 3.8 < sum(gaps) / len(gaps) < 4.4
    assert len({round(gap, 1) for gap in gaps}) > 20


def _sent_until(rtcp: RtcpSession, end: float) -> Iterator[float]:
    for tick in range(int(end / 0.02)):
        if rtcp.poll(tick * 0.02) is not None:
            yield tick * 0.02


# -- what we say ----------------------------------------------------------------------------------------------


def test_who_sends_gives_a_sender_report_with_the_time_of_both_clocks() -> None:
    stream = Stream()
    stream.send(100, at=104.9)
    report = report_at(start(stream), 105.0)
    assert isinstance(report, SenderReport)
    assert (report.packets, report.octets) == (100, 16000)
    assert report.timestamp == 800
    assert report.ntp / 2**32 == pytest.approx(1_700_000_005 + 2_208_988_800, abs=1e-3)


def test_who_has_stopped_sending_gives_receiver_reports() -> None:
    stream = Stream()
    stream.send(100)
    rtcp = start(stream)
    kinds = [type(report_at(rtcp, 105.0 + 5 * i)) for i in range(4)]
    assert kinds == [SenderReport, SenderReport, ReceiverReport, ReceiverReport]
    stream.send(1)
    assert isinstance(report_at(rtcp, 130.0), SenderReport)


def test_loss_is_told_for_the_interval_and_since_the_beginning() -> None:
    stream = Stream()
    rtcp = start(stream)
    stream.hear(100, 75)
    (first,) = report_at(rtcp, 105.0).blocks
    assert (first.ssrc, first.fraction_lost, first.lost, first.highest_sequence) == (THEM, 64, 25, 600)
    assert first.jitter == 16
    stream.hear(100, 100)
    (second,) = report_at(rtcp, 110.0).blocks
    assert (second.fraction_lost, second.lost) == (0, 25)


def test_duplicates_are_no_negative_fraction() -> None:
    stream = Stream()
    stream.hear(10, 12)
    (block,) = report_at(start(stream), 105.0).blocks
    assert (block.fraction_lost, block.lost) == (0, -2)


def test_a_source_that_fell_silent_is_left_out() -> None:
    stream = Stream()
    stream.hear(10, 10)
    rtcp = start(stream)
    assert report_at(rtcp, 105.0).blocks
    assert not report_at(rtcp, 110.0).blocks


def test_another_source_is_counted_from_its_beginning() -> None:
    stream = Stream()
    stream.hear(100, 50)
    rtcp = start(stream)
    report_at(rtcp, 105.0)
    stream.hear(200, 200, ssrc=3333)
    (block,) = report_at(rtcp, 110.0).blocks
    assert (block.ssrc, block.fraction_lost, block.lost) == (3333, 0, 0)


def test_report_names_the_far_ends_last_one_and_its_age() -> None:
    stream = Stream()
    stream.hear(10, 10)
    rtcp = start(stream)
    ntp = 0x1122_3344_5566_7788
    rtcp.receive(serialise_compound([SenderReport(THEM, ntp, 0, 77, 0)]), 103.0)
    (block,) = report_at(rtcp, 105.5).blocks
    assert (block.last_report, block.delay_since) == (0x33445566, round(2.5 * 65536))
    assert rtcp.remote_packets == 77


def test_goodbye_comes_with_a_last_report_and_only_from_who_sent() -> None:
    stream = Stream()
    rtcp = start(stream)
    assert rtcp.goodbye(101.0) is None
    stream.send(5)
    data = rtcp.goodbye(102.0, "over")
    assert data is not None
    report, _, bye = parse_compound(data)
    assert isinstance(report, SenderReport) and bye == Goodbye((US,), "over")


# -- what we learn --------------------------------------------------------------------------------------------


@given(st.floats(0, 5), st.floats(0, 10), st.floats(100, 1e6))
def test_round_trip_is_what_passed_less_what_the_far_end_held_it(trip: float, held: float, now: float) -> None:
    stream = Stream()
    stream.send(10, at=now)
    rtcp = start(stream, now=now)
    report = report_at(rtcp, now)
    assert isinstance(report, SenderReport)
    middle = report.ntp >> 16 & 0xFFFFFFFF
    tell(rtcp, now + trip + held, block_about_us(last_report=middle, delay_since=round(held * 65536)))
    assert rtcp.round_trip_ms == pytest.approx(trip * 1000, abs=0.1)


def test_trip_below_nothing_is_none_and_an_endless_one_is_no_measurement() -> None:
    stream = Stream()
    stream.send(10)
    rtcp = start(stream)
    report = report_at(rtcp, 105.0)
    assert isinstance(report, SenderReport)
    middle = report.ntp >> 16 & 0xFFFFFFFF
    tell(rtcp, 106.0, block_about_us(last_report=middle, delay_since=65700))
    assert rtcp.round_trip_ms == 0
    tell(rtcp, 107.0, block_about_us(last_report=middle - 3600 * 65536 & 0xFFFFFFFF))
    assert rtcp.round_trip_ms == 0


def test_the_far_ends_loss_and_jitter_are_known() -> None:
    rtcp = start(Stream())
    tell(rtcp, 105.0, block_about_us(fraction_lost=128, lost=7, highest_sequence=90, jitter=80))
    seen = rtcp.remote
    assert seen is not None and (seen.fraction_lost, seen.lost, seen.jitter_ms, seen.at) == (0.5, 7, 10.0, 105.0)


def test_reports_on_others_say_nothing_of_us() -> None:
    rtcp = start(Stream())
    tell(rtcp, 105.0, replace(block_about_us(), ssrc=THEM))
    assert rtcp.remote is None


def test_our_own_report_that_comes_back_is_no_far_end() -> None:
    stream = Stream()
    stream.send(10)
    stream.hear(10, 10, ssrc=US)
    rtcp = start(stream)
    rtcp.due = 105.0
    data = rtcp.poll(105.0)
    assert data is not None
    rtcp.receive(data, 105.1)
    assert rtcp.remote is None and rtcp.remote_packets is None


def test_reports_without_progress_are_counted_until_there_is_some() -> None:
    stream = Stream()
    rtcp = start(stream)
    for i, highest in enumerate([10, 10, 10]):
        stream.send(250)
        tell(rtcp, 105.0 + 5 * i, block_about_us(highest_sequence=highest))
    assert rtcp.stalled == 2
    stream.send(250)
    tell(rtcp, 120.0, block_about_us(highest_sequence=11))
    assert rtcp.stalled == 0


def test_reports_that_leave_us_out_and_total_loss_count_as_no_progress() -> None:
    stream = Stream()
    rtcp = start(stream)
    stream.send(250)
    tell(rtcp, 105.0)
    stream.send(250)
    tell(rtcp, 110.0, block_about_us(fraction_lost=255, highest_sequence=500))
    assert rtcp.stalled == 2


def test_two_reports_at_once_and_a_hold_of_ours_are_no_stall() -> None:
    stream = Stream()
    rtcp = start(stream)
    stream.send(250)
    for now in (105.0, 105.01, 110.0, 115.0):
        tell(rtcp, now, block_about_us(highest_sequence=250))
    assert rtcp.stalled == 0


def test_goodbye_is_noticed() -> None:
    rtcp = start(Stream())
    rtcp.receive(serialise_compound([ReceiverReport(THEM), Goodbye((THEM,))]), 105.0)
    assert rtcp.left


@given(st.binary(max_size=120))
def test_junk_is_counted(data: bytes) -> None:
    rtcp = start(Stream())
    rtcp.receive(data, 101.0)
    assert rtcp.malformed + rtcp.received == 1
