"""The check of arguments by JSON schema: what a model is told, and schemas that mean harm."""

import socket
from typing import Any

import pytest

from bridge.agents.tool_settings import check_schema
from bridge.providers.base import Tool
from bridge.providers.tools import check_arguments

ORDER = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {"sku": {"type": "string", "pattern": "^[A-Z]+$"}, "count": {"type": "integer"}},
                "required": ["sku"],
                "additionalProperties": False,
            },
        },
        "size": {"enum": ["s", "m"]},
        "mail": {"type": ["string", "null"], "maxLength": 5},
        "day": {"type": "string", "format": "date"},
        "one": {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
    },
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, ""),
        ({"items": [{"sku": "TEA", "count": 2}], "size": "m", "mail": None, "day": "2026-05-08"}, ""),
        ({"items": [{"count": 2}]}, "missing: items[0].sku"),
        ({"items": [{"sku": "tea"}]}, "items[0].sku must be like the pattern ^[A-Z]+$, got 'tea'"),
        ({"items": [{"sku": "TEA", "x": 1, "y": 2}]}, "x, y is not known in items[0]; known are: sku, count"),
        ({"size": "xl"}, "size must be one of s, m, got 'xl'"),
        ({"mail": 5}, "mail must be of type string or null, got 5"),
        ({"mail": "a@b.example"}, "mail must have at most 5 characters, got 'a@b.example'"),
        ({"day": "20260508"}, "day must be a date as YYYY-MM-DD, got '20260508'"),
    ],
)
def test_model_is_told_what_to_mend(arguments: dict[str, Any], said: str) -> None:
    assert check_arguments(Tool("order", "", ORDER), arguments) == said


def test_rare_rules_are_told_as_well_and_long_values_are_cut() -> None:
    tool = Tool("order", "", ORDER)
    assert check_arguments(tool, {"items": [{"sku": "A"}] * 3}).startswith("items: ")
    assert "one" in check_arguments(tool, {"one": "x"})
    assert len(check_arguments(tool, {"size": "x" * 10_000})) < 300


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
    ],
)
def test_schema_that_can_not_be_used_is_told_and_breaks_nothing(schema: dict[str, Any]) -> None:
    assert check_arguments(Tool("x", "", schema), {"a": "b"}).startswith("the tool's schema can't be used")


def test_reference_to_elsewhere_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        tool = Tool("x", "", {"type": "object", "properties": {"a": {"$ref": url}}})
        assert check_arguments(tool, {"a": 1}).startswith("the tool's schema can't be used")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_schemas_mistakes_are_told() -> None:
    assert check_schema(ORDER) == ""
    assert "pattern" in check_schema({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}})
    assert "type must be `object`" in check_schema({"type": "array"})
