"""Variables for the side that has the call after us: which names are taken, and what becomes of values."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.variables import MAX_NAME, MAX_VALUE, as_value, form_variables, name_problem


@pytest.mark.parametrize("name", ["CUSTOMER_ID", "_x", "a1", "A" * MAX_NAME])
def test_name_of_a_variable_is_taken(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    "name", ["", "1A", "A-B", "A B", "CALLERID(num)", "A\n", "É", "A" * (MAX_NAME + 1), "OFFHOOK_STATUS", "offhook_x"]
)
def test_other_names_and_our_own_are_not(name: str) -> None:
    assert name_problem(name) != ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  two\r\n lines\x00 ", "two lines"),
        (True, "true"),
        (None, ""),
        (4711, "4711"),
        (["tea", "milk"], "tea, milk"),
        ("${SHELL(rm)}", "${SHELL(rm)}"),
        ("a\u2028b\x85c\td", "a b c d"),
        ("+49\u202e0315\u00a0300", "+49 0315 300"),
        ("half \ud83d of one", "half of one"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("x" * 511 + " yz", "x" * 511),
    ],
)
def test_value_becomes_one_line(value: object, text: str) -> None:
    assert as_value(value) == text


@given(st.text(), st.text(st.characters(exclude_categories=())))
def test_no_value_is_too_long_or_has_a_control_character(first: str, second: str) -> None:
    value = as_value(first + second + "x" * 600)
    assert len(value) <= MAX_VALUE
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)
    assert as_value(value) == value
    value.encode()


def test_form_is_a_variable_for_each_field() -> None:
    assert form_variables("book_table", {"people": 4, "name": "Ada\n", "window-seat": False}) == {
        "OFFHOOK_FORM_BOOK_TABLE_PEOPLE": "4",
        "OFFHOOK_FORM_BOOK_TABLE_NAME": "Ada",
        "OFFHOOK_FORM_BOOK_TABLE_WINDOW_SEAT": "false",
    }
