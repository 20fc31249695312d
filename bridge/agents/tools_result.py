"""What a tool came to, as the model reads it: short enough, and honest about what was left out."""

import json
from dataclasses import dataclass, replace
from typing import Any

_WORDS = " [truncated]"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool came to; the model reads it."""

    ok: bool
    error: str = ""
    """What was wrong, in words the model can act on."""
    value: Any = None
    """What it found, as JSON has it; None: there is nothing to tell."""
    truncated: str = ""
    """How much of it is left out, where `value` is the beginning of a longer one's text."""

    @property
    def content(self) -> str:
        """As JSON: `{"ok": true, "result": ...}`, or `{"ok": false, "error": ...}`."""
        if not self.ok:
            return _json({"ok": False, "error": self.error})
        whole: dict[str, Any] = {"ok": True}
        if self.truncated:
            whole["truncated"] = self.truncated
        if self.value is not None:
            whole["result"] = self.value
        return _json(whole)


def limited(result: ToolResult, max_bytes: int) -> ToolResult:
    """`result` with at most about `max_bytes` of UTF-8 in its error or value; what is cut is said."""
    if not result.ok:
        if len(result.error.encode()) <= max_bytes:
            return result
        return replace(result, error=_cut(result.error, max_bytes) + _WORDS)
    if result.value is None:
        return result
    text = result.value if isinstance(result.value, str) else _json(result.value)
    size = len(text.encode())
    if size <= max_bytes:
        return result
    return replace(result, value=_cut(text, max_bytes), truncated=f"only the first {max_bytes} of {size} bytes")


def at_pointer(value: Any, pointer: str) -> Any:
    """The part of a JSON value that an RFC 6901 pointer names. Raises KeyError where there is none."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        match value:
            case dict() if key in value:
                value = value[key]
            case list() if key.isascii() and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            case _:
                raise KeyError(pointer)
    return value


def only_fields(value: Any, fields: tuple[str, ...]) -> Any:
    """An object, or each one of a list, with these keys alone; anything else as it is."""
    match value:
        case dict():
            return {key: value[key] for key in fields if key in value}
        case list():
            return [only_fields(item, fields) for item in value]
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")
