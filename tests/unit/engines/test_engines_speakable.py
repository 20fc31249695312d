"""Text as written, in words that the voice reads well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.local.speakable import speakable
from bridge.providers.local.tts import MAX_PIECE_CHARS, pieces


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("We open at 11:30 and close at 22:00.", "We open at 11 30 and close at 10 PM."),
        ("Your table is at 19:30.", "Your table is at 7 30 PM."),
        ("at 7:05 p.m. on Friday", "at 7 oh 5 PM on Friday"),
        ("It is 7 p.m. See you.", "It is 7 PM. See you."),
        ("until 7 p.m.", "until 7 PM."),
        ("12:00", "12 o'clock"),
        ("00:15", "12 15 AM"),
        ("07:00", "7 AM"),
        ("11:30-22:00", "11 30 to 10 PM"),
        ("from 5-7 pm", "from 5 to 7 PM"),
        ("call 020 7946 0123.", "call 0 2 0, 7 9 4 6, 0 1 2 3."),
        ("Call +1 (555) 217-8904 now", "Call plus 1, 5 5 5, 2 1 7, 8 9 0 4 now"),
        ("12345678901", "1, 2 3 4, 5 6 7, 8 9 0 1"),
        ("That is $12.50.", "That is 12 dollars and 50 cents."),
        ("£8 or €1.01 or £0.50", "8 pounds or 1 euro and 1 cent or 50 pence"),
        ("$1.5 million", "1.5 million dollars"),
        ("1,250 guests, 3.5 stars, 50%", "1,250 guests, 3.5 stars, 50%"),
        ("2024-2026", "2024 to 2026"),
        ("On 2026-11-21", "On November 21st, 2026"),
        ("order no. 7319", "order number 7319"),
        ("Dr. Smith, Maple St. and St. John", "Doctor Smith, Maple Street and Saint John"),
        ("Mon–Fri", "Monday to Friday"),
        ("fish & chips, e.g. today", "fish and chips, for example today"),
        ("**bold** _it_ `code` 😀 hi", "bold it code hi"),
        ("Room 101. Floor 3.", "Room 101. Floor 3."),
        ("7:30 PM or 7 oh 5 PM", "7 30 PM or 7 oh 5 PM"),
    ],
)
def test_numbers_times_and_signs_are_said_as_people_say_them(written: str, spoken: str) -> None:
    assert speakable(written) == spoken


def test_another_language_keeps_its_numbers() -> None:
    assert speakable("Um 19:30 Uhr, *bitte* 😀", "de-DE") == "Um 19:30 Uhr, bitte"


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    for piece in pieces(speakable(text)):
        assert 0 < len(piece) <= MAX_PIECE_CHARS


@given(st.lists(st.sampled_from(["hello", "Mr", "yes,", "no.", "what?", "a" * 300, "so;"])).map(" ".join))
def test_pieces_lose_nothing_but_space(text: str) -> None:
    assert "".join("".join(pieces(text)).split()) == "".join(text.split())


def test_a_long_first_sentence_begins_with_its_first_clause() -> None:
    text = "Good evening, this is Luigi's restaurant, how may I help you today? We are open, as ever, until ten."
    assert pieces(text) == [
        "Good evening, this is Luigi's restaurant,",
        "how may I help you today?",
        "We are open, as ever, until ten.",
    ]


def test_a_short_first_sentence_stays_whole() -> None:
    assert pieces("Yes, of course. Anything else?") == ["Yes, of course.", "Anything else?"]


def test_signs_alone_are_nothing_to_say() -> None:
    assert pieces("... !") == []


def test_a_sentence_too_long_for_one_breath_is_cut_where_one_would_breathe() -> None:
    start = "No problem. "
    before = "we have many kinds of " + "very " * 18 + "good pasta"
    after = "we have even more kinds of pizza than anyone in this long street could ever eat"
    assert pieces(f"{start}{before}, {after}.") == ["No problem.", f"{before},", f"{after}."]
    assert pieces(f"{start}{before} because {after}.") == ["No problem.", before, f"because {after}."]
