"""Queues of app_queue as the manager interface tells of them: their members, and who waits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

DeviceState = Literal[
    "UNKNOWN", "NOT_INUSE", "INUSE", "BUSY", "INVALID", "UNAVAILABLE", "RINGING", "RINGINUSE", "ONHOLD"
]
"""Asterisk's own words. INVALID: there is no such device; UNAVAILABLE: it is not registered."""

DEVICE_STATES: tuple[DeviceState, ...] = (
    "UNKNOWN",
    "NOT_INUSE",
    "INUSE",
    "BUSY",
    "INVALID",
    "UNAVAILABLE",
    "RINGING",
    "RINGINUSE",
    "ONHOLD",
)
"""By the number that queues write them as (include/asterisk/devicestate.h)."""

Fields = Mapping[str, str]
"""One message of the manager interface; several headers of one name are one value, a line each."""


@dataclass(frozen=True, slots=True)
class QueueMember:
    """One who answers for a queue."""

    queue: str
    name: str
    interface: str
    """What is dialled, e.g. `PJSIP/1001`."""
    state_interface: str
    """The device whose state counts."""
    membership: str
    """`static` (queues.conf), `dynamic` or `realtime`."""
    state: DeviceState
    paused: bool
    paused_reason: str
    in_call: bool
    """On a call of this queue."""
    penalty: int
    calls_taken: int
    last_call_at: float | None
    """Unix time (s) at which the last call of this queue ended; None: there was none."""

    @property
    def available(self) -> bool:
        """Whether the next call can ring there."""
        return not self.paused and not self.in_call and self.state in ("NOT_INUSE", "UNKNOWN")


@dataclass(frozen=True, slots=True)
class QueueCaller:
    """One who waits in a queue."""

    queue: str
    channel: str
    """The channel's name."""
    channel_id: str
    """The channel's unique id, which ARI knows it by."""
    position: int
    """1 is the next."""
    caller_number: str
    caller_name: str
    waited_s: float | None
    """None where the event does not say."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue now."""

    name: str
    strategy: str
    waiting: int
    hold_s: float
    """Mean wait of the calls answered."""
    talk_s: float
    """Mean length of the calls answered."""
    completed: int
    abandoned: int
    service_level_s: float
    service_level_percent: float
    """Of the calls answered, those within `service_level_s`."""
    members: tuple[QueueMember, ...] = ()
    callers: tuple[QueueCaller, ...] = ()
    """The next one first."""

    @property
    def available(self) -> int:
        """Members who can take a call now."""
        return sum(member.available for member in self.members)


def queues_of(rows: Iterable[Fields]) -> list[QueueStatus]:
    """The answer to the action QueueStatus, in its order."""
    heads: dict[str, Fields] = {}
    members: dict[str, list[QueueMember]] = {}
    callers: dict[str, list[QueueCaller]] = {}
    for row in rows:
        name = row.get("Queue", "")
        match row.get("Event"):
            case "QueueParams":
                heads[name] = row
            case "QueueMember":
                members.setdefault(name, []).append(member_of(row))
            case "QueueEntry":
                callers.setdefault(name, []).append(caller_of(row))
    return [
        QueueStatus(
            name=name,
            strategy=head.get("Strategy", ""),
            waiting=_whole(head, "Calls"),
            hold_s=_number(head, "Holdtime"),
            talk_s=_number(head, "TalkTime"),
            completed=_whole(head, "Completed"),
            abandoned=_whole(head, "Abandoned"),
            service_level_s=_number(head, "ServiceLevel"),
            service_level_percent=_number(head, "ServicelevelPerf"),
            members=tuple(members.get(name, ())),
            callers=tuple(sorted(callers.get(name, ()), key=lambda caller: caller.position)),
        )
        for name, head in heads.items()
    ]


def member_of(row: Fields) -> QueueMember:
    """A member, of the list (`Name`, `Location`) or of an event (`MemberName`, `Interface`)."""
    interface = row.get("Interface") or row.get("Location", "")
    last_call = _number(row, "LastCall")
    return QueueMember(
        queue=row.get("Queue", ""),
        name=row.get("MemberName") or row.get("Name", ""),
        interface=interface,
        state_interface=row.get("StateInterface") or interface,
        membership=row.get("Membership", ""),
        state=_device_state(row.get("Status", "")),
        paused=row.get("Paused") == "1",
        paused_reason=row.get("PausedReason", ""),
        in_call=row.get("InCall") == "1",
        penalty=_whole(row, "Penalty"),
        calls_taken=_whole(row, "CallsTaken"),
        last_call_at=last_call or None,
    )


def caller_of(row: Fields) -> QueueCaller:
    """A caller, of the list or of an event. Asterisk writes `unknown` or `<unknown>` for what it does not know."""
    waited = row.get("Wait") or row.get("HoldTime")
    return QueueCaller(
        queue=row.get("Queue", ""),
        channel=row.get("Channel", ""),
        channel_id=row.get("Uniqueid", ""),
        position=_whole(row, "Position"),
        caller_number=_known(row.get("CallerIDNum", "")),
        caller_name=_known(row.get("CallerIDName", "")),
        waited_s=None if waited is None else _number({"": waited}, ""),
    )


def device_state(text: str) -> DeviceState | None:
    """The state of that name, as DEVICE_STATE() and DeviceStateChange write it; None for anything else."""
    return next((state for state in DEVICE_STATES if state == text), None)


def _device_state(number: str) -> DeviceState:
    if number.isascii() and number.isdigit() and int(number) < len(DEVICE_STATES):
        return DEVICE_STATES[int(number)]
    return "UNKNOWN"


def _known(text: str) -> str:
    return "" if text in ("unknown", "<unknown>") else text


def _whole(row: Fields, name: str) -> int:
    return int(_number(row, name))


def _number(row: Fields, name: str) -> float:
    """What no number is, is 0: a status must not fail because of one field."""
    try:
        value = float(row.get(name, "") or 0)
    except ValueError:
        return 0.0
    return value if abs(value) < 1e15 else 0.0
