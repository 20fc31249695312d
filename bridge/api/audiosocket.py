"""Calls of dialplans without ARI: announced before they connect by AudioSocket, asked for when they have ended.

A dialplan has CURL() for that, which can GET and POST forms, and reads an answer as one value.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, status
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from bridge.api.errors import ApiError, describe
from bridge.asterisk.arguments import named_arguments
from bridge.asterisk.dialplan_calls import (
    MAX_VARIABLES,
    Announcement,
    DialplanCall,
    DialplanCalls,
    LiveError,
)
from bridge.events import Cause
from bridge.variables import as_value

CallUuid = Annotated[
    UUID,
    Path(description="The UUID of `AudioSocket(UUID,host:port)`.", examples=["40325ec2-5efd-4bd3-805f-53576e581d13"]),
]

MAX_NAME = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_NO = frozenset({"no", "false", "0", "off"})


class AnnouncementIn(BaseModel):
    """What a dialplan says of a call that it is about to connect. All of it may be left out."""

    model_config = ConfigDict(extra="forbid")

    from_: str = Field("", alias="from", max_length=128, description="The caller's number.")
    to: str = Field("", max_length=128, description="The number that was called.")
    name: str = Field("", max_length=128, description="The caller's name.")
    agent: str = Field("", max_length=64, description="The agent that is to talk; empty: the routes pick one.")
    version: str = Field(
        "",
        max_length=64,
        description="Of its Asterisk, `${VERSION()}`: 20.14, 21.9, 22.4 and later send digits, earlier ones don't.",
    )
    follows: bool = Field(
        True,
        description="The dialplan goes on when the call is over, and does what `GET` says then. Else agents can't "
        "send its caller anywhere. Before Asterisk 20.14, 21.9 and 22.4 a bare `AudioSocket()` hangs up then, while "
        "`TryExec(AudioSocket(...))` and `Dial(AudioSocket/HOST:PORT/UUID/c(slin),,g)` go on.",
    )
    variables: dict[str, str] = Field(
        default={}, max_length=MAX_VARIABLES, description="Further facts for the agent."
    )


class DialplanCallOut(BaseModel):
    """A call by AudioSocket."""

    uuid: UUID
    status: Literal["ANNOUNCED", "LIVE", "ANSWERED", "TRANSFER", "REFUSED", "FAILED"] = Field(
        description="ANSWERED: an agent talked; TRANSFER: the caller is to go to `target`; REFUSED: no agent took "
        "the call; FAILED: it broke. The first two: it has not ended."
    )
    cause: Cause | None = Field(description="The one reason the call ended with; null until then.")
    detail: str
    target: str = Field(description="Where the caller is to go, as the agent put it. Empty: nowhere.")
    kind: Literal["", "number", "dialplan", "queue", "endpoint", "sip"] = Field(description="Of the target.")
    context: str = Field(description="Of a target `dialplan:EXTEN@CONTEXT[,PRIORITY]`.")
    extension: str = Field(description="Of such a target; or the number.")
    priority: str
    queue: str = Field(description="Of a target `queue:NAME`.")
    endpoint: str = Field(description="Of a target like `PJSIP/1001`.")
    variables: dict[str, str] = Field(
        description="What a channel would have been given: OFFHOOK_CALL_ID, OFFHOOK_SUMMARY, what agents set."
    )


def audiosocket_router(calls: Callable[[], DialplanCalls | None], now: Callable[[], float]) -> APIRouter:
    """The routes. `calls` gives None where `audiosocket.trunk` is not set; `now` is the media clock's time (s)."""
    router = APIRouter(prefix="/api/audiosocket", tags=["asterisk"])

    def known() -> DialplanCalls:
        if (found := calls()) is None:
            raise ApiError(404, "not-configured", "no calls are taken by AudioSocket: audiosocket.trunk is not set")
        return found

    def announce(uuid: UUID, announcement: Announcement) -> None:
        try:
            known().announce(uuid, announcement, now())
        except LiveError as error:
            raise ApiError(409, "call-live", str(error)) from error

    @router.put(
        "/{uuid}",
        summary="Announce a call",
        status_code=status.HTTP_204_NO_CONTENT,
        responses=describe(404, 409),
    )
    async def put(uuid: CallUuid, body: AnnouncementIn) -> None:
        """Say who calls, before `AudioSocket(UUID,host:port)`. It is kept for a minute."""
        announce(
            uuid,
            Announcement(
                from_=body.from_,
                to=body.to,
                display_name=body.name,
                agent=body.agent,
                version=body.version,
                follows=body.follows,
                variables=_variables(body.variables),
            ),
        )

    @router.post(
        "/{uuid}",
        summary="Announce a call by a form",
        response_class=PlainTextResponse,
        responses=describe(404, 409, 413),
        openapi_extra={
            "requestBody": {
                "content": {
                    "application/x-www-form-urlencoded": {
                        "schema": {
                            "type": "object",
                            "properties": {
                                name: {"type": "string"}
                                for name in ("from", "to", "name", "agent", "version", "follows", "args")
                            },
                            "additionalProperties": {"type": "string"},
                        }
                    }
                }
            }
        },
    )
    async def post(uuid: CallUuid, request: Request) -> PlainTextResponse:
        """The same for CURL(), which knows forms alone: the fields of `PUT`, all others as variables, and as `args`
        what `Stasis()` takes as arguments (`campaign=spring,language=de`; an `agent` or `did` among them holds). By
        `asterisk-channel`, `asterisk-uniqueid` and `call-id` the call is found later. Answers `OK`."""
        announce(uuid, _from_form(await request.body()))
        return PlainTextResponse("OK")

    @router.get(
        "/{uuid}",
        summary="How a call ended",
        response_model=DialplanCallOut,
        responses={
            **describe(404),
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The call."},
        },
    )
    async def get(
        uuid: CallUuid,
        field: Annotated[
            str,
            Query(
                max_length=80,
                description="Only the value of this field, or of this variable, as plain text: `status`, `target`, "
                "`OFFHOOK_SUMMARY`. Empty text for what there is not; `UNKNOWN` for each field of a call that is "
                "not known.",
            ),
        ] = "",
        format: Annotated[
            Literal["json", "text"], Query(description="`text`: a line `name=value` for each field and variable.")
        ] = "json",
    ) -> Response:
        """It can be asked for ten minutes after its end."""
        call = known().find(uuid, now())
        if call is None:
            if field or format == "text":
                return PlainTextResponse("UNKNOWN", status_code=404)
            raise ApiError(404, "no-such-call", f"no call {uuid} by AudioSocket was announced or came lately")
        fields = call.fields()
        if field:
            return PlainTextResponse(fields.get(field, ""))
        if format == "text":
            return PlainTextResponse("".join(f"{name}={value}\n" for name, value in fields.items()))
        return JSONResponse(_out(call, fields).model_dump(mode="json"))

    return router


def _out(call: DialplanCall, fields: Mapping[str, str]) -> DialplanCallOut:
    parts = {name: fields[name] for name in ("kind", "context", "extension", "priority", "queue", "endpoint")}
    return DialplanCallOut.model_validate(
        {
            "uuid": call.uuid,
            "status": call.status,
            "cause": call.cause,
            "detail": call.detail,
            "target": call.target,
            "variables": dict(call.variables),
            **parts,
        }
    )


def _from_form(body: bytes) -> Announcement:
    try:
        # A dialplan may have left a number's + as it is, which a form reads as a space.
        pairs = parse_qsl(body.decode().replace("=+", "=%2B"), max_num_fields=MAX_VARIABLES + 7, strict_parsing=True)
    except ValueError as error:
        raise ApiError(400, "invalid-request", f"the body is no form: {error}") from error
    fields = dict(pairs)
    known = {name: as_value(fields.pop(name, ""))[:128] for name in ("from", "to", "name", "agent", "version")}
    follows = fields.pop("follows", "yes").strip().lower() not in _NO
    args = fields.pop("args", "")
    said = named_arguments(args.split(",", MAX_VARIABLES - 1)) if args else {}
    named = {name[:MAX_NAME]: as_value(value) for name, value in said.items()}
    return Announcement(
        from_=known["from"],
        to=named.get("did", "")[:128] or known["to"],
        display_name=known["name"],
        agent=named.get("agent", "")[:64] or known["agent"],
        version=known["version"],
        follows=follows,
        variables=named | _variables(fields),
    )


def _variables(values: Mapping[str, str]) -> dict[str, str]:
    """By lower-case name, each a line of bounded length."""
    if wrong := [name for name in values if not _NAME.fullmatch(name)]:
        raise ApiError(400, "invalid-request", f"{wrong[0][:64]!r} is no name of a variable")
    return {name.lower(): as_value(value) for name, value in values.items()}
