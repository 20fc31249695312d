"""The brief: its checks, the tools and the prompt made of it."""

from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.providers.base import Tool
from bridge.providers.brief import Brief, Form, Handover, Slot, abilities, render_prompt, steady_prompt
from bridge.providers.tools import check_arguments, form_tools

NOW = datetime(2026, 5, 5, 15, 0)  # noqa: DTZ001 the caller's local time, as a request has it


def form(**changes: Any) -> dict[str, Any]:
    slots = [{"id": "day", "type": "date", "ask": "Which day?"}]
    return {
        "id": "visit",
        "description": "Book",
        "ask": ["visit"],
        "slots": slots,
        "confirm": "{day}?",
        "done": "!",
        **changes,
    }


@pytest.mark.parametrize(
    ("brief", "complaint"),
    [
        ({"forms": [form(confirm="{people}?")]}, r"names \{people\}; its slots are day"),
        ({"forms": [form(id="hang_up")]}, "built-in tool"),
        ({"forms": [form(id="Book it")]}, "is not an id"),
        ({"forms": [form(), form()]}, "two facts or forms are called 'visit'"),
        ({"forms": [form(slots=[{"id": "day", "type": "date", "ask": "?", "optional": True}])]}, "not optional"),
        (
            {"forms": [form(slots=[{"id": "day", "type": "time", "ask": "?", "earliest": 1170}])]},
            "as HH:MM in quotes",
        ),
        ({"facts": [{"id": "a", "ask": ["a"], "say": "A?", "offer": "message"}]}, "which does not exist"),
        ({"handover": {"message_form": "message"}}, "which does not exist"),
    ],
)
def test_mistakes_are_named(brief: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Brief(**brief)


def test_a_time_window_must_be_one() -> None:
    with pytest.raises(ValidationError, match="earliest 20:00 is after latest 10:00"):
        Slot(id="t", type="time", ask="?", earliest="20:00", latest="10:00")


def test_the_receptionist_has_a_tool_for_each_form(receptionist: Brief) -> None:
    tools = {tool.name: tool for tool in form_tools(receptionist)}
    assert set(tools) == {"book_table", "take_message", "hang_up"}
    assert tools["book_table"].parameters["required"] == ["date", "time", "people", "name"]
    with_target = receptionist.model_copy(update={"handover": Handover(target="sip:desk@host")})
    transfer = {tool.name: tool for tool in form_tools(with_target)}["transfer"]
    assert transfer.parameters["properties"]["target"]["enum"] == ["sip:desk@host"]


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"date": "2026-05-08", "time": "19:30", "people": 4, "name": "Miller"}, ""),
        ({"date": "2026-05-08", "time": "19:30", "people": 4}, "missing: name"),
        (
            {"date": "Friday", "time": "19:30", "people": 4, "name": "M"},
            "date must be a date as YYYY-MM-DD, got 'Friday'",
        ),
        ({"date": "2026-05-08", "time": "7 PM", "people": 4, "name": "M"}, "time must be 24-hour HH:MM"),
        ({"date": "2026-05-08", "time": "19:30", "people": "four", "name": "M"}, "people must be of type integer"),
        ({"date": "2026-05-08", "time": "19:30", "people": True, "name": "M"}, "people must be of type integer"),
        ({"date": "2026-05-08", "time": "19:30", "people": 40, "name": "M"}, "people must be at most 12, got 40"),
        ({"date": "2026-05-08", "time": "19:30", "people": 4, "name": "M", "x": 1}, "x is not known"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], wrong: str, receptionist: Brief) -> None:
    tool: Tool = form_tools(receptionist)[0]
    found = check_arguments(tool, arguments)
    assert found.startswith(wrong) if wrong else found == ""


def test_the_prompt_has_what_the_model_needs_and_the_date_last(receptionist: Brief) -> None:
    prompt = render_prompt(receptionist, NOW)
    for fact in receptionist.facts:
        assert " ".join(fact.say.split()) in prompt
    for needed in (
        "1 to 12",
        "not on Monday",
        "from 12:00 to 21:00",
        "hang_up",
        receptionist.goodbye,
        "Never invent",
    ):
        assert needed in prompt
    assert prompt.endswith("Now it is Tuesday, May 5, 2026, 15:00.")


@pytest.mark.parametrize(
    ("language", "said"),
    [("de-AT", "Speak German,"), ("auto", "Speak the caller's language,"), ("xx", "the code 'xx'")],
)
def test_the_prompt_names_the_language_and_what_varies_comes_last(
    language: str, said: str, receptionist: Brief
) -> None:
    prompt = render_prompt(receptionist, NOW, language)
    steady = steady_prompt(receptionist)
    assert prompt.startswith(steady) and said not in steady
    assert said in prompt[len(steady) :]


def test_abilities_are_made_of_the_forms() -> None:
    other = Form(**form(id="message", description="Take a message"))
    assert abilities(Brief(forms=[Form(**form()), other])) == "I can book or take a message. What would you like?"
