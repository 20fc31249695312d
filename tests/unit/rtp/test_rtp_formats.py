"""A session's formats: packets of any length, wideband codecs, their change in mid-call, events and comfort noise."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bridge.audio.codec import G722, L16, OPUS, PCMA, PCMU, Codec, opus_codec
from bridge.audio.playout import Playout
from bridge.audio.tones import tone, tone_level
from bridge.rtp.packet import RtpPacket
from bridge.rtp.session import (
    DigitReceived,
    MediaResumed,
    MediaSilent,
    MediaTimedOut,
    RtpEvent,
    RtpFormat,
    RtpLimits,
    RtpSession,
)

FAR = ("10.0.0.1", 4000)
NEAR = ("10.0.0.2", 4000)


@dataclass
class Side:
    """One end: its session, what it heard, and the packets that it sent, by tick."""

    session: RtpSession
    events: list[RtpEvent]
    frames: list[bytes]
    sent: list[list[RtpPacket]]

    @property
    def packets(self) -> list[RtpPacket]:
        return [packet for tick in self.sent for packet in tick]

    def say(self, pcm: bytes) -> None:
        playout = self.session.playout
        generation = playout.begin()
        playout.write(generation, pcm)
        playout.end(generation)

    def heard(self, ms: int) -> bytes:
        """The last `ms`."""
        return b"".join(self.frames[-ms // 20 :])


def side(format: RtpFormat, *, rate: int | None = None, limits: RtpLimits | None = None) -> Side:
    events: list[RtpEvent] = []
    frames: list[bytes] = []
    playout = Playout(rate or format.codec.sample_rate)
    session = RtpSession(format, playout, remote=FAR, now=100.0, on_event=events.append, limits=limits or RtpLimits())
    session.listen(lambda frame, now: frames.append(frame))
    return Side(session, events, frames, [])


class Pair:
    """Two sessions with nothing between them but a loss that is asked for."""

    def __init__(self, first: Side, second: Side) -> None:
        self.sides = (first, second)
        self.now = 100.0
        self.lose = 0
        """Every so many of the first side's packets is lost; 0: none."""

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            for here, there in (self.sides, self.sides[::-1]):
                data = here.session.tick(self.now)
                datagrams = [] if data is None else [data]
                datagrams += here.session.further
                here.session.further.clear()
                here.sent.append([RtpPacket.parse(datagram) for datagram in datagrams])
                for datagram in datagrams:
                    if here is self.sides[0] and self.lose and RtpPacket.parse(datagram).sequence % self.lose == 0:
                        continue
                    there.session.receive(datagram, FAR, self.now)


def call(format: RtpFormat, *, rate: int | None = None) -> tuple[Side, Side, Pair]:
    first, second = side(format, rate=rate), side(format, rate=rate)
    return first, second, Pair(first, second)


def level(pcm: bytes, rate: int, hertz: float = 440.0) -> float:
    return tone_level(pcm, hertz, rate)


def largest_step(frames: list[bytes]) -> int:
    return int(np.abs(np.diff(np.frombuffer(b"".join(frames), "<i2").astype(int))).max())


# -- packet lengths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [PCMU, G722, OPUS, L16], ids=lambda codec: codec.name)
@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 50, 60])
def test_packets_have_the_length_that_the_far_end_wants(codec: Codec, ptime_ms: int) -> None:
    format = RtpFormat(codec, 96, ptime_ms=ptime_ms)
    first, second, pair = call(format)
    first.say(tone((440.0,), 1200, codec.sample_rate, level=8000))
    pair.run(1.2)
    length = {30: 20, 50: 40}.get(ptime_ms, ptime_ms) if codec is OPUS else ptime_ms
    packets = first.packets
    assert len(packets) == 1200 // length
    step = codec.clock_rate * length // 1000
    for before, after in itertools.pairwise(packets):
        assert (after.timestamp - before.timestamp) & 0xFFFFFFFF == step
        assert (after.sequence - before.sequence) & 0xFFFF == 1
    if codec is not OPUS:
        assert {len(packet.payload) for packet in packets} == {
            len(codec.encoder()(bytes(2 * codec.sample_rate * length // 1000)))
        }
    assert level(second.heard(400), codec.sample_rate) > 6000
    assert second.session.quality.packets_lost == second.session.quality.concealed_ms == 0


def test_thirty_ms_alternate_on_the_clock_of_twenty() -> None:
    first, _, pair = call(RtpFormat(PCMU, 0, ptime_ms=30))
    pair.run(0.6)
    assert [len(tick) for tick in first.sent] == [0, 1, 1] * 10


def test_ten_ms_are_two_packets_a_tick() -> None:
    first, _, pair = call(RtpFormat(PCMU, 0, ptime_ms=10))
    pair.run(0.2)
    assert [len(tick) for tick in first.sent] == [2] * 10
    assert [packet.marker for packet in first.packets] == [True] + [False] * 19


def test_audio_that_waits_for_a_full_packet_goes_out_before_a_digit() -> None:
    format = RtpFormat(PCMU, 0, dtmf_payload_type=101, ptime_ms=60)
    first, second, pair = call(format)
    first.say(tone((440.0,), 2000, 8000, level=8000))
    pair.run(0.1)
    first.session.send_dtmf("5", tone_ms=100)
    pair.run(0.6)
    short = [packet for packet in first.packets if packet.payload_type == 0 and len(packet.payload) < 480]
    assert [len(packet.payload) for packet in short] == [320]
    start = next(packet for packet in first.packets if packet.payload_type == 101)
    assert (start.timestamp - short[0].timestamp) & 0xFFFFFFFF == 320
    assert second.events[1:] == [DigitReceived("5", 100)]
    assert second.session.quality.concealed_ms == 0


def test_playout_counts_what_went_into_packets() -> None:
    first, _, pair = call(RtpFormat(PCMU, 0, ptime_ms=60))
    first.say(tone((440.0,), 400, 8000))
    pair.run(0.2)
    assert first.session.playout.sent_ms == 200


# -- wideband -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [G722, OPUS, L16], ids=lambda codec: codec.name)
def test_wideband_codecs_carry_what_the_telephone_band_does_not(codec: Codec) -> None:
    first, second, pair = call(RtpFormat(codec, 96))
    first.say(tone((5500.0,), 1000, 16000, level=8000))
    pair.run(1.0)
    assert level(second.heard(400), 16000, 5500.0) > 4000
    assert second.session.quality.packets_late == 0


def test_lost_opus_packets_are_recovered_where_the_far_end_sends_redundancy() -> None:
    times = np.arange(16000 * 4) / 16000
    voice = sum(np.sin(2 * np.pi * 140 * k * times) / k for k in range(1, 10))
    first, second, pair = call(RtpFormat(opus_codec("useinbandfec=1"), 111))
    pair.lose = 10
    first.say((4000 * voice * (1.1 + np.sin(2 * np.pi * 2 * times))).astype("<i2").tobytes())
    pair.run(4.0)
    quality = second.session.quality
    assert quality.packets_lost == pytest.approx(20, abs=1)
    assert quality.recovered_ms > 200
    assert quality.recovered_ms + quality.concealed_ms == pytest.approx(400, abs=60)


def test_opus_that_is_silent_with_dtx_sends_little_and_no_loss_is_counted() -> None:
    first, second, pair = call(RtpFormat(opus_codec("usedtx=1"), 111))
    first.say(tone((440.0,), 500, 16000, level=8000))
    pair.run(4.0)
    assert len(first.packets) < 100
    assert second.session.quality.packets_lost == second.session.quality.concealed_ms == 0
    first.say(tone((440.0,), 600, 16000, level=8000))
    pair.run(0.6)
    assert level(second.heard(200), 16000) > 5000
    talkspurt = first.sent[200:]
    assert next(packet for tick in talkspurt for packet in tick).marker


# -- change of codec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [(PCMU, G722), (G722, PCMA), (PCMU, OPUS), (OPUS, PCMU), (G722, OPUS), (L16, PCMU), (PCMU, PCMA)],
    ids=lambda codec: codec.name,
)
def test_codec_changes_and_the_frames_keep_their_rate(old: Codec, new: Codec) -> None:
    first, second, pair = call(RtpFormat(old, 96))
    for speaker in (first, second):
        speaker.say(tone((440.0,), 4000, old.sample_rate, level=8000))
    pair.run(1.0)
    before = first.session.sender
    for end in (first, second):
        end.session.update(pair.now, format=RtpFormat(new, 97, ptime_ms=20))
    pair.run(2.0)
    for end in (first, second):
        assert {len(frame) for frame in end.frames} == {old.sample_rate // 25}
        assert level(end.heard(1000), old.sample_rate) == pytest.approx(8000, rel=0.15)
        quality = end.session.quality
        assert quality.packets_lost == 0 and quality.packets_late <= 2
        assert quality.packets_received == pytest.approx(150, abs=1)
        assert end.session.playout.sent_ms == 3000
    after = first.session.sender
    # One SSRC has one clock: what another clock rate sends is another stream (RFC 7160).
    assert (after.ssrc == before.ssrc) == (old.clock_rate == new.clock_rate)
    assert after.packets == (150 if after.ssrc == before.ssrc else 100)
    assert first.session.quality.packets_sent == 150


def test_far_end_may_mix_the_codecs_that_were_agreed_on() -> None:
    ours = side(RtpFormat(G722, 9, receive={9: G722, 0: PCMU, 111: OPUS}))
    theirs = {n: side(RtpFormat(codec, n), rate=16000) for n, codec in ((9, G722), (0, PCMU), (111, OPUS))}
    sequence, now = 0, 100.0
    for number in (9, 0, 111, 0, 9):
        sender = theirs[number]
        sender.say(tone((440.0,), 1000, 16000, level=8000))
        for _ in range(50):
            now += 0.02
            data = sender.session.tick(now)
            assert data is not None
            sequence += 1
            packet = replace(RtpPacket.parse(data), sequence=sequence, ssrc=7)
            ours.session.receive(packet.serialize(), FAR, now)
            ours.session.tick(now)
        assert level(ours.heard(400), 16000) > 6000
    assert ours.session.quality.packets_lost == 0
    assert ours.session.quality.packets_received == 250
    seen = ours.session.reception
    assert seen is not None and (seen.expected, seen.received) == (250, 250)


def test_packets_that_the_change_of_codec_overtook_do_not_undo_it() -> None:
    ours = side(RtpFormat(PCMU, 0, receive={0: PCMU, 9: G722}))
    old, new = side(RtpFormat(PCMU, 0)), side(RtpFormat(G722, 9), rate=8000)
    now = 100.0
    for n in range(60):
        now += 0.02
        sender, number = (old, n) if n < 30 or n == 33 else (new, n)
        number = 28 if n == 33 else number
        sender.say(tone((440.0,), 20, 8000))
        data = sender.session.tick(now)
        assert data is not None
        packet = replace(RtpPacket.parse(data), sequence=number, ssrc=7, timestamp=number * 160)
        ours.session.receive(packet.serialize(), FAR, now)
        ours.session.tick(now)
    quality = ours.session.quality
    assert (quality.packets_late, quality.restarts, quality.packets_rejected) == (1, 0, 0)


def test_playout_of_another_rate_than_the_codec_is_resampled() -> None:
    first, second, pair = call(RtpFormat(PCMU, 0), rate=16000)
    first.say(tone((440.0,), 1000, 16000, level=8000))
    pair.run(1.0)
    assert {len(packet.payload) for packet in first.packets} == {160}
    assert {len(frame) for frame in second.frames} == {640}
    assert level(second.heard(400), 16000) == pytest.approx(8000, rel=0.05)
    assert largest_step(second.frames[20:]) < 2500


# -- telephone events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "rate"), [(PCMU, 8000), (L16, 16000), (OPUS, 48000), (OPUS, 8000), (G722, 8000)])
def test_digits_go_at_the_clock_rate_that_was_agreed_on(codec: Codec, rate: int) -> None:
    format = RtpFormat(codec, 96, dtmf_payload_type=101, dtmf_clock_rate=rate)
    first, second, pair = call(format)
    pair.run(0.2)
    first.session.send_dtmf("19#", tone_ms=100, gap_ms=60)
    pair.run(1.0)
    assert second.events[1:] == [DigitReceived(digit, 100) for digit in "19#"]
    starts = [packet for packet in first.packets if packet.payload_type == 101 and packet.marker]
    assert len(starts) == 3
    # Whatever the durations count in, the timestamp is the stream's own.
    apart = (starts[1].timestamp - starts[0].timestamp) & 0xFFFFFFFF
    assert apart == codec.clock_rate * 160 // 1000
    assert second.session.quality.packets_lost == second.session.quality.concealed_ms == 0


def test_events_are_taken_at_each_payload_type_and_rate_we_named() -> None:
    ours = side(
        RtpFormat(OPUS, 111, receive={111: OPUS}, dtmf_payload_type=110, dtmf_receive={110: 48000, 101: 8000})
    )
    for n, (number, duration) in enumerate(((110, 4800), (101, 800))):
        for part in range(3):
            payload = bytes([n + 1, 0x80]) + duration.to_bytes(2, "big")
            packet = RtpPacket(number, 10 * n + part, 1000 + n * 48000, 7, payload, marker=part == 0)
            ours.session.receive(packet.serialize(), FAR, 100.0 + n)
    assert ours.events[1:] == [DigitReceived("1", 100), DigitReceived("2", 100)]
    assert ours.session.quality.packets_rejected == 0


# -- comfort noise ------------------------------------------------------------------------------------------


def test_far_end_that_suppresses_silence_is_not_given_up() -> None:
    limits = RtpLimits(first_media_s=30, media_s=2, notice_s=1, suppressed_s=60)
    ours = side(RtpFormat(PCMU, 0), limits=limits)
    payload = PCMU.encoder()(tone((440.0,), 20, 8000))
    now = 100.0

    def hear(number: int, sequence: int, data: bytes) -> None:
        packet = RtpPacket(number, sequence, sequence * 160, 7, data)
        ours.session.receive(packet.serialize(), FAR, now)

    for n in range(20):
        now += 0.02
        hear(0, n, payload)
        ours.session.tick(now)
    hear(13, 20, b"\x32")
    for _ in range(50 * 50):
        now += 0.02
        ours.session.tick(now)
    assert ours.events[1:] == []
    assert 50 < np.abs(np.frombuffer(ours.frames[-1], "<i2").astype(int)).max() < 500
    hear(0, 21, payload)
    for _ in range(50 * 5):
        now += 0.02
        ours.session.tick(now)
    assert [type(event) for event in ours.events[1:]] == [MediaSilent, MediaTimedOut]
    hear(0, 22, payload)
    assert isinstance(ours.events[-1], MediaResumed)


def test_comfort_noise_of_an_agreed_payload_type_is_noise_and_else_is_refused() -> None:
    for agreed in (frozenset({98}), frozenset()):
        ours = side(RtpFormat(L16, 96, comfort_noise=agreed))
        now = 100.0
        for n in range(40):
            now += 0.02
            audio = n < 20
            data = L16.encoder()(bytes(640)) if audio else b"\x32"
            packet = RtpPacket(96 if audio else 98, n, n * 320, 7, data)
            ours.session.receive(packet.serialize(), FAR, now)
            ours.session.tick(now)
        assert (ours.frames[-1] != bytes(640)) == bool(agreed)
        assert ours.session.quality.packets_rejected == (0 if agreed else 20)
