"""The tools a language model is given, one per form and the built-in ones, and the check of their arguments."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from bridge.providers.base import Tool
from bridge.providers.brief import Brief, slot_schema

HANG_UP = "hang_up"
TRANSFER = "transfer"

_LONGEST = 120
"""Characters of a wrong value or a message that are told."""


def form_tools(brief: Brief, targets: Mapping[str, str] | None = None) -> list[Tool]:
    """The tools of an agent: every form's (named by its id), `hang_up`, and `transfer` if somebody can be reached.

    `targets`: whom by name, with a description; not given: `brief.handover.target` alone."""
    tools = [
        Tool(
            form.id,
            f"{form.description}. Only after reading all of it back to the caller and hearing a yes.",
            {
                "type": "object",
                "properties": {slot.id: slot_schema(slot) for slot in form.slots},
                "required": [slot.id for slot in form.slots if not slot.optional],
                "additionalProperties": False,
            },
        )
        for form in brief.forms
    ]
    tools.append(
        Tool(
            HANG_UP,
            "End the call, once you have said goodbye.",
            {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        )
    )
    if targets is None:
        targets = {brief.handover.target: ""} if brief.handover.target else {}
    if targets:
        tools.append(_transfer(targets))
    return tools


def _transfer(targets: Mapping[str, str]) -> Tool:
    described = "; ".join(f"{name}: {text}" for name, text in targets.items() if text)
    return Tool(
        TRANSFER,
        f"Put the caller through to a person{f', one of these. {described}' if described else '.'}",
        {
            "type": "object",
            "properties": {"target": {"type": "string", "enum": list(targets)}},
            "required": ["target"],
            "additionalProperties": False,
        },
    )


def check_arguments(tool: Tool, arguments: dict[str, Any]) -> str:
    """What is wrong with `arguments` by the tool's JSON schema, in words a model can act on; empty if nothing is."""
    # With a registry of its own nothing is fetched for a `$ref`, wherever it points.
    validator = Draft202012Validator(tool.parameters, format_checker=_formats(), registry=Registry())
    try:
        error = best_match(validator.iter_errors(arguments))
    except (Unresolvable, RecursionError, re.error) as unusable:
        return f"the tool's schema can't be used: {type(unusable).__name__}"
    return "" if error is None else _in_words(error)


@lru_cache(maxsize=1)
def _formats() -> FormatChecker:
    return FormatChecker()


def _in_words(error: ValidationError) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    schema = error.schema if isinstance(error.schema, dict) else {}
    value: Any = error.instance
    rule: Any = error.validator_value
    match error.validator:
        case "required":
            missing = [name for name in rule if name not in value]
            return f"missing: {', '.join(f'{place}.{name}' if place else name for name in missing)}"
        case "additionalProperties" if rule is False:
            known = schema.get("properties", {})
            unknown = [str(name) for name in value if name not in known]
            there = ", ".join(known) or "none"
            return f"{', '.join(unknown)} is not known{f' in {place}' if place else ''}; known are: {there}"
        case "enum":
            wrong = f"must be one of {', '.join(str(item) for item in rule)}"
        case "const":
            wrong = f"must be {rule!r}"
        case "type":
            wrong = f"must be of type {rule if isinstance(rule, str) else ' or '.join(rule)}"
        case "minimum":
            wrong = f"must be at least {rule}"
        case "maximum":
            wrong = f"must be at most {rule}"
        case "pattern":
            wrong = f"must be {schema.get('description') or f'like the pattern {rule}'}"
        case "format":
            wrong = "must be a date as YYYY-MM-DD" if rule == "date" else f"must be a {rule}"
        case "minLength":
            wrong = f"must have at least {rule} characters"
        case "maxLength":
            wrong = f"must have at most {rule} characters"
        case _:
            return f"{place or 'the arguments'}: {_short(error.message)}"
    return f"{place or 'the arguments'} {wrong}, got {_short(repr(value))}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
