"""Causes in the words of SIP, of ISDN and of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.causes import (
    Q850_OF_STATUS,
    STATUS_OF_Q850,
    Reason,
    cause_of_bye,
    cause_of_rejection,
    clearing_of,
    parse_reasons,
    q850_of,
    q850_of_status,
    refusal_of,
    status_of_q850,
)
from bridge.events import Cause


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Q.850;cause=16;text="Normal call clearing"', (Reason("Q.850", 16, "Normal call clearing"),)),
        ("Q.850 ; cause = 17", (Reason("Q.850", 17),)),
        ('SIP;cause=200;text="Call completed elsewhere"', (Reason("SIP", 200, "Call completed elsewhere"),)),
        (
            'SIP ;cause=600 ;text="a, \\"b\\"; c", Q.850;cause=17',
            (Reason("SIP", 600, 'a, "b"; c'), Reason("Q.850", 17)),
        ),
        ("preemption;cause=1;text=plain", (Reason("preemption", 1, "plain"),)),
        ("Q.850", (Reason("Q.850", None),)),
        ("Q.850;cause=x", (Reason("Q.850", None),)),
        ("", ()),
        (";;;", ()),
        ('Q.850;text="never closed', ()),
    ],
)
def test_a_reason_header_is_read_as_it_is_written(header: str, expected: tuple[Reason, ...]) -> None:
    assert parse_reasons(header) == expected


def test_the_isdn_cause_is_found_beside_others_and_bounded() -> None:
    assert q850_of("SIP;cause=486, q.850;cause=17") == 17
    assert q850_of("SIP;cause=486") is None
    assert q850_of("Q.850;cause=4711") is None


@given(st.text())
def test_no_reason_header_breaks_the_parser(header: str) -> None:
    parse_reasons(header)


@given(
    st.builds(
        Reason,
        st.sampled_from(["Q.850", "SIP", "x"]),
        st.none() | st.integers(0, 999),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40),
    )
)
def test_what_is_written_can_be_read(reason: Reason) -> None:
    assert parse_reasons(str(reason)) == (reason,)


def test_every_isdn_cause_has_a_refusal_and_every_refusal_an_isdn_cause() -> None:
    for q850 in range(128):
        assert 400 <= status_of_q850(q850) < 700
    for status in range(300, 700):
        assert 1 <= q850_of_status(status) < 128


def test_the_common_causes_survive_the_way_there_and_back() -> None:
    for status in (404, 484, 486, 488, 410, 503):
        assert STATUS_OF_Q850[Q850_OF_STATUS[status]] == status


@pytest.mark.parametrize(
    ("status", "q850", "expected"),
    [
        (486, None, Cause.BUSY),
        (600, None, Cause.BUSY),
        (503, 17, Cause.BUSY),
        (480, None, Cause.NO_ANSWER),
        (480, 21, Cause.REJECTED),
        (480, 19, Cause.NO_ANSWER),
        (487, None, Cause.CANCELLED),
        (603, None, Cause.REJECTED),
        (500, 41, Cause.REJECTED),
    ],
)
def test_a_rejection_is_read_by_its_more_exact_cause(status: int, q850: int | None, expected: Cause) -> None:
    assert cause_of_rejection(status, q850) is expected


def test_a_bye_of_the_network_is_no_hang_up() -> None:
    assert cause_of_bye(None) is cause_of_bye(16) is cause_of_bye(31) is Cause.CALLER_HUNG_UP
    assert cause_of_bye(41) is cause_of_bye(102) is Cause.SIGNALLING_LOST


def test_each_cause_of_ours_has_words_for_the_far_side() -> None:
    for cause in Cause:
        status, reason = refusal_of(cause)
        assert 400 <= status < 700
        assert parse_reasons(str(reason)) == (reason,)
        clearing = clearing_of(cause)
        assert parse_reasons(str(clearing)) == (clearing,)
    assert clearing_of(Cause.AGENT_HUNG_UP).cause == 16
    assert refusal_of(Cause.REFUSED_MEDIA)[0] == 488
