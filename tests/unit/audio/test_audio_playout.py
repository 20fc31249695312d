"""The playout sends what was written, once and in order, and never claims more than it sent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.audio.frames import frame_bytes
from bridge.audio.playout import FADE_MS, Playout, PlayoutEvent, UtteranceFinished, UtteranceStarted

RATE = 8000
FRAME = frame_bytes(RATE)
SILENCE = bytes(FRAME)
FADE_BYTES = RATE * FADE_MS // 1000 * 2


def loud(ms: int, value: int = 1000) -> bytes:
    return np.full(RATE * ms // 1000, value, "<i2").tobytes()


def samples(frame: bytes) -> np.ndarray:
    return np.frombuffer(frame, "<i2")


def started(playout: Playout, pcm: bytes, *, end: bool = True) -> int:
    generation = playout.begin()
    playout.write(generation, pcm)
    if end:
        playout.end(generation)
    return generation


def drain(playout: Playout, frames: int) -> bytes:
    return b"".join(playout.take(n * 0.02) for n in range(frames))


def largest_step(pcm: bytes) -> int:
    return int(np.abs(np.diff(samples(pcm).astype(int))).max())


def test_silence_is_sent_while_there_is_nothing_to_say() -> None:
    assert Playout(RATE).take(0.0) == SILENCE


def test_frames_are_what_was_written_however_it_was_cut() -> None:
    pcm = np.random.default_rng(1).integers(-20000, 20000, 1600).astype("<i2").tobytes()
    playout = Playout(RATE)
    generation = playout.begin()
    for start in range(0, len(pcm), 77):
        assert playout.write(generation, pcm[start : start + 77])
    playout.end(generation)
    assert drain(playout, 10) == pcm


def test_events_tell_the_first_and_the_last_frame() -> None:
    playout = Playout(RATE)
    events: list[PlayoutEvent] = []
    playout.subscribe(events.append)
    generation = started(playout, loud(40))
    assert events == []
    playout.take(1.0)
    assert events == [UtteranceStarted(generation, 1.0)]
    playout.take(1.02)
    assert events[1:] == [UtteranceFinished(generation, 1.02)]
    assert not playout.speaking
    playout.take(1.04)
    assert len(events) == 2


def test_stale_generation_is_refused() -> None:
    playout = Playout(RATE)
    first = playout.begin()
    second = playout.begin()
    assert not playout.write(first, loud(20))
    assert playout.write(second, loud(20))
    playout.end(second)
    assert not playout.write(second, loud(20))


def test_pause_fades_out_and_resume_goes_on_where_it_stopped() -> None:
    ramp = np.arange(1, 1601, dtype="<i2").tobytes()
    playout = Playout(RATE)
    started(playout, ramp)
    first = playout.take(0.0)
    playout.pause()
    faded = playout.take(0.02)
    assert faded[FADE_BYTES:] == SILENCE[FADE_BYTES:]
    assert playout.take(0.04) == SILENCE
    assert playout.paused
    queued = playout.queued_ms
    playout.resume()
    rest = drain(playout, 10)
    assert first == ramp[:FRAME]
    # From the sample after the fade on, the first 5 ms ramped up again.
    again = ramp[FRAME + FADE_BYTES :]
    assert rest[FADE_BYTES : len(again) - FADE_BYTES] == again[FADE_BYTES:-FADE_BYTES]
    assert playout.sent_ms == 200 and queued == 175


def test_pause_and_resume_within_a_tick_change_nothing() -> None:
    playout = Playout(RATE)
    started(playout, loud(60))
    playout.take(0.0)
    playout.pause()
    playout.resume()
    assert drain(playout, 2) == loud(40)


def test_paused_utterance_does_not_finish() -> None:
    playout = Playout(RATE)
    events: list[PlayoutEvent] = []
    playout.subscribe(events.append)
    generation = started(playout, loud(25))
    playout.take(0.0)
    playout.pause()
    drain(playout, 5)
    assert playout.speaking
    playout.resume()
    playout.take(1.0)
    assert events[-1] == UtteranceFinished(generation, 1.0)


def test_pausing_with_nothing_to_say_does_not_silence_the_next_utterance() -> None:
    playout = Playout(RATE)
    playout.pause()
    playout.drop()
    started(playout, loud(20))
    assert playout.take(0.0) == loud(20)


def test_utterance_begun_during_a_pause_is_not_paused() -> None:
    playout = Playout(RATE)
    started(playout, loud(100))
    playout.take(0.0)
    playout.pause()
    playout.take(0.02)
    started(playout, loud(20, 500))
    assert not playout.paused
    assert playout.take(0.04) == loud(20, 500)


def test_drop_ends_in_a_fade_and_counts_what_was_never_sent() -> None:
    playout = Playout(RATE)
    started(playout, loud(100))
    playout.take(0.0)
    assert playout.drop() == 75
    assert playout.sent_ms == 25
    frame = playout.take(0.02)
    assert frame[FADE_BYTES:] == SILENCE[FADE_BYTES:]
    assert largest_step(loud(20) + frame) < 60
    assert playout.take(0.04) == SILENCE
    assert playout.sent_ms == 25


def test_faded_end_of_a_dropped_utterance_is_not_the_next_ones_start() -> None:
    playout = Playout(RATE)
    events: list[PlayoutEvent] = []
    started(playout, loud(100))
    playout.take(0.0)
    playout.subscribe(events.append)
    generation = playout.begin()
    playout.take(0.02)
    assert events == [] and playout.sent_ms == 0 and playout.underruns == 0
    playout.write(generation, loud(20))
    playout.take(0.04)
    assert events == [UtteranceStarted(generation, 0.04)]


def test_utterance_that_replaces_another_starts_in_its_fading_frame() -> None:
    playout = Playout(RATE)
    started(playout, loud(100))
    playout.take(0.0)
    started(playout, loud(40, 500))
    frame = playout.take(0.02)
    assert frame[FADE_BYTES:] == loud(15, 500)
    assert playout.sent_ms == 15


def test_drop_of_a_paused_utterance_is_silent() -> None:
    playout = Playout(RATE)
    started(playout, loud(100))
    playout.take(0.0)
    playout.pause()
    playout.take(0.02)
    assert playout.drop() == 75
    assert playout.take(0.04) == SILENCE


def test_underrun_is_counted_once_and_speech_fades_in_again() -> None:
    playout = Playout(RATE)
    generation = started(playout, loud(30), end=False)
    drain(playout, 4)
    assert playout.underruns == 1
    playout.write(generation, loud(40))
    frame = playout.take(1.0)
    assert samples(frame)[0] == 0 and samples(frame)[-1] == 1000
    playout.end(generation)
    assert playout.underruns == 1


def test_short_last_frame_ends_without_an_edge() -> None:
    playout = Playout(RATE)
    started(playout, loud(30))
    assert largest_step(drain(playout, 3)) < 60


def test_producer_that_ends_after_its_last_frame_was_sent_has_not_run_dry() -> None:
    playout = Playout(RATE)
    generation = started(playout, loud(30), end=False)
    drain(playout, 2)
    playout.end(generation)
    playout.take(1.0)
    assert playout.underruns == 0 and not playout.speaking


def test_overflow_is_refused_and_counted() -> None:
    playout = Playout(RATE, max_queued_ms=100)
    generation = playout.begin()
    assert playout.write(generation, loud(90))
    assert playout.write(generation, loud(20))
    assert playout.queued_ms == 90 and playout.overflow_ms == 20


def test_withheld_ticks_keep_the_tail_and_give_listeners_silence() -> None:
    heard: list[bytes] = []
    playout = Playout(RATE)
    playout.listen(lambda frame, now: heard.append(frame))
    started(playout, loud(60))
    playout.take(0.0)
    for n in range(3):
        assert playout.withhold(n * 0.02) == SILENCE
    assert playout.sent_ms == 20 and playout.queued_ms == 40 and playout.speaking
    frame = playout.take(1.0)
    assert samples(frame)[0] == 0 and samples(frame)[-1] == 1000
    assert heard[1:4] == [SILENCE] * 3 and len(heard) == 5


def test_heard_is_what_was_sent_less_the_far_buffer() -> None:
    playout = Playout(RATE)
    started(playout, loud(100))
    drain(playout, 3)
    playout.far_buffer_ms = 45
    assert playout.heard_ms == 15
    playout.far_buffer_ms = 80
    assert playout.heard_ms == 0


def test_unsubscribed_listener_hears_no_more() -> None:
    heard: list[bytes] = []
    playout = Playout(RATE)
    stop = playout.listen(lambda frame, now: heard.append(frame))
    playout.take(0.0)
    stop()
    stop()
    playout.take(0.02)
    assert len(heard) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 900), max_size=30), st.sampled_from([8000, 16000]))
def test_any_chunks_come_out_whole(sizes: list[int], rate: int) -> None:
    pcm = np.random.default_rng(2).integers(-30000, 30000, 15000).astype("<i2").tobytes()[: sum(sizes)]
    playout = Playout(rate)
    generation = playout.begin()
    start = 0
    for size in sizes:
        playout.write(generation, pcm[start : start + size])
        start += size
    playout.end(generation)
    frames = [playout.take(0.0) for _ in range(len(pcm) // frame_bytes(rate) + 2)]
    assert all(len(frame) == frame_bytes(rate) for frame in frames)
    whole = len(pcm) // frame_bytes(rate) * frame_bytes(rate)
    assert b"".join(frames)[:whole] == pcm[:whole]
    assert playout.sent_ms == pytest.approx(len(pcm) // 2 * 1000 / rate)


class AnyUse(RuleBasedStateMachine):
    """Whatever is called in whatever order: frames have their size, and the counts add up."""

    def __init__(self) -> None:
        super().__init__()
        self.playout = Playout(RATE)
        self.playout.keep(5)
        self.playout.far_frames = 2
        self.generation = 0
        self.written = 0
        self.dropped = 0.0
        self.events: list[PlayoutEvent] = []
        self.playout.subscribe(self.events.append)

    @rule()
    def begin(self) -> None:
        self.generation = self.playout.begin()
        self.written = 0

    @rule(size=st.integers(0, 1000))
    def write(self, size: int) -> None:
        if self.playout.write(self.generation, b"\x10" * size):
            self.written += size

    @rule()
    def write_stale(self) -> None:
        assert not self.playout.write(self.generation - 1, loud(20))

    @rule()
    def end(self) -> None:
        self.playout.end(self.generation)

    @rule()
    def pause(self) -> None:
        self.playout.pause()

    @rule()
    def resume(self) -> None:
        self.playout.resume()

    @rule()
    def drop(self) -> None:
        before = self.playout.sent_ms + self.playout.queued_ms
        dropped = self.playout.drop()
        assert self.playout.sent_ms + dropped == pytest.approx(before) or dropped == 0

    @rule()
    def take(self) -> None:
        assert len(self.playout.take(0.0)) == FRAME

    @precondition(lambda self: self.playout.paused)
    @rule()
    def take_paused(self) -> None:
        self.playout.take(0.0)
        assert self.playout.take(0.0) == SILENCE

    @rule(frames=st.integers(0, 6), since=st.integers(0, 3))
    def take_back(self, frames: int, since: int) -> None:
        before = self.playout.sent_ms + self.playout.queued_ms
        faded = self.playout.take_back(frames, since=since)
        assert len(faded) in (0, FRAME)
        if self.playout.speaking:
            assert self.playout.sent_ms + self.playout.queued_ms == pytest.approx(before)

    @rule(frames=st.integers(0, 6))
    def played_after_all(self, frames: int) -> None:
        self.playout.played_after_all(frames)

    @rule()
    def withhold(self) -> None:
        before = self.playout.sent_ms
        assert self.playout.withhold(0.0) == SILENCE
        assert self.playout.sent_ms == before

    @invariant()
    def no_more_is_sent_than_was_written(self) -> None:
        assert self.playout.sent_ms + self.playout.queued_ms <= self.written / 16 + 1e-9
        assert self.playout.heard_ms <= self.playout.sent_ms

    @invariant()
    def nothing_is_sent_or_heard_less_than_never(self) -> None:
        assert self.playout.sent_ms >= 0
        assert self.playout.heard_ms >= 0

    @invariant()
    def only_a_live_utterance_is_paused(self) -> None:
        assert self.playout.speaking or not self.playout.paused
        assert self.playout.speaking or self.playout.queued_ms == 0

    @invariant()
    def each_utterance_starts_and_finishes_at_most_once(self) -> None:
        keys = [(type(event), event.generation) for event in self.events]
        assert len(keys) == len(set(keys))


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_blend_decides_what_is_sent_and_heard_while_counts_stay_our_own() -> None:
    playout = Playout(RATE)
    heard: list[bytes] = []
    playout.listen(lambda pcm, now: heard.append(pcm))
    given: list[bytes] = []
    other = loud(20, 77)

    def blend(own: bytes, now: float) -> bytes:
        given.append(own)
        return other

    playout.blend = blend
    started(playout, loud(20))
    assert [playout.take(0.0), playout.take(0.02)] == [other, other] == heard
    assert given[1] == SILENCE != given[0]
    assert playout.sent_ms == 20


def test_a_blend_is_stepped_while_nothing_is_sent() -> None:
    playout = Playout(RATE)
    given: list[bytes] = []
    playout.blend = lambda own, now: given.append(own) or loud(20)
    assert playout.withhold(0.0) == SILENCE
    assert given == [SILENCE]
