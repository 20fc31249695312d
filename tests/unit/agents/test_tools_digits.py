"""The collector of digits: digits in words, and times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.tool_settings import CollectDigitsSettings
from bridge.agents.tools_digits import DigitCollector, spoken_digits


@pytest.mark.parametrize(
    ("text", "language", "digits"),
    [
        ("one two three", "en", "123"),
        ("it's double seven, oh, triple one", "en", "770111"),
        ("twenty one thirty four", "en-GB", "2134"),
        ("twelve fifty", "en", "1250"),
        ("My number is 47 11.", "en", "4711"),
        ("4-7-1-1", "fr", "4711"),
        ("eins zwo drei", "de-DE", "123"),
        ("cero uno dos", "es", "012"),
        ("quatre sept", "fr", "47"),
        ("eins two tres", "auto", "123"),
        ("oh I don't have it", "en", ""),
        ("I have no idea", "en", ""),
        ("", "en", ""),
    ],
)
def test_digits_are_found_in_words(text: str, language: str, digits: str) -> None:
    assert spoken_digits(text, language) == digits


def test_single_word_among_others_is_no_digit_unless_one_is_asked_for() -> None:
    assert spoken_digits("one moment please", "en", one=False) == ""
    assert spoken_digits("seven", "en", one=False) == "7"
    assert spoken_digits("number one please", "en", one=True) == "1"


def collector(least: int = 1, most: int = 4, **settings: object) -> DigitCollector:
    return DigitCollector(CollectDigitsSettings.model_validate(settings), 100.0, least=least, most=most)


def test_time_for_the_first_digit_begins_when_the_question_was_heard() -> None:
    taking = collector(first_s=5, max_s=60)
    assert taking.deadline() == 160
    taking.asked(120.0)
    assert taking.deadline() == 125
    taking.asked(124.0)
    assert taking.deadline() == 125
    taking.tick(124.9)
    assert taking.result is None
    taking.tick(125.0)
    assert taking.result is not None and not taking.result.ok


def test_no_time_runs_out_while_the_caller_speaks_but_that_for_the_whole() -> None:
    taking = collector(first_s=5, max_s=60)
    taking.asked(100.0)
    taking.voice(104.0, True)
    assert taking.deadline() == 160
    taking.voice(112.0, False)
    assert taking.deadline() == 115
    taking.voice(113.0, True)
    taking.tick(160.0)
    assert taking.result is not None


def test_keys_take_the_place_of_what_was_said() -> None:
    taking = collector(most=4)
    taking.spoken(101.0, "nine nine")
    taking.key(102.0, "1")
    taking.key(103.0, "#")
    assert taking.result is not None and taking.result.value == {"digits": "1", "by": "keys"}


def test_too_many_spoken_digits_are_read_back_and_not_cut() -> None:
    taking = collector(most=4)
    taking.spoken(101.0, "one two three four five")
    assert taking.result is not None
    assert taking.result.error == "too many digits, at most 4 are taken; the caller said: 1 2 3 4 5"


def test_what_was_not_understood_is_waited_for_again() -> None:
    taking = collector()
    taking.spoken(101.0, " ")
    assert taking.result is None


def test_terminator_may_be_none() -> None:
    taking = collector(terminator="", clear="")
    for key in "1#2*":
        taking.key(101.0, key)
    assert taking.result is None
    taking.tick(taking.deadline())
    assert taking.result is not None and taking.result.value == {"digits": "12", "by": "keys"}


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*"0123456789*#ABCD"]), st.sampled_from(["one two", "hello", "", "7"]), st.floats(0, 9)
        ),
        max_size=40,
    ),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_entry_always_ends_within_its_limits(steps: list[str | float], least: int, most: int) -> None:
    least = min(least, most)
    taking, now = collector(least, most), 100.0
    taking.asked(now)
    for step in steps:
        if taking.result is not None:
            break
        if isinstance(step, float):
            now += step
            taking.tick(now)
        elif len(step) == 1 and step in "0123456789*#ABCD":
            taking.key(now, step)
        else:
            taking.spoken(now, step)
    for _ in range(5):
        taking.tick(max(now, taking.deadline()))
    assert taking.result is not None
    if taking.result.ok:
        assert least <= len(taking.result.value["digits"]) <= most
