"""The conversation inside a form: asking, taking answers and corrections, asides, the read-back and its yes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Literal

from bridge.providers.brief import Brief, Fact, Form, Slot, abilities
from bridge.providers.local.brain_acts import Acts
from bridge.providers.local.brain_floor import Asked, Floor, Plan
from bridge.providers.local.brain_match import ACCEPT, CLEAR, SURE, Match
from bridge.providers.local.forms import Choice, FilledForm, Taken
from bridge.providers.local.slots import MIN_PHONE_DIGITS, Extraction, extract, slots_named
from bridge.providers.local.slots_phones import spoken_digits
from bridge.providers.local.text_replies import (
    by_daypart,
    by_position,
    dictated,
    only_digits,
    reported,
    without_question,
)

MISSES_TO_OFFER = 3
"""After so many turns in a row that were not understood a person or a message is offered."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The conversation leaves the form, or (`help`) needs what the form hasn't."""

    to: Literal["cancelled", "goodbye", "handover", "form", "help"]
    form: str = ""
    """For `form`: which one is opened instead."""
    say: str = ""
    """For `help`: what to say first."""


class FormTalk:
    """One form on the floor. `answer` returns the next reply, or how the form is left."""

    def __init__(self, form: Form, brief: Brief, now: datetime, floor: Floor) -> None:
        self.form = form
        self._filled = FilledForm(form, brief, now)
        self._brief = brief
        self._phrases = brief.phrases
        self._now = now
        self._floor = floor

    def open(self, text: str, *, name: str, first: Sequence[str] = ()) -> Plan:
        """Begin, with what the caller's first sentence said already (empty: it was offered), and the caller's name
        if it is known. `first` is said before anything else."""
        taken = Taken()
        if text:
            taken = self._filled.take(self._extract(text, ""))
            message, slot = reported(text), next((slot for slot in self.form.slots if slot.type == "text"), None)
            if message and slot is not None:
                self._filled.put(slot.id, message, taken)
        names = [slot.id for slot in self.form.slots if slot.type == "name" and not slot.optional]
        if name and len(names) == 1 and names[0] not in self._filled.values:
            self._filled.put(names[0], name, taken)
        return self._go_on(taken, *(first or (self.form.opening,)))

    def answer(self, text: str, act: Acts, match: Match) -> Plan | Exit:
        """The caller said something."""
        asked = self._floor.question
        writing = asked.kind == "slot" and self.form.slot(asked.slot).type == "text"
        if act.cancel and not writing:
            return Exit("cancelled")
        if act.bye and not writing and not (asked.kind == "confirm" and act.leading_yes):
            return Exit("goodbye")
        match asked.kind:
            case "slot":
                return self._answered(self.form.slot(asked.slot), text, act, match)
            case "confirm":
                return self._confirmed(text, act, match)
            case "change":
                return self._ask_next() if act.no or act.done or act.yes else self._change(text, act, match)
            case "choose":
                return self._chosen(asked.choices, text, act, match)
        # What was asked was not heard: take what was said, and ask it again.
        taken = self._filled.take(self._extract(text, ""))
        aside = None if taken.anything else self._aside(act, match)
        return aside if aside is not None else self._go_on(taken)

    def ask(self, *say: str) -> Plan:
        """Ask (again) for what comes next."""
        return self._ask_next(*say)

    def finish(self, template: str) -> str:
        """`done` or `failed` with the values; empty, not with a hole in it, if another model filled the form."""
        return self._filled.say(template) if self._filled.missing is None else ""

    def _extract(self, text: str, expected: str) -> Extraction:
        filled = self._filled
        today = self._now.date()
        return extract(text, self.form, expected=expected, filled=filled.values, today=today, daypart=filled.daypart)

    # -- answers ------------------------------------------------------------------------------------------------

    def _answered(self, slot: Slot, text: str, act: Acts, match: Match) -> Plan | Exit:
        """Something was said to the question for `slot`."""
        if slot.type == "text":
            aside = self._aside(act, match) if act.question else None
            return aside if aside is not None else self._written(slot, text, act)
        if slot.type == "yes_no" and (act.yes or act.no):
            taken = Taken()
            self._filled.put(slot.id, act.yes, taken)
            return self._go_on(taken)
        found = self._extract(text, slot.id)
        if self._is_question(slot, found, act, match):
            aside = self._aside(act, match)
            if aside is not None:
                return aside
        if slot.type == "phone" and found.partial_phone:
            return self._more_digits(slot, found.partial_phone, restart=act.leading_no)
        reading = found.readings.get(slot.id)
        if slot.type == "phone" and self._filled.partial_phone and reading is not None:
            return self._more_digits(slot, str(reading.options[0]), restart=act.leading_no)
        taken = self._filled.take(found)
        if taken.anything:
            return self._go_on(taken)
        aside = self._aside(act, match)
        if aside is not None:
            return aside
        if found.daypart or act.yes or act.okay or act.hello or act.thanks:
            return self._ask_next()
        return self._missed(slot, known=not act.question)

    @staticmethod
    def _is_question(slot: Slot, found: Extraction, act: Acts, match: Match) -> bool:
        """Whether what could be read as a value is rather a question: "are you open on Sunday?"."""
        if act.question and match.about("fact", CLEAR):
            return True
        # Any words could be a name.
        guessed = slot.type == "name" and tuple(found.readings) == (slot.id,)
        return guessed and bool(match.about("fact", SURE) or match.about("handover", SURE))

    def _written(self, slot: Slot, text: str, act: Acts) -> Plan | Exit:
        """Free text: all of it counts."""
        values = self._filled.values
        phone = next((other.id for other in self.form.slots if other.type == "phone" and other.id in values), "")
        digits = only_digits(text)
        if phone and digits:
            # The rest of a number that was taken for whole after a pause.
            values[phone] = str(values[phone]) + digits
            return self._ask_next()
        found = self._extract(text, "")
        if act.leading_no and (found.readings or found.named):
            return self._go_on(self._filled.take(found))
        if not act.plain or act.yes or act.okay or act.hello:
            return self._ask_next()
        if act.no or act.cancel or act.done or act.bye:
            return Exit("goodbye" if act.bye else "cancelled")
        taken = Taken()
        self._filled.put(slot.id, dictated(text), taken)
        return self._go_on(taken)

    def _more_digits(self, slot: Slot, digits: str, *, restart: bool) -> Plan:
        filled = self._filled
        filled.partial_phone = digits if restart else filled.partial_phone + digits
        if len(filled.partial_phone) >= (slot.min if slot.min is not None else MIN_PHONE_DIGITS):
            taken = Taken()
            filled.put(slot.id, filled.partial_phone, taken)
            return self._go_on(taken)
        so_far = self._phrases.partial_number.format(digits=spoken_digits(filled.partial_phone))
        return self._floor.reply(so_far, asked=Asked("slot", slot.id))

    # -- the read-back ------------------------------------------------------------------------------------------

    def _confirmed(self, text: str, act: Acts, match: Match) -> Plan | Exit:
        """Something was said to the read-back."""
        if act.yes or (act.leading_yes and (act.bye or act.thanks or act.done)):
            return self._submit()
        taken = self._filled.take(self._extract(text, ""))
        if taken.changed or taken.wrong or taken.choices or taken.ask_again or taken.filled:
            return self._go_on(taken)
        if act.leading_yes and taken.same:
            return self._submit()
        if act.leading_no:
            return self._change(text, act, match)
        aside = self._aside(act, match)
        return aside if aside is not None else self._missed(None)

    def _submit(self) -> Plan:
        self._floor.misses = 0
        # Until the call is in the conversation's memory the form stays as it is.
        return self._floor.reply(asked=Asked("confirm"), calls=((self.form.id, self._filled.arguments()),))

    def _change(self, text: str, act: Acts, match: Match) -> Plan | Exit:
        """The read-back was not right, or the caller was asked what is not."""
        if act.no:
            return self._floor.reply(self._phrases.change, asked=Asked("change"))
        taken = self._filled.take(self._extract(text, ""))
        if taken.anything:
            return self._go_on(taken)
        named = slots_named(text, self.form)
        if named:
            return self._go_on(self._filled.take(Extraction(named=named[:1])))
        guesses = self._guesses(text)
        if len(guesses) == 1:
            self._filled.put(guesses[0].slot, guesses[0].value, taken)
            return self._go_on(taken)
        if guesses:
            return self._choose(guesses)
        aside = self._aside(act, match)
        return aside if aside is not None else self._floor.reply(self._phrases.change, asked=Asked("change"))

    def _guesses(self, text: str) -> tuple[Choice, ...]:
        """What a lone "eight" or "Miller" can stand for."""
        guesses = []
        for slot in self.form.slots:
            if slot.type in ("number", "time", "name", "phone"):
                readings = self._extract(text, slot.id).readings
                if tuple(readings) == (slot.id,) and len(readings[slot.id].options) == 1:
                    guesses.append(Choice(slot.id, readings[slot.id].options[0]))
        return tuple(guesses)

    # -- which of two -------------------------------------------------------------------------------------------

    def _choose(self, choices: tuple[Choice, ...], *say: str) -> Plan:
        options = [self._filled.option(choice) for choice in choices]
        question = self._phrases.which.format(first=", ".join(options[:-1]), second=options[-1])
        return self._floor.reply(*say, question, asked=Asked("choose", choices=choices))

    def _chosen(self, choices: tuple[Choice, ...], text: str, act: Acts, match: Match) -> Plan | Exit:
        """Something was said to "do you mean this or that"."""
        picked = self._pick(choices, text, act)
        taken = Taken()
        if picked is not None:
            self._filled.put(choices[picked].slot, choices[picked].value, taken)
            return self._go_on(taken)
        taken = self._filled.take(self._extract(text, choices[0].slot))
        if taken.filled or taken.changed or taken.wrong:
            return self._go_on(taken)
        aside = self._aside(act, match)
        if aside is not None:
            return aside
        self._floor.misses += 1
        if self._floor.misses >= MISSES_TO_OFFER:
            return Exit("help", say=self._phrases.again)
        return self._choose(choices)

    def _pick(self, choices: tuple[Choice, ...], text: str, act: Acts) -> int | None:
        one_slot = len({choice.slot for choice in choices}) == 1
        readings = self._extract(text, choices[0].slot if one_slot else "").readings
        half = by_daypart(act.plain)
        named = () if one_slot else slots_named(text, self.form)
        said, halves, meant = [], [], []
        for number, choice in enumerate(choices):
            reading = readings.get(choice.slot)
            if reading is not None and reading.options == (choice.value,):
                said.append(number)
            if isinstance(choice.value, time) and half == ("am" if choice.value.hour < 12 else "pm"):
                halves.append(number)
            if choice.slot in named:
                meant.append(number)
        for picked in (said, halves, meant):
            if len(picked) == 1:
                return picked[0]
        return by_position(act.plain, len(choices))

    # -- beside the form ----------------------------------------------------------------------------------------

    def _aside(self, act: Acts, match: Match) -> Plan | Exit | None:
        """A question or wish beside the form, answered; then the form's question comes again."""
        if act.any or match.best is None:
            return None
        if match.about("fact", ACCEPT if act.question else CLEAR):
            self._floor.misses = 0
            return self._ask_same(*(without_question(fact.say) for fact in facts_of(self._brief, match)))
        if match.about("handover", CLEAR):
            return Exit("handover")
        chat = match.about("chat", CLEAR)
        if chat:
            said = abilities(self._brief) if chat == "abilities" else getattr(self._phrases, chat)
            return self._ask_same(without_question(said))
        other = match.about("form", SURE)
        return Exit("form", form=other) if other and other != self.form.id else None

    def _ask_same(self, *say: str) -> Plan:
        asked = self._floor.question
        return self._choose(asked.choices, *say) if asked.kind == "choose" else self._ask_next(*say)

    def _missed(self, slot: Slot | None, *, known: bool = True) -> Plan | Exit:
        self._floor.misses += 1
        apology = self._phrases.again if known else self._phrases.no_answer
        if self._floor.misses >= MISSES_TO_OFFER:
            return Exit("help", say=apology)
        if self._floor.misses == 2 and slot is not None and slot.example:
            return self._floor.reply(apology, slot.example, asked=Asked("slot", slot.id))
        return self._ask_next(apology)

    # -- what comes next ----------------------------------------------------------------------------------------

    def _go_on(self, taken: Taken, *opening: str) -> Plan:
        """Say what came of an utterance, then ask for the next thing."""
        if taken.changed or taken.filled:
            self._floor.misses = 0
        say = [*opening, *taken.wrong]
        if taken.choices:
            return self._choose(taken.choices, *say, taken.note)
        if taken.changed and self._filled.missing is not None:
            values = ", ".join(self._filled.spoken(slot) for slot in taken.changed)
            say.append(self._phrases.changed.format(value=values))
        if taken.ask_again and taken.ask_again not in self._filled.values:
            slot = self.form.slot(taken.ask_again)
            return self._floor.reply(*say, slot.ask, asked=Asked("slot", slot.id))
        return self._ask_next(*say)

    def _ask_next(self, *say: str) -> Plan:
        """The next missing slot's question, or the read-back."""
        missing = self._filled.missing
        if missing is not None:
            return self._floor.reply(*say, missing.ask, asked=Asked("slot", missing.id))
        return self._floor.reply(*say, self._filled.say(self.form.confirm), asked=Asked("confirm"))


def facts_of(brief: Brief, match: Match) -> list[Fact]:
    """The facts a match is about, the best first."""
    wanted = [score.id for score in (match.best, match.also) if score is not None and score.kind == "fact"]
    return [fact for name in wanted for fact in brief.facts if fact.id == name]
