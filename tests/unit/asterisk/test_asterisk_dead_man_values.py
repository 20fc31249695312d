"""What a channel's limit of time is set to, and which settings of it make sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.asterisk.dead_man import left_of, next_limit, seconds

times = st.floats(0, 1e6)


@given(now=times, limit_s=st.floats(1, 600), own=st.none() | times)
def test_ours_never_passes_the_dialplans_own_and_is_never_none(now: float, limit_s: float, own: float | None) -> None:
    value, last = next_limit(own, now, limit_s)
    assert 0 < value <= limit_s
    if own is not None:
        assert value <= max(own - now, 0.1)
        assert last == (left_of(own, now) <= limit_s)
    else:
        assert not last


@given(now=times, own=st.none() | times)
def test_without_one_of_ours_the_dialplans_own_holds(now: float, own: float | None) -> None:
    assert next_limit(own, now, 0.0) == (left_of(own, now), True)


@given(now=times, own=times)
def test_what_is_given_back_of_a_limit_is_not_none(now: float, own: float) -> None:
    assert left_of(own, now) > 0
    assert left_of(None, now) == 0


@pytest.mark.parametrize(("text", "value"), [("12.5", 12.5), ("0", 0), ("-1", 0), ("", 0), (None, 0), ("x", 0)])
def test_limits_are_read(text: str | None, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("limit_s", "refresh_s", "right"),
    [(60, 20, True), (60, 30, True), (60, 31, False), (0, 20, True), (-1, 1, False)],
)
def test_it_must_be_put_off_in_time(limit_s: float, refresh_s: float, right: bool) -> None:
    values = {"name": "pbx", "url": "http://127.0.0.1:8088", "username": "offhook", "password_env": "X"}
    values |= {"dead_man_s": limit_s, "dead_man_refresh_s": refresh_s}
    if right:
        assert AsteriskSettings.model_validate(values).dead_man_s == limit_s
    else:
        with pytest.raises(ValidationError, match="dead_man"):
            AsteriskSettings.model_validate(values)
