"""Whom a call can be handed to or made to: what the words of a target mean, whatever carries the call."""

import re
from dataclasses import dataclass

MAX_LENGTH = 256

_SIP = re.compile(r"sips?:[^\s<>\",?\x00-\x20\x7f]+")
_NUMBER = re.compile(r"\+?[0-9*#]{1,32}")
_ENDPOINT = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,31})/([A-Za-z0-9+*#_][A-Za-z0-9_.@:+*#;=%/-]{0,199})")
_DIALPLAN = re.compile(
    r"dialplan:([A-Za-z0-9_+*#.-]{1,79})@([A-Za-z0-9_.-]{1,79})(?:,([0-9]{1,5}|[A-Za-z_][\w-]{0,63}))?"
)
_QUEUE = re.compile(r"queue:([A-Za-z0-9_.-]{1,79})")

ENDPOINT_PATTERN, DIALPLAN_PATTERN, QUEUE_PATTERN = _ENDPOINT.pattern, _DIALPLAN.pattern, _QUEUE.pattern

PATTERN = "|".join(f"(?:{one.pattern})" for one in (_SIP, _NUMBER, _ENDPOINT, _DIALPLAN, _QUEUE))
"""All of them, for schemas."""


class TargetError(ValueError):
    """The text is no target."""


@dataclass(frozen=True, slots=True)
class SipTarget:
    uri: str


@dataclass(frozen=True, slots=True)
class NumberTarget:
    """An extension or number where the call came from."""

    number: str


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """An endpoint of the Asterisk that the call came from, e.g. `PJSIP/1001` or `PJSIP/+4930123@carrier`."""

    technology: str
    resource: str

    def __str__(self) -> str:
        return f"{self.technology}/{self.resource}"


@dataclass(frozen=True, slots=True)
class DialplanTarget:
    """A place in the dialplan of the Asterisk that the call came from: `dialplan:EXTEN@CONTEXT[,PRIORITY]`."""

    context: str
    extension: str
    priority: str = "1"
    """A number, or a label."""


@dataclass(frozen=True, slots=True)
class QueueTarget:
    """A queue of the Asterisk that the call came from: `queue:NAME`."""

    name: str


Target = SipTarget | NumberTarget | EndpointTarget | DialplanTarget | QueueTarget


def parse_target(text: str) -> Target:
    """Raises TargetError."""
    if len(text) <= MAX_LENGTH:
        if _SIP.fullmatch(text):
            return SipTarget(text)
        if _NUMBER.fullmatch(text):
            return NumberTarget(text)
        if found := _DIALPLAN.fullmatch(text):
            return DialplanTarget(context=found[2], extension=found[1], priority=found[3] or "1")
        if found := _QUEUE.fullmatch(text):
            return QueueTarget(found[1])
        if found := _ENDPOINT.fullmatch(text):
            return EndpointTarget(found[1], found[2])
    raise TargetError(
        f"{text[:MAX_LENGTH]!r} is no target: a SIP URI (sip:200@pbx.example.com), a number, and where the call came "
        "from Asterisk an endpoint (PJSIP/1001), dialplan:EXTEN@CONTEXT or queue:NAME"
    )


def in_asterisk(text: str) -> bool:
    """Whether it is a target that only a call which came from an Asterisk has: an endpoint, a place in its dialplan,
    a queue."""
    try:
        return isinstance(parse_target(text), EndpointTarget | DialplanTarget | QueueTarget)
    except TargetError:
        return False
