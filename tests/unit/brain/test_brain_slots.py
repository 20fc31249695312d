"""Dates, times, counts, names and numbers as callers say them. Today is Tuesday, May 5th 2026."""

from datetime import date, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.brief import Brief, Form, Slot
from bridge.providers.local.slots import Extraction, extract
from bridge.providers.local.slots_dates import dates
from bridge.providers.local.slots_names import name_in
from bridge.providers.local.slots_numbers import numbers
from bridge.providers.local.slots_phones import phones, spoken_digits
from bridge.providers.local.slots_times import clock_options, times
from bridge.providers.local.text_speech import spoken_date, spoken_time
from bridge.providers.local.text_words import words

TODAY = date(2026, 5, 5)
ODD_WORDS = (
    *("no", "not", "four", "Friday", "next", "the", "at", "for", "to", "seven", "M", "L", "double", "my", "name"),
    *(
        "is",
        "of",
        "or",
        "May",
        "3",
        ":",
        "+",
        "?",
        "from",
        "half",
        "past",
        "hundred",
        "in",
        "two",
        "weeks",
        "week",
        "and",
    ),
)
PEOPLE = ["people", "guests", "adults", "children", "child"]


def days(text: str, *, expected: bool = False) -> list[tuple[str, ...]]:
    return [tuple(f"{day:%m-%d}" for day in hit.options) for hit in dates(words(text), TODAY, loose=expected)]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("tonight", "05-05"),
        ("tomorrow night at eight", "05-06"),
        ("the day after tomorrow", "05-07"),
        ("this Friday", "05-08"),
        ("on friday please", "05-08"),
        ("Friday's fine", "05-08"),
        ("Friday next week", "05-15"),
        ("a week from Friday", "05-15"),
        ("in two weeks", "05-19"),
        ("the 3rd of June", "06-03"),
        ("June 3rd", "06-03"),
        ("June the third", "06-03"),
        ("twenty first of June", "06-21"),
        ("the twenty-first", "05-21"),
        ("the 3rd of May", "05-03"),
        ("6 June 2026", "06-06"),
        ("Friday the eighth", "05-08"),
        ("Christmas Eve", "12-24"),
        ("new year's eve", "12-31"),
        ("yesterday", "05-04"),
    ],
)
def test_a_day(text: str, day: str) -> None:
    assert days(text) == [(day,)]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("next Friday", ("05-08", "05-15")),
        ("Tuesday", ("05-05", "05-12")),
        ("this weekend", ("05-09", "05-10")),
        ("Friday the ninth", ("05-09", "05-08")),
        ("next week", ()),
    ],
)
def test_an_open_day(text: str, options: tuple[str, ...]) -> None:
    assert days(text) == [options]


@pytest.mark.parametrize(
    "text", ["are you open on Sundays", "may I ask something", "one second please", "February 30th", "the first one"]
)
def test_no_day(text: str) -> None:
    assert days(text) == []


def test_a_lone_ordinal_is_a_day_only_where_one_is_expected() -> None:
    assert days("third") == []
    assert days("third", expected=True) == [("06-03",)]


def test_a_day_without_a_year_that_is_long_past_is_next_years() -> None:
    assert dates(words("January 2nd"), TODAY, loose=False)[0].options == (date(2027, 1, 2),)


@given(st.integers(0, 400))
def test_a_spoken_day_is_understood(ahead: int) -> None:
    day = TODAY + timedelta(days=ahead)
    assert dates(words(spoken_date(day, TODAY)), TODAY, loose=True)[-1].options == (day,)


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("seven thirty", "19:30"),
        ("7:30", "19:30"),
        ("at 7.30 p.m.", "19:30"),
        ("half past seven", "19:30"),
        ("half seven", "19:30"),
        ("quarter to eight", "19:45"),
        ("quarter two eight", "19:45"),
        ("a quarter past six", "18:15"),
        ("ten to eight", "19:50"),
        ("twenty past seven", "19:20"),
        ("eight oh five", "20:05"),
        ("at seven in the evening", "19:00"),
        ("seven o'clock", "19:00"),
        ("19:30", "19:30"),
        ("nineteen thirty", "19:30"),
        ("at 730", "19:30"),
        ("noon", "12:00"),
        ("at one", "13:00"),
        ("seven p m", "19:00"),
        ("around eight ish", "20:00"),
        ("eleven a.m.", "11:00"),
        ("midnight", "00:00"),
    ],
)
def test_a_time_of_a_restaurant(text: str, clock: str) -> None:
    (hit,) = times(words(text), loose=False)
    assert [f"{t:%H:%M}" for t in clock_options(hit, "", time(12), time(21))] == [clock]


@pytest.mark.parametrize("text", ["for eight people", "five of us", "two adults", "a table for two"])
def test_a_count_is_no_time(text: str) -> None:
    assert times(words(text), loose=False) == []


def test_without_hours_of_business_the_half_of_the_day_may_stay_open() -> None:
    (hit,) = times(words("at nine"), loose=False)
    assert clock_options(hit, "", None, None) == (time(9), time(21))
    assert clock_options(hit, "pm", None, None) == (time(21),)


@given(st.times().map(lambda moment: moment.replace(second=0, microsecond=0)))
def test_a_spoken_time_is_understood(moment: time) -> None:
    (hit,) = times(words(spoken_time(moment)), loose=True)
    assert clock_options(hit, "", None, None) == (moment,)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("four people", 4),
        ("a table before people", 4),
        ("a party of six", 6),
        ("table for two", 2),
        ("there are five of us", 5),
        ("two adults and two children", 4),
        ("two adults and a child", 3),
        ("just me", 1),
        ("just me and my wife", 2),
        ("me and three friends", 4),
        ("make it five", 5),
        ("twenty-five people", 25),
        ("four people, actually five", 5),
    ],
)
def test_a_count(text: str, count: int) -> None:
    assert numbers(words(text), PEOPLE, expected=False, only=True)[-1].options == (count,)


@pytest.mark.parametrize(
    ("text", "count"), [("four", 4), ("for", 4), ("to", 2), ("a couple", 2), ("four no five", 5)]
)
def test_a_lone_count_where_one_is_expected(text: str, count: int) -> None:
    assert numbers(words(text), PEOPLE, expected=True, only=True)[-1].options == (count,)


def test_five_or_six_stays_open() -> None:
    assert numbers(words("five or six people"), PEOPLE, expected=False, only=True)[0].options == (5, 6)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My name is Sarah Thompson.", "Sarah Thompson"),
        ("my name is sarah thompson and my number is five", "Sarah Thompson"),
        ("a table on Friday, name's Miller", "Miller"),
        ("under the name of van der Berg please", "van der Berg"),
        ("This is Anna Miller, I'd like a table", "Anna Miller"),
        ("M I L L E R", "Miller"),
    ],
)
def test_a_name_anywhere(text: str, name: str) -> None:
    hit = name_in(words(text), expected=False)
    assert hit is not None
    assert hit.name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("miller", "Miller"),
        ("It's Miller, M I L L E R.", "Miller"),
        ("It's Miller, M-I-L-L-E-R.", "Miller"),
        ("Milla, M as in Mike, I, double L, E, R", "Miller"),
        ("Sara Thomson, T H O M P S O N", "Sara Thompson"),
        ("Yeah it's John", "John"),
        ("anna o'brien", "Anna O'brien"),
        ("Will Smith", "Will Smith"),
        ("for Miller at eight", "Miller"),
    ],
)
def test_a_name_where_one_is_expected(text: str, name: str) -> None:
    hit = name_in(words(text), expected=True)
    assert hit is not None
    assert hit.name == name


@pytest.mark.parametrize("text", ["what are your hours", "four people", "yes please", "I don't want to say", "hello"])
def test_no_name(text: str) -> None:
    assert name_in(words(text), expected=True) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("My phone number is five five five, two one seven, eight nine zero four.", "5552178904"),
        ("double oh seven nine one two", "007912"),
        ("+44 20 7946 0958", "+442079460958"),
        ("five five five to one seven ate nine oh four", "5552178904"),
        ("eight hundred five five five one two one two", "8005551212"),
        ("twenty seven forty six ninety one", "274691"),
    ],
)
def test_a_phone_number(text: str, digits: str) -> None:
    assert [hit.digits for hit in phones(words(text), min_digits=6)] == [digits]


@given(st.from_regex(r"\+?[0-9]{6,15}", fullmatch=True))
def test_spoken_digits_are_understood(digits: str) -> None:
    assert [hit.digits for hit in phones(words(spoken_digits(digits)), min_digits=6)] == [digits]


# -- a whole form ---------------------------------------------------------------------------------------------------


def read(form: Form, text: str, *, expected: str = "", filled: tuple[str, ...] = ()) -> dict[str, list[str]]:
    found = extract(text, form, expected=expected, filled=filled, today=TODAY)
    return {slot: [str(option) for option in reading.options] for slot, reading in found.readings.items()}


@pytest.fixture(scope="module")
def booking(receptionist: Brief) -> Form:
    form = receptionist.form("book_table")
    assert form is not None
    return form


def test_everything_in_one_breath(booking: Form) -> None:
    assert read(booking, "a party of six tomorrow night at half past eight under Miller") == {
        "date": ["2026-05-06"],
        "time": ["20:30:00"],
        "people": ["6"],
        "name": ["Miller"],
    }


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("not Friday, Saturday", {"date": ["2026-05-09"]}),
        ("Saturday instead of Friday", {"date": ["2026-05-09"]}),
        ("not at seven, at eight", {"time": ["20:00:00"]}),
        ("from seven to eight", {"time": ["20:00:00"]}),
        ("Friday no Saturday", {"date": ["2026-05-09"]}),
        ("Friday or Saturday", {"date": ["2026-05-08", "2026-05-09"]}),
        ("next week on Friday", {"date": ["2026-05-15"]}),
    ],
)
def test_corrections_and_alternatives(text: str, readings: dict[str, list[str]], booking: Form) -> None:
    assert read(booking, text, filled=("date", "time", "people")) == readings


def test_what_is_only_ruled_out_or_named(booking: Form) -> None:
    def extracted(text: str) -> Extraction:
        return extract(text, booking, expected="", filled=("date", "time"), today=TODAY)

    assert extracted("not Friday").denied == ("date",)
    assert extracted("the time is wrong").named == ("time",)
    assert extracted("change the time to eight").readings["time"].options == (time(20),)


def test_a_lone_number_answers_what_was_asked(booking: Form) -> None:
    assert read(booking, "seven", expected="time") == {"time": ["19:00:00"]}
    assert read(booking, "seven", expected="people") == {"people": ["7"]}
    assert read(booking, "seven") == {}


def test_make_it_eight_may_be_people_or_a_time(booking: Form) -> None:
    found = extract("make it eight", booking, expected="", filled=("people", "time"), today=TODAY)
    assert found.either == (("people", 8), ("time", time(20)))
    assert read(booking, "make it eight", filled=("time",)) == {"people": ["8"]}


def test_two_slots_of_a_type_are_filled_in_order() -> None:
    slots = [Slot(id="arrival", type="date", ask="From?"), Slot(id="departure", type="date", ask="Until?")]
    form = Form(id="stay", description="Book", ask=["a room"], slots=slots, confirm="?", done="!")
    assert read(form, "from Friday to Sunday") == {"arrival": ["2026-05-08"], "departure": ["2026-05-10"]}
    assert read(form, "Sunday", expected="departure", filled=("arrival",)) == {"departure": ["2026-05-10"]}


@given(st.lists(st.sampled_from(ODD_WORDS)))
def test_no_words_are_too_odd(receptionist: Brief, pieces: list[str]) -> None:
    for form in receptionist.forms:
        for expected in ("", *(slot.id for slot in form.slots)):
            extract(" ".join(pieces), form, expected=expected, filled=(), today=TODAY)


@given(st.text())
def test_no_text_is_too_odd(receptionist: Brief, text: str) -> None:
    for form in receptionist.forms:
        extract(text, form, expected="", filled=("people", "time"), today=TODAY)
