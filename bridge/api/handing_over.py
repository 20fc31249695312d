"""What can be done to a live call: transfer it, consult somebody, join the two, hold, press keys, set variables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Self

from fastapi import APIRouter, status
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bridge.api.calls import CallId, find_call
from bridge.api.control import CallVerbs
from bridge.api.errors import ApiError, describe
from bridge.api.refusals import STATUSES, refused
from bridge.api.services import Bridge, Services
from bridge.events import AgentPart
from bridge.legs.base import LegError
from bridge.second_leg import Meanwhile
from bridge.targets import MAX_LENGTH, PATTERN, QueueTarget, parse_target
from bridge.transfers import TransferMode
from bridge.variables import name_problem

router = APIRouter(prefix="/api/calls/{call_id}", tags=["calls"])


def _target(value: str) -> str:
    parse_target(value)
    return value


Target = Annotated[
    str,
    AfterValidator(_target),
    Field(
        max_length=MAX_LENGTH,
        description="A SIP URI, or a number to be called the way the caller came. Of a call that came from an "
        "Asterisk also an endpoint (`PJSIP/1001`), a place in its dialplan (`dialplan:EXTEN@CONTEXT[,PRIORITY]`) or "
        "a queue (`queue:NAME`).",
        examples=["sip:desk@192.168.1.5", "+4930123456", "PJSIP/1001", "queue:support"],
        json_schema_extra={"pattern": f"^(?:{PATTERN})$"},
    ),
]


def _variable(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(problem)
    return name


MAX_VARIABLES = 50
"""In one request."""


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TransferIn(_In):
    target: Target
    mode: TransferMode = Field(
        "auto",
        description="`blind`: the carrier connects the two (REFER). `attended`: once the target has answered us, the "
        "carrier connects the two (REFER with Replaces). `bridge`: they talk through this bridge. `auto`: blind, and "
        "bridge where the carrier does no transfers.",
    )
    announce: str = Field(
        "",
        max_length=2000,
        description="With `attended`: who answers is told this, alone, in the agent's voice, while the caller waits. "
        "If they hang up before its end the caller is back with the agent; else the two are connected, by the "
        "carrier or through this bridge.",
        examples=["Ada Byron is on the line. She asks for an offer for ten bicycles."],
    )

    @model_validator(mode="after")
    def _announced_in_person(self) -> Self:
        if self.announce and self.mode != "attended":
            raise ValueError("announce needs mode `attended`")
        if self.announce and isinstance(parse_target(self.target), QueueTarget):
            raise ValueError(f"announce: nobody answers in {self.target} before the caller is in the queue")
        return self


class ConsultIn(_In):
    target: Target
    caller: Meanwhile = Field(
        "waits",
        description="Meanwhile the caller `waits` with the hold tone, `talks` with the agent, or hears it ring.",
    )


class BridgeIn(_In):
    agent: AgentPart = Field(
        "muted",
        description="The agent has `left` for good, is `muted` and deaf until the two part, or is `mixed` in.",
    )


class DtmfIn(_In):
    digits: Annotated[str, Field(pattern=r"^[0-9*#A-Da-d]{1,64}$")]


class VariablesIn(_In):
    variables: Annotated[
        dict[Annotated[str, AfterValidator(_variable)], str],
        Field(
            min_length=1,
            max_length=MAX_VARIABLES,
            description="Values by name. A value is kept in one line of at most 512 characters; names that begin "
            "with `OFFHOOK_` are the bridge's own.",
            examples=[{"CUSTOMER_ID": "4711"}],
        ),
    ]


@asynccontextmanager
async def _verbs(bridge: Services, call_id: str) -> AsyncIterator[CallVerbs]:
    """What can be done to a live call. Raises ApiError: 404, 409 for one that has ended, and for a verb that does not
    fit."""
    verbs = bridge.control.on_call(call_id)
    if verbs is None:
        await find_call(bridge, call_id)
        raise ApiError(409, "call-ended", f"call {call_id} has ended already")
    try:
        yield verbs
    except LegError as error:
        raise refused(error) from error


@router.post(
    "/transfer",
    summary="Transfer the caller",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(*STATUSES),
)
async def transfer(bridge: Bridge, call_id: CallId, wanted: TransferIn) -> None:
    """Answered at once; the event `transfer_result` tells the outcome. After success the call ends with cause
    `transferred`, or its two parties talk on through the bridge; after failure the caller is with the agent."""
    async with _verbs(bridge, call_id) as verbs:
        verbs.begin_transfer(wanted.target, wanted.mode, announce=wanted.announce)


@router.post(
    "/consult",
    summary="Call somebody while the caller waits",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(*STATUSES),
)
async def consult(bridge: Bridge, call_id: CallId, wanted: ConsultIn) -> None:
    """Answered at once; the events `second_answered` or `second_ended` tell the outcome."""
    async with _verbs(bridge, call_id) as verbs:
        verbs.begin_consult(wanted.target, caller=wanted.caller)


@router.delete(
    "/consult",
    summary="Let the second party go",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def release(bridge: Bridge, call_id: CallId) -> None:
    """The caller is with the agent again."""
    async with _verbs(bridge, call_id) as verbs:
        await verbs.release()


@router.post(
    "/bridge",
    summary="Join the caller with the second party",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def join(bridge: Bridge, call_id: CallId, wanted: BridgeIn) -> None:
    """The second party must have answered. May be repeated with another part for the agent."""
    async with _verbs(bridge, call_id) as verbs:
        verbs.bridge(wanted.agent)


@router.delete(
    "/bridge",
    summary="Part the caller and the second party",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def part(bridge: Bridge, call_id: CallId) -> None:
    """The caller is with the agent again; the second party waits."""
    async with _verbs(bridge, call_id) as verbs:
        verbs.unbridge()


@router.put(
    "/hold",
    summary="Put the caller on hold",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def hold(bridge: Bridge, call_id: CallId) -> None:
    """It hears the hold tone, of an Asterisk its music on hold; the agent waits. On record: note `caller-held`."""
    await _hold(bridge, call_id, on=True)


@router.delete(
    "/hold",
    summary="Take the caller back",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def resume(bridge: Bridge, call_id: CallId) -> None:
    """It is with the agent again. On record: note `caller-taken-back`."""
    await _hold(bridge, call_id, on=False)


async def _hold(bridge: Services, call_id: str, *, on: bool) -> None:
    async with _verbs(bridge, call_id) as verbs:
        await verbs.hold(on)


@router.post(
    "/dtmf",
    summary="Press keys",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def press(bridge: Bridge, call_id: CallId, wanted: DtmfIn) -> None:
    """Queued; they go out as telephone-events or INFO, as the trunk takes them. On record: note `keys-pressed`."""
    async with _verbs(bridge, call_id) as verbs:
        verbs.send_dtmf(wanted.digits)


@router.put(
    "/variables",
    summary="Set variables",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(*STATUSES),
)
async def set_variables(bridge: Bridge, call_id: CallId, wanted: VariablesIn) -> None:
    """The telephone system that has the call after us reads them: channel variables of an Asterisk, for its dialplan
    or a screen pop. Calls that have no such thing (SIP) are a 501. On record: note `variables-set`."""
    async with _verbs(bridge, call_id) as verbs:
        await verbs.set_variables(wanted.variables)
