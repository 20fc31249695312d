"""Pieces of SIP's grammar that many header fields share: lists, quoted strings, parameters (RFC 3261 25.1)."""

import re

from bridge.sip.errors import SipSyntaxError

Params = tuple[tuple[str, str | None], ...]
"""Parameters in order: names in lower case, values as written (quotes included), None for a bare name."""

# Possessive quantifiers keep every one of these linear, whatever a hostile peer sends.
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_LIST_ITEM = re.compile(rf'(?:[^",<]++|{_QUOTED}|<[^>]*+>)*+', re.S)
_PARAM = re.compile(rf"[ \t]*+;[ \t]*+([^\s;=,\"<>]++)[ \t]*+(?:=[ \t]*+({_QUOTED}|[^\s;,\"<>]*+)[ \t]*+)?", re.S)
_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]++")
_ESCAPED = re.compile(r"\\(.)", re.S)


def is_token(text: str) -> bool:
    """Whether `text` is a token: what methods, header names and option tags are made of."""
    return _TOKEN.fullmatch(text) is not None


def split_list(text: str) -> list[str]:
    """The items of a comma-separated header field value, empty ones left out.

    Commas within quotes or angle brackets don't separate. Raises SipSyntaxError on an unclosed one."""
    if "," not in text:
        item = text.strip()
        return [item] if item else []
    if '"' not in text and "<" not in text:
        return [item for part in text.split(",") if (item := part.strip())]
    items = []
    position = 0
    while True:
        match = _LIST_ITEM.match(text, position)
        end = match.end() if match else position
        if item := text[position:end].strip():
            items.append(item)
        if end == len(text):
            return items
        if text[end] != ",":
            raise SipSyntaxError("unclosed quote or bracket in a list", text)
        position = end + 1


def parse_params(text: str) -> Params:
    """Parse `;name=value;name` (or an empty string). Raises SipSyntaxError."""
    if not text:
        return ()
    params = []
    position = 0
    while position < len(text):
        match = _PARAM.match(text, position)
        if match is None:
            # One separator too many at the end is common; empty ones between are not (RFC 4475 3.1.2.1).
            if text[position:].strip(" \t") in ("", ";"):
                break
            raise SipSyntaxError("malformed parameters", text)
        params.append((match[1].lower(), match[2]))
        position = match.end()
    return tuple(params)


def format_params(params: Params) -> str:
    """The inverse of `parse_params`."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params)


def get_param(params: Params, name: str) -> str | None:
    """The value of the first parameter `name`, quotes taken off; "" for a bare name, None when absent."""
    for key, value in params:
        if key == name:
            return unquote(value) if value else ""
    return None


def has_param(params: Params, name: str) -> bool:
    """Whether the parameter is there, with or without a value."""
    return any(key == name for key, _ in params)


def with_param(params: Params, name: str, value: str | None) -> Params:
    """`params` with `name` set in its place, or added at the end."""
    if has_param(params, name):
        return tuple((key, value if key == name else old) for key, old in params)
    return (*params, (name, value))


def unquote(text: str) -> str:
    """A quoted string without its quotes and escapes; other text as it is."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return _ESCAPED.sub(r"\1", text[1:-1])
    return text


def quote(text: str) -> str:
    """`text` as a quoted string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
