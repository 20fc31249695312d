"""What a stream without timestamps lost on its way is told from what is late."""

import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.clock import MediaClock
from bridge.audio.frames import frame_bytes
from bridge.legs.frame_stream import FrameStream
from bridge.rtp.format import RtpLimits

RATE = 8000
FRAME = frame_bytes(RATE)
STEP_S = 0.0025
SETTLED_S = 5.0


def on_time(_at: float) -> float:
    return 0.0


class Path:
    """A far side that sends a frame each 20 ms, and what becomes of them on their way to a stream."""

    def __init__(self, seconds: float) -> None:
        self.frames = range(int(seconds * 50))
        self.now = 100.0
        self.clock = MediaClock(time_now=lambda: self.now)
        self.stream = FrameStream(
            self.clock, sample_rate=RATE, codec="slin", send=lambda pcm: None, limits=RtpLimits()
        )
        # As a WebSocket's: the step is moved to where frames wait least.
        self.stream.far_spare = lambda: None
        self.heard: list[bytes] = []
        self.stream.listen(lambda frame, now: self.heard.append(frame))
        self.buffer_ms: list[float] = []
        self.sent: list[int] = []
        self.stream.start()

    def run(
        self,
        *,
        lost: Iterable[int] = (),
        jitter_s: float = 0.0,
        late_s: Callable[[float], float] = on_time,
        seed: int = 1,
        ppm: float = 0.0,
    ) -> None:
        """`late_s` tells by how much more what was sent at some time is late; nothing overtakes."""
        chance, gone, newest = random.Random(seed), set(lost), 0.0
        coming = []
        for n in self.frames:
            at = n * 0.02
            arrival = 100.003 + at * (1 + ppm * 1e-6) + chance.uniform(0, jitter_s) + late_s(at)
            if n not in gone:
                newest = max(newest + 1e-5, arrival)
                coming.append((newest, n))
        self.sent = [n for _, n in coming]
        coming.reverse()
        while coming:
            self.now += STEP_S
            while coming and coming[-1][0] <= self.now:
                arrival, n = coming.pop()
                self.stream.push(frame_of(n), arrival)
            self.clock.run(self.now)
            if self.now > 100 + SETTLED_S:
                self.buffer_ms.append(self.stream.quality.buffer_ms)

    @property
    def found(self) -> int:
        return self.stream._holes.found

    @property
    def mean_buffer_ms(self) -> float:
        return sum(self.buffer_ms) / len(self.buffer_ms)

    def cut(self) -> list[int]:
        """Frames that came and of which less than half was heard."""
        values, counts = np.unique(np.frombuffer(b"".join(self.heard), "<i2"), return_counts=True)
        heard = dict(zip(values.tolist(), counts.tolist(), strict=True))
        # The last are not yet played.
        return [n for n in self.sent[:-20] if heard.get(value_of(n), 0) < FRAME // 4]


def value_of(n: int) -> int:
    return 1000 + 7 * n


def frame_of(n: int) -> bytes:
    """Tells which it is."""
    return np.full(FRAME // 2, value_of(n), "<i2").tobytes()


def holes(frames: range, percent: float, longest: int, seed: int = 1) -> list[int]:
    """Up to four in a row, so that no pause is seen in them."""
    chance = random.Random(seed)
    lost: list[int] = []
    n = 10
    while n < len(frames):
        if chance.random() < percent / 100 / ((1 + longest) / 2):
            lost += range(n, n + chance.randint(1, longest))
            # Two together would be a longer one.
            n = lost[-1] + 1
        n += 1
    return lost


def test_after_a_hole_nothing_waits_longer_than_before() -> None:
    whole, holed = Path(8), Path(8)
    whole.run()
    holed.run(lost=[275, 276])
    assert holed.found == 2
    assert holed.buffer_ms[-1] == pytest.approx(whole.buffer_ms[-1], abs=1)
    assert max(holed.buffer_ms) > whole.buffer_ms[-1] + 30
    assert sum(ms > whole.buffer_ms[-1] + 1 for ms in holed.buffer_ms) * STEP_S < 0.25
    assert holed.stream.quality.concealed_ms == 40
    assert holed.stream.quality.jitter_ms < 1
    assert holed.cut() == []


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.sampled_from([0, 5, 10, 20, 40]), st.integers(0, 1000))
def test_holes_make_the_buffer_little_longer_and_no_more_is_invented_than_was_lost(
    percent: int, longest: int, jitter_ms: int, seed: int
) -> None:
    whole, holed = Path(20), Path(20)
    whole.run(jitter_s=jitter_ms / 1000, seed=seed)
    lost = holes(holed.frames, percent, longest, seed)
    holed.run(lost=lost, jitter_s=jitter_ms / 1000, seed=seed)
    # One frame, and what of the last holes is not yet found.
    assert holed.mean_buffer_ms < whole.mean_buffer_ms + 20 + 2 * percent
    assert holed.stream.quality.concealed_ms <= 20 * len(lost) * 1.1 + 120
    assert holed.stream.quality.packets_late == 0
    assert holed.found <= len(lost) + 2
    assert len(holed.cut()) <= 0.01 * len(holed.sent)


@pytest.mark.parametrize("jitter_ms", [0, 10, 40])
def test_a_clock_that_is_slow_is_no_hole(jitter_ms: int) -> None:
    path = Path(60)
    path.run(jitter_s=jitter_ms / 1000, ppm=300)
    assert path.found == 0


@pytest.mark.parametrize("stall_ms", [25, 45, 75])
@pytest.mark.parametrize("every_s", [0.31, 2.03])
def test_what_stalls_and_then_comes_in_a_burst_is_no_hole(stall_ms: int, every_s: float) -> None:
    path, without = Path(30), Path(30)
    without.stream._look_for_hole = lambda timestamp, arrival: 0
    for one in (path, without):
        one.run(late_s=lambda at: max(0.0, stall_ms / 1000 - at % every_s))
    assert path.found == 0
    assert path.heard == without.heard


@pytest.mark.parametrize("stall_ms", [90, 150, 300])
def test_a_stall_that_is_as_long_as_a_pause_adds_nothing_for_good(stall_ms: int) -> None:
    path = Path(30)
    path.run(late_s=lambda at: max(0.0, stall_ms / 1000 - at % 14.03) if at > 1 else 0.0)
    assert path.found == 0
    # What it made the delay longer by is made up for a pitch period at a time: nothing is skipped.
    assert path.stream.quality.packets_late == 0
    assert path.buffer_ms[int((14 - SETTLED_S) / STEP_S)] < 30
    assert path.stream.quality.buffer_ms < 30


def test_pauses_are_no_holes() -> None:
    path = Path(40)
    silent = [n for n in path.frames if n % 130 > 60 + n // 130 * 3]
    path.run(lost=silent, jitter_s=0.008)
    # Only as many of each as a stall might hold back.
    assert path.found == 25 * (path.sent[-1] // 130)
    assert path.stream.quality.buffer_ms < 60
    assert path.cut() == []


def test_a_path_that_is_longer_for_a_while_is_taken_for_holes_and_then_not() -> None:
    path = Path(30)
    path.run(jitter_s=0.004, late_s=lambda at: 0.03 if 10 < at < 10.5 else 0.0)
    assert path.found == 0
    # It is remembered how long that lasted.
    assert path.stream.quality.buffer_ms < 40
    assert path.cut() == []


def test_after_what_was_no_hole_the_next_one_like_it_is_waited_for() -> None:
    path = Path(30)
    found = []
    path.stream.listen(lambda frame, now: found.append(path.found))
    path.run(late_s=lambda at: 0.03 if 10 < at < 10.3 or 13 < at < 13.3 else 0.0)
    assert max(found[: 12 * 50]) == 1
    assert max(found[13 * 50 :]) == 0


@pytest.mark.parametrize(("longer_ms", "frames"), [(20, 1), (40, 2), (60, 3)])
def test_a_path_that_became_longer_for_good_is_as_good_as_a_hole(longer_ms: int, frames: int) -> None:
    path = Path(12)
    path.run(jitter_s=0.002, late_s=lambda at: longer_ms / 1000 if at > 6 else 0.0)
    assert path.found == frames
    assert path.stream.quality.buffer_ms < 15
    assert path.cut() == []


def test_holes_are_found_in_messages_of_another_length() -> None:
    path = Path(20)
    for n in range(1000):
        if n % 10:
            path.stream.push(frame_of(n)[: FRAME // 2] * 3, 100.003 + n * 0.03)
        while path.now < 100 + n * 0.03 + 0.03:
            path.now += STEP_S
            path.clock.run(path.now)
    assert path.found * 20 == pytest.approx(100 * 30, abs=60)
    assert path.stream.quality.buffer_ms < 70
