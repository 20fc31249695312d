"""Supervisors of a live call: somebody's phone is called to listen in, to tell the agent something, or to join in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Path, status
from pydantic import BaseModel, ConfigDict, Field

from bridge.api.calls import CallId, find_call
from bridge.api.errors import ApiError, describe
from bridge.api.refusals import STATUSES, refused
from bridge.api.services import Bridge, Services
from bridge.legs.base import LegError
from bridge.legs.supervision import Mode, Supervision, Supervisor
from bridge.targets import MAX_LENGTH

router = APIRouter(prefix="/api/calls/{call_id}/supervise", tags=["calls"])

SupervisorId = Annotated[str, Path(pattern=r"^[0-9]{1,6}$", description="The supervisor's id within the call.")]

MODES = (
    "The supervisor hears both sides. `listen`: nobody hears the supervisor. `whisper`: the agent alone does, as if "
    "the caller said it. `barge`: both do."
)


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SuperviseIn(_In):
    endpoint: str = Field(
        max_length=MAX_LENGTH,
        description="Whose phone is called: an endpoint of the Asterisk that has the call, or a number that its "
        "`outbound_context` dials.",
        examples=["PJSIP/2001"],
    )
    mode: Mode = Field("listen", description=MODES)


class ModeIn(_In):
    mode: Mode = Field(description=MODES)


class SupervisorOut(BaseModel):
    id: str
    endpoint: str
    mode: Mode
    state: Literal["ringing", "connected"]


class SupervisorList(BaseModel):
    supervisors: list[SupervisorOut]


@asynccontextmanager
async def _supervision(bridge: Services, call_id: str) -> AsyncIterator[Supervision]:
    """Of a live call. Raises ApiError."""
    try:
        supervision = bridge.control.supervision(call_id)
        if supervision is None:
            await find_call(bridge, call_id)
            raise ApiError(409, "call-ended", f"call {call_id} has ended already")
        yield supervision
    except LegError as error:
        raise refused(error) from error


@router.post(
    "",
    summary="Have somebody supervise the call",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(*STATUSES),
)
async def supervise(bridge: Bridge, call_id: CallId, wanted: SuperviseIn) -> SupervisorOut:
    """Answered when the supervisor's phone is called; notes named `supervisor` on the call's record tell the rest. It
    ends with the call, or when the supervisor hangs up."""
    async with _supervision(bridge, call_id) as supervision:
        return _out(await supervision.begin(wanted.endpoint, wanted.mode))


@router.get("", summary="Who supervises the call", responses=describe(*STATUSES))
async def supervisors(bridge: Bridge, call_id: CallId) -> SupervisorList:
    """Whose phones ring, and who is connected."""
    async with _supervision(bridge, call_id) as supervision:
        return SupervisorList(supervisors=[_out(one) for one in supervision.supervisors])


@router.put("/{supervisor_id}", summary="Change whom a supervisor speaks to", responses=describe(*STATUSES))
async def change(bridge: Bridge, call_id: CallId, supervisor_id: SupervisorId, wanted: ModeIn) -> SupervisorOut:
    """Also before the supervisor has answered."""
    async with _supervision(bridge, call_id) as supervision:
        return _out(await supervision.change(supervisor_id, wanted.mode))


@router.delete(
    "/{supervisor_id}",
    summary="Send a supervisor away",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def stop(bridge: Bridge, call_id: CallId, supervisor_id: SupervisorId) -> None:
    """The phone is hung up on; the call goes on."""
    async with _supervision(bridge, call_id) as supervision:
        await supervision.stop(supervisor_id)


def _out(one: Supervisor) -> SupervisorOut:
    return SupervisorOut(id=one.id, endpoint=one.endpoint, mode=one.mode, state=one.state)
