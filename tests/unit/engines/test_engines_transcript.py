"""What is believed of a recogniser's text."""

import numpy as np
import pytest

from bridge.providers.local.transcript import clean, loudest_dbfs


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Yes.", 0.8),
        ("Yeah", 0.6),
        ("No no no, not that one.", 2.0),
        ("My phone number is 555-217-8904.", 5.0),
        ("Five five five five five, two one seven.", 4.0),
        ("I'd like to book a table for four people on Friday at 7:30.", 4.5),
        ("Bye bye bye.", 1.0),
        ("Thank you.", 0.9),
    ],
)
def test_what_people_say_is_kept_as_it_is(text: str, seconds: float) -> None:
    assert clean(text, seconds=seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "You",
        "you.",
        "Thank you for watching!",
        "♪♪♪♪♪♪♪♪",
        "♪\ufffd",
        "...",
        "",
        "© transcript Emily Beynon",
        "The first is the first is the first is the first is the first is the",
        'You can also use the "Videos" button' + ' to use the "Videos" button' * 4,
        "The first one is the first one. " * 4,
    ],
)
def test_inventions_on_noise_are_dropped(text: str) -> None:
    assert clean(text, seconds=10.0) == ""


def test_more_words_than_anyone_says_in_the_time_are_dropped() -> None:
    assert clean("You can see the screen is", seconds=0.5) == ""
    assert clean("You can see the screen is", seconds=1.5) == "You can see the screen is"


def test_a_stutter_is_shortened() -> None:
    assert clean("Oh, oh, oh, oh, oh, oh, oh, what?", seconds=4.0) == "Oh, oh, oh, what?"


def test_half_days_are_written_in_one_way() -> None:
    assert clean("We are open until ten p. m..", seconds=2.0) == "We are open until ten pm"
    assert clean("At 7 a.m. or 8 P.M. please", seconds=3.0) == "At 7 am or 8 PM please"


def tone(level: float, ms: int) -> bytes:
    times = np.arange(8 * ms) / 8000
    return (level * 32767 * np.sin(2 * np.pi * 400 * times)).astype("<i2").tobytes()


def test_the_loudest_20_ms_decide_about_silence() -> None:
    assert loudest_dbfs(bytes(16000), 8000) == -120.0
    assert loudest_dbfs(b"", 8000) == -120.0
    quiet_and_short_loud = bytes(8000) + tone(0.5, 20) + bytes(8000)
    assert loudest_dbfs(quiet_and_short_loud, 8000) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.2)
