"""What the agent asked the caller for, so that the turn detector has patience with the answer."""

from collections.abc import Iterator, Sequence
from typing import Any

from bridge.agents.clauses import split
from bridge.agents.settings import TurnSettings
from bridge.agents.words import Expected, Phrases, words
from bridge.providers.base import Tool
from bridge.providers.brief import Brief, Slot

LAST_SENTENCES = 2
"""A question may have one more sentence after it ("Please say it digit by digit.")."""

_FORMATS: dict[str, Expected] = {"email": "email", "idn-email": "email", "phone": "number", "tel": "number"}


class Asking:
    """Finds what a text of the agent asks for: by the form's slot it puts, by the tool's property it names, and by
    the words of its questions."""

    def __init__(self, brief: Brief, settings: TurnSettings) -> None:
        self._slots = [(Phrases([slot.ask]), slot) for form in brief.forms for slot in form.slots]
        self._words: tuple[tuple[Phrases, Expected], ...] = (
            (Phrases(settings.ask_email_words), "email"),
            (Phrases(settings.ask_spelling_words), "spelling"),
            (Phrases(settings.ask_number_words), "number"),
            (Phrases(settings.ask_name_words), "name"),
        )

    def expected(self, said: str, tools: Sequence[Tool] = ()) -> Expected | None:
        """What `said` asks the caller for at its end; None: nothing that needs patience. `tools`: what the model
        may call, whose arguments it may be collecting."""
        sentences = split(said)[-LAST_SENTENCES:]
        questions = [words(text) for text in sentences[:-1] if text.endswith("?")]
        questions += [words(text) for text in sentences[-1:]]
        whole = [word for text in sentences for word in words(text)]
        for ask, slot in self._slots:
            if ask.anywhere(whole):
                return self._of_slot(slot)
        for question in reversed(questions):
            for name, schema in _properties(tools):
                kind = self._of_property(name, schema)
                if kind is not None and Phrases([name.replace("_", " ")]).anywhere(question):
                    return kind
            kind = self._of_words(question)
            if kind is not None:
                return kind
        return None

    def _of_slot(self, slot: Slot) -> Expected | None:
        match slot.type:
            case "phone":
                return "number"
            case "name":
                return "name"
            case "text":
                return self._of_words(words(slot.ask)) or self._of_words(words(slot.id.replace("_", " ")))
            case _:
                return None

    def _of_property(self, name: str, schema: dict[str, Any]) -> Expected | None:
        if schema.get("type", "string") != "string":
            return None
        by_format = _FORMATS.get(str(schema.get("format", "")))
        return by_format or self._of_words(words(name.replace("_", " ")))

    def _of_words(self, said: Sequence[str]) -> Expected | None:
        return next((kind for phrases, kind in self._words if phrases.anywhere(said)), None)


def _properties(tools: Sequence[Tool]) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in tools:
        properties = tool.parameters.get("properties")
        if isinstance(properties, dict):
            for name, schema in properties.items():
                if isinstance(schema, dict):
                    yield str(name), schema
