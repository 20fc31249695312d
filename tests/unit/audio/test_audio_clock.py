"""The media clock: an absolute grid, lateness counted, one session's crash its own."""

import asyncio
import contextvars
import itertools
from dataclasses import dataclass, field

import pytest

from bridge.audio.clock import CROWD, FEW, MAX_CATCH_UP_S, PHASES, MediaClock


class FakeTime:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Leg:
    ticks: list[float] = field(default_factory=list)
    crashes: list[Exception] = field(default_factory=list)
    fails_at: int = -1

    def tick(self, now: float) -> None:
        if len(self.ticks) == self.fails_at:
            raise RuntimeError("broken")
        self.ticks.append(now)

    def put_on(self, clock: MediaClock) -> "Leg":
        clock.add(self, self.crashes.append)
        return self


def phase(leg: Leg) -> int:
    """On which of the clock's phases its last step was."""
    return round((leg.ticks[-1] - 50.0) / 0.005) % PHASES


def gaps_ms(leg: Leg) -> list[int]:
    return [round((after - before) * 1000) for before, after in itertools.pairwise(leg.ticks)]


def run(clock: MediaClock, time: FakeTime, seconds: float) -> None:
    """Wake the clock exactly when it asks for it."""
    end = time.now + seconds
    due = clock.run(time.now)
    while due is not None and due <= end:
        time.now = max(time.now, due)
        due = clock.run(time.now)
    time.now = end


def test_each_leg_is_stepped_every_20_ms_on_one_grid() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(FEW + PHASES)]
    run(clock, time, 1.0)
    for leg in legs:
        assert len(leg.ticks) == 50
        assert gaps_ms(leg) == [20] * 49
    assert {phase(leg) for leg in legs} == set(range(PHASES))


def test_few_legs_share_every_second_phase() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(FEW)]
    run(clock, time, 0.1)
    assert sorted(phase(leg) for leg in legs) == [0] * (FEW // 2) + [2] * (FEW // 2)


def test_a_single_leg_wakes_the_clock_once_in_20_ms() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    Leg().put_on(clock)
    wakes = 0
    due = clock.run(time.now)
    while due is not None and due <= 51.0:
        time.now = due
        due = clock.run(time.now)
        wakes += 1
    assert wakes == 50


def test_late_steps_are_caught_up_at_their_own_times_and_counted() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)
    run(clock, time, 0.1)
    time.now += 0.2
    clock.run(time.now)
    run(clock, time, 0.1)
    assert len(leg.ticks) == 20
    assert leg.ticks == pytest.approx([leg.ticks[0] + n * 0.02 for n in range(20)])
    assert clock.stats.late_steps >= 9
    assert clock.stats.skipped_steps == 0
    assert clock.stats.lateness_max_ms > 180
    assert clock.lateness_p99_ms() > 180


def test_clock_that_is_far_too_late_skips_ahead_on_its_grid() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)
    run(clock, time, 0.1)
    first = leg.ticks[0]
    leg.ticks.clear()
    time.now += 10
    clock.run(time.now)
    assert len(leg.ticks) <= MAX_CATCH_UP_S / 0.02 + 1
    assert leg.ticks[-1] > time.now - 0.02
    assert (leg.ticks[0] - first) / 0.02 == pytest.approx(round((leg.ticks[0] - first) / 0.02))
    assert clock.stats.skipped_steps > 0


def test_leg_that_raises_ends_alone() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(8)]
    legs[3].fails_at = 5
    run(clock, time, 1.0)
    assert [len(leg.ticks) for leg in legs] == [50, 50, 50, 5, 50, 50, 50, 50]
    assert [str(error) for error in legs[3].crashes] == ["broken"]
    assert clock.stats.crashes == 1 and clock.stats.tickers == 7


def test_crash_handler_that_raises_harms_nobody() -> None:
    time = FakeTime()
    clock = MediaClock(phases=1, time_now=time)

    def fail(error: Exception) -> None:
        raise ValueError("worse")

    clock.add(Leg(fails_at=0), fail)
    leg = Leg().put_on(clock)
    run(clock, time, 0.2)
    assert len(leg.ticks) == 10


def test_leg_removed_within_a_step_is_not_stepped_again() -> None:
    time = FakeTime()
    clock = MediaClock(phases=1, time_now=time)
    second = Leg()

    class Ender:
        def tick(self, now: float) -> None:
            clock.remove(second)
            clock.remove(second)

    clock.add(Ender(), lambda error: None)
    second.put_on(clock)
    run(clock, time, 0.1)
    assert second.ticks == []


def test_leg_added_within_a_step_is_stepped_from_the_next_on() -> None:
    time = FakeTime()
    clock = MediaClock(phases=1, time_now=time)
    added = Leg()

    class Starter:
        def tick(self, now: float) -> None:
            if clock.stats.tickers == 1:
                added.put_on(clock)

    clock.add(Starter(), lambda error: None)
    run(clock, time, 0.1)
    assert len(added.ticks) == 4


def test_leg_is_added_once_only() -> None:
    clock = MediaClock(time_now=FakeTime())
    leg = Leg().put_on(clock)
    with pytest.raises(ValueError, match="already"):
        leg.put_on(clock)


def test_hooks_run_around_each_step_and_survive_their_own_failures() -> None:
    time = FakeTime()
    clock = MediaClock(phases=1, time_now=time)
    order: list[str] = []

    class Noter:
        def tick(self, now: float) -> None:
            order.append("tick")

    def broken(now: float) -> None:
        raise RuntimeError("broken hook")

    clock.add(Noter(), lambda error: None)
    clock.before_tick(lambda now: order.append("receive"))
    stop = clock.after_tick(lambda now: order.append("batch"))
    clock.after_tick(broken)
    run(clock, time, 0.04)
    assert order == ["receive", "tick", "batch"] * 2
    assert clock.stats.hook_failures == 2
    stop()
    run(clock, time, 0.02)
    assert order[6:] == ["receive", "tick"]


def test_time_without_legs_is_not_lateness() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)
    run(clock, time, 0.1)
    clock.remove(leg)
    assert clock.run(time.now) is None
    time.now += 100
    again = Leg().put_on(clock)
    run(clock, time, 0.1)
    assert len(again.ticks) == 5
    assert clock.stats.skipped_steps == 0 and clock.stats.late_steps == 0


def test_readings_are_numbers_by_name() -> None:
    clock = MediaClock(time_now=FakeTime())
    readings = clock.readings()
    assert readings["clock_sessions"] == 0.0 and readings["clock_lateness_p99_ms"] == 0.0


async def test_clock_runs_on_the_event_loop_and_stops() -> None:
    clock = MediaClock()
    done = asyncio.Event()

    class Counter(Leg):
        def tick(self, now: float) -> None:
            super().tick(now)
            if len(self.ticks) == 5:
                done.set()

    leg = Counter()
    clock.start()
    leg.put_on(clock)
    await asyncio.wait_for(done.wait(), 30)
    await clock.aclose()
    assert leg.ticks == pytest.approx([leg.ticks[0] + n * 0.02 for n in range(len(leg.ticks))])
    count = len(leg.ticks)
    await asyncio.sleep(0.05)
    assert len(leg.ticks) == count


def test_lateness_is_forgotten_after_ten_seconds_with_and_without_legs() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)
    for _ in range(20):
        time.now += 0.25
        clock.run(time.now)
    assert clock.lateness_p99_ms() > 100
    clock.remove(leg)
    time.now += 10.1
    assert clock.lateness_p99_ms() == 0.0
    Leg().put_on(clock)
    run(clock, time, 1.0)
    assert clock.lateness_p99_ms() < 1.0


def test_load_is_the_time_spent_whatever_phases_come_into_use_and_none_after_ten_idle_seconds() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)

    def work(now: float) -> None:
        time.now += 0.001

    forget = clock.before_tick(work)
    run(clock, time, 60.0)
    assert clock.stats.load == pytest.approx(0.05, rel=0.1)
    other = Leg().put_on(clock)
    assert clock.stats.load == pytest.approx(0.05, rel=0.1)
    forget()
    clock.remove(leg)
    clock.remove(other)
    time.now += 10.1
    assert clock.stats.load == 0.0


# -- a phase that suits -------------------------------------------------------------------------------------


def busy(clock: MediaClock) -> list[Leg]:
    """So many legs that all phases are in use, evenly."""
    return [Leg().put_on(clock) for _ in range(2 * FEW)]


@pytest.mark.parametrize("steps", [3, 2, 1, -1, -2, -3])
@pytest.mark.parametrize("wait_s", [0.1, 0.105, 0.11, 0.115])
def test_leg_is_moved_to_another_phase_by_one_gap(steps: int, wait_s: float) -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = busy(clock)
    run(clock, time, wait_s)
    before = [phase(leg) for leg in legs]
    assert clock.shift(legs[5], steps * 0.005) == pytest.approx(steps * 0.005)
    run(clock, time, 0.2)
    assert phase(legs[5]) == (before[5] - steps) % PHASES
    assert sorted(set(gaps_ms(legs[5]))) == sorted({20, 20 - 5 * steps})
    assert gaps_ms(legs[5]).count(20 - 5 * steps) == 1
    for leg, was in zip(legs[:5] + legs[6:], before[:5] + before[6:], strict=True):
        assert phase(leg) == was and set(gaps_ms(leg)) == {20}


@pytest.mark.parametrize("at", range(2 * PHASES))
def test_move_asked_for_from_within_any_step_is_one_gap_too(at: int) -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = busy(clock)
    calls = itertools.count(at)

    def ask(now: float) -> None:
        call = next(calls)
        if call % 80 == 79:
            clock.shift(legs[0], [0.01, -0.005, 0.015][call // 80])

    # Eight calls in 20 ms: before and after each phase's step.
    clock.before_tick(ask)
    clock.after_tick(ask)
    run(clock, time, 0.7)
    assert [gap for gap in gaps_ms(legs[0]) if gap != 20] == [10, 25, 5]


def test_earlier_by_no_more_and_later_by_no_less_than_asked() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = busy(clock)
    run(clock, time, 0.1)
    assert clock.shift(legs[0], 0.0049) == 0.0
    assert clock.shift(legs[0], 0.0) == 0.0
    assert clock.shift(legs[0], 0.0149) == pytest.approx(0.01)
    assert clock.shift(legs[1], 0.1) == pytest.approx(0.015)
    assert clock.shift(legs[2], -0.0051) == pytest.approx(-0.01)
    assert clock.shift(legs[3], -0.0049, no_more=True) == 0.0
    assert clock.shift(legs[3], -0.0099, no_more=True) == pytest.approx(-0.005)
    assert clock.shift(legs[4], -0.1, no_more=True) == pytest.approx(-0.015)


def test_few_legs_are_moved_between_the_phases_that_they_use() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    leg = Leg().put_on(clock)
    run(clock, time, 0.1)
    assert clock.shift(leg, 0.005) == 0.0
    assert clock.shift(leg, 0.015) == pytest.approx(0.01)
    run(clock, time, 0.1)
    assert clock.shift(leg, -0.002) == pytest.approx(-0.01)
    run(clock, time, 0.1)
    assert sorted(set(gaps_ms(leg))) == [10, 20, 30]


def test_phases_stay_even_though_all_want_the_same_one() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(200)]
    run(clock, time, 0.1)
    for _ in range(5):
        for leg in legs:
            clock.shift(leg, phase(leg) * 0.005)
        run(clock, time, 0.1)
    sizes = [sum(phase(leg) == n for leg in legs) for n in range(PHASES)]
    assert sizes[0] > 50 and max(sizes) <= 63 and min(sizes) > 0
    assert [len(set(leg.ticks)) for leg in legs] == [len(leg.ticks) for leg in legs]


def test_a_phase_takes_a_dozen_legs_whatever_the_others_have() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(CROWD + 2)]
    run(clock, time, 0.1)
    for leg in legs:
        clock.shift(leg, phase(leg) * 0.005)
    run(clock, time, 0.1)
    assert sum(phase(leg) == 0 for leg in legs) == CROWD


def test_leg_removed_on_its_way_is_gone_and_leaves_its_place() -> None:
    time = FakeTime()
    clock = MediaClock(time_now=time)
    legs = [Leg().put_on(clock) for _ in range(2)]
    run(clock, time, 0.1)
    for leg in legs:
        assert clock.shift(leg, 0.01)
        assert clock.shift(leg, 0.01) == 0.0
        clock.remove(leg)
    assert clock.run(time.now) is None
    count = [len(leg.ticks) for leg in legs]
    again = [Leg().put_on(clock) for _ in range(4)]
    run(clock, time, 0.1)
    assert [len(leg.ticks) for leg in legs] == count
    assert sorted(phase(leg) for leg in again) == [0, 0, 2, 2]
    assert clock.shift(legs[0], 0.01) == 0.0


async def test_no_step_runs_with_what_is_known_of_the_call_that_armed_the_clock() -> None:
    mark = contextvars.ContextVar("mark", default="nobody's")
    seen: list[str] = []

    class Marked:
        def tick(self, now: float) -> None:
            seen.append(mark.get())

    clock = MediaClock()
    clock.start()

    async def call() -> None:
        mark.set("a call's")
        clock.add(Marked(), lambda error: None)

    await asyncio.create_task(call())
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.sleep(0.005)
    clock.stop()
    assert set(seen) == {"nobody's"}
