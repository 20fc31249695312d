"""Values as people say them, in a spelling that a voice reads well."""

from datetime import date, time

from bridge.providers.local.slots_dates import MONTHS
from bridge.providers.local.slots_phones import spoken_digits

SlotValue = date | time | int | str | bool
"""A slot's value: date, time, number, text/name/phone, yes_no."""


def spoken_date(day: date, today: date) -> str:
    """ "tomorrow, Saturday, May 6th"; the year only when it is another one."""
    text = f"{weekday_name(day)}, {MONTHS[day.month - 1].title()} {ordinal_number(day.day)}"
    if day.year != today.year:
        text += f", {day.year}"
    near = {0: "today, ", 1: "tomorrow, "}.get((day - today).days, "")
    return near + text


def spoken_time(moment: time) -> str:
    """ "7:30 PM", "noon"."""
    if moment == time(12):
        return "noon"
    if moment == time(0):
        return "midnight"
    hour, half = (moment.hour - 1) % 12 + 1, "AM" if moment.hour < 12 else "PM"
    if moment.minute == 0:
        return f"{hour} {half}"
    if moment.minute < 10:
        return f"{hour} oh {moment.minute} {half}"
    return f"{hour}:{moment.minute} {half}"


def weekday_name(day: date) -> str:
    return f"{day:%A}"


def ordinal_number(number: int) -> str:
    """ "1st" to "31st"."""
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def spoken(value: SlotValue, slot_type: str, today: date) -> str:
    """Any slot's value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, date):
        return spoken_date(value, today)
    if isinstance(value, time):
        return spoken_time(value)
    if slot_type == "phone":
        return spoken_digits(str(value))
    return str(value).strip().rstrip(".!,;")


def sentence(text: str) -> str:
    """`text` with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def as_argument(value: SlotValue) -> str | int | bool:
    """A slot's value as a tool gets it: ISO dates, HH:MM."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, time):
        return f"{value:%H:%M}"
    return value
