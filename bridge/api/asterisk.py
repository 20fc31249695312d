"""Asterisks as they are now, their queues and their devices."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, status
from pydantic import BaseModel, Field

from bridge.api.errors import ApiError, describe
from bridge.api.services import Bridge, Services
from bridge.asterisk.ami import Ami, AmiError, AmiRefusedError, AmiTimeoutError
from bridge.asterisk.queues import QueueStatus
from bridge.asterisk.settings import MediaKind
from bridge.asterisk.status import AmiState, AriState, AsteriskStatus

router = APIRouter(prefix="/api/asterisk", tags=["asterisk"])

Name = Annotated[str, Path(max_length=64, description="Its name in the configuration.")]


class AsteriskOut(BaseModel):
    name: str
    url: str
    app: str = Field(description="Our Stasis application there.")
    state: AriState = Field(
        description="`down`: tried again soon; `unauthorized`: our user or password is not taken, tried again "
        "seldom; `replaced`: another process has taken the application, and only a reconnect takes it back."
    )
    since: datetime | None = Field(description="When the state was entered.")
    last_error: str = Field(description="What went wrong last with the connection; it stays after a recovery.")
    last_error_at: datetime | None
    version: str = Field(description="Asterisk's; empty before the first connection.")
    rest_over_socket: bool = Field(description="Whether requests go over the event socket, not over HTTP.")
    calls: int = Field(description="Live now, both ways.")
    max_calls: int | None
    media: MediaKind = Field(description="How its audio reaches us where a route says nothing else.")
    media_kinds: list[MediaKind] = Field(description="That, then what routes say.")
    orphans_cleaned: int = Field(description="Channels and bridges of ours that were found without a call.")
    joined: int = Field(description="Pairs of parties that talk on without us after an attended transfer.")
    ami_state: AmiState = Field(description="Of the manager interface; `off`: none is configured.")
    ami_error: str
    ami_error_at: datetime | None


class AsteriskList(BaseModel):
    asterisks: list[AsteriskOut]


class MemberOut(BaseModel):
    name: str
    interface: str = Field(examples=["PJSIP/1001"])
    membership: str
    state: str = Field(description="Of the device: NOT_INUSE, INUSE, RINGING, UNAVAILABLE, INVALID, ...")
    paused: bool
    paused_reason: str
    in_call: bool = Field(description="On a call of this queue.")
    available: bool = Field(description="Whether the next call can ring there.")
    penalty: int
    calls_taken: int
    last_call_at: datetime | None


class WaitingOut(BaseModel):
    channel: str
    channel_id: str
    position: int = Field(description="1 is the next.")
    caller_number: str
    caller_name: str
    waited_s: float | None


class QueueOut(BaseModel):
    name: str
    strategy: str
    waiting: int
    available: int = Field(description="Members who can take a call now.")
    hold_s: float = Field(description="Mean wait of the calls answered.")
    talk_s: float = Field(description="Mean length of the calls answered.")
    completed: int
    abandoned: int
    service_level_s: float
    service_level_percent: float
    members: list[MemberOut]
    callers: list[WaitingOut]


class QueueList(BaseModel):
    queues: list[QueueOut]


class DeviceOut(BaseModel):
    device: str
    state: str = Field(description="As Asterisk writes it: NOT_INUSE, INUSE, RINGING, UNAVAILABLE, INVALID, ...")


@router.get("", summary="List Asterisks")
async def list_asterisks(bridge: Bridge) -> AsteriskList:
    """Every Asterisk of the configuration: its connection, its calls, its manager interface."""
    return AsteriskList(asterisks=[_asterisk_out(one) for one in bridge.asterisk.asterisk_status()])


@router.post(
    "/{name}/reconnect",
    summary="Connect again now",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(404),
)
async def reconnect(bridge: Bridge, name: Name) -> None:
    """Don't wait for the next attempt: the password is new, the network is back, or the application is to be taken
    back from another process. How it went is told by the list."""
    if not await bridge.asterisk.reconnect_asterisk(name):
        raise _no_such(name)


@router.get("/{name}/queues", summary="Show its queues", responses=describe(404, 409, 502, 503, 504))
async def queues(
    bridge: Bridge,
    name: Name,
    queue: Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$", description="Only this one.")] = "",
) -> QueueList:
    """Each queue with its members and who waits, asked of Asterisk now."""
    try:
        found = await _ami(bridge, name).queues(queue)
    except AmiError as error:
        raise _failed(error) from error
    return QueueList(queues=[_queue_out(one) for one in found])


@router.get(
    "/{name}/devices/{device:path}", summary="Show a device's state", responses=describe(404, 409, 502, 503, 504)
)
async def device(
    bridge: Bridge,
    name: Name,
    device: Annotated[str, Path(max_length=100, examples=["PJSIP/1001"])],
) -> DeviceOut:
    """Whether a phone is free, rings or talks. INVALID: there is no such device."""
    try:
        return DeviceOut(device=device, state=await _ami(bridge, name).device_state(device))
    except ValueError as error:
        raise ApiError(400, "invalid-request", str(error)) from error
    except AmiError as error:
        raise _failed(error) from error


def _ami(bridge: Services, name: str) -> Ami:
    control = bridge.asterisk
    ami = control.asterisk_ami(name)
    if ami is not None:
        return ami
    if name in (one.name for one in control.asterisk_status()):
        raise ApiError(409, "no-manager-interface", f"{name!r} has no `ami` in the configuration, which this needs")
    raise _no_such(name)


def _no_such(name: str) -> ApiError:
    return ApiError(404, "no-such-asterisk", f"there is no Asterisk {name!r} in the configuration")


def _failed(error: AmiError) -> ApiError:
    if isinstance(error, AmiRefusedError):
        advice = ": the user of manager.conf needs `write`" if error.denied else ""
        return ApiError(502, "asterisk-refused", f"{error}{advice}")
    if isinstance(error, AmiTimeoutError):
        return ApiError(504, "asterisk-timeout", str(error))
    return ApiError(503, "asterisk-unavailable", str(error), {"Retry-After": "5"})


def _at(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)


def _asterisk_out(one: AsteriskStatus) -> AsteriskOut:
    return AsteriskOut(
        name=one.name,
        url=one.url,
        app=one.app,
        state=one.state,
        since=_at(one.since),
        last_error=one.last_error,
        last_error_at=_at(one.last_error_at),
        version=one.version,
        rest_over_socket=one.rest_over_socket,
        calls=one.calls,
        max_calls=one.max_calls,
        media=one.media,
        media_kinds=list(one.media_kinds or (one.media,)),
        orphans_cleaned=one.orphans_cleaned,
        joined=one.joined,
        ami_state=one.ami_state,
        ami_error=one.ami_error,
        ami_error_at=_at(one.ami_error_at),
    )


def _queue_out(queue: QueueStatus) -> QueueOut:
    return QueueOut(
        name=queue.name,
        strategy=queue.strategy,
        waiting=queue.waiting,
        available=queue.available,
        hold_s=queue.hold_s,
        talk_s=queue.talk_s,
        completed=queue.completed,
        abandoned=queue.abandoned,
        service_level_s=queue.service_level_s,
        service_level_percent=queue.service_level_percent,
        members=[
            MemberOut(
                name=member.name,
                interface=member.interface,
                membership=member.membership,
                state=member.state,
                paused=member.paused,
                paused_reason=member.paused_reason,
                in_call=member.in_call,
                available=member.available,
                penalty=member.penalty,
                calls_taken=member.calls_taken,
                last_call_at=_at(member.last_call_at),
            )
            for member in queue.members
        ],
        callers=[
            WaitingOut(
                channel=caller.channel,
                channel_id=caller.channel_id,
                position=caller.position,
                caller_number=caller.caller_number,
                caller_name=caller.caller_name,
                waited_s=caller.waited_s,
            )
            for caller in queue.callers
        ],
    )
