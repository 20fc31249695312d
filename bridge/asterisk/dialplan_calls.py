"""Calls of dialplans without ARI: what was said of one before it came, and what the dialplan finds out afterwards.

AudioSocket itself carries a UUID and no more. So the dialplan announces the UUID (caller, agent), connects, and when
we have closed the connection it asks how the call ended and where its caller is to go (`bridge.api.audiosocket`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import UUID

from bridge.asterisk.audiosocket import sends_digits
from bridge.asterisk.outcome import Status, status_of
from bridge.events import Cause
from bridge.targets import (
    DialplanTarget,
    EndpointTarget,
    NumberTarget,
    QueueTarget,
    SipTarget,
    Target,
    parse_target,
)
from bridge.variables import as_value, as_values

ANNOUNCED_S = 60.0
"""From the announcement to the connection: the dialplan connects at once, after an Answer() at most."""
ENDED_S = 600.0
"""How long the end of a call can be asked for: the dialplan asks at once; somebody who looks into a problem later."""
MAX_KEPT = 5000
"""Of announcements and ended calls together; the oldest go first."""
MAX_VARIABLES = 64

Stage = Literal["ANNOUNCED", "LIVE"] | Status
"""Before its end, and as OFFHOOK_STATUS from then on."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a dialplan says of a call that it is about to connect."""

    from_: str = ""
    to: str = ""
    display_name: str = ""
    agent: str = ""
    """The agent that it asks for; empty: the routes pick one."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further facts for the agent, by name in lower case."""
    follows: bool = True
    """The dialplan goes on when we close the connection, and does what the call's end says."""
    version: str = ""
    """Of its Asterisk, e.g. `16.28.0`; empty: unknown."""

    @property
    def sends_digits(self) -> bool:
        return sends_digits(self.version)


@dataclass(frozen=True, slots=True)
class DialplanCall:
    """A call as the dialplan can ask for it."""

    uuid: UUID
    status: Stage
    announcement: Announcement
    cause: Cause | None = None
    """Set from the end on."""
    detail: str = ""
    target: str = ""
    """Where the caller is to go."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What we would have set on a channel: OFFHOOK_CALL_ID, OFFHOOK_SUMMARY, and what agents set."""

    def fields(self) -> dict[str, str]:
        """All of it as text, by name: the values that a dialplan branches on."""
        return {
            "status": self.status,
            "cause": self.cause.value if self.cause else "",
            "detail": as_value(self.detail),
            "target": self.target,
            **where(self.target),
            **self.variables,
        }


class LiveError(Exception):
    """The call is live: it can't be announced again."""


class DialplanCalls:
    """All of them, without I/O: times (s, monotonic) are passed in."""

    def __init__(self) -> None:
        self._kept: dict[UUID, tuple[float, DialplanCall]] = {}
        """Announced or ended, with when it is forgotten."""
        self._live: dict[UUID, DialplanCall] = {}
        self.announced = 0
        self.expired = 0
        """Announced and never connected."""

    def __len__(self) -> int:
        return len(self._kept) + len(self._live)

    def announce(self, uuid: UUID, announcement: Announcement, now: float) -> None:
        """In place of what was said of it before. Raises LiveError."""
        if uuid in self._live:
            raise LiveError(f"the call {uuid} is live")
        self.announced += 1
        self._keep(DialplanCall(uuid, "ANNOUNCED", announcement), now + ANNOUNCED_S, now)

    def find(self, uuid: UUID, now: float) -> DialplanCall | None:
        if live := self._live.get(uuid):
            return live
        until, call = self._kept.get(uuid, (0.0, None))
        return call if until > now else None

    def begin(self, uuid: UUID, now: float) -> Announcement | None:
        """The call is connected; None: nobody announced it. Raises LiveError."""
        if uuid in self._live:
            raise LiveError(f"the call {uuid} is live")
        known = self.find(uuid, now)
        self._kept.pop(uuid, None)
        announced = known.announcement if known is not None and known.status == "ANNOUNCED" else None
        self._live[uuid] = DialplanCall(uuid, "LIVE", announced or Announcement(follows=False))
        return announced

    def set_variables(self, uuid: UUID, values: Mapping[str, str]) -> None:
        """Of a live call, beside those that it has: values are cut to one line of 512 characters. Raises ValueError
        beyond 64 of them."""
        if (call := self._live.get(uuid)) is not None:
            merged = {**call.variables, **as_values(values)}
            if len(merged) > MAX_VARIABLES:
                raise ValueError(f"a call has {MAX_VARIABLES} variables at most")
            self._live[uuid] = replace(call, variables=merged)

    def send_to(self, uuid: UUID, target: str) -> None:
        """A live call's caller is to go there, once the call is over."""
        if (call := self._live.get(uuid)) is not None:
            self._live[uuid] = replace(call, target=target)

    def end(self, uuid: UUID, cause: Cause, detail: str, now: float, *, was_up: bool) -> None:
        """The call is over, before its connection is closed: whoever asks from then on is told. Idempotent.
        `was_up`: an agent took it."""
        if (call := self._live.pop(uuid, None)) is not None:
            status = "TRANSFER" if call.target and cause is Cause.TRANSFERRED else status_of(cause, was_up=was_up)
            target = call.target if status == "TRANSFER" else ""
            ended = replace(call, status=status, cause=cause, detail=detail, target=target)
            self._keep(ended, now + ENDED_S, now)

    def _keep(self, call: DialplanCall, until: float, now: float) -> None:
        self._kept.pop(call.uuid, None)
        self._kept[call.uuid] = (until, call)
        # In the order in which they came: the two kinds are kept for unequal times, so some stay a little longer.
        for uuid, (limit, kept) in list(self._kept.items()):
            if limit > now and len(self._kept) <= MAX_KEPT:
                break
            del self._kept[uuid]
            self.expired += kept.status == "ANNOUNCED"


def where(target: str) -> dict[str, str]:
    """A target in the words of a dialplan: `kind`, and `context`, `extension`, `priority`, `queue` or `endpoint`."""
    parts = dict.fromkeys(("kind", "context", "extension", "priority", "queue", "endpoint"), "")
    if target:
        parts |= _where(parse_target(target))
    return parts


def _where(target: Target) -> dict[str, str]:
    match target:
        case NumberTarget(number=number):
            return {"kind": "number", "extension": number}
        case DialplanTarget(context=context, extension=extension, priority=priority):
            return {"kind": "dialplan", "context": context, "extension": extension, "priority": priority}
        case QueueTarget(name=name):
            return {"kind": "queue", "queue": name}
        case EndpointTarget():
            return {"kind": "endpoint", "endpoint": str(target)}
        case SipTarget():
            return {"kind": "sip"}
