"""Events of the manager interface (AMI), typed where Offhook has a use for them."""

from dataclasses import dataclass
from typing import Literal

from bridge.asterisk.queues import Fields, QueueCaller, QueueMember, caller_of, device_state, member_of

MemberChange = Literal["added", "removed", "paused", "penalty", "ring-in-use", "status"]
"""`paused`: paused, or no more: `member.paused` says which. `status`: the device's state, or a call taken."""
CallerChange = Literal["joined", "left", "abandoned"]
"""One who abandons is told of as `abandoned` and then as `left`."""

_MEMBER: dict[str, MemberChange] = {
    "QueueMemberAdded": "added",
    "QueueMemberRemoved": "removed",
    "QueueMemberPause": "paused",
    "QueueMemberPenalty": "penalty",
    "QueueMemberRinginuse": "ring-in-use",
    "QueueMemberStatus": "status",
}
_CALLER: dict[str, CallerChange] = {
    "QueueCallerJoin": "joined",
    "QueueCallerLeave": "left",
    "QueueCallerAbandon": "abandoned",
}


@dataclass(frozen=True, slots=True)
class QueueMemberChanged:
    """Somebody joined or left those who answer for a queue, paused, or is on the phone."""

    change: MemberChange
    member: QueueMember


@dataclass(frozen=True, slots=True)
class QueueCallerChanged:
    """Somebody waits in a queue, or no more."""

    change: CallerChange
    caller: QueueCaller
    waiting: int | None
    """How many wait now; None where the event does not say."""


@dataclass(frozen=True, slots=True)
class DeviceStateChanged:
    device: str
    state: str
    """A `queues.DeviceState`, or what a newer Asterisk says."""


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """Any other event, as it came: `OriginateResponse`, `Hangup`, `UserEvent`, ..."""

    name: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class AmiUp:
    """We are logged in. What changed meanwhile was not told: ask for what must be known."""

    first: bool


@dataclass(frozen=True, slots=True)
class AmiDown:
    """The connection is gone; events are missed until `AmiUp`."""

    reason: str


AmiEvent = QueueMemberChanged | QueueCallerChanged | DeviceStateChanged | OtherEvent | AmiUp | AmiDown


def event_of(fields: Fields) -> AmiEvent:
    """The event that a message with an `Event` header is."""
    name = fields.get("Event", "")
    if (member := _MEMBER.get(name)) is not None:
        return QueueMemberChanged(member, member_of(fields))
    if (caller := _CALLER.get(name)) is not None:
        count = fields.get("Count", "")
        waiting = int(count) if count.isascii() and count.isdigit() else None
        return QueueCallerChanged(caller, caller_of(fields), waiting)
    if name == "DeviceStateChange":
        state = fields.get("State", "")
        return DeviceStateChanged(fields.get("Device", ""), device_state(state) or state)
    return OtherEvent(name, fields)
