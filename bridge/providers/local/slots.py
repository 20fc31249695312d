"""What a caller's words say about the slots of a form, corrections in them resolved."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from bridge.providers.brief import Form, Slot
from bridge.providers.local.slots_dates import Daypart, dates
from bridge.providers.local.slots_names import name_in
from bridge.providers.local.slots_numbers import NumberHit, numbers
from bridge.providers.local.slots_phones import phones
from bridge.providers.local.slots_times import TimeHit, clock_options, times
from bridge.providers.local.text_speech import SlotValue
from bridge.providers.local.text_words import Word, word_set, words

MIN_PHONE_DIGITS = 6

_NEGATIONS = word_set("not isnt wasnt arent instead than")
_BEFORE_NEGATED = word_set("for on at the of a")
_CHANGE = word_set("change wrong different another instead correct incorrect fix update other mistake adjust alter")
_TYPE_WORDS = {
    "date": word_set("date day"),
    "time": word_set("time hour"),
    "name": word_set("name spelling"),
    "phone": word_set("phone number telephone"),
}
_MASKED = "\0"


@dataclass(frozen=True, slots=True)
class Reading:
    """One slot's value in the caller's words."""

    options: tuple[SlotValue, ...]
    """One if understood; several if ambiguous; none for words like "next week" that narrow it down only."""
    mismatch: bool = False
    """A weekday and a day that don't go together: the day is the first option, the weekday the second."""


@dataclass(frozen=True, slots=True)
class Extraction:
    readings: dict[str, Reading] = field(default_factory=dict)
    """By slot id."""
    denied: tuple[str, ...] = ()
    """Slots whose value was only ruled out: "not Friday"."""
    named: tuple[str, ...] = ()
    """Slots to be changed, without the new value: "the time is wrong"."""
    daypart: Daypart = ""
    partial_phone: str = ""
    """Digits, too few for a number, where one was expected."""
    either: tuple[tuple[str, SlotValue], ...] = ()
    """(slot, value) pairs of which one is meant: "make it eight" may be people or a time."""
    used_words: int = 0
    total_words: int = 0


@dataclass(frozen=True, slots=True)
class _Hit:
    first: int
    behind: int
    options: tuple[SlotValue, ...]
    mismatch: bool = False


def extract(
    text: str, form: Form, *, expected: str, filled: Collection[str], today: date, daypart: Daypart = ""
) -> Extraction:
    """Read `text` for the slots of `form`. `expected` is the id of the slot that was asked for, or empty.

    `daypart` is what was said before of the time ("Tuesday afternoon"). Text and yes-no slots are left to the
    dialogue: any words would fill them."""
    found = words(text)
    wanted = form.slot(expected).type if expected else ""
    reader = _Reader(found, form, expected, frozenset(filled))
    named = _to_be_changed(found, form)

    reader.read(
        "phone",
        lambda left, slot: [
            _Hit(hit.first, hit.behind, (hit.digits,))
            for hit in phones(left, min_digits=slot.min if slot.min is not None else MIN_PHONE_DIGITS)
            if len(hit.digits.lstrip("+")) <= (slot.max if slot.max is not None else 15)
        ],
    )
    partial = ""
    if wanted == "phone" and expected not in reader.readings:
        pieces = phones(reader.left(), min_digits=1)
        partial = "".join(hit.digits for hit in pieces)

    named_days = dates(reader.left(), today, loose=wanted == "date")
    said_daypart: Daypart = next((hit.daypart for hit in named_days if hit.daypart), "")
    reader.read(
        "date", lambda _left, _slot: [_Hit(hit.first, hit.behind, hit.options, hit.mismatch) for hit in named_days]
    )

    said_daypart = said_daypart or _lone_daypart(reader.left())
    hint = said_daypart or daypart
    reader.read(
        "time",
        lambda left, slot: [
            _Hit(hit.first, hit.behind, clock_options(hit, hint, slot.opens(), slot.closes()))
            for hit in times(left, loose=wanted == "time" or slot.id in named)
        ],
    )
    either: list[tuple[str, SlotValue]] = []
    reader.read(
        "number",
        lambda left, slot: [
            _Hit(hit.first, hit.behind, hit.options)
            for hit in numbers(left, slot.units, expected=slot.id == expected, only=reader.only("number"))
            if not (hit.bare and reader.may_be_time(hit, slot, named, either))
        ],
    )
    reader.read(
        "name",
        lambda left, slot: [
            _Hit(hit.first, hit.behind, (hit.name,))
            for hit in [name_in(left, expected=slot.id == expected and not partial)]
            if hit is not None
        ],
    )
    return Extraction(
        reader.readings,
        tuple(slot for slot in reader.denied if slot not in reader.readings),
        tuple(slot for slot in named if slot not in reader.readings),
        said_daypart,
        partial,
        tuple(either),
        sum(reader.used),
        len(found),
    )


def _lone_daypart(left: Sequence[Word]) -> Daypart:
    for at, word in enumerate(left):
        led = at > 0 and left[at - 1].text in ("the", "this", "in", "early", "late")
        if word.text == "morning" and led:
            return "am"
        if word.text in ("afternoon", "evening", "night") and led:
            return "pm"
    return ""


class _Reader:
    """Goes through the slot types from the most to the least distinctive, each seeing only the words still free."""

    def __init__(self, found: Sequence[Word], form: Form, expected: str, filled: frozenset[str]) -> None:
        self.found = found
        self.used = [False] * len(found)
        self.form = form
        self.expected = expected
        self.filled = filled
        self.readings: dict[str, Reading] = {}
        self.denied: list[str] = []

    def left(self) -> list[Word]:
        return [
            replace(word, text=_MASKED, raw=_MASKED) if used else word
            for word, used in zip(self.found, self.used, strict=True)
        ]

    def only(self, slot_type: str) -> bool:
        return sum(slot.type == slot_type for slot in self.form.slots) == 1

    def read(self, slot_type: str, find: Callable[[Sequence[Word], Slot], list[_Hit]]) -> None:
        slots = [slot for slot in self.form.slots if slot.type == slot_type]
        if not slots:
            return
        # What was asked for comes first, then what is missing, then what would be corrected.
        slots.sort(key=lambda slot: (slot.id != self.expected, slot.id in self.filled))
        hits = find(self.left(), slots[0])
        kept = [hit for hit in hits if not self._negated(hit) and not (len(slots) == 1 and self._replaced(hit))]
        for hit in hits:
            self.used[hit.first : hit.behind] = [True] * (hit.behind - hit.first)
        if hits and not kept:
            self.denied.append(slots[0].id)
        if len(slots) > 1:
            for slot, hit in zip(slots, kept, strict=False):
                self.readings[slot.id] = Reading(hit.options, hit.mismatch)
        elif kept:
            self.readings[slots[0].id] = self._settle(kept)

    def _settle(self, hits: list[_Hit]) -> Reading:
        """One value from several: "seven or eight" stays open, otherwise the last word counts."""
        last = hits[-1]
        if len(hits) > 1:
            before = hits[-2]
            joint = {word.text for word in self.found[before.behind : last.first]}
            span = self.found[before.first - 1].text if before.first else ""
            if "or" in joint or (span == "between" and "and" in joint):
                options = before.options + last.options
                return Reading(tuple(dict.fromkeys(options)))
            # "next week on Friday": what names no day only narrows.
            if not last.options:
                last = before
        return Reading(last.options, last.mismatch)

    def _negated(self, hit: _Hit) -> bool:
        at = hit.first - 1
        while at >= 0 and self.found[at].text in _BEFORE_NEGATED:
            at -= 1
        return at >= 0 and self.found[at].text in _NEGATIONS

    def _replaced(self, hit: _Hit) -> bool:
        """ "from seven to eight" while one thing is being changed: the first is the old value."""
        led = "from" in (self.found[hit.first].text, self.found[hit.first - 1].text if hit.first else "")
        return led and hit.behind < len(self.found) and self.found[hit.behind].text == "to"

    def may_be_time(
        self, hit: NumberHit, slot: Slot, named: Collection[str], either: list[tuple[str, SlotValue]]
    ) -> bool:
        """Whether a bare number corrects either `slot` or the time, both known already; then fills `either`."""
        if slot.id == self.expected or slot.id in named or slot.id not in self.filled:
            return False
        for other in self.form.slots:
            if other.type == "time" and other.id in self.filled and other.id not in self.readings:
                hour = TimeHit(hit.first, hit.behind, hit.options[0], 0, "", certain=False)
                if 1 <= hour.hour <= 12:
                    either += [(slot.id, hit.options[0])]
                    either += [(other.id, time) for time in clock_options(hour, "", other.opens(), other.closes())]
                    return True
        return False


def _to_be_changed(found: Sequence[Word], form: Form) -> tuple[str, ...]:
    if not {word.text for word in found} & _CHANGE:
        return ()
    return _named(found, form)


def slots_named(text: str, form: Form) -> tuple[str, ...]:
    """The slots that `text` speaks of: "the time", "how many people"."""
    return _named(words(text), form)


def _named(found: Sequence[Word], form: Form) -> tuple[str, ...]:
    said = {word.text for word in found}
    named = []
    for slot in form.slots:
        about = frozenset(slot.id.split("_")) | frozenset(slot.units) | _TYPE_WORDS.get(slot.type, frozenset())
        if said & about:
            named.append(slot.id)
    return tuple(named)
