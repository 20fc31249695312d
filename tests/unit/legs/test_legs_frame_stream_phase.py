"""A stream's two ways on the clock: each is stepped when its frames wait least, and nothing is left out for it."""

import itertools

import numpy as np
import pytest

from bridge.audio.clock import MediaClock
from bridge.audio.frames import frame_bytes
from bridge.legs.frame_stream import MIN_DELAY_MS, FrameStream
from bridge.rtp.format import RtpLimits

RATE = 16000
SAMPLES = frame_bytes(RATE) // 2
LOW_S = 0.003
"""How long a frame is to wait at the far side at least."""
SPACING_S = 0.01
"""Of the phases that few sessions are spread over."""


def numbered(number: int) -> bytes:
    return np.full(SAMPLES, 500 + number, "<i2").tobytes()


class Other:
    """One of many streams."""

    def tick(self, now: float) -> None: ...


class Far:
    """A far side that sends a frame each 20 ms, and takes one from its queue each 20 ms, at times of its own; the
    clock's time is ours."""

    def __init__(self, comes_s: float, takes_s: float, others: int = 0) -> None:
        """`others`: streams that are on the clock already."""
        self.now = 100.0
        self.clock = MediaClock(time_now=lambda: self.now)
        for _ in range(others):
            self.clock.add(Other(), self._fail)
        self.stream = FrameStream(
            self.clock, sample_rate=RATE, codec="slin16", send=lambda pcm: self._take(), limits=RtpLimits()
        )
        self.stream.far_spare = lambda: None if self.wait_s is None else self.wait_s - LOW_S
        self.stream.on_shift = self._on_shift
        self.stream.listen(lambda pcm, now: self.heard.append((pcm, self.now)))
        self.heard: list[tuple[bytes, float]] = []
        self.came: dict[bytes, float] = {}
        self.wait_s: float | None = None
        """Of the last frame sent."""
        self.holes = 0
        self.late_s = 0.0
        """Of the next frame that comes."""
        self._next_comes = 100.0 + comes_s
        self._next_takes = 100.0 + takes_s
        self._queue = 0
        self._number = 0
        self._in_flight: list[tuple[float, bytes]] = []
        self.stream.start()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.0005
            if self.now >= self._next_comes:
                self._in_flight.append((self._next_comes + self.late_s, numbered(self._number)))
                self.late_s = 0.0
                self._number += 1
                self._next_comes += 0.02
            while self._in_flight and self._in_flight[0][0] <= self.now:
                arrival, frame = self._in_flight.pop(0)
                self.came[frame] = arrival
                self.stream.push(frame, arrival)
            while self.now >= self._next_takes:
                self.holes += not self._queue and self.wait_s is not None
                self._queue = max(0, self._queue - 1)
                self._next_takes += 0.02
            self.clock.run(self.now)

    def _take(self) -> None:
        self.wait_s = self._next_takes + self._queue * 0.02 - self.stream.sending_at
        self._queue += 1

    def _on_shift(self, earlier_s: float) -> None:
        # Told when the first frame goes out at its new time, not when that is decided.
        assert (self.stream.sending_at - earlier_s - self.now + 0.001) % 0.02 < 0.002
        assert self.wait_s is not None
        self.wait_s += earlier_s

    @staticmethod
    def _fail(error: Exception) -> None:
        raise error

    def delays_ms(self, since: float) -> list[float]:
        """From when a frame came to when it was heard."""
        return [(at - self.came[pcm]) * 1000 for pcm, at in self.heard if at > since and pcm in self.came]

    def whole(self, since: float) -> bool:
        """Each frame was heard, once, in its turn, and nothing else was."""
        heard = [pcm for pcm, at in self.heard if at > since]
        first = list(self.came).index(heard[0])
        return heard == list(self.came)[first : first + len(heard)]


@pytest.mark.parametrize("comes_ms", [0.2, 3, 7, 11, 16, 19.8])
@pytest.mark.parametrize("takes_ms", [0.7, 9, 14])
def test_each_ways_frames_wait_little_whenever_the_far_sides_come_and_go(comes_ms: float, takes_ms: float) -> None:
    far = Far(comes_ms / 1000, takes_ms / 1000)
    far.run(2)
    settled, holes = far.now, far.holes
    far.run(3)
    assert far.whole(settled)
    assert max(far.delays_ms(settled)) <= MIN_DELAY_MS + SPACING_S * 1000 + 1
    assert far.wait_s is not None and LOW_S - 0.001 <= far.wait_s <= LOW_S + SPACING_S + 0.001
    assert far.holes == holes
    assert far.stream.quality.packets_late == 0


def test_one_frame_that_came_late_costs_its_delay_for_a_moment_and_no_audio() -> None:
    far = Far(0.007, 0.004)
    far.run(3)
    before = far.now
    usual_ms = max(far.delays_ms(before - 1))
    far.late_s = 0.019
    far.run(0.2)
    assert max(far.delays_ms(before)) > usual_ms + 10
    far.run(3)
    assert max(far.delays_ms(far.now - 1)) <= usual_ms + 0.6
    heard = {pcm for pcm, _ in far.heard}
    missing = [frame for frame, came in far.came.items() if frame not in heard and 101 < came < far.now - 0.1]
    # The late one alone: its beginning is blended with what was invented in its place.
    assert len(missing) == 1


def test_a_queue_that_a_hole_made_longer_is_short_again_though_the_agent_talks_on() -> None:
    far = Far(0.007, 0.004)
    far.run(3)
    usual_s = far.wait_s
    assert usual_s is not None
    far._queue += 1
    far.run(3)
    assert far.wait_s == pytest.approx(usual_s, abs=0.001)
    assert far.holes <= 1


def test_a_far_side_whose_clock_is_faster_or_slower_is_followed() -> None:
    far = Far(0.007, 0.004)
    far.run(2)
    begun = far.now
    for _ in range(600):
        # 1000 ppm: far more than crystals have.
        far._next_comes -= 0.0001
        far._next_takes += 0.0001
        far.run(0.1)
    assert max(far.delays_ms(begun)) <= 45
    assert far.wait_s is not None and far.wait_s <= LOW_S + SPACING_S + 0.002
    assert far.stream.quality.packets_late == 0
    assert far.holes <= 3


def test_frames_that_may_go_later_never_go_too_late_where_the_next_phase_has_its_fill() -> None:
    # The first forty share two of the phases, the others are fewer.
    far = Far(0.007, 0.004, others=60)
    far.run(2)
    holes = far.holes
    for _ in range(600):
        far._next_takes += 0.0001
        far.run(0.1)
    assert far.holes == holes
    assert far.wait_s is not None and far.wait_s <= LOW_S + SPACING_S + 0.002


def test_two_streams_that_are_joined_pass_on_each_frame_though_the_far_sides_clocks_differ() -> None:
    far = Far(0.007, 0.004)
    far.run(2)
    # Another leg takes what comes at steps of its own, and gives what is sent.
    far.stream.playout.blend = lambda frame, now: frame
    far.run(2)
    joined = far.now
    sent = far.stream.quality.packets_sent
    for _ in range(300):
        far._next_comes -= 0.00005
        far._next_takes -= 0.00005
        far.run(0.1)
    steps = [at for _, at in far.heard if at > joined]
    assert {round((after - before) * 1000) for before, after in itertools.pairwise(steps)} == {20}
    assert far.stream.quality.packets_sent - sent == pytest.approx(len(steps), abs=1)
    assert max(far.delays_ms(joined)) <= 45
    assert far.stream.quality.packets_late == 0


@pytest.mark.parametrize("comes_ms", [0.2, 5, 10, 15])
def test_a_joined_stream_that_was_answered_late_finds_its_phase_all_the_same(comes_ms: float) -> None:
    far = Far(10 + comes_ms / 1000, 0.004)
    far.stream.playout.blend = lambda frame, now: frame
    far.run(10)
    far.stream.await_media()
    far.run(2)
    settled = far.now
    far.run(2)
    assert max(far.delays_ms(settled)) <= MIN_DELAY_MS + SPACING_S * 1000 + 1
