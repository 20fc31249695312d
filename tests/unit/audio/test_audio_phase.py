"""Finding the clock's phase that suits a stream: soon at its start, seldom later, and never for nothing."""

import pytest

from bridge.audio.phase import DRIFT, FIRST_S, LEAD_S, LEEWAY_S, PATIENCE_S, REST_S, STEADY_S, PhaseFinder

LOOK_S = 0.5
PHASE_S = 0.005


class Stream:
    """A stream whose packets wait `spare_s` too long for their step; moves change that."""

    def __init__(self, spare_s: float | None, *, drift: float = 0.0, refuses: bool = False) -> None:
        self.now = 100.0
        self.spare_s = spare_s
        self.drift = drift
        self.refuses = refuses
        self.speaking = False
        self.joined = False
        self.moves: list[tuple[float, float]] = []
        """When, and earlier by how much."""
        self.finder = PhaseFinder(self.shift, self.now)

    def shift(self, by_s: float) -> float:
        phases = int(by_s / PHASE_S + 0.01) if by_s > 0 else -int(0.99 - by_s / PHASE_S)
        phases = max(-3, min(3, phases))
        self.moves.append((self.now - 100.0, phases * PHASE_S))
        if self.refuses:
            return 0.0
        assert self.spare_s is not None
        self.spare_s -= phases * PHASE_S
        return phases * PHASE_S

    def run(self, seconds: float) -> "Stream":
        for _ in range(round(seconds / LOOK_S)):
            self.finder.look(
                self.now, self.spare_s, speaking=self.speaking, joined=self.joined, drift_ppm=self.drift * 1e6
            )
            self.now += LOOK_S
            if self.spare_s is not None:
                self.spare_s += self.drift * LOOK_S
        return self


@pytest.mark.parametrize("spare_s", [0.0066, 0.009, 0.013, 0.0199])
def test_stream_that_waits_needlessly_is_moved_once_at_its_start(spare_s: float) -> None:
    stream = Stream(spare_s).run(120)
    assert len(stream.moves) == 1
    assert stream.moves[0][0] <= FIRST_S
    assert stream.spare_s is not None and LEEWAY_S <= stream.spare_s < PHASE_S + LEEWAY_S


@pytest.mark.parametrize("spare_s", [-0.001, 0.0, 0.002, 0.006])
def test_stream_that_waits_less_than_a_phase_too_long_stays(spare_s: float) -> None:
    assert Stream(spare_s).run(120).moves == []


def test_packets_that_all_come_too_late_for_their_step_move_it_later() -> None:
    stream = Stream(-0.003).run(60)
    assert len(stream.moves) == 1
    assert stream.spare_s is not None and 0 < stream.spare_s <= PHASE_S


def test_one_long_wait_moves_nothing() -> None:
    stream = Stream(0.003)
    for n in range(200):
        stream.spare_s = 0.018 if n % 5 else 0.003
        stream.run(LOOK_S)
    assert stream.moves == []


def test_nothing_is_judged_while_nothing_plays() -> None:
    stream = Stream(None).run(20)
    stream.spare_s = 0.012
    stream.run(LOOK_S)
    assert stream.moves == []
    assert len(stream.run(LOOK_S).moves) == 1


@pytest.mark.parametrize("drift", [DRIFT / 2, -DRIFT / 2])
def test_clock_that_drifts_is_followed_phase_by_phase(drift: float) -> None:
    stream = Stream(0.003, drift=drift)
    spares = []
    for _ in range(3600):
        spares.append(stream.run(LOOK_S).spare_s or 0.0)
    assert max(spares) < 0.0085 and min(spares) > -0.004
    assert len(stream.moves) == pytest.approx(1800 * DRIFT / 2 / PHASE_S, abs=2)
    assert {by_s for _, by_s in stream.moves} == {PHASE_S if drift > 0 else -PHASE_S}


def test_what_is_sent_never_gets_far_ahead_of_time() -> None:
    """As on a path whose jitter makes the buffer wait longer again and again."""
    stream = Stream(0.018)
    for _ in range(3600):
        stream.run(LOOK_S)
        stream.spare_s = max(stream.spare_s or 0.0, 0.012)
    moved_s = sum(by_s for at, by_s in stream.moves[1:])
    assert moved_s <= LEAD_S
    rests = [after[0] - before[0] for before, after in zip(stream.moves, stream.moves[1:], strict=False)]
    assert rests and min(rests) >= REST_S


def test_what_is_sent_gets_no_further_ahead_of_a_far_end_whose_clock_is_slow() -> None:
    """Where it says nothing the buffer waits longer, which is better than packets that come too late."""
    stream = Stream(0.018, drift=-3 * DRIFT)
    for _ in range(3600):
        stream.run(LOOK_S)
        if (stream.spare_s or 0.0) < -0.001:
            stream.spare_s = 0.019
    assert sum(by_s for at, by_s in stream.moves[1:]) <= LEAD_S


def test_move_waits_for_the_end_of_what_is_said_but_not_forever() -> None:
    stream = Stream(0.003).run(2)
    stream.spare_s, stream.speaking = 0.009, True
    stream.run(2 * STEADY_S)
    assert stream.moves == []
    stream.speaking = False
    stream.run(LOOK_S)
    assert len(stream.moves) == 1
    stream = Stream(0.003).run(2)
    stream.spare_s, stream.speaking = 0.009, True
    stream.run(2 * STEADY_S + PATIENCE_S + 1)
    assert len(stream.moves) == 1


def test_stream_that_starts_speaking_is_moved_all_the_same() -> None:
    stream = Stream(0.012)
    stream.speaking = True
    assert len(stream.run(FIRST_S + 2 * LOOK_S).moves) == 1


def test_full_phases_are_asked_for_again_later() -> None:
    stream = Stream(0.012, refuses=True).run(30)
    assert 4 <= len(stream.moves) <= 6
    stream.refuses = False
    stream.run(STEADY_S + LOOK_S)
    assert stream.spare_s == pytest.approx(0.002)


def test_stream_whose_frames_another_takes_finds_its_phase_and_stays_there() -> None:
    stream = Stream(0.012, drift=100e-6)
    stream.joined = True
    stream.run(600)
    assert len(stream.moves) == 1
    stream.joined = False
    stream.run(10)
    assert len(stream.moves) == 2
