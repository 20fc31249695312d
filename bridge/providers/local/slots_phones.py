"""Telephone numbers as callers say them: "five five five, two one seven", "double oh seven nine"."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.providers.local.text_words import TENS, UNITS, Word, cardinal

_DIGITS = {**{word: str(value) for word, value in UNITS.items() if value < 10}, "oh": "0", "o": "0", "nought": "0"}
_REPEATED = {"double": 2, "triple": 3, "treble": 3}
_HOMOPHONES = {"for": "4", "to": "2", "too": "2", "ate": "8", "won": "1", "fife": "5", "niner": "9", "or": "4"}
"""Only between digits."""
_BETWEEN = frozenset({"and", "then", "dash", "hyphen", "space", "uh", "um", "area", "code", "extension"})


@dataclass(frozen=True, slots=True)
class PhoneHit:
    first: int
    behind: int
    digits: str
    """Digits, with a leading + if it was said."""


def phones(found: Sequence[Word], *, min_digits: int) -> list[PhoneHit]:
    """The runs of at least `min_digits` digits in `found`."""
    hits: list[PhoneHit] = []
    at = 0
    while at < len(found):
        first, digits, behind = at, "", at
        while at < len(found):
            piece = _piece(found, at, running=bool(digits))
            if piece is None:
                break
            digits, at = digits + piece[0], piece[1]
            if piece[0]:
                behind = at
        if sum(char.isdigit() for char in digits) >= min_digits:
            hits.append(PhoneHit(first, behind, digits[:1] + digits[1:].replace("+", "")))
        at = max(at, first + 1)
    return hits


def _piece(found: Sequence[Word], at: int, *, running: bool) -> tuple[str, int] | None:
    text = found[at].text
    following = found[at + 1].text if at + 1 < len(found) else ""
    if text in ("plus", "+"):
        return "+", at + 1
    if text in _REPEATED and (following in _DIGITS or following.isdecimal()):
        return _DIGITS.get(following, following) * _REPEATED[text], at + 2
    if text.isdecimal():
        return text, at + 1
    if text in _DIGITS:
        return (_DIGITS[text] + "00", at + 2) if following == "hundred" else (_DIGITS[text], at + 1)
    if text in TENS or text in UNITS:
        number = cardinal(found, at)
        return (str(number[0]), number[1]) if number is not None else None
    if running and text in _HOMOPHONES and _is_digit(following):
        return _HOMOPHONES[text], at + 1
    if running and text in _BETWEEN and _is_digit(following):
        return "", at + 1
    return None


def _is_digit(text: str) -> bool:
    return text in _DIGITS or text.isdecimal() or text in _REPEATED or text in TENS or text in UNITS


def spoken_digits(digits: str) -> str:
    """Digits one by one, in groups a listener can write down: "5 5 5, 2 1 7, 8 9 0 4"."""
    plus, bare = ("plus ", digits[1:]) if digits.startswith("+") else ("", digits)
    sizes = {7: (3, 4), 8: (4, 4), 10: (3, 3, 4), 11: (1, 3, 3, 4)}.get(len(bare))
    if sizes is None:
        rest = len(bare) % 3
        sizes = (3,) * (len(bare) // 3) + ((rest,) if rest else ())
    groups, at = [], 0
    for size in sizes:
        groups.append(" ".join(bare[at : at + size]))
        at += size
    return plus + ", ".join(groups)
