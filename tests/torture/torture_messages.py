"""Reads messages written down in the notation of RFC 4475 2, byte for byte."""

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"^=== (\S+) (\S+) (.*)\n", re.MULTILINE)
_ONE_LINE = re.compile(r"<allOneLine>\n(.*?)\n</allOneLine>", re.DOTALL)
_REPEAT = re.compile(rb"<repeat count=(\d+)>(.*?)</repeat>")
_HEX = re.compile(rb"<hex>([0-9A-Fa-f]+)</hex>")


@dataclass(frozen=True, slots=True)
class TortureMessage:
    name: str
    section: str
    title: str
    data: bytes


def torture_messages(rfc: str) -> dict[str, TortureMessage]:
    """The messages of `rfc4475` or `rfc5118` by name."""
    text = (Path(__file__).parent / f"{rfc}.txt").read_text(encoding="ascii")
    parts = _HEAD.split(text)[1:]
    found = {}
    for name, section, title, body in zip(*(parts[i::4] for i in range(4)), strict=True):
        found[name] = TortureMessage(name, section, title, _expand(body))
    return found


def _expand(text: str) -> bytes:
    joined = _ONE_LINE.sub(lambda match: match[1].replace("\n", ""), text)
    data = joined.replace("\n", "\r\n").encode("ascii")
    data = _REPEAT.sub(lambda match: match[2] * int(match[1]), data)
    return _HEX.sub(lambda match: bytes.fromhex(match[1].decode()), data)
