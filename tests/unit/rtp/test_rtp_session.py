"""One leg's RTP stream: what it plays, what it refuses, what it sends, and what it tells."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.codec import L16, PCMA, PCMU
from bridge.audio.playout import Playout
from bridge.rtp.latch import Address
from bridge.rtp.packet import RtpPacket
from bridge.rtp.session import (
    DigitReceived,
    Direction,
    MediaResumed,
    MediaSilent,
    MediaTimedOut,
    RtpEvent,
    RtpFormat,
    RtpLimits,
    RtpSession,
    SourceChanged,
)

NAMED: Address = ("10.0.0.1", 4000)
OTHER: Address = ("10.0.0.9", 4004)
FORMAT = RtpFormat(PCMU, 0, receive={0: PCMU, 8: PCMA}, dtmf_payload_type=101)
TONE = np.full(160, 4000, "<i2").tobytes()
SILENCE = bytes(320)


class Call:
    """A session in fake time, with a far end that sends one packet a tick."""

    def __init__(
        self, *, format: RtpFormat = FORMAT, remote: Address | None = NAMED, limits: RtpLimits | None = None
    ) -> None:
        self.events: list[RtpEvent] = []
        self.frames: list[bytes] = []
        self.sent: list[RtpPacket | None] = []
        self.playout = Playout(format.codec.sample_rate)
        self.now = 100.0
        self.session = RtpSession(
            format,
            self.playout,
            remote=remote,
            now=self.now,
            on_event=self.events.append,
            limits=limits or RtpLimits(),
        )
        self.session.listen(lambda frame, now: self.frames.append(frame))
        self.sequence = 65000

    def hear(self, payload: bytes = PCMU.encoder()(TONE), *, source: Address = NAMED, **fields: object) -> None:
        self.sequence += 1
        packet = RtpPacket(0, self.sequence & 0xFFFF, self.sequence * 160, 77, payload)
        self.session.receive(replace(packet, **fields).serialize(), source, self.now)  # type: ignore[arg-type]

    def tick(self) -> RtpPacket | None:
        self.now += 0.02
        data = self.session.tick(self.now)
        packet = RtpPacket.parse(data) if data is not None else None
        self.sent.append(packet)
        return packet

    def talk(self, ticks: int, *, source: Address = NAMED) -> None:
        for _ in range(ticks):
            self.hear(source=source)
            self.tick()

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.tick()

    def say(self, ms: int) -> int:
        generation = self.playout.begin()
        self.playout.write(generation, TONE * (ms // 20))
        self.playout.end(generation)
        return generation


def heard(call: Call) -> int:
    return sum(frame != SILENCE for frame in call.frames)


# -- receiving ----------------------------------------------------------------------------------------------


def test_listeners_get_one_frame_a_tick_whatever_comes() -> None:
    call = Call()
    call.wait(0.2)
    call.talk(20)
    call.wait(1)
    assert len(call.frames) == 80
    assert heard(call) >= 19
    assert call.session.quality.packets_received == 20


@pytest.mark.parametrize(("payload_type", "codec"), [(0, PCMU), (8, PCMA)])
def test_any_codec_we_named_is_decoded_as_itself(payload_type: int, codec: object) -> None:
    call = Call()
    for _ in range(10):
        call.hear((PCMU if payload_type == 0 else PCMA).encoder()(TONE), payload_type=payload_type)
        call.tick()
    assert abs(int(np.frombuffer(call.frames[-1], "<i2")[80]) - 4000) < 150


def test_unknown_payload_type_is_counted_and_never_played() -> None:
    call = Call()
    for _ in range(10):
        call.hear(payload_type=96)
        call.tick()
    assert heard(call) == 0
    assert call.session.quality.rejected == {"payload-type": 10}
    assert call.session.destination == NAMED and call.events == []


def test_rtcp_on_the_rtp_port_is_known_and_not_an_error() -> None:
    call = Call()
    call.session.receive(bytes([0x80, 200]) + bytes(26), NAMED, call.now)
    assert call.session.quality.rejected == {"rtcp": 1}
    assert call.session.quality.packets_rejected == 0


def test_extension_csrc_and_padding_are_no_audio() -> None:
    call = Call()
    for _ in range(10):
        call.hear(csrcs=(1, 2), extension=(0xBEDE, b"\x10\xff\x00\x00"), padding=4)
        call.tick()
    assert call.frames[-1][200:] == PCMU.decoder()(PCMU.encoder()(TONE))[200:]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x00", b"\xb0\x65", b"\x90\x08"]))))
def test_garbage_never_raises(datagrams: list[tuple[bytes, bytes]]) -> None:
    call = Call()
    for data, start in datagrams:
        call.session.receive(start + data, NAMED, call.now)
        call.tick()
    assert all(len(frame) == 320 for frame in call.frames)


def test_comfort_noise_is_faint_and_keeps_the_call_alive() -> None:
    call = Call(limits=RtpLimits(media_s=1.0, notice_s=1.0))
    call.talk(20)
    for _ in range(20):
        call.hear(b"\x40", payload_type=13)
        call.wait(0.1)
    faint = b"".join(call.frames[25:])
    assert 0 < np.abs(np.frombuffer(faint, "<i2").astype(int)).max() < 100
    assert call.events == [SourceChanged(NAMED)]
    assert call.session.quality.concealed_ms == 0


def test_strangers_are_counted_and_not_played() -> None:
    call = Call()
    call.talk(20)
    for _ in range(50):
        call.hear()
        for n in range(3):
            data = RtpPacket(0, n, n * 160, 666, b"\x00" * 160).serialize()
            call.session.receive(data, OTHER, call.now)
        call.tick()
    assert call.session.quality.packets_rejected == 150
    assert call.session.destination == NAMED
    loudest = max(int(np.abs(np.frombuffer(frame, "<i2").astype(int)).max()) for frame in call.frames)
    assert loudest < 5000


def test_source_behind_nat_is_told_and_answered() -> None:
    call = Call()
    call.talk(20, source=OTHER)
    assert call.events == [SourceChanged(OTHER)]
    assert call.session.destination == OTHER
    assert heard(call) > 10


def test_new_ssrc_from_the_same_address_is_absorbed() -> None:
    call = Call()
    call.talk(50)
    for n in range(50):
        call.hear(ssrc=99, sequence=n, timestamp=n * 160)
        call.tick()
    assert heard(call) >= 96
    assert call.session.quality.packets_lost == 0


# -- sending ------------------------------------------------------------------------------------------------


def test_silence_is_sent_with_continuous_numbers() -> None:
    call = Call()
    call.wait(0.5)
    call.say(200)
    call.wait(1)
    packets = [packet for packet in call.sent if packet]
    assert len(packets) == len(call.sent) == 75
    assert [p.marker for p in packets] == [True] + [False] * 74
    for before, after in itertools.pairwise(packets):
        assert (after.sequence - before.sequence) & 0xFFFF == 1
        assert (after.timestamp - before.timestamp) & 0xFFFFFFFF == 160
        assert (after.ssrc, len(after.payload), after.payload_type) == (before.ssrc, 160, 0)
    assert sum(p.payload != b"\xff" * 160 for p in packets) == 10
    assert call.session.quality.packets_sent == 75


def test_numbers_start_anywhere() -> None:
    starts = {(p.sequence, p.timestamp, p.ssrc) for _ in range(5) if (p := Call().tick())}
    assert len(starts) == 5


def test_nothing_is_sent_while_the_far_end_is_unknown() -> None:
    call = Call(remote=None)
    call.wait(0.1)
    assert call.sent == [None] * 5
    assert call.session.quality.packets_sent == 0
    call.talk(5, source=OTHER)
    packet = call.sent[-1]
    assert packet is not None and call.session.destination == OTHER


def test_l16_goes_out_in_network_order() -> None:
    call = Call(format=RtpFormat(L16, 96))
    generation = call.playout.begin()
    call.playout.write(generation, b"\x01\x02" * 640)
    packet = call.tick()
    assert packet is not None and packet.payload == b"\x02\x01" * 320
    following = call.tick()
    assert following is not None and (following.timestamp - packet.timestamp) & 0xFFFFFFFF == 320


def test_dtmf_takes_the_place_of_audio_and_the_playout_waits() -> None:
    call = Call()
    call.say(600)
    call.wait(0.1)
    call.session.send_dtmf("5", tone_ms=100, gap_ms=80)
    call.wait(0.5)
    packets = [packet for packet in call.sent if packet]
    events = [packet for packet in packets if packet.payload_type == 101]
    assert len(events) == 5 + 2
    assert [p.marker for p in events] == [True] + [False] * 6
    assert len({p.timestamp for p in events}) == 1
    first = packets.index(events[0])
    after = packets[first + len(events)]
    assert after.marker and not packets[first + len(events) + 1].marker
    assert (after.timestamp - events[0].timestamp) & 0xFFFFFFFF == 160 * len(events)
    numbers = [(p.sequence - packets[0].sequence) & 0xFFFF for p in packets]
    assert numbers == list(range(len(packets)))
    assert call.playout.sent_ms == 100 + 500 - 180


def test_dtmf_to_a_far_end_that_takes_none_is_refused() -> None:
    call = Call(format=RtpFormat(PCMU, 0))
    assert not call.session.can_send_dtmf
    with pytest.raises(ValueError, match="no telephone events"):
        call.session.send_dtmf("1")


def test_received_digits_are_told_once() -> None:
    call = Call()
    call.talk(20)
    timestamp = call.sequence * 160
    for tick in range(8):
        end = 0x80 if tick >= 5 else 0
        duration = min(tick + 1, 6) * 160
        call.hear(bytes([4, end | 10, *duration.to_bytes(2, "big")]), payload_type=101, timestamp=timestamp)
        call.tick()
    assert call.events[1:] == [DigitReceived("4", 120)]
    assert call.session.quality.packets_lost == 0


def test_digit_whose_ends_got_lost_is_told_when_it_is_overdue() -> None:
    call = Call()
    call.talk(20)
    call.hear(bytes([4, 10, 3, 0x20]), payload_type=101)
    call.wait(0.3)
    assert call.events[1:] == [DigitReceived("4", 100)]


# -- re-INVITE ----------------------------------------------------------------------------------------------


def test_hold_sends_nothing_and_keeps_what_was_to_be_said() -> None:
    call = Call()
    call.say(400)
    call.wait(0.1)
    call.session.update(call.now, direction=Direction.RECVONLY)
    call.wait(0.5)
    assert call.sent[5:30] == [None] * 25
    assert call.playout.sent_ms == 100
    call.session.update(call.now, direction=Direction.SENDRECV)
    first = call.tick()
    last = call.sent[4]
    assert first is not None and last is not None and first.marker
    assert (first.sequence - last.sequence) & 0xFFFF == 1
    assert (first.timestamp - last.timestamp) & 0xFFFFFFFF == 26 * 160


def test_inactive_leg_plays_nothing_and_never_times_out() -> None:
    call = Call(limits=RtpLimits(first_media_s=1, media_s=1, notice_s=0.5))
    call.talk(20)
    call.session.update(call.now, direction=Direction.INACTIVE)
    call.frames.clear()
    call.talk(20)
    call.wait(5)
    assert heard(call) <= 4
    assert call.events == [SourceChanged(NAMED)]
    call.session.update(call.now, direction=Direction.SENDRECV)
    call.wait(1.1)
    assert [type(event) for event in call.events[1:]] == [MediaSilent, MediaTimedOut]


def test_who_is_put_on_hold_without_music_waits_as_long_as_it_lasts() -> None:
    call = Call(limits=RtpLimits(first_media_s=1, media_s=1, notice_s=0.5))
    call.talk(20)
    call.session.update(call.now, direction=Direction.RECVONLY)
    call.wait(5)
    call.talk(20)
    call.wait(5)
    assert call.events == [SourceChanged(NAMED)]
    call.session.update(call.now, direction=Direction.SENDRECV)
    call.wait(1.1)
    assert [type(event) for event in call.events[1:]] == [MediaSilent, MediaTimedOut]


def test_codec_changes_within_the_call() -> None:
    call = Call()
    call.talk(10)
    call.session.update(call.now, format=RtpFormat(PCMA, 8))
    call.say(20)
    for _ in range(10):
        call.hear(PCMA.encoder()(TONE), payload_type=8)
        call.tick()
    packet = call.sent[10]
    assert packet is not None and packet.payload_type == 8 and packet.payload == PCMA.encoder()(TONE)
    assert abs(int(np.frombuffer(call.frames[-1], "<i2")[80]) - 4000) < 150
    # What was agreed on before is still taken: the far end changes when it has the answer.
    call.hear()
    assert call.session.quality.packets_rejected == 0


def test_far_end_that_moved_is_followed() -> None:
    call = Call()
    call.talk(20)
    call.session.update(call.now, remote=OTHER)
    assert call.session.destination == OTHER
    call.talk(5)
    assert call.session.quality.packets_rejected == 5
    call.talk(20, source=OTHER)
    assert call.events == [SourceChanged(NAMED), SourceChanged(OTHER)]


# -- silence ------------------------------------------------------------------------------------------------

LIMITS = RtpLimits(first_media_s=3, media_s=2, notice_s=1)


def test_far_end_that_never_sends_times_out() -> None:
    call = Call(limits=LIMITS)
    call.wait(10)
    assert [type(event) for event in call.events] == [MediaSilent, MediaTimedOut]
    timed_out = call.events[1]
    assert isinstance(timed_out, MediaTimedOut)
    assert timed_out.silent_ms == pytest.approx(3000, abs=40) and not timed_out.ever_received


def test_far_end_that_falls_silent_times_out_sooner_and_is_told_when_it_is_back() -> None:
    call = Call(limits=LIMITS)
    call.talk(20)
    call.wait(1.5)
    call.talk(20)
    call.wait(2.1)
    events = call.events[1:]
    assert [type(event) for event in events] == [MediaSilent, MediaResumed, MediaSilent, MediaTimedOut]
    timed_out = events[3]
    assert isinstance(timed_out, MediaTimedOut) and timed_out.ever_received
    assert call.session.silent_ms(call.now) == pytest.approx(2120, abs=40)


def test_strangers_and_garbage_do_not_keep_a_call_alive() -> None:
    call = Call(limits=LIMITS)
    for _ in range(200):
        call.hear(payload_type=96)
        call.session.receive(b"garbage", NAMED, call.now)
        call.tick()
    assert [type(event) for event in call.events] == [MediaSilent, MediaTimedOut]


# -- for RTCP -----------------------------------------------------------------------------------------------


def test_reception_counts_the_present_source() -> None:
    call = Call()
    assert call.session.reception is None
    call.talk(10)
    call.sequence += 2
    call.talk(10)
    seen = call.session.reception
    assert seen is not None and (seen.ssrc, seen.clock_rate) == (77, 8000)
    assert (seen.expected, seen.received) == (22, 20)
    assert seen.highest_sequence == call.sequence


def test_reception_begins_anew_with_another_ssrc() -> None:
    call = Call()
    call.talk(10)
    for _ in range(5):
        call.hear(ssrc=78)
        call.tick()
    seen = call.session.reception
    assert seen is not None and (seen.ssrc, seen.expected, seen.received) == (78, 5, 5)
    assert call.session.quality.packets_received == 15


def test_extended_sequence_counts_the_wraps() -> None:
    call = Call()
    call.sequence = 65530
    call.talk(10)
    seen = call.session.reception
    assert seen is not None and seen.highest_sequence == 65540


def test_sender_counts_what_left_and_ties_the_timestamp_to_the_clock() -> None:
    call = Call()
    call.wait(0.2)
    sender = call.session.sender
    assert (sender.packets, sender.octets, sender.at) == (10, 1600, call.now)
    assert call.sent[-1] is not None and sender.timestamp == call.sent[-1].timestamp
    call.session.update(call.now, direction=Direction.INACTIVE)
    call.wait(0.2)
    after = call.session.sender
    assert (after.packets, after.timestamp) == (10, (sender.timestamp + 1600) & 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("order", "bursts"),
    [
        (range(10), 0),
        ([0, 1, 4, 5, 9], 2),
        ([0, 1, 3, 2, 4], 0),
        ([0, 1, 5, 3, 6], 2),
        ([0, 1, 5, 2, 6], 1),
        ([0, 1, 5, 4, 3, 2], 0),
        ([5, 3, 4, 6], 0),
    ],
)
def test_runs_of_lost_packets_are_counted_whatever_their_order(order: list[int], bursts: int) -> None:
    call = Call()
    for sequence in order:
        call.sequence = 65530 + sequence
        call.hear()
    assert call.session.quality.loss_bursts == bursts
