"""The tools a language model is given, one per form and the built-in ones, and the check of their arguments."""

import re
from datetime import date
from typing import Any

from bridge.providers.base import Tool
from bridge.providers.brief import Brief, slot_schema

HANG_UP = "hang_up"
TRANSFER = "transfer"


def form_tools(brief: Brief) -> list[Tool]:
    """The tools of an agent: every form's (named by its id), `hang_up`, and `transfer` if somebody can be reached."""
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
    if brief.handover.target:
        tools.append(
            Tool(
                TRANSFER,
                "Put the caller through to a person.",
                {
                    "type": "object",
                    "properties": {"target": {"type": "string", "enum": [brief.handover.target]}},
                    "required": ["target"],
                    "additionalProperties": False,
                },
            )
        )
    return tools


def check_arguments(tool: Tool, arguments: dict[str, Any]) -> str:
    """What is wrong with `arguments` by the tool's schema, in words a model can act on; empty if nothing is.

    Understands the part of JSON Schema that `form_tools` writes."""
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    missing = [name for name in tool.parameters.get("required", []) if name not in arguments]
    if missing:
        return f"missing: {', '.join(missing)}"
    for name, value in arguments.items():
        if name not in properties:
            return f"{name} is not known; known are: {', '.join(properties) or 'none'}"
        wrong = _wrong(properties[name], value)
        if wrong:
            return f"{name} {wrong}, got {value!r}"
    return ""


_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


def _wrong(schema: dict[str, Any], value: object) -> str:
    kind = schema.get("type", "string")
    if not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool)):
        return f"must be of type {kind}"
    if isinstance(value, int) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            return f"must be at least {schema['minimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            return f"must be at most {schema['maximum']}"
    if isinstance(value, str):
        if "enum" in schema and value not in schema["enum"]:
            return f"must be one of {', '.join(schema['enum'])}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"must be {schema.get('description', 'as asked')}"
        if schema.get("format") == "date" and not _is_date(value):
            return "must be a date as YYYY-MM-DD"
    return ""


def _is_date(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return len(value) == len("2026-01-31")
