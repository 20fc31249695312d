"""Days as callers say them: "tomorrow night", "next Friday", "Friday the fifth", "the 3rd of May"."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from bridge.providers.brief import WEEKDAYS
from bridge.providers.local.text_words import Word, cardinal, ordinal

Daypart = Literal["", "am", "pm"]

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_DAYPARTS: dict[str, Daypart] = {
    **{"morning": "am", "noon": "pm", "afternoon": "pm", "evening": "pm", "night": "pm", "lunch": "pm"},
    **{"lunchtime": "pm", "dinner": "pm", "dinnertime": "pm"},
}
_NAMED_DAYS = {
    ("christmas", "eve"): (12, 24),
    ("christmas", "day"): (12, 25),
    ("christmas",): (12, 25),
    ("boxing", "day"): (12, 26),
    ("new", "years", "eve"): (12, 31),
    ("new", "year", "eve"): (12, 31),
    ("new", "years", "day"): (1, 1),
    ("new", "years"): (1, 1),
    ("valentines", "day"): (2, 14),
    ("valentines",): (2, 14),
    ("halloween",): (10, 31),
}
_NAMING = frozenset(name[0] for name in _NAMED_DAYS)
_LEADING = frozenset({"on", "the", "for", "at", "by", "coming", "around", "about"})
_NOT_A_DAY = frozenset({"time", "one", "question", "floor", "person", "name", "thing", "option", "of", "please"})
_RECENTLY_PAST = timedelta(days=60)
"""A day without a year that lies back less than this is taken for a slip; further back, next year's is meant."""


@dataclass(frozen=True, slots=True)
class DateHit:
    first: int
    """Index of its first word, leading prepositions included."""
    behind: int
    options: tuple[date, ...]
    """One day; several if the words are ambiguous; none for "next week", which names no day."""
    daypart: Daypart = ""
    mismatch: bool = False
    """ "Friday the fifth" and the fifth (the first option) is no Friday (the second)."""


def dates(found: Sequence[Word], today: date, *, loose: bool) -> list[DateHit]:
    """The days named in `found`. `loose`: a day is expected, so "the third" or "Sundays" are taken for one."""
    hits: list[DateHit] = []
    at = 0
    while at < len(found):
        hit = _at(found, at, today, loose)
        if hit is None:
            at += 1
            continue
        behind, daypart = _daypart(found, hit.behind)
        first = hit.first
        floor = hits[-1].behind if hits else 0
        while first > floor and found[first - 1].text in _LEADING:
            first -= 1
        hits.append(DateHit(first, behind, hit.options, hit.daypart or daypart, hit.mismatch))
        at = behind
    return hits


def _daypart(found: Sequence[Word], at: int) -> tuple[int, Daypart]:
    skip = at
    while skip < len(found) and skip < at + 2 and found[skip].text in ("in", "the", "at", "for"):
        skip += 1
    if skip < len(found) and found[skip].text in _DAYPARTS and not found[at].after_break:
        return skip + 1, _DAYPARTS[found[skip].text]
    return at, ""


def _text(found: Sequence[Word], at: int) -> str:
    return found[at].text if at < len(found) else ""


def _at(found: Sequence[Word], at: int, today: date, loose: bool) -> DateHit | None:
    text = _text(found, at)
    match text:
        case "today":
            return DateHit(at, at + 1, (today,))
        case "tonight" | "tonite":
            return DateHit(at, at + 1, (today,), "pm")
        case "this" if _text(found, at + 1) in ("morning", "afternoon", "evening"):
            return DateHit(at, at + 2, (today,), _DAYPARTS[found[at + 1].text])
        case "tomorrow" | "tomorrows":
            return DateHit(at, at + 1, (today + timedelta(days=1),))
        case "day" if _text(found, at + 1) == "after" and _text(found, at + 2) == "tomorrow":
            return DateHit(at, at + 3, (today + timedelta(days=2),))
        case "yesterday":
            return DateHit(at, at + 1, (today - timedelta(days=1),))
    return (
        _distance(found, at, today)
        or _named(found, at, today)
        or _weekday(found, at, today, loose)
        or _vague(found, at, today)
        or _calendar(found, at, today, loose)
    )


def _distance(found: Sequence[Word], at: int, today: date) -> DateHit | None:
    """ "in two weeks", "three days from now", "a week from Friday"."""
    start = at + 1 if _text(found, at) in ("in", "within") else at
    number = (1, start + 1) if _text(found, start) in ("a", "one") else cardinal(found, start)
    if number is None:
        return None
    count, behind = number
    unit = _text(found, behind).removesuffix("s")
    if unit not in ("day", "week") or count > 60:
        return None
    days = count * (7 if unit == "week" else 1)
    if start > at and _text(found, behind + 1) != "from":
        return DateHit(at, behind + 1, (today + timedelta(days=days),))
    if _text(found, behind + 1) in ("from", "on"):
        base = _text(found, behind + 2)
        if base in ("now", "today"):
            return DateHit(at, behind + 3, (today + timedelta(days=days),))
        if base == "tomorrow":
            return DateHit(at, behind + 3, (today + timedelta(days=days + 1),))
        if base in WEEKDAYS:
            return DateHit(at, behind + 3, (_coming(today, WEEKDAYS.index(base)) + timedelta(days=days),))
    return None


def _named(found: Sequence[Word], at: int, today: date) -> DateHit | None:
    if found[at].text not in _NAMING:
        return None
    for name, (month, day) in _NAMED_DAYS.items():
        if tuple(word.text for word in found[at : at + len(name)]) == name:
            return DateHit(at, at + len(name), (_on(today, month, day),))
    return None


def _coming(today: date, weekday: int) -> date:
    """The next such day after today."""
    return today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)


def _weekday(found: Sequence[Word], at: int, today: date, loose: bool) -> DateHit | None:
    lead = _text(found, at) if _text(found, at) in ("this", "next") else ""
    name_at = at + 1 if lead else at
    if lead == "this" and _text(found, name_at) == "coming":
        name_at += 1
    if name_at >= len(found):
        return None
    name = found[name_at].text
    if name not in WEEKDAYS:
        # "Friday's fine" and, where a day is asked for, "Fridays"; elsewhere that is a habit ("open on Sundays").
        name = name.removesuffix("s") if loose or set("'’") & set(found[name_at].raw) else ""
    if name not in WEEKDAYS:
        return None
    behind = name_at + 1
    number = WEEKDAYS.index(name)
    coming = _coming(today, number)
    next_monday = today + timedelta(days=7 - today.weekday())
    if _text(found, behind) in ("this", "next") and _text(found, behind + 1) == "week":
        week = next_monday if found[behind].text == "next" else next_monday - timedelta(days=7)
        return DateHit(at, behind + 2, (week + timedelta(days=number),))
    exact = _calendar(found, behind, today, loose=True) or (
        _calendar(found, behind + 1, today, loose=True) if _text(found, behind) == "the" else None
    )
    if exact is not None and exact.options:
        day = exact.options[0]
        if day.weekday() == number:
            return DateHit(at, exact.behind, (day,))
        return DateHit(at, exact.behind, (day, _nearest(day, number, today)), mismatch=True)
    return DateHit(at, behind, _by_name(lead, number, today, coming, next_monday))


def _by_name(lead: str, number: int, today: date, coming: date, next_monday: date) -> tuple[date, ...]:
    is_today = number == today.weekday()
    if lead == "this":
        return (today,) if is_today else (coming,)
    if lead == "next":
        # On a Tuesday "next Friday" is this week's to some and next week's to others.
        ambiguous = not is_today and coming < next_monday
        return (coming, coming + timedelta(days=7)) if ambiguous else (coming,)
    return (today, coming) if is_today else (coming,)


def _nearest(day: date, weekday: int, today: date) -> date:
    before = day - timedelta(days=(day.weekday() - weekday) % 7)
    after = before + timedelta(days=7)
    return before if before >= today and day - before <= after - day else after


def _vague(found: Sequence[Word], at: int, today: date) -> DateHit | None:
    text, following = _text(found, at), _text(found, at + 1)
    saturday = today + timedelta(days=5 - today.weekday()) if today.weekday() < 6 else today - timedelta(days=1)
    if following == "weekend" and text in ("this", "the", "next"):
        if text == "next":
            saturday += timedelta(days=7)
        return DateHit(at, at + 2, (saturday, saturday + timedelta(days=1)))
    if text in ("next", "this") and following == "week":
        name_at = at + 3 if _text(found, at + 2) == "on" else at + 2
        if _text(found, name_at) in WEEKDAYS:
            monday = today - timedelta(days=today.weekday()) + timedelta(days=7 if text == "next" else 0)
            return DateHit(at, name_at + 1, (monday + timedelta(days=WEEKDAYS.index(found[name_at].text)),))
    if text in ("next", "this") and following in ("week", "month"):
        return DateHit(at, at + 2, ())
    return None


def _calendar(found: Sequence[Word], at: int, today: date, loose: bool) -> DateHit | None:
    """ "May 3rd", "the third of May", "the third"."""
    text = _text(found, at)
    if text in MONTHS:
        number_at = at + 2 if _text(found, at + 1) == "the" else at + 1
        number = ordinal(found, number_at) or cardinal(found, number_at)
        if number is None or not 1 <= number[0] <= 31:
            return None
        return _dated(found, at, number[1], today, MONTHS.index(text) + 1, number[0])
    number = ordinal(found, at)
    if number is None:
        number = cardinal(found, at)
        if number is not None and _text(found, number[1]) not in MONTHS:
            of_month = _text(found, number[1]) == "of" and _text(found, number[1] + 1) in MONTHS
            number = number if of_month else None
    if number is None or not 1 <= number[0] <= 31:
        return None
    day, behind = number
    month_at = behind + 1 if _text(found, behind) == "of" else behind
    if _text(found, month_at) in MONTHS:
        return _dated(found, at, month_at + 1, today, MONTHS.index(found[month_at].text) + 1, day)
    led = at > 0 and found[at - 1].text == "the"
    if (led or loose) and _text(found, behind) not in _NOT_A_DAY:
        return DateHit(at, behind, (_next_day_of_month(today, day),))
    return None


def _dated(found: Sequence[Word], at: int, behind: int, today: date, month: int, day: int) -> DateHit | None:
    year = _text(found, behind)
    try:
        if year.isdecimal() and len(year) == 4:
            return DateHit(at, behind + 1, (date(int(year), month, day),))
        return DateHit(at, behind, (_on(today, month, day),))
    except ValueError:  # February 30th
        return None


def _on(today: date, month: int, day: int) -> date:
    this_year = date(today.year, month, day)
    if this_year >= today - _RECENTLY_PAST:
        return this_year
    return date(today.year + 1, month, day)


def _next_day_of_month(today: date, day: int) -> date:
    for ahead in range(62):
        candidate = today + timedelta(days=ahead)
        if candidate.day == day:
            return candidate
    raise ValueError(f"no month has a day {day}")
