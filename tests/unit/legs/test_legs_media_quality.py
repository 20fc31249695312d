"""A leg's media as it is reckoned while the call is up: scores both ways, and the one-way call found and named."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from bridge.audio.codec import PCMU
from bridge.audio.playout import Playout
from bridge.events import OneWay, OneWayAudio
from bridge.legs.media_quality import QualityWatch
from bridge.rtp.latch import Address
from bridge.rtp.packet import RtpPacket
from bridge.rtp.rtcp import ReceiverReport, ReportBlock, SenderReport, serialise_compound
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import Direction, RtpFormat, RtpSession
from bridge.rtp.srtp import Srtp
from bridge.rtp.srtp_keys import SrtpKeys

THEM: Address = ("10.0.0.1", 4000)
SPEECH = PCMU.encoder()(np.full(160, 4000, "<i2").tobytes())
ZEROS = PCMU.encoder()(bytes(320))


@dataclass
class Edge:
    rtcp: RtcpSession | None = None
    srtp: Srtp | None = None
    unreachable: int = 0


@dataclass
class Call:
    """A session in fake time that is looked at twice a second, with a far end that does as it is told."""

    reports: bool = True
    now: float = 100.0
    told: list[OneWayAudio] = field(default_factory=list)
    sequence: int = 0
    reported: int = 0

    def __post_init__(self) -> None:
        format = RtpFormat(PCMU, 0)
        self.session = RtpSession(format, Playout(8000), remote=THEM, now=self.now, on_event=lambda event: None)
        self.session.listen(self.hear)
        self.edge = Edge()
        if self.reports:
            self.edge.rtcp = RtcpSession(self.session, cname="x", now=self.now, unix_time=0.0)
        self.frame = b""
        self.watch = QualityWatch(
            self.session, self.edge, codec="PCMU", ptime_ms=20, now=self.now, on_one_way=self.told.append
        )
        self.watch.answered(self.now)

    def hear(self, pcm: bytes, now: float) -> None:
        self.frame = pcm

    def run(
        self,
        seconds: float,
        *,
        payload: bytes | None = SPEECH,
        lost: Callable[[int], bool] = lambda sequence: False,
        each_look: Callable[[], None] = lambda: None,
    ) -> None:
        for tick in range(round(seconds / 0.02)):
            self.now += 0.02
            self.sequence += 1
            if payload is not None and not lost(self.sequence):
                packet = RtpPacket(0, self.sequence & 0xFFFF, self.sequence * 160, 77, payload)
                self.session.receive(packet.serialize(), THEM, self.now - 0.005)
            self.session.tick(self.now)
            if tick % 25 == 24:
                each_look()
                self.watch.look(self.now, self.frame)

    def report(self, *, fraction_lost: float = 0.0, lost: int = 0, progress: bool = True, jitter: int = 0) -> None:
        """The far end reports on us."""
        assert self.edge.rtcp is not None
        if progress:
            self.reported = self.session.sender.packets
        block = ReportBlock(self.session.ssrc, int(fraction_lost * 256), lost, self.reported, jitter, 0, 0)
        self.edge.rtcp.receive(serialise_compound([ReceiverReport(77, (block,))]), self.now)

    def report_nothing(self, *, sent: int | None = None) -> None:
        """The far end reports, and does not mention us."""
        assert self.edge.rtcp is not None
        report = ReceiverReport(77) if sent is None else SenderReport(77, 0, 0, sent, 0)
        self.edge.rtcp.receive(serialise_compound([report]), self.now)

    @property
    def reasons(self) -> list[OneWay]:
        return [event.reason for event in self.told]


# -- scores ---------------------------------------------------------------------------------------------------


def test_undisturbed_call_has_the_best_score_g711_can_have() -> None:
    call = Call()
    assert call.watch.quality.mos is None
    call.run(6)
    quality = call.watch.quality
    assert quality.mos == pytest.approx(4.41, abs=0.01)
    assert (quality.loss_percent, quality.mos_remote, quality.codec, quality.one_way) == (0, None, "PCMU", "")


@pytest.mark.parametrize(("loss", "expected"), [(0.01, 4.33), (0.05, 3.93), (0.2, 2.63)])
def test_random_loss_costs_what_the_e_model_says(loss: float, expected: float) -> None:
    call = Call()
    rng = random.Random(4)
    call.run(120, lost=lambda sequence: rng.random() < loss)
    quality = call.watch.quality
    assert quality.loss_percent == pytest.approx(100 * loss, rel=0.15)
    assert quality.mos == pytest.approx(expected, abs=0.12)


def test_loss_in_bursts_costs_more_than_as_much_at_random() -> None:
    random_loss, bursts = Call(), Call()
    random_loss.run(60, lost=lambda sequence: sequence % 10 == 0)
    bursts.run(60, lost=lambda sequence: sequence % 60 < 6)
    first, second = random_loss.watch.quality, bursts.watch.quality
    assert first.loss_percent == pytest.approx(second.loss_percent, abs=0.5)
    assert first.mos is not None and second.mos is not None and second.mos < first.mos - 0.2


def test_a_bad_stretch_of_a_good_call_is_felt_and_not_forgotten() -> None:
    call = Call()
    call.run(20)
    call.run(10, lost=lambda sequence: sequence % 3 == 0)
    call.run(30)
    quality = call.watch.quality
    assert quality.mos is not None and 3.5 < quality.mos < 4.3


def test_long_round_trip_costs_both_ways() -> None:
    call = Call()
    assert call.edge.rtcp is not None
    call.edge.rtcp.round_trip_ms = 600.0
    call.run(6)
    call.report()
    call.run(6)
    quality = call.watch.quality
    assert quality.mos is not None and quality.mos_remote is not None
    assert quality.mos < 3.9 and quality.mos_remote < 3.9
    assert quality.round_trip_ms == 600


def test_what_the_far_end_hears_is_rated_by_its_reports() -> None:
    call = Call()
    call.run(10)
    call.report(fraction_lost=0.05, lost=25, jitter=80)
    call.run(10)
    call.report(fraction_lost=0.05, lost=50, jitter=80)
    call.run(1)
    quality = call.watch.quality
    assert quality.mos_remote == pytest.approx(3.93, abs=0.05)
    assert quality.mos == pytest.approx(4.41, abs=0.01)
    assert quality.remote_loss_percent == pytest.approx(5, abs=0.2)
    assert quality.remote_jitter_ms == 10


def test_short_call_is_rated_at_its_end() -> None:
    call = Call()
    call.run(2)
    call.report()
    call.watch.finish(call.now)
    quality = call.watch.quality
    assert quality.mos == pytest.approx(4.41, abs=0.01) and quality.mos_remote == pytest.approx(4.41, abs=0.01)


def test_call_without_media_has_no_score() -> None:
    call = Call()
    call.run(3, payload=None)
    call.watch.finish(call.now)
    assert call.watch.quality.mos is None
    assert "mos" not in call.watch.quality.numbers() and "codec" not in call.watch.quality.numbers()


# -- one-way audio --------------------------------------------------------------------------------------------


def test_caller_who_was_never_heard_is_told_once() -> None:
    call = Call()
    call.run(4.4, payload=None)
    assert call.told == []
    call.run(6, payload=None)
    assert [(event.reason, event.detail) for event in call.told] == [(OneWay.NOT_HEARD, "no RTP ever came")]
    assert call.watch.quality.one_way == "no audio from the caller"


def test_what_the_far_side_says_it_sent_is_told_with_it() -> None:
    call = Call()
    call.run(4, payload=None)
    call.report_nothing(sent=200)
    call.run(2, payload=None)
    assert call.told[0].detail == "no RTP ever came; by its own reports the far side sent 200 packets"


def test_strangers_packets_are_told_with_it() -> None:
    call = Call()
    call.session.receive(RtpPacket(0, 1, 1, 5, SPEECH).serialize(), ("10.9.9.9", 1), call.now)
    call.run(6, payload=None)
    assert "1 packets refused: from an address that is not the far side's" in call.told[0].detail


def test_caller_who_stops_is_told_and_forgiven() -> None:
    call = Call()
    call.run(10)
    call.run(7, payload=None)
    assert call.told[0].detail.startswith("RTP stopped 5 s ago")
    call.run(2)
    assert call.watch.quality.one_way == "" and len(call.told) == 1
    call.run(7, payload=None)
    assert call.watch.quality.one_way == OneWay.NOT_HEARD and len(call.told) == 1


def test_digital_silence_is_told_after_half_a_minute_and_a_pause_is_not() -> None:
    call = Call()
    call.run(5)
    call.run(25, payload=ZEROS)
    call.run(1)
    call.run(29, payload=ZEROS)
    assert call.told == []
    call.run(3, payload=ZEROS)
    assert call.reasons == [OneWay.NOT_HEARD] and "digital silence" in call.told[0].detail


@pytest.mark.parametrize("direction", [Direction.INACTIVE, Direction.SENDONLY])
def test_hold_is_no_one_way_audio(direction: Direction) -> None:
    call = Call()
    call.run(5)
    call.session.update(call.now, direction=direction)
    call.run(60, payload=None)
    call.session.update(call.now, direction=Direction.SENDRECV)
    call.run(4, payload=None)
    call.run(2)
    assert call.told == []


def test_nothing_is_expected_before_the_answer() -> None:
    call = Call()
    call.watch = QualityWatch(
        call.session, call.edge, codec="PCMU", ptime_ms=20, now=call.now, on_one_way=call.told.append
    )
    call.edge.unreachable = 1
    call.run(20, payload=None)
    assert call.told == []
    call.session.await_media(call.now)
    call.watch.answered(call.now)
    call.run(4, payload=None)
    assert call.told == []
    call.run(2, payload=None)
    assert call.reasons == [OneWay.NOT_HEARD]


def test_reports_without_progress_mean_that_our_audio_does_not_arrive() -> None:
    call = Call()
    call.run(5)
    call.report()
    for _ in range(2):
        call.run(5)
        call.report(progress=False)
    call.run(1)
    assert call.reasons == [OneWay.NOT_ARRIVING]
    assert call.told[0].detail == (
        "by the far side's last 2 reports nothing more of ours came; we send to 10.0.0.1:4000"
    )
    call.report()
    call.run(1)
    assert call.watch.quality.one_way == ""


def test_total_loss_by_the_reports_means_the_same() -> None:
    call = Call()
    for _ in range(3):
        call.run(5)
        call.report(fraction_lost=255 / 256)
    call.run(1)
    assert call.reasons == [OneWay.NOT_ARRIVING]


def test_far_end_that_never_mentions_us_is_believed_at_its_third_report() -> None:
    call = Call()
    for number in range(3):
        assert call.told == []
        call.run(5)
        call.report_nothing(sent=250 * (number + 1))
    call.run(1)
    assert call.reasons == [OneWay.NOT_ARRIVING] and "none mentions our audio" in call.told[0].detail


def test_our_own_hold_makes_no_report_a_stalled_one() -> None:
    call = Call()
    call.run(5)
    call.report()
    call.session.update(call.now, direction=Direction.RECVONLY)
    for _ in range(4):
        call.run(5)
        call.report(progress=False)
    call.session.update(call.now, direction=Direction.SENDRECV)
    call.run(4)
    assert call.told == []


def test_hold_without_music_is_no_one_way_call() -> None:
    call = Call()
    call.run(5)
    call.session.update(call.now, direction=Direction.RECVONLY)
    call.run(60, payload=None)
    assert call.told == []


def test_unreachable_port_is_told_when_it_lasts() -> None:
    call = Call()

    def refuse() -> None:
        call.edge.unreachable += 1

    call.run(2, each_look=refuse)
    call.run(10)
    assert call.told == []
    call.run(5, each_look=refuse)
    assert call.reasons == [OneWay.NOT_ARRIVING]
    assert call.told[0].detail == "nobody takes RTP at 10.0.0.1:4000: ICMP says it is unreachable"
    call.run(5)
    assert call.watch.quality.one_way == ""


def test_media_under_another_key_is_told_as_such() -> None:
    call = Call()
    suite = "AES_CM_128_HMAC_SHA1_80"
    srtp = call.edge.srtp = Srtp(SrtpKeys(suite, bytes(30), bytes(30)))

    def come() -> None:
        for _ in range(25):
            srtp.unprotect(b"\x80" + bytes(40), call.now)

    call.run(3, payload=None, each_look=come)
    assert call.told == []
    call.run(8, payload=None, each_look=come)
    assert call.reasons == [OneWay.UNDECIPHERABLE]
    quality = call.watch.quality
    assert (quality.one_way, quality.srtp) == ("media can't be decrypted", suite)
    assert quality.packets_rejected == srtp.refused > 200


def test_far_end_without_reports_is_not_suspected() -> None:
    call = Call(reports=False)
    call.run(60)
    assert call.told == [] and call.watch.quality.round_trip_ms is None
