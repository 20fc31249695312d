"""Strangers are slowed down and banned, known peers and honest mistakes are not; memory stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.trunks.guard import CHALLENGED, Guard, source_of
from bridge.trunks.settings import GuardSettings

A, B = "192.0.2.1", "192.0.2.2"


def a_guard(**changes: float) -> Guard:
    return Guard(GuardSettings(**{"failures": 3, "within_s": 60, "ban_s": 600, **changes}))


def test_repeated_failures_bring_a_ban_that_ends() -> None:
    guard = a_guard()
    assert [guard.failed(A, now, "403") for now in (0.0, 1.0, 2.0)] == [False, False, False]
    assert guard.failed(A, 2.5, "wrong password")
    assert not guard.lets_in(A, 3.0)
    assert guard.lets_in(B, 3.0)
    (ban,) = guard.bans(4.0)
    assert (ban.source, ban.since, ban.until, ban.why, ban.dropped) == (A, 2.5, 602.5, "wrong password", 1)
    assert guard.lets_in(A, 603.0)
    assert guard.bans(603.0) == ()


def test_failures_far_apart_bring_none() -> None:
    guard = a_guard()
    assert not any(guard.failed(A, 30.0 * n, "403") for n in range(100))


def test_challenges_weigh_less_than_wrong_answers() -> None:
    guard = a_guard()
    assert not any(guard.failed(A, 0.0, "challenged", CHALLENGED) for _ in range(14))
    assert guard.failed(A, 0.0, "challenged", CHALLENGED)


def test_who_has_proved_himself_is_neither_banned_nor_slowed_down_by_what_comes_in_his_name() -> None:
    guard = a_guard(requests_per_s=1, burst=2)
    guard.proved(A, 0.0)
    assert not any(guard.failed(A, 1.0, "forged") for _ in range(50))
    assert all(guard.lets_in(A, 1.0) for _ in range(50))


def test_requests_that_come_too_fast_are_dropped_and_at_length_banned() -> None:
    guard = a_guard(requests_per_s=10, burst=20)
    assert [guard.lets_in(A, 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert guard.lets_in(A, 0.1)
    while not guard.bans(0.1):
        assert not guard.lets_in(A, 0.1)
    assert guard.bans(0.1)[0].why == "too many requests"


def test_a_ban_can_be_lifted_and_begins_anew() -> None:
    guard = a_guard(failures=1)
    assert guard.failed(A, 0.0, "403")
    assert guard.lift(A)
    assert not guard.lift(A)
    assert guard.lets_in(A, 0.0)
    assert guard.failed(A, 0.0, "403")
    with pytest.raises(ValueError, match="neither"):
        guard.lift("nobody")


def test_an_ipv6_customer_is_one_source_whatever_address_he_takes() -> None:
    guard = a_guard(failures=2)
    guard.failed("2001:db8:1:2::1", 0.0, "403")
    assert guard.failed("2001:db8:1:2:ffff::9", 0.0, "403")
    assert not guard.lets_in("2001:db8:1:2::abcd", 1.0)
    assert guard.lets_in("2001:db8:1:3::1", 1.0)
    assert guard.lift("2001:db8:1:2::/64")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")
    assert source_of("fe80::1%eth0") == "fe80::/64"


def test_no_ban_is_given_where_bans_are_off() -> None:
    guard = a_guard(failures=1, ban_s=0)
    assert not any(guard.failed(A, 0.0, "403") for _ in range(20))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=300, max_size=500, unique=True))
def test_memory_is_bounded(addresses: list[int]) -> None:
    guard = a_guard(sources=100, failures=1)
    for n, number in enumerate(addresses):
        address = ".".join(str(part) for part in number.to_bytes(4, "big"))
        guard.lets_in(address, float(n))
        guard.failed(address, float(n), "403")
    assert len(guard._sources) <= 100
    assert len(guard._bans) <= 100
