"""The circuit breaker, in numbers of its own time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.breaker import Breaker, BreakerSettings, State

SETTINGS = BreakerSettings(
    failures=3, share=0.5, window_s=60, cool_down_s=10, max_cool_down_s=40, fatal_cool_down_s=30, trial_s=5
)


def opened() -> Breaker:
    """Opened at 0 by failures."""
    breaker = Breaker(SETTINGS)
    for _ in range(3):
        breaker.began(0)
        breaker.failed(0, "it broke")
    return breaker


def test_three_failures_open_it_and_two_do_not() -> None:
    breaker = Breaker(SETTINGS)
    breaker.failed(0, "a")
    breaker.failed(1, "b")
    assert breaker.state(1) is State.CLOSED and breaker.allows(1)
    breaker.failed(2, "c")
    assert breaker.state(2) is State.OPEN and not breaker.allows(2)
    assert (breaker.opened, breaker.reason, breaker.retry_in_s(2)) == (1, "c", 10)


def test_failures_that_are_few_among_many_requests_are_no_outage() -> None:
    breaker = Breaker(SETTINGS)
    for second in range(50):
        breaker.succeeded(second)
        if second % 5 == 0:
            breaker.failed(second, "one of many")
    assert breaker.state(50) is State.CLOSED


def test_failures_are_forgotten_after_the_window() -> None:
    breaker = Breaker(SETTINGS)
    breaker.failed(0, "a")
    breaker.failed(1, "b")
    breaker.failed(61.5, "c")
    assert breaker.state(61.5) is State.CLOSED


def test_one_fatal_failure_opens_it_for_longer() -> None:
    breaker = Breaker(SETTINGS)
    breaker.failed(0, "the key was refused", fatal=True)
    assert breaker.state(29.9) is State.OPEN
    assert breaker.state(30) is State.HALF_OPEN


def test_half_open_lets_one_trial_through_and_the_next_one_when_nothing_was_heard_of_it() -> None:
    breaker = opened()
    assert breaker.state(10) is State.HALF_OPEN and breaker.allows(10)
    breaker.began(10)
    assert not breaker.allows(10) and not breaker.allows(14.9)
    assert breaker.allows(15)


def test_a_trial_that_was_given_up_makes_room_for_the_next() -> None:
    breaker = opened()
    breaker.began(10)
    breaker.abandoned()
    assert breaker.state(11) is State.HALF_OPEN and breaker.allows(11)


def test_a_trial_that_works_closes_it_and_forgets_what_was() -> None:
    breaker = opened()
    breaker.began(10)
    breaker.succeeded(11)
    breaker.failed(12, "once")
    breaker.failed(12, "twice")
    assert breaker.state(12) is State.CLOSED


def test_each_trial_that_fails_doubles_the_cool_down_up_to_its_limit() -> None:
    breaker = opened()
    now, waits = 0.0, []
    for _ in range(4):
        now += breaker.retry_in_s(now)
        breaker.began(now)
        breaker.failed(now, "still")
        waits.append(breaker.retry_in_s(now))
    assert waits == [20, 40, 40, 40]
    now += 40
    breaker.began(now)
    breaker.succeeded(now)
    for _ in range(3):
        breaker.failed(now, "again")
    assert breaker.retry_in_s(now) == 10


def test_what_comes_in_late_from_requests_before_it_opened_does_not_prolong_it() -> None:
    breaker = opened()
    breaker.failed(9, "a straggler")
    assert breaker.state(10) is State.HALF_OPEN


@given(
    st.lists(
        st.tuples(st.sampled_from(["began", "succeeded", "failed", "fatal", "abandoned"]), st.floats(0, 100)),
        max_size=60,
    )
)
def test_whatever_happens_it_is_tried_again_within_its_longest_cool_down(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(SETTINGS), 0.0
    for what, later in steps:
        now += later
        match what:
            case "began":
                breaker.began(now)
            case "succeeded":
                breaker.succeeded(now)
                assert breaker.state(now) is State.CLOSED
            case "abandoned":
                breaker.abandoned()
            case _:
                breaker.failed(now, what, fatal=what == "fatal")
        assert breaker.retry_in_s(now) <= SETTINGS.max_cool_down_s + 1e-6
        assert breaker.allows(now + SETTINGS.max_cool_down_s + SETTINGS.trial_s + 1e-6)


def test_a_longest_cool_down_below_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="max_cool_down_s"):
        BreakerSettings(cool_down_s=100, max_cool_down_s=50)
