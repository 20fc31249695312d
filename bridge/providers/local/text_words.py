"""Text from speech recognition as words, and the numbers in it. Casing and punctuation may be there or not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

CACHED_TEXTS = 1024
"""A conversation is replayed for each reply: its sentences are read again and again."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    """Small letters, without apostrophes: `o'clock` is `oclock`, `p.m.` is `pm`."""
    raw: str
    start: int
    """Characters from the beginning of the text."""
    end: int
    after_break: bool
    """A comma, full stop or the like stood before it."""


_WORD = re.compile(
    r"(?P<meridiem>\b[ap]\.\s?m\b\.?)|(?P<clock>\d{1,2}[:.]\d{2}(?!\d))|\d+(?:st|nd|rd|th)?|[^\W\d_]+(?:['’][^\W\d_]+)*|\+",
    re.IGNORECASE,
)
_BREAK = re.compile(r"[,.;:?!]|\s[-–—]\s")


@lru_cache(maxsize=CACHED_TEXTS)
def words(text: str) -> tuple[Word, ...]:
    """Split `text` into words."""
    found: list[Word] = []
    last_end = 0
    for match in _WORD.finditer(text):
        raw = match.group()
        if match.lastgroup == "meridiem":
            normal = raw[0].lower() + "m"
        elif match.lastgroup == "clock":
            normal = raw.replace(".", ":")
        else:
            normal = raw.lower().replace("'", "").replace("’", "")
        after_break = bool(_BREAK.search(text, last_end, match.start()))
        found.append(Word(normal, raw, match.start(), match.end(), after_break))
        last_end = match.end()
    return tuple(found)


def plain(text: str) -> str:
    """`text` as its normalised words with single spaces: what phrases are compared in."""
    return " ".join(word.text for word in words(text))


def word_set(listed: str) -> frozenset[str]:
    """The words of a list written as text."""
    return frozenset(listed.split())


UNITS = {
    **{"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16},
    **{"seventeen": 17, "eighteen": 18, "nineteen": 19},
}
TENS = {
    **{"twenty": 20, "thirty": 30, "forty": 40, "fourty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80},
    "ninety": 90,
}
_ORDINAL_UNITS = {
    **{
        "first": 1,
        "second": 2,
        "third": 3,
        "fourth": 4,
        "fifth": 5,
        "sixth": 6,
        "seventh": 7,
        "eighth": 8,
        "ninth": 9,
    },
    **{"tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15},
    **{"sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30},
}

HOMOPHONES = {"for": 4, "fore": 4, "to": 2, "too": 2, "ate": 8, "won": 1, "tree": 3, "sixth": 6, "free": 3, "tan": 10}
"""What a lone number may be heard as; only tried where nothing but a number is expected."""


def cardinal(found: Sequence[Word], at: int) -> tuple[int, int] | None:
    """The number (0 to 9999, words or digits) that begins at word `at`, and the index behind it."""
    if at >= len(found):
        return None
    text = found[at].text
    if text.isdecimal() and len(text) <= 4:
        return int(text), at + 1
    under_hundred = _under_hundred(found, at)
    if text in ("a", "an") and at + 1 < len(found) and found[at + 1].text == "hundred":
        under_hundred = 1, at + 1
    if under_hundred is None:
        return None
    value, behind = under_hundred
    if behind < len(found) and found[behind].text == "hundred" and 0 < value < 100:
        value, behind = value * 100, behind + 1
        rest_at = behind + 1 if behind < len(found) and found[behind].text == "and" else behind
        rest = _under_hundred(found, rest_at)
        if rest is not None and rest[0] > 0:
            return value + rest[0], rest[1]
    return value, behind


def _under_hundred(found: Sequence[Word], at: int) -> tuple[int, int] | None:
    if at >= len(found):
        return None
    text = found[at].text
    if text in UNITS:
        return UNITS[text], at + 1
    if text in TENS:
        unit = UNITS.get(found[at + 1].text, 0) if at + 1 < len(found) and not found[at + 1].after_break else 0
        return (TENS[text] + unit, at + 2) if 0 < unit < 10 else (TENS[text], at + 1)
    return None


def ordinal(found: Sequence[Word], at: int) -> tuple[int, int] | None:
    """The ordinal (1st to 31st, words or digits) that begins at word `at`, and the index behind it."""
    if at >= len(found):
        return None
    text = found[at].text
    if text[:1].isdecimal() and text[-2:] in ("st", "nd", "rd", "th") and 1 <= int(text[:-2]) <= 31:
        return int(text[:-2]), at + 1
    if text in ("twenty", "thirty") and at + 1 < len(found):
        unit = _ORDINAL_UNITS.get(found[at + 1].text, 0)
        if 0 < unit < 10:
            return TENS[text] + unit, at + 2
    return (_ORDINAL_UNITS[text], at + 1) if text in _ORDINAL_UNITS else None
