"""Streams on the clock's phases: each is stepped soon after its packets, whatever the network does meanwhile."""

import random
from collections.abc import Callable

import pytest

from bridge.audio.clock import FEW, MediaClock
from bridge.audio.phase import LEEWAY_S, PhaseFinder
from bridge.rtp.jitter import MIN_DELAY_MS, JitterBuffer

LOOK_TICKS = 25
LEEWAY_MS = LEEWAY_S * 1000


class Stream:
    """A ticker whose packets come as `late_ms` has it, the first one `offset_ms` after the clock's origin."""

    def __init__(self, clock: MediaClock, offset_ms: float, late_ms: Callable[[int], float], *, seeks: bool) -> None:
        self.buffer = JitterBuffer(8000, 8000)
        self.delays: list[float] = []
        self.stepped: list[float] = []
        self._offset_s = offset_ms / 1000
        self._late_ms = late_ms
        self._coming: list[tuple[float, int]] = []
        self._sent = 0
        self._finder = PhaseFinder(lambda by_s: clock.shift(self, by_s), 0.0) if seeks else None
        clock.add(self, self._fail)

    def tick(self, now: float) -> None:
        self.stepped.append(now)
        while (left := self._offset_s + self._sent * 0.02) <= now:
            self._coming.append((left + self._late_ms(self._sent) / 1000, self._sent))
            self._sent += 1
        for arrival, n in sorted(packet for packet in self._coming if packet[0] <= now):
            self.buffer.push(n & 0xFFFF, n * 160, 7, bytes(320), bytes, arrival)
        self._coming = [packet for packet in self._coming if packet[0] > now]
        self.buffer.take(now)
        self.delays.append(self.buffer.delay_ms)
        if self._finder is not None and len(self.stepped) % LOOK_TICKS == 0:
            spare_ms = self.buffer.spare_ms
            self._finder.look(now, None if spare_ms is None else spare_ms / 1000, speaking=True)

    @property
    def gone(self) -> float:
        """Packets' worth of audio that was not heard."""
        return self.buffer.late + self.buffer.concealed_ms / 20

    @staticmethod
    def _fail(error: Exception) -> None:
        raise error


class Other:
    """One of many calls."""

    def tick(self, now: float) -> None: ...


def run(clock: MediaClock, time: list[float], seconds: float) -> None:
    until = time[0] + seconds
    due = clock.run(time[0])
    while due is not None and due <= until:
        time[0] = due
        due = clock.run(due)
    time[0] = until


def made(others: int = 0) -> tuple[MediaClock, list[float]]:
    time = [0.0]
    clock = MediaClock(time_now=lambda: time[0])
    for _ in range(others):
        clock.add(Other(), Stream._fail)
    return clock, time


@pytest.mark.parametrize("offset_ms", [0.5, 4.9, 5.1, 9.0, 12.0, 14.8, 19.9])
@pytest.mark.parametrize(("others", "apart_ms"), [(0, 10), (2 * FEW, 5)])
def test_audio_waits_a_phase_longer_than_it_must_at_most(others: int, apart_ms: int, offset_ms: float) -> None:
    clock, time = made(others)
    stream = Stream(clock, offset_ms, lambda n: 0.0, seeks=True)
    run(clock, time, 4.0)
    assert min(stream.delays[-50:]) >= MIN_DELAY_MS
    assert max(stream.delays[-50:]) <= MIN_DELAY_MS + apart_ms + LEEWAY_MS
    assert stream.gone == 0
    run(clock, time, 60.0)
    gaps = [round((after - before) * 1000) for before, after in zip(stream.stepped, stream.stepped[1:], strict=False)]
    assert sum(gap != 20 for gap in gaps) <= 1


def lan(rng: random.Random) -> float:
    return rng.expovariate(1.0) + (rng.uniform(5, 30) if rng.random() < 0.002 else 0)


def wifi(rng: random.Random) -> float:
    return rng.expovariate(0.3) + (rng.uniform(10, 60) if rng.random() < 0.01 else 0)


def wide(rng: random.Random) -> float:
    return rng.uniform(0, 30)


@pytest.mark.parametrize("network", [lan, wifi, wide])
@pytest.mark.parametrize("seed", [1, 2])
def test_moves_cost_no_audio_on_networks_with_jitter(network: Callable[[random.Random], float], seed: int) -> None:
    found = []
    for seeks in (False, True):
        clock, time = made(2 * FEW)
        rng = random.Random(seed)
        stream = Stream(clock, 13.0, [network(rng) for _ in range(6100)].__getitem__, seeks=seeks)
        run(clock, time, 120.0)
        found.append((stream.gone / 6000, sum(stream.delays[500:]) / len(stream.delays[500:])))
    (gone, delay), (gone_moved, delay_moved) = found
    assert gone_moved <= gone + 0.001
    # Where bursts come every other second a step that fits saves cuts, not delay.
    assert delay_moved <= delay + 4
