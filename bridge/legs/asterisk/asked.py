"""What a call to be made comes to for Asterisk: which endpoint it dials for a target, and what goes along."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridge.asterisk.permits import permits, refusal
from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.base import BadTargetError, NotPermittedError
from bridge.targets import (
    DialplanTarget,
    EndpointTarget,
    NumberTarget,
    QueueTarget,
    SipTarget,
    TargetError,
    parse_target,
)
from bridge.variables import is_name

_HEADER = re.compile(r"[A-Za-z0-9_-]{1,64}")

OnMachine = Literal["talk", "hangup"]


@dataclass(frozen=True, slots=True)
class AsteriskCall:
    """A call to be made."""

    endpoint: str
    """As Asterisk dials it: `PJSIP/1001`, `PJSIP/+4930123@carrier`, `Local/1001@offhook-outbound/n`."""
    caller_number: str = ""
    """Shown to the called party; empty: as the endpoint is configured."""
    caller_name: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Of the INVITE, where the endpoint is PJSIP's."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the channel; a name that begins with `_` is handed on to the channels that it dials."""
    amd: bool = False
    """Have Asterisk tell answering machines from people, before the call counts as answered."""
    on_machine: OnMachine = "hangup"
    shown_to: str = ""
    """The called one as our records name it; empty: the endpoint."""
    queue: str = ""
    """The queue that is called; empty: none is."""


def asterisk_call(
    settings: AsteriskSettings,
    to: str,
    *,
    caller: str = "",
    caller_name: str = "",
    headers: Sequence[tuple[str, str]] = (),
    variables: Mapping[str, str] | None = None,
    amd: bool = False,
    on_machine: OnMachine = "hangup",
) -> AsteriskCall:
    """A call to a target (`bridge.targets`) by way of an Asterisk. Raises BadTargetError for what it can't dial, or
    for a caller or variable that can't be sent; NotPermittedError."""
    try:
        target = parse_target(to)
    except TargetError as error:
        raise BadTargetError(str(error)) from error
    if not permits(settings.dial, target):
        raise NotPermittedError(refusal(settings.name, to))
    queue = ""
    match target:
        case EndpointTarget():
            endpoint = str(target)
        case NumberTarget(number=number):
            endpoint = f"Local/{number}@{settings.outbound_context}/n"
        case QueueTarget(name=queue):
            endpoint = f"Local/{queue}@{settings.queue_context}/n"
        case DialplanTarget(context=context, extension=extension, priority="1"):
            endpoint = f"Local/{extension}@{context}/n"
        case DialplanTarget():
            raise BadTargetError(f"{to!r}: a call that we make begins at priority 1 of an extension")
        case SipTarget():
            raise BadTargetError(f"{to!r}: Asterisk calls SIP by an endpoint of its own, e.g. PJSIP/1001@carrier")
    if headers and not endpoint.upper().startswith("PJSIP/"):
        raise BadTargetError(f"{to!r}: headers can be given to endpoints PJSIP/... alone")
    if wrong := [name for name, _ in headers if not _HEADER.fullmatch(name)]:
        raise BadTargetError(f"no name of a header: {wrong[0]!r}")
    if wrong := [name for name in variables or () if not is_name(name)]:
        raise BadTargetError(f"no name of a variable: {wrong[0]!r}")
    for text in (caller, caller_name, *(part for header in headers for part in header)):
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise BadTargetError(f"{text!r} has a control character")
    return AsteriskCall(
        endpoint,
        caller,
        caller_name,
        tuple(headers),
        dict(variables or {}),
        amd,
        on_machine,
        shown_to=to,
        queue=queue,
    )
