"""Media over a stream: a frame a tick both ways, whatever comes in whatever pieces, and silence is noticed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.clock import MediaClock
from bridge.audio.frames import frame_bytes
from bridge.events import MediaLost, OneWay, OneWayAudio
from bridge.legs.base import LegStateError
from bridge.legs.frame_stream import FrameStream
from bridge.legs.media import MediaCrashed, MediaExpired, StreamEvent
from bridge.rtp.format import RtpLimits

RATE = 16000
FRAME = frame_bytes(RATE)
SILENCE = bytes(FRAME)
LIMITS = RtpLimits(first_media_s=10.0, media_s=8.0, notice_s=3.0)


class Line:
    """A stream on a clock whose time is ours."""

    def __init__(self, limits: RtpLimits = LIMITS) -> None:
        self.now = 100.0
        self.clock = MediaClock(phases=1, time_now=lambda: self.now)
        # Off the grid, so that no rounding moves a tick.
        self.now += 0.005
        self.sent: list[bytes] = []
        self.heard: list[bytes] = []
        self.events: list[StreamEvent] = []
        self.stream = FrameStream(self.clock, sample_rate=RATE, codec="slin16", send=self.sent.append, limits=limits)
        self.stream.on_event = self.events.append
        self.stream.listen(lambda frame, now: self.heard.append(frame))
        self.stream.start()

    def ticks(self, count: int, pcm: bytes = b"") -> None:
        """So many ticks; before each of them `pcm` comes."""
        for _ in range(count):
            self.stream.push(pcm, self.now)
            self.now += 0.02
            self.clock.run(self.now)

    def push(self, pcm: bytes) -> None:
        self.stream.push(pcm, self.now)


def tone(frames: int, hz: float = 300.0) -> bytes:
    times = np.arange(frames * FRAME // 2) / RATE
    return (8000 * np.sin(2 * np.pi * hz * times)).astype("<i2").tobytes()


def numbered(count: int) -> list[bytes]:
    """Frames that tell which they are."""
    return [np.full(FRAME // 2, 500 + n, "<i2").tobytes() for n in range(count)]


def test_frames_come_out_as_they_went_in_one_a_tick() -> None:
    line = Line()
    frames = numbered(50)
    for frame in frames:
        line.ticks(1, frame)
    whole = [frame for frame in line.heard if frame in frames]
    assert whole == frames[: len(whole)]
    assert len(whole) >= 47
    assert len(line.heard) == 50


def test_each_tick_sends_a_frame_with_silence_where_there_is_nothing_to_say() -> None:
    line = Line()
    generation = line.stream.playout.begin()
    line.stream.playout.write(generation, tone(2))
    line.stream.playout.end(generation)
    line.ticks(5)
    assert b"".join(line.sent) == tone(2) + 3 * SILENCE
    assert line.stream.quality.packets_sent == 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3 * FRAME), min_size=1, max_size=40))
def test_pieces_of_any_size_make_the_same_audio(sizes: list[int]) -> None:
    line = Line()
    pcm = tone(120)
    at = 0
    for size in sizes:
        line.push(pcm[at : at + size])
        at += size
        while line.now - 100.005 < at / (2 * RATE):
            line.ticks(1)
    line.ticks(20)
    heard = b"".join(line.heard)
    assert len(heard) == FRAME * len(line.heard)
    assert all(len(frame) == FRAME for frame in line.heard)


def test_half_a_sample_at_the_end_of_a_message_is_no_shift_for_the_next() -> None:
    line = Line()
    pcm = tone(40)
    line.ticks(1, pcm[: FRAME + 1])
    at = FRAME + 1
    for _ in range(30):
        line.ticks(1, pcm[at : at + FRAME])
        at += FRAME
    whole = b"".join(line.heard)
    assert pcm[2 * FRAME : 20 * FRAME] in whole


def test_a_late_frame_is_bridged_and_then_waited_for() -> None:
    line = Line()
    for frame in numbered(30):
        line.ticks(1, frame)
    before = line.stream.quality.buffer_ms
    line.ticks(1)
    late, next_one = numbered(32)[30:]
    line.push(late)
    line.ticks(1, next_one)
    for frame in numbered(60)[32:]:
        line.ticks(1, frame)
    assert line.stream.quality.buffer_ms > before
    # The first milliseconds of what came late are blended with what bridged it.
    assert any(frame.endswith(late[FRAME // 4 :]) for frame in line.heard) and next_one in line.heard
    assert line.stream.quality.packets_late == 0


def test_a_pause_of_the_far_side_is_no_loss_and_adds_no_delay() -> None:
    line = Line()
    line.ticks(50, tone(1))
    before = line.stream.quality
    line.ticks(100)
    assert line.heard[-1] == SILENCE
    line.ticks(50, tone(1))
    after = line.stream.quality
    assert after.concealed_ms == before.concealed_ms
    assert after.buffer_ms == pytest.approx(before.buffer_ms, abs=21)
    assert line.heard[-1] != SILENCE


def test_a_burst_after_a_stall_is_bounded() -> None:
    line = Line()
    line.ticks(50, tone(1))
    for frame in numbered(400):
        line.push(frame)
    line.ticks(100, tone(1))
    quality = line.stream.quality
    assert quality.packets_late > 300
    assert quality.buffer_ms <= LIMITS.max_delay_ms + 120


def test_silence_counts_from_the_answer_on_and_ends_the_call() -> None:
    line = Line()
    line.ticks(1000)
    assert line.events == []
    line.stream.await_media()
    line.ticks(145)
    assert line.events == []
    line.ticks(10)
    assert [type(event) for event in line.events] == [MediaLost, OneWayAudio]
    assert line.stream.quality.one_way == OneWay.NOT_HEARD
    line.ticks(400)
    assert line.events[2:] == [MediaExpired("no audio ever came")]


def test_audio_that_comes_again_is_expected_again() -> None:
    line = Line()
    line.stream.await_media()
    line.ticks(10, tone(1))
    line.ticks(200)
    assert [type(event) for event in line.events] == [MediaLost, OneWayAudio]
    line.ticks(10, tone(1))
    assert line.stream.quality.one_way == ""
    line.ticks(500)
    assert [type(event) for event in line.events] == [MediaLost, OneWayAudio, MediaLost, MediaExpired]
    assert line.events[-1] == MediaExpired("no audio for 8 s")


def test_on_hold_nothing_is_sent_nor_expected_and_the_playout_waits() -> None:
    line = Line()
    line.stream.await_media()
    line.ticks(10, tone(1))
    line.stream.hold(True)
    generation = line.stream.playout.begin()
    line.stream.playout.write(generation, tone(3))
    sent = len(line.sent)
    line.ticks(1000)
    assert len(line.sent) == sent
    assert line.stream.playout.queued_ms == 60
    assert line.events == []
    line.stream.hold(False)
    line.ticks(3)
    assert len(line.sent) == sent + 3
    assert line.stream.playout.queued_ms == 0


def test_digital_silence_is_told_as_a_caller_not_heard() -> None:
    line = Line()
    line.stream.await_media()
    line.ticks(1400, SILENCE)
    assert line.events == []
    line.ticks(200, SILENCE)
    assert [type(event) for event in line.events] == [OneWayAudio]
    line.ticks(50, tone(1))
    assert line.stream.quality.one_way == ""


def test_a_failing_listener_ends_its_own_leg_alone() -> None:
    line = Line()

    def fail(frame: bytes, now: float) -> None:
        raise RuntimeError("boom")

    other = FrameStream(line.clock, sample_rate=RATE, codec="slin16", send=line.sent.append, limits=LIMITS)
    other.start()
    line.stream.listen(fail)
    line.ticks(3)
    assert line.events == [MediaCrashed("RuntimeError: boom")]
    assert len(line.sent) == 3


def test_close_takes_it_off_the_clock_and_tells_the_transport_once() -> None:
    line = Line()
    closed: list[None] = []
    line.stream.on_close = lambda: closed.append(None)
    line.ticks(2)
    line.stream.close()
    line.stream.close()
    line.push(tone(1))
    line.ticks(3)
    assert closed == [None]
    assert len(line.sent) == 2
    assert line.clock.stats.tickers == 0
    with pytest.raises(LegStateError):
        line.stream.start()


def test_a_listener_that_closes_the_stream_ends_the_tick_it_is_in() -> None:
    line = Line()
    line.stream.listen(lambda frame, now: line.stream.close())
    line.ticks(3)
    assert line.sent == []


def test_what_comes_before_the_start_is_dropped() -> None:
    clock = MediaClock(time_now=lambda: 5.0)
    stream = FrameStream(clock, sample_rate=RATE, codec="slin16", send=lambda pcm: None, limits=LIMITS)
    for _ in range(100):
        stream.push(tone(10), 5.0)
    assert stream.quality.packets_received == 0
    assert stream.quality.mos is None


def test_a_far_side_that_takes_nothing_is_waited_for() -> None:
    line = Line()
    generation = line.stream.playout.begin()
    line.stream.playout.write(generation, tone(4))
    line.ticks(1)
    line.stream.stalled = True
    line.ticks(50, tone(1))
    assert len(line.sent) == 1
    assert line.stream.playout.queued_ms == 60
    assert line.heard[-1] != SILENCE
    line.stream.stalled = False
    line.ticks(3)
    assert line.stream.playout.sent_ms == 80


def test_a_transport_may_read_at_each_tick() -> None:
    line = Line()
    line.stream.poll = lambda now: line.stream.push(tone(1), now - 0.005)
    line.ticks(20)
    assert line.stream.quality.packets_received == 20
    assert line.heard[-1] == tone(1)
