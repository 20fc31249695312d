"""Events as names and JSON: what the record keeps, the API shows and the event stream sends."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from bridge.events import CallEvent

MAX_TEXT = 20_000
"""Characters kept of one text; a runaway reply or tool result must not fill the disk."""
MAX_DEPTH = 8
MAX_ITEMS = 500
"""Entries kept of one list or object inside an event."""


def event_name(event: CallEvent) -> str:
    """The event's name in snake case: `CallStarted` is `call_started`."""
    return name_of(type(event))


def name_of(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def event_data(event: CallEvent) -> dict[str, Any]:
    """The event's fields as JSON values, always encodable; a trailing underscore is left off (`from_` is `from`)."""
    return _fields(event, MAX_DEPTH)


def clean_text(text: str) -> str:
    """`text` as every database takes it: no NUL, no lone surrogates, at most MAX_TEXT characters."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def clean_number(value: float | None) -> float | None:
    """`value`, or None where it is no finite number."""
    return value if value is not None and math.isfinite(value) else None


def clean_json(value: Any, depth: int = MAX_DEPTH) -> Any:
    """`value` as plain JSON. What JSON has no word for becomes text; what is too deep or too long is cut."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return clean_number(value)
    if isinstance(value, str):
        return clean_text(value)
    if depth == 0:
        return "…"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, depth)
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_ITEMS]
        return {clean_text(str(key)): clean_json(item, depth - 1) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean_json(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    return clean_text(str(value))


def _fields(value: Any, depth: int) -> dict[str, Any]:
    return {
        field.name.rstrip("_"): clean_json(getattr(value, field.name), depth - 1)
        for field in dataclasses.fields(value)
    }
