"""Whom an Asterisk may be asked to call, and where to send callers: patterns of targets (`dial` of its settings)."""

import re
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from bridge.targets import DialplanTarget, EndpointTarget, QueueTarget, Target

DIALPLAN, QUEUE = "dialplan:", "queue:"

DEFAULT_DIAL = ("PJSIP/*", "SIP/*", "IAX2/*", "DAHDI/*", "dialplan:*", "queue:*")
"""The phones and carriers of a PBX, and its dialplan by name. Not `Local/...`, which is a place in the dialplan under
the name of an endpoint, nor channels that carry no call."""

_PATTERN = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]{0,31}/|dialplan:|queue:)[A-Za-z0-9_.@:+*?#;=%,/-]{1,199}")


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ValueError(
            f"{text!r} is no pattern of targets: PJSIP/*, PJSIP/10??, PJSIP/*@carrier, dialplan:*@sales, queue:desk"
        )
    return text


DialPattern = Annotated[str, AfterValidator(_pattern)]
"""A target with `*` for anything within a part of it (between `/`), at the end for all that follows, and `?` for one
character. The channel technology in whatever case."""


def permits(patterns: tuple[str, ...], target: Target) -> bool:
    """Whether one of the patterns lets `target` be called, or a caller be sent there. Numbers and SIP addresses are
    no affair of theirs: a context of the dialplan, or a trunk, decides on those."""
    match target:
        case EndpointTarget(technology=technology, resource=resource):
            shown = f"{technology.upper()}/{resource}"
        case DialplanTarget(context=context, extension=extension):
            shown = f"{DIALPLAN}{extension}@{context}"
        case QueueTarget(name=name):
            shown = f"{QUEUE}{name}"
        case _:
            return True
    return any(_compiled(pattern).fullmatch(shown) for pattern in patterns)


def refusal(name: str, target: str) -> str:
    """What is said of a target that is not permitted on the Asterisk of this name."""
    return f"{target!r} may not be called on Asterisk {name!r}: no pattern of its `dial` setting fits"


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    technology, slash, resource = pattern.partition("/")
    if slash and ":" not in technology:
        pattern = f"{technology.upper()}/{resource}"
    rest = ""
    if pattern.endswith("*"):
        pattern, rest = pattern[:-1], ".*"
    parts = (("[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)) for char in pattern)
    return re.compile("".join(parts) + rest)
