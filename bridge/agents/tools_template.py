"""Templates of a tool's request: arguments and facts of the call in braces, secrets as `${env:NAME}`, `${file:PATH}`.

What is filled in can't leave its place: a value in a path stays one segment, whatever a caller made the model write.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

CALL_FACTS = ("call.id", "call.from", "call.to")
"""What every template may name about the call, besides its tool's parameters."""

MAX_PATH_VALUE = 500
"""Characters of a value in a URL's path."""

_SECRET = re.compile(r"\$\{(env|file):([^{}]+)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")


class TemplateError(Exception):
    """A template, or what was to be filled in, is not fit; the message says what, in words a model can act on."""


class SecretError(Exception):
    """A secret can't be had; the message says from where."""


def secrets_in(text: str) -> tuple[tuple[str, str], ...]:
    """The secrets that `text` names, as (`env` or `file`, name). Raises TemplateError for a malformed one."""
    found = tuple((match[1], match[2]) for match in _SECRET.finditer(text))
    for kind, name in found:
        if kind == "env" and not _VARIABLE.match(name):
            raise TemplateError(f"${{env:{name}}}: that is no name of a variable")
    if "${" in _SECRET.sub("", text):
        raise TemplateError("after ${ comes env:NAME} or file:PATH}")
    return found


def without_secrets(text: str) -> str:
    """`text` with a plain word for each secret, to look at its form."""
    return _SECRET.sub("secret", text)


def parameters_in(text: str) -> tuple[str, ...]:
    """The names in braces. Raises TemplateError for any other brace; `{{` and `}}` stand for braces."""
    names = []
    for token in _TOKEN.findall(_SECRET.sub("", text)):
        if token in ("{{", "}}"):
            continue
        match = _PARAMETER.fullmatch(token)
        if match is None:
            raise TemplateError(f"{token!r} is no name in braces; write {{{{ and }}}} for the braces themselves")
        names.append(match[1])
    return tuple(names)


class Secrets:
    """Values that are never shown: read once, and known for being taken out of what is shown."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self.values: set[str] = set()

    def fill(self, text: str) -> str:
        """`text` with its secrets; braces in them are no names. Raises SecretError where one is missing or empty."""
        return _SECRET.sub(lambda match: self._value(match[1], match[2]).replace("{", "{{").replace("}", "}}"), text)

    def plain(self, text: str) -> str:
        """The same where nothing else is filled in."""
        return _SECRET.sub(lambda match: self._value(match[1], match[2]), text)

    def hide(self, text: str) -> str:
        """`text` without any of the values, should a server have sent one back."""
        for value in sorted(self.values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def _value(self, kind: str, name: str) -> str:
        if kind == "env":
            value = self._environ.get(name, "")
            if not value:
                raise SecretError(f"the environment variable {name} is not set")
        else:
            try:
                value = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise SecretError(f"the file {name} can't be read: {error}") from error
            if not value:
                raise SecretError(f"the file {name} is empty")
        # What is shorter stands in ordinary text by chance.
        if len(value) >= 5:
            self.values.add(value)
        return value


def fill(template: str, values: Mapping[str, Any], encode: Callable[[str, str], str]) -> str:
    """`template` with the values of its names, each as `encode(name, text)` writes it; a missing one is empty.
    Raises what `encode` raises."""

    def put(match: re.Match[str]) -> str:
        token = match[0]
        if token in ("{{", "}}"):
            return token[0]
        name = token[1:-1]
        return encode(name, as_text(values.get(name)))

    return _TOKEN.sub(put, template)


def fill_query(template: str, values: Mapping[str, Any]) -> str:
    """`template` filled in and percent-encoded, as a whole value in a query. Raises TemplateError."""
    return query_value("the query", fill(template, values, lambda _, text: text))


def fill_value(template: Any, values: Mapping[str, Any]) -> Any:
    """A structure of templates filled in. `{name}` alone keeps its value's type; names and items whose value is
    missing are left out (the result is None for a missing value alone)."""
    match template:
        case str():
            whole = _PARAMETER.fullmatch(template)
            if whole is not None:
                return values.get(whole[1])
            return fill(template, values, lambda _, text: text)
        case dict():
            filled = {key: fill_value(value, values) for key, value in template.items()}
            return {key: value for key, value in filled.items() if value is not None or template[key] is None}
        case list():
            items = [fill_value(item, values) for item in template]
            return [item for item, of in zip(items, template, strict=True) if item is not None or of is None]
    return template


def as_text(value: Any) -> str:
    """A value as it stands in a URL or a form."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return ",".join(as_text(item) for item in value)
    return str(value)


def path_segment(name: str, text: str) -> str:
    """`text` percent-encoded as (a part of) one segment of a path. Raises TemplateError for what some server could
    take for more than that, however it decodes: slashes, dots alone, control characters, percent signs."""
    looked_at = unicodedata.normalize("NFKC", text)
    if not looked_at.strip():
        raise TemplateError(f"{name} must not be empty")
    if len(text) > MAX_PATH_VALUE:
        raise TemplateError(f"{name} must have at most {MAX_PATH_VALUE} characters")
    if any(char in "/\\%?#;" or unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in looked_at):
        raise TemplateError(f"{name} must not contain / \\ % ? # ; or control characters")
    if set(looked_at) <= {"."} or ".." in looked_at:
        raise TemplateError(f"{name} must not contain '..' or be '.'")
    return quote(text, safe="")


def query_value(name: str, text: str) -> str:
    """`text` percent-encoded as (a part of) a value in a query. Raises TemplateError for control characters."""
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise TemplateError(f"{name} must not contain control characters")
    return quote(text, safe="")


def header_value(_: str, text: str) -> str:
    """`text` as (a part of) a header's value: what is not printable ASCII is left out."""
    return "".join(char for char in text if " " <= char <= "~")
