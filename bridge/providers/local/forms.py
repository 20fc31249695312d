"""A form being filled: values taken from the caller's words, checked against the brief, read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from bridge.providers.brief import WEEKDAYS, Brief, Form, Slot
from bridge.providers.local.slots import Extraction, Reading
from bridge.providers.local.slots_dates import Daypart
from bridge.providers.local.text_speech import (
    SlotValue,
    as_argument,
    ordinal_number,
    sentence,
    spoken,
    spoken_date,
    spoken_time,
    weekday_name,
)

_FARTHEST_DAYS = 365


@dataclass(frozen=True, slots=True)
class Choice:
    """One value among several that the caller's words could mean."""

    slot: str
    value: SlotValue


@dataclass(slots=True)
class Taken:
    """What came of one utterance."""

    changed: list[str] = field(default_factory=list)
    """Slots that got a new value where they had another."""
    filled: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Sentences to say about values that can't be had."""
    choices: tuple[Choice, ...] = ()
    note: str = ""
    """Why there is a choice, if that needs saying."""
    ask_again: str = ""
    """A slot to ask for next, whatever else is missing."""

    @property
    def anything(self) -> bool:
        return bool(self.changed or self.filled or self.same or self.wrong or self.choices or self.ask_again)


class FilledForm:
    """A form with the values so far."""

    def __init__(self, form: Form, brief: Brief, now: datetime) -> None:
        self.form = form
        self.values: dict[str, SlotValue] = {}
        self.daypart: Daypart = ""
        self.partial_phone = ""
        self._phrases = brief.phrases
        self._now = now

    @property
    def missing(self) -> Slot | None:
        """The next slot to ask for."""
        return next((slot for slot in self.form.slots if not slot.optional and slot.id not in self.values), None)

    def take(self, extraction: Extraction) -> Taken:
        """Take over what was understood."""
        taken = Taken()
        self.daypart = extraction.daypart or self.daypart
        for slot_id in (*extraction.denied, *extraction.named):
            self.values.pop(slot_id, None)
            taken.ask_again = taken.ask_again or slot_id
        for slot in self.form.slots:
            reading = extraction.readings.get(slot.id)
            if reading is not None:
                self._take_reading(slot, reading, taken)
        if extraction.either and not taken.choices:
            taken.choices = tuple(
                Choice(slot_id, value)
                for slot_id, value in extraction.either
                if not self.problem(self.form.slot(slot_id), value)
            )
            if len(taken.choices) == 1:
                only = taken.choices[0]
                taken.choices = ()
                self.put(only.slot, only.value, taken)
        self._check_past(taken)
        return taken

    def _take_reading(self, slot: Slot, reading: Reading, taken: Taken) -> None:
        if not reading.options:
            taken.ask_again = slot.id
            return
        if len(reading.options) == 1:
            self.put(slot.id, reading.options[0], taken)
            return
        possible = [value for value in reading.options if not self.problem(slot, value)]
        if len(possible) < 2 and not reading.mismatch:
            self.put(slot.id, (possible or list(reading.options))[0], taken)
            return
        if taken.choices:  # One question at a time: this one comes up again as a missing slot.
            return
        taken.choices = tuple(
            Choice(slot.id, value) for value in (possible if len(possible) > 1 else reading.options)
        )
        day = reading.options[0]
        if reading.mismatch and isinstance(day, date):
            taken.note = self._phrases.date_mismatch.format(day=ordinal_number(day.day), weekday=weekday_name(day))

    def put(self, slot_id: str, value: SlotValue, taken: Taken) -> None:
        """Set one value, if it can be had."""
        slot = self.form.slot(slot_id)
        problem = self.problem(slot, value)
        if problem:
            self.values.pop(slot_id, None)
            taken.wrong.append(problem)
            taken.ask_again = taken.ask_again or slot_id
            return
        known = self.values.get(slot_id)
        if known == value:
            taken.same.append(slot_id)
        elif known is not None:
            taken.changed.append(slot_id)
        else:
            taken.filled.append(slot_id)
        self.values[slot_id] = value
        if slot.type == "phone":
            self.partial_phone = ""

    def problem(self, slot: Slot, value: SlotValue) -> str:
        """Why `value` can't be had, as a sentence to say; empty if it can."""
        if isinstance(value, bool):
            return ""
        if isinstance(value, date):
            return self._date_problem(slot, value)
        if isinstance(value, time):
            return _time_problem(slot, value)
        if isinstance(value, int):
            if slot.min is not None and value < slot.min:
                return slot.too_low or f"It has to be at least {slot.min}."
            if slot.max is not None and value > slot.max:
                return slot.too_high or f"It can be {slot.max} at most."
        return ""

    def _date_problem(self, slot: Slot, day: date) -> str:
        today = self._now.date()
        ahead = (day - today).days
        if ahead < 0:
            return slot.too_low or self._said(self._phrases.past_date, day)
        if ahead < (slot.min or 0):
            earliest = spoken_date(today + timedelta(days=slot.min or 0), today)
            return slot.too_low or f"The earliest day is {earliest}."
        farthest = slot.max if slot.max is not None else _FARTHEST_DAYS
        if ahead > farthest:
            return slot.too_high or f"The last day is {spoken_date(today + timedelta(days=farthest), today)}."
        if WEEKDAYS[day.weekday()] in slot.closed:
            return slot.closed_say or self._phrases.closed_day.format(weekday=weekday_name(day))
        return ""

    def _said(self, phrase: str, value: SlotValue) -> str:
        return sentence(phrase.format(value=spoken(value, "", self._now.date())))

    def _check_past(self, taken: Taken) -> None:
        """Today, but at an hour that is over: the time goes, the day stays."""
        day = next((v for v in self.values.values() if isinstance(v, date)), None)
        for slot in self.form.slots:
            moment = self.values.get(slot.id)
            if isinstance(moment, time) and day == self._now.date() and moment <= self._now.time():
                del self.values[slot.id]
                taken.wrong.append(self._said(self._phrases.past_time, moment))
                taken.ask_again = slot.id

    def say(self, template: str) -> str:
        """A template of the form with the values as people say them."""
        today = self._now.date()
        said = {
            slot.id: spoken(self.values[slot.id], slot.type, today) if slot.id in self.values else ""
            for slot in self.form.slots
        }
        return sentence(template.format_map(said))

    def spoken(self, slot_id: str) -> str:
        return spoken(self.values[slot_id], self.form.slot(slot_id).type, self._now.date())

    def option(self, choice: Choice) -> str:
        """One option of a choice as it is offered."""
        slot = self.form.slot(choice.slot)
        text = spoken(choice.value, slot.type, self._now.date())
        return f"{text} {slot.units[0]}" if slot.type == "number" and slot.units else text

    def arguments(self) -> dict[str, Any]:
        """The values as the form's tool takes them."""
        return as_arguments(self.form, self.values)


def as_arguments(form: Form, values: Mapping[str, SlotValue]) -> dict[str, Any]:
    """Slot values in the order of the form: ISO dates, HH:MM, digits."""
    return {slot.id: as_argument(values[slot.id]) for slot in form.slots if slot.id in values}


def _time_problem(slot: Slot, moment: time) -> str:
    opens, closes = slot.opens(), slot.closes()
    if opens is not None and moment < opens:
        return slot.too_low or f"It is possible from {spoken_time(opens)}{_until(closes)}."
    if closes is not None and moment > closes:
        return slot.too_high or (
            f"It is possible from {spoken_time(opens)}{_until(closes)}."
            if opens
            else f"The latest is {spoken_time(closes)}."
        )
    return ""


def _until(closes: time | None) -> str:
    return f" to {spoken_time(closes)}" if closes is not None else ""
