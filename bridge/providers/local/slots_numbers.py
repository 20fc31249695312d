"""Counts as callers say them: "four people", "a party of six", "two adults and a child", "just me and my wife"."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bridge.providers.local.text_words import HOMOPHONES, Word, cardinal, word_set

_LEADING = word_set("for of to with total")
"""Words before a lone number that make it a count: "a table for four", "a party of six", "change it to five"."""
_LEADING_PAIRS = (
    ("make", "it"),
    ("we", "are"),
    ("were",),
    ("well", "be"),
    ("there", "are"),
    ("will", "be"),
    ("its",),
)
_CORRECTING = word_set("actually no sorry mean rather wait")
_SUMMED = word_set("and plus with")
_JUST_ONE = (("just", "me"), ("only", "me"), ("by", "myself"), ("for", "myself"), ("on", "my", "own"), ("alone",))
_COMPANION = word_set("wife husband partner friend girlfriend boyfriend mother father mom mum dad son daughter boss")
_FILLERS = word_set("uh um er well please just it is its that would be thats the about maybe only a we are for make")


@dataclass(frozen=True, slots=True)
class NumberHit:
    first: int
    behind: int
    options: tuple[int, ...]
    """Two for "five or six people"."""
    bare: bool = False
    """No word says what is counted: "make it five"."""


def numbers(found: Sequence[Word], units: Collection[str], *, expected: bool, only: bool) -> list[NumberHit]:
    """The counts in `found` for a slot with these `units`.

    `expected`: this slot was asked for, so a lone number is its value. `only`: no other number slot in the form,
    so "for four" or "make it five" can only mean this one."""
    hits = _with_units(found, units)
    if not hits and "people" in units:
        hits = _company(found)
    if hits:
        return hits + _corrected(found, hits[-1].behind)
    if only or expected:
        hits = _led(found)
    if not hits and expected:
        hits = _lone(found)
    return hits


def _text(found: Sequence[Word], at: int) -> str:
    return found[at].text if 0 <= at < len(found) else ""


def _with_units(found: Sequence[Word], units: Collection[str]) -> list[NumberHit]:
    """ "four people", "four of us", "two adults and two children"."""
    hits: list[NumberHit] = []
    last_unit = ""
    at = 0
    while at < len(found):
        number = (1, at + 1) if found[at].text in ("a", "an") else cardinal(found, at)
        if found[at].text == "before" and _text(found, at + 1) in units:
            # What a recogniser makes of "for four people".
            number = (4, at + 1)
        if number is None:
            at += 1
            continue
        value, behind = number
        unit = _text(found, behind)
        skip = behind + 1 if unit in ("more", "other", "small", "little", "hungry") else behind
        unit = _text(found, skip)
        if unit == "of" and _text(found, skip + 1) in ("us", "them") and "people" in units:
            skip += 1
        elif unit not in units:
            at = behind
            continue
        first = at
        options: tuple[int, ...] = (value,)
        joint = _text(found, at - 1)
        lower = _number_ending(found, at - 1) if joint in ("or", "to") else None
        if lower is not None:
            first, options = lower[1], (lower[0], value)
        if hits and unit != last_unit and _text(found, hits[-1].behind) in _SUMMED and hits[-1].behind >= at - 1:
            previous = hits.pop()
            first, options = previous.first, (previous.options[0] + value,)
        while first > 0 and found[first - 1].text in ("for", "with"):
            first -= 1
        hits.append(NumberHit(first, skip + 1, options))
        last_unit = unit
        at = skip + 1
    return hits


def _corrected(found: Sequence[Word], at: int) -> list[NumberHit]:
    """ "four of us, actually five": the number behind such a word."""
    while at + 1 < len(found):
        number = cardinal(found, at + 1) if found[at].text in _CORRECTING else None
        if number is not None:
            return [NumberHit(at, number[1], (number[0],))]
        at += 1
    return []


def _number_ending(found: Sequence[Word], behind: int) -> tuple[int, int] | None:
    """The number whose last word stands before `behind`, and the index of its first word."""
    for first in (behind - 2, behind - 1):
        if first >= 0:
            number = cardinal(found, first)
            if number is not None and number[1] == behind:
                return number[0], first
    return None


def _company(found: Sequence[Word]) -> list[NumberHit]:
    """ "just me", "me and my wife", "me and three friends", "a couple"."""
    for at in range(len(found)):
        for phrase in _JUST_ONE:
            if tuple(word.text for word in found[at : at + len(phrase)]) != phrase:
                continue
            behind = at + len(phrase)
            if _text(found, behind) == "and":
                break
            return [NumberHit(at, behind, (1,))]
        if _text(found, at) in ("me", "myself") and _text(found, at + 1) == "and":
            if _text(found, at + 2) in ("my", "a") and _text(found, at + 3) in _COMPANION:
                return [NumberHit(at, at + 4, (2,))]
            number = cardinal(found, at + 2)
            if number is not None:
                return [NumberHit(at, number[1], (number[0] + 1,))]
        if _text(found, at) == "both" and _text(found, at + 1) == "of":
            return [NumberHit(at, at + 3, (2,))]
    return []


def _led(found: Sequence[Word]) -> list[NumberHit]:
    for at in range(1, len(found)):
        pair = any(
            at >= len(lead) and tuple(word.text for word in found[at - len(lead) : at]) == lead
            for lead in _LEADING_PAIRS
        )
        if not pair and found[at - 1].text not in _LEADING:
            continue
        number = cardinal(found, at)
        if number is not None:
            counted = found[at - 1].text in ("for", "of", "with")
            first = at - 1 if counted else at
            other = cardinal(found, number[1] + 1) if _text(found, number[1]) == "or" else None
            if other is not None:
                return [NumberHit(first, other[1], (number[0], other[0]))]
            return [NumberHit(first, number[1], (number[0],), bare=not counted)]
    return []


def _lone(found: Sequence[Word]) -> list[NumberHit]:
    at = 0
    while at < len(found):
        number = cardinal(found, at)
        if number is not None:
            value, behind = number
            other = cardinal(found, behind + 1) if _text(found, behind) in ("or", "to") else None
            if other is not None:
                return [NumberHit(at, other[1], (value, other[0]))]
            later = _lone(found[behind:])
            if later:
                # "four, no, five": the last word counts.
                return [NumberHit(behind + later[0].first, behind + later[0].behind, later[0].options)]
            return [NumberHit(at, behind, (value,))]
        at += 1
    meant = [(i, word) for i, word in enumerate(found) if word.text not in _FILLERS - {"for"}]
    if len(meant) == 1 and meant[0][1].text in HOMOPHONES:
        return [NumberHit(meant[0][0], meant[0][0] + 1, (HOMOPHONES[meant[0][1].text],))]
    if len(meant) == 1 and meant[0][1].text == "couple":
        return [NumberHit(meant[0][0], meant[0][0] + 1, (2,))]
    return []
