"""Times of day as callers say them: "half past seven", "seven thirty", "7:30 p.m.", "at eight in the evening"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import time

from bridge.providers.local.slots_dates import Daypart
from bridge.providers.local.text_words import Word, cardinal

_LEADING = frozenset({"at", "around", "about", "by", "from", "say", "like", "till", "until", "after", "before"})
_NOT_AN_HOUR = frozenset({"people", "persons", "guests", "of", "adults", "children", "kids", "dollars", "minutes"})
_PAST = frozenset({"past", "after"})
_TO = frozenset({"to", "of", "til", "till", "before"})
_HEARD_AS_TO = frozenset({"too", "two"})
"""Only behind "quarter": "five two one" is no time."""


@dataclass(frozen=True, slots=True)
class TimeHit:
    first: int
    behind: int
    hour: int
    minute: int
    meridiem: Daypart
    """Empty when the words leave it open and the hour is 1 to 12."""
    certain: bool
    """False for a lone number, taken for a time because one was expected."""


def times(found: Sequence[Word], *, loose: bool) -> list[TimeHit]:
    """The times named in `found`. `loose`: a time is expected, so that a lone "eight" is one."""
    hits: list[TimeHit] = []
    at = 0
    while at < len(found):
        led = at > 0 and found[at - 1].text in _LEADING
        # "from seven to eight", "at seven or eight"
        joined = bool(hits and hits[-1].behind == at - 1 and found[at - 1].text in ("to", "or", "and"))
        led = led or joined
        core = _core(found, at, led=led, loose=loose)
        if core is None:
            at += 1
            continue
        hour, minute, behind, certain = core
        behind, meridiem = _meridiem(found, behind)
        if found[at].text in ("noon", "midday"):
            meridiem = "pm"
        if not certain and not meridiem and not led and not loose:
            at += 1
            continue
        if hour > 12 or (hour == 0 and meridiem != "am"):
            meridiem = "am" if hour < 12 else "pm"
        if joined:
            hits[-1] = replace(hits[-1], certain=True)
        floor = hits[-1].behind if hits else 0
        first = at
        while first > floor and found[first - 1].text in _LEADING:
            first -= 1
        hits.append(TimeHit(first, behind, hour, minute, meridiem, certain or led or bool(meridiem)))
        at = behind
    return [hit for hit in hits if hit.certain] or hits


def _text(found: Sequence[Word], at: int) -> str:
    return found[at].text if at < len(found) else ""


def _core(found: Sequence[Word], at: int, *, led: bool, loose: bool) -> tuple[int, int, int, bool] | None:
    """Hour, minute, index behind, and whether it is a time beyond doubt, for words that begin one at `at`."""
    text = found[at].text
    if text in ("noon", "midday"):
        return 12, 0, at + 1, True
    if text == "midnight":
        return 0, 0, at + 1, True
    if ":" in text:
        hour_digits, _, minute_digits = text.partition(":")
        return _digits(hour_digits, minute_digits, at + 1)
    relative = _relative(found, at)
    if relative is not None:
        return relative
    if text.isdecimal() and len(text) in (3, 4) and (led or loose or _meridiem(found, at + 1)[1]):
        return _digits(text[:-2], text[-2:], at + 1)
    return _spoken(found, at)


def _digits(hour: str, minute: str, behind: int) -> tuple[int, int, int, bool] | None:
    return (int(hour), int(minute), behind, True) if int(hour) < 24 and int(minute) < 60 else None


def _relative(found: Sequence[Word], at: int) -> tuple[int, int, int, bool] | None:
    """ "half past seven", "quarter to eight", "ten past seven", "half seven"."""
    text = found[at].text
    start = at + 1 if text in ("a", "half", "quarter") else at
    if text == "a" and _text(found, start) != "quarter":
        return None
    if text == "half" and _text(found, start) not in _PAST:
        hour = cardinal(found, start)
        plausible = hour is not None and 1 <= hour[0] <= 12 and _text(found, hour[1]) not in _NOT_AN_HOUR
        return (hour[0], 30, hour[1], True) if hour is not None and plausible else None
    if text in ("half", "quarter") or (text == "a" and _text(found, start) == "quarter"):
        minutes, joint = (30 if text == "half" else 15), (start + 1 if text == "a" else start)
    else:
        number = cardinal(found, at)
        if number is None or number[0] not in (5, 10, 15, 20, 25):
            return None
        minutes, joint = number
        if _text(found, joint) == "minutes":
            joint += 1
    word = _text(found, joint)
    if word not in _PAST and word not in _TO and not (minutes == 15 and word in _HEARD_AS_TO):
        return None
    hour = cardinal(found, joint + 1)
    if hour is None or not 1 <= hour[0] <= 12 or _text(found, hour[1]) in _NOT_AN_HOUR:
        return None
    if word in _PAST:
        return hour[0], minutes, hour[1], True
    return (hour[0] - 2) % 12 + 1, 60 - minutes, hour[1], True


def _spoken(found: Sequence[Word], at: int) -> tuple[int, int, int, bool] | None:
    """ "seven", "seven thirty", "eight oh five", "seven o'clock"."""
    number = cardinal(found, at)
    if number is None or number[0] > 23:
        return None
    hour, behind = number
    following = _text(found, behind)
    if following == "oclock" or (following == "o" and _text(found, behind + 1) == "clock"):
        return hour, 0, behind + (1 if following == "oclock" else 2), True
    if following == "hundred" and hour >= 10:
        return hour, 0, behind + 1, True
    if following in ("oh", "o", "zero"):
        unit = cardinal(found, behind + 1)
        if unit is not None and 0 < unit[0] < 10:
            return hour, unit[0], unit[1], True
    minute = cardinal(found, behind)
    minutes_follow = minute is not None and 10 <= minute[0] <= 59 and not found[behind].after_break
    if minute is not None and minutes_follow and hour > 0 and _text(found, minute[1]) not in _NOT_AN_HOUR:
        return hour, minute[0], minute[1], True
    if following in _NOT_AN_HOUR or hour == 0:
        return None
    if following in ("ish", "sharp"):
        return hour, 0, behind + 1, True
    return hour, 0, behind, False


def _meridiem(found: Sequence[Word], at: int) -> tuple[int, Daypart]:
    text = _text(found, at)
    if text in ("am", "pm"):
        return at + 1, "am" if text == "am" else "pm"
    if text in ("a", "p") and _text(found, at + 1) == "m":
        return at + 2, "am" if text == "a" else "pm"
    if text in ("oclock", "ish", "sharp"):
        return _meridiem(found, at + 1)
    start = at + 1 if text in ("in", "at") else at
    if start > at and _text(found, start) == "the":
        start += 1
    match _text(found, start):
        case "morning" if start > at:
            return start + 1, "am"
        case "afternoon" | "evening" | "night" if start > at:
            return start + 1, "pm"
        case "tonight":
            return at, "pm"
    return at, ""


def clock_options(hit: TimeHit, hint: Daypart, opens: time | None, closes: time | None) -> tuple[time, ...]:
    """The times of day that `hit` can mean: one, or two when neither its words, `hint` nor the hours decide."""
    if hit.hour == 0 or hit.hour > 12:
        return (time(hit.hour, hit.minute),)
    morning, evening = time(hit.hour % 12, hit.minute), time(hit.hour % 12 + 12, hit.minute)
    said = hit.meridiem or hint
    if said:
        return (morning,) if said == "am" else (evening,)
    if opens is None and closes is None:
        # Without hours of business: 1 to 6 are afternoons, 12 is noon; 7 to 11 are anybody's guess.
        return (morning, evening) if 7 <= hit.hour <= 11 else (evening,)
    first, last = opens or time.min, closes or time.max
    fitting = tuple(option for option in (morning, evening) if first <= option <= last)
    if fitting:
        return fitting
    return (min((evening, morning), key=lambda option: min(_apart(option, first), _apart(option, last))),)


def _apart(one: time, other: time) -> int:
    return abs(one.hour * 60 + one.minute - other.hour * 60 - other.minute)
