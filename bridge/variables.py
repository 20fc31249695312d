"""Names and values of the variables that a carrier's side reads of us (`Leg.set_variables`), made fit for it."""

import re
from collections.abc import Mapping
from typing import Any

MAX_VALUE = 512
"""Characters of a value; the rest is cut."""

MAX_NAME = 80
"""Characters of a name: what Asterisk keeps."""

OURS = "OFFHOOK_"
"""Begins the names of what we tell of a call ourselves: nobody else sets those."""

SUMMARY = "OFFHOOK_SUMMARY"
"""What the call was about, in words."""

_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
_OTHER = re.compile(r"[^A-Z0-9]+")
_JOINERS = "\u200c\u200d"
"""Invisible, but words of some languages are written with them."""


def is_name(name: str) -> bool:
    """Whether a variable can have this name: a letter or _, then letters, digits and _, 80 at most."""
    return _NAME.fullmatch(name) is not None


def name_problem(name: str) -> str:
    """Why nobody but us sets a variable of this name; empty: anybody may."""
    if not is_name(name):
        return f"{name[:MAX_NAME]!r} is no name of a variable: a letter or _, then letters, digits and _"
    if name.upper().startswith(OURS):
        return f"{name!r} is set by the bridge itself"
    return ""


def as_value(value: Any) -> str:
    """`value` in one line of at most MAX_VALUE characters, all of them seen: how variables are taken by dialplans,
    databases and screens alike. What is not printable (line breaks, controls, marks that turn the direction of
    writing, halves of surrogate pairs) becomes a space; spaces are one each, and none stand at the ends. Truth is
    `true` or `false`, nothing is empty. What means something to a dialplan (`${...}`) is left as it is: a value that
    is set is not evaluated."""
    match value:
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case list() | tuple():
            text = ", ".join(as_value(item) for item in value)
        case _:
            text = str(value)
    text = "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)
    return " ".join(text.split())[:MAX_VALUE].rstrip()


def as_values(values: Mapping[str, Any]) -> dict[str, str]:
    """All of them as they can be set."""
    return {name: as_value(value) for name, value in values.items()}


def form_variables(form: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """A completed form: `OFFHOOK_FORM_<FORM>_<FIELD>` for each of its fields."""
    return {f"{OURS}FORM_{_word(form)}_{_word(name)}"[:MAX_NAME]: as_value(value) for name, value in fields.items()}


def _word(name: str) -> str:
    return _OTHER.sub("_", name.upper())
