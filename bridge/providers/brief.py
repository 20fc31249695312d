"""What an agent knows and may do, written once in the configuration, for any language model.

The deterministic brain answers from it directly; a real language model gets it as a system prompt (`render_prompt`)
with the forms as tools (`bridge.providers.tools.form_tools`).
"""

import re
from datetime import date, datetime, time
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

BUILT_IN_TOOLS = ("hang_up", "transfer")
"""Names that a form can't take."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")
_CLOCK = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d\Z")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _identifier(value: str) -> str:
    if not _IDENTIFIER.match(value):
        raise ValueError(f"{value!r} is not an id: use small letters, digits and _, beginning with a letter")
    return value


class Fact(Strict):
    """Something the agent can tell."""

    id: str
    ask: Annotated[list[str], Field(min_length=1)]
    """Ways a caller asks for it; the more varied, the better the brain finds it."""
    say: str
    """The answer. Keep its first sentence short: it is spoken while the rest is still being synthesised."""
    offer: str = ""
    """Id of a form that `say` ends by offering ("Shall I take a message?"): a yes opens it."""


class Slot(Strict):
    """One thing a form collects."""

    id: str
    type: Literal["text", "name", "date", "time", "number", "phone", "yes_no"]
    ask: str
    """The question for it."""
    example: str = ""
    """How an answer may sound, said when the first one was not understood: "For example: Friday at seven."."""
    units: list[str] = Field(default_factory=list)
    """number: the words that follow it ("people", "guests"), so that "five people" is understood anywhere."""
    min: int | None = None
    """number: the smallest. date: days from today (0 if not given). phone: digits (6). Not for other types."""
    max: int | None = None
    """number: the largest. date: days from today (365). phone: digits (15)."""
    earliest: str = ""
    """time: HH:MM, 24-hour. With `latest` it also tells 7 in the evening from 7 in the morning."""
    latest: str = ""
    closed: list[Weekday] = Field(default_factory=list)
    """date: weekdays that can't be had."""
    too_low: str = ""
    """Said when the value lies below what is allowed; empty: a plain sentence is made."""
    too_high: str = ""
    closed_say: str = ""
    optional: bool = False
    """Taken when the caller says it, never asked for."""

    _id = field_validator("id")(staticmethod(_identifier))

    @field_validator("earliest", "latest", mode="before")
    @classmethod
    def _clock(cls, value: object) -> object:
        # YAML 1.1 reads an unquoted 19:30 as the number 1170.
        if value != "" and not (isinstance(value, str) and _CLOCK.match(value)):
            raise ValueError(f"{value!r} is not a time of day: write it as HH:MM in quotes, e.g. '19:30'")
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"slot {self.id!r}: min {self.min} is above max {self.max}")
        opens, closes = self.opens(), self.closes()
        if opens is not None and closes is not None and opens > closes:
            raise ValueError(f"slot {self.id!r}: earliest {self.earliest} is after latest {self.latest}")
        return self

    def opens(self) -> time | None:
        return _time(self.earliest)

    def closes(self) -> time | None:
        return _time(self.latest)


def _time(clock: str) -> time | None:
    hour, _, minute = clock.partition(":")
    return time(int(hour), int(minute)) if clock else None


class Form(Strict):
    """A task that collects slots, reads them back, and on a yes calls the tool of its own `id`."""

    id: str
    description: str
    """A short command, e.g. "Book a table": it is also how the agent names what it can do."""
    ask: Annotated[list[str], Field(min_length=1)]
    """Ways a caller asks for it."""
    opening: str = ""
    slots: Annotated[list[Slot], Field(min_length=1)]
    confirm: str
    """Read back; `{slot}` is filled in as people say it. It ends with the question that a yes answers."""
    done: str
    """Said once the tool succeeded; `{slot}` is filled in."""
    failed: str = "I am sorry, I could not save that. Please try again later."

    _id = field_validator("id")(staticmethod(_identifier))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.id in BUILT_IN_TOOLS:
            raise ValueError(f"a form can't be called {self.id!r}: that is a built-in tool")
        ids = [slot.id for slot in self.slots]
        if len(set(ids)) != len(ids):
            raise ValueError(f"form {self.id!r} has two slots of one id")
        if all(slot.optional for slot in self.slots):
            raise ValueError(f"form {self.id!r} needs at least one slot that is not optional")
        for key in ("confirm", "done", "failed"):
            for _, name, _, _ in Formatter().parse(getattr(self, key)):
                if name is not None and name not in ids:
                    raise ValueError(f"{key!r} of form {self.id!r} names {{{name}}}; its slots are {', '.join(ids)}")
        return self

    def slot(self, slot_id: str) -> Slot:
        return next(slot for slot in self.slots if slot.id == slot_id)


class Handover(Strict):
    """What happens when the caller wants a person."""

    ask: list[str] = Field(
        default_factory=lambda: [
            "I want to talk to a human",
            "can I speak to a real person",
            "put me through to somebody",
            "let me talk to the manager",
            "I'd like to speak with the owner",
            "I don't want to talk to a machine",
            "is there someone I can talk to",
            "transfer me to an operator",
            "connect me with a member of staff",
            "human please",
            "operator",
            "customer representative",
        ]
    )
    target: str = ""
    """SIP URI or number; empty: nobody can be reached, a message is offered through the form `message_form`."""
    say: str = "One moment, I am putting you through."
    unavailable: str = "I'm sorry, nobody can come to the phone right now. Shall I take a message?"
    message_form: str = "take_message"


class Phrases(Strict):
    """What the deterministic brain says between facts and forms."""

    hello: str = "Hello! How can I help you?"
    how_are_you: str = "I'm fine, thank you. How can I help you?"
    robot: str = "I'm a computer, not a person. I answer the phone here. How can I help you?"
    hearing: str = "Yes, I can hear you. How can I help you?"
    thanks: str = "You're welcome."
    wait: str = "Of course, take your time."
    go_on: str = "Yes, how can I help you?"
    wrong_number: str = "No problem at all."
    cancelled: str = "All right, I have left that."
    changed: str = "All right, {value}."
    change: str = "What should I change?"
    again: str = "I'm sorry, I didn't get that."
    no_answer: str = "I'm sorry, I don't know that."
    offer_handover: str = "Shall I put you through to a colleague?"
    offer_message: str = "Shall I take a message, so that somebody can call you back?"
    which: str = "Do you mean {first} or {second}?"
    partial_number: str = "I have {digits} so far. What comes next?"
    past_date: str = "{value} is already over."
    past_time: str = "{value} is already over today."
    closed_day: str = "I'm sorry, we are closed on {weekday}s."
    date_mismatch: str = "The {day} is a {weekday}."


class Brief(Strict):
    """An agent's knowledge, forms and phrases."""

    persona: str = "You are a friendly, brief receptionist on the telephone."
    """For a real language model; the deterministic brain has none."""
    facts: list[Fact] = Field(default_factory=list)
    forms: list[Form] = Field(default_factory=list)
    handover: Handover = Field(default_factory=Handover)
    goodbye: str = "Thank you for calling. Goodbye!"
    anything_else: str = "Is there anything else I can do for you?"
    unknown: str = "I'm sorry, I don't know that. I can take a message, or is there something else?"
    not_understood: str = "I'm sorry, I didn't quite get that. Could you say it again?"
    abilities: str = ""
    """What the agent can do, said to a caller who is lost; empty: made from the forms' descriptions."""
    beyond: list[str] = Field(default_factory=list)
    """Things callers ask for that are no business of this agent: they keep a likeness from passing for a match."""
    phrases: Phrases = Field(default_factory=Phrases)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [fact.id for fact in self.facts] + [form.id for form in self.forms]
        for twice in {i for i in ids if ids.count(i) > 1}:
            raise ValueError(f"two facts or forms are called {twice!r}")
        forms = {form.id for form in self.forms}
        for fact in self.facts:
            if fact.offer and fact.offer not in forms:
                raise ValueError(f"fact {fact.id!r} offers the form {fact.offer!r}, which does not exist")
        chosen = "message_form" in self.handover.model_fields_set and self.handover.message_form
        if chosen and chosen not in forms:
            raise ValueError(f"handover.message_form names the form {chosen!r}, which does not exist")
        return self

    def form(self, form_id: str) -> Form | None:
        return next((form for form in self.forms if form.id == form_id), None)


def slot_schema(slot: Slot) -> dict[str, Any]:
    """The slot's JSON schema, as a form's tool has it."""
    match slot.type:
        case "number":
            schema: dict[str, Any] = {"type": "integer"}
            if slot.min is not None:
                schema["minimum"] = slot.min
            if slot.max is not None:
                schema["maximum"] = slot.max
        case "yes_no":
            schema = {"type": "boolean"}
        case "date":
            schema = {"type": "string", "format": "date", "description": "YYYY-MM-DD"}
            if slot.closed:
                schema["description"] += f", not a {' or '.join(day.title() for day in slot.closed)}"
        case "time":
            schema = {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$", "description": "24-hour HH:MM"}
            if slot.earliest or slot.latest:
                schema["description"] += f", from {slot.earliest or '00:00'} to {slot.latest or '23:59'}"
        case "phone":
            schema = {"type": "string", "description": "digits, with a leading + if the caller said so"}
        case _:
            schema = {"type": "string"}
    return schema


def abilities(brief: Brief) -> str:
    """One sentence on what the agent can do."""
    if brief.abilities:
        return brief.abilities
    things = [form.description[:1].lower() + form.description[1:].rstrip(".") for form in brief.forms]
    things = (["answer questions"] if brief.facts else []) + things
    if not things:
        return brief.anything_else
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " or " + things[-1]
    return f"I can {listed}. What would you like?"


_RULES = """You are on a telephone call: what you write is spoken aloud by a voice, at once.
- Answer in one or two short sentences. Make the first sentence short. No lists, no markdown, no emoji, no links.
- Write numbers, dates and times the way they are spoken, e.g. "Friday, May 5th at 7:30 PM". Give phone numbers and \
codes in small groups of digits, e.g. "555, 01, 23".
- What callers say comes from speech recognition and may contain mishearings: go by what makes sense, and ask when a \
name or a number may be wrong. Keys that callers press reach you as digits.
- Ask for one thing at a time.
- Tell only what is written under FACTS or was returned by a tool. If it isn't there, say that you don't \
know{offer}. Never invent.
- If asked whether you are a person, say that you are a computer.
- One of your earlier replies that ends in "—" was cut off there by the caller, who heard nothing after it. \
Don't write such a dash yourself. Say again what was not heard only if it still matters.
- Words in round brackets that stand for the caller, e.g. "(The caller says nothing.)", are notes to you."""

_TOOL_RULES = """TOOLS
Use the tools that you are given, and no others; never speak their names. Call one only with what the caller said or \
confirmed, never with guesses. Nothing is done before a tool's result says so: if it failed, say so and offer what \
else you can do. Don't announce a quick tool; if one may take long, say a few words first, in the same reply."""


def render_prompt(brief: Brief, now: datetime, language: str = "en") -> str:
    """The system prompt for a language model: who it is, how to speak, what it knows, and how its tools are used."""
    return f"{steady_prompt(brief)}\n\n{varying_prompt(now, language)}"


def steady_prompt(brief: Brief) -> str:
    """The part of the prompt that is the same in all calls of an agent, so that a provider's cache can keep it."""
    message_form = brief.form(brief.handover.message_form)
    rules = _RULES.format(offer=" and offer to take a message" if message_form else "")
    facts = "\n".join(f"- {_squash(fact.say)}" for fact in brief.facts)
    parts = [brief.persona.strip(), rules, f"FACTS\n{facts or '- (none)'}", _TOOL_RULES]
    for form in brief.forms:
        lines = "\n".join(_slot_rule(slot) for slot in form.slots)
        parts.append(
            f"TASK {form.id}: {form.description}\n"
            f"Collect, one question at a time, what the caller has not said yet:\n{lines}\n"
            f"Then read everything back (like: {_squash(form.confirm)}). Only after the caller has said yes "
            f"call the tool {form.id}. When it succeeded say: {_squash(form.done)} When it failed say: "
            f"{_squash(form.failed)}"
        )
    if brief.handover.target:
        parts.append(f'If the caller wants a person, say "{brief.handover.say}" and call the tool transfer.')
    else:
        parts.append(f'If the caller wants a person, say "{brief.handover.unavailable}"')
    parts.append(
        f'When a matter is settled, ask "{brief.anything_else}" When the caller needs nothing more or says goodbye, '
        f'say "{brief.goodbye}" and call the tool hang_up in the same reply.'
    )
    return "\n\n".join(parts)


def varying_prompt(now: datetime, language: str = "en") -> str:
    """What of the prompt changes from call to call, or within one."""
    name = "the caller's language" if language == "auto" else language_name(language)
    return (
        f"Speak {name}, whatever language the texts above are written in: translate what is quoted there.\n"
        f"Now it is {now:%A}, {_day(now.date())}, {now:%H:%M}."
    )


def _slot_rule(slot: Slot) -> str:
    rules = []
    if slot.type == "number" and (slot.min is not None or slot.max is not None):
        low, high = (str(bound) if bound is not None else "any" for bound in (slot.min, slot.max))
        rules.append(f"{low} to {high}")
    if slot.type == "date":
        rules.append("not in the past" if slot.min is None else f"at least {slot.min} days from today")
        if slot.max is not None:
            rules.append(f"at most {slot.max} days from today")
        if slot.closed:
            rules.append(f"not on {', '.join(day.title() for day in slot.closed)}")
    if slot.type == "time" and (slot.earliest or slot.latest):
        rules.append(f"from {slot.earliest or '00:00'} to {slot.latest or '23:59'}")
    if slot.optional:
        rules.append("only if the caller mentions it")
    limits = f" [{'; '.join(rules)}]" if rules else ""
    return f"- {slot.id} ({slot.type}){limits}: {_squash(slot.ask)}"


def _day(day: date) -> str:
    return f"{day:%B} {day.day}, {day.year}"


def _squash(text: str) -> str:
    return " ".join(text.split())


_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nb": "Norwegian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(language: str) -> str:
    """The English name of a language by its BCP 47 code."""
    return _LANGUAGES.get(language.split("-")[0].lower(), f"the language with the code {language!r}")
