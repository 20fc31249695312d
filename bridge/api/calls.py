"""Calls: listed, looked at, dialled, hung up; their recordings."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, status
from fastapi.responses import FileResponse, Response
from pydantic import AwareDatetime

from bridge.api.control import DialRefused, LiveCall
from bridge.api.errors import ApiError, describe
from bridge.api.refusals import retry_after
from bridge.api.schemas import CallDetail, CallList, DialIn, Dialled, call_out, detail_out, live_out
from bridge.api.services import Bridge, Services
from bridge.events import Cause
from bridge.store.recordings import recording_path
from bridge.store.records import CallFilter, CallHistory

router = APIRouter(prefix="/api/calls", tags=["calls"])

CallId = Annotated[str, Path(pattern=r"^[\w-]{1,64}$", description="The call's id.")]


async def find_call(bridge: Services, call_id: str) -> CallHistory:
    """The call with all that was recorded up to now. Raises ApiError 404, StoreError."""
    await bridge.call_log.settle()
    history = await bridge.store.get_call(call_id)
    if history is None:
        raise ApiError(404, "no-such-call", f"there is no call {call_id} on the record")
    return history


@router.get("", summary="List calls", responses=describe(503))
async def list_calls(
    bridge: Bridge,
    since: Annotated[AwareDatetime | None, Query(description="Started at or after this time.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Started before this time.")] = None,
    agent: Annotated[str | None, Query(description="The agent's name.")] = None,
    cause: Annotated[Cause | None, Query(description="The cause of ending.")] = None,
    direction: Annotated[Literal["inbound", "outbound"] | None, Query()] = None,
    leg_id: Annotated[
        str | None,
        Query(
            max_length=1000,
            description="What others call it: the SIP Call-ID of one of its legs (a phone finds its own call by it); "
            "of a call by an Asterisk the id or the name of its channel, or the SIP Call-ID of the phone or carrier "
            "behind it.",
        ),
    ] = None,
    live: Annotated[
        bool | None, Query(description="Only calls that ring or are up (all at once, no paging), or only ended ones.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Calls on a page.")] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)] = None,
) -> CallList:
    """Newest first. Live calls are listed from the bridge itself, so they are seen even while the record can't be
    read; all others from the record."""
    wanted = CallFilter(
        since=since,
        until=until,
        agent=agent,
        cause=cause.value if cause else None,
        direction=direction,
        leg_id=leg_id,
        live=live,
    )
    if live:
        found = [call for call in bridge.control.live_calls() if _fits(call, wanted)]
        found.sort(key=lambda call: (call.started_at, call.id), reverse=True)
        return CallList(calls=[live_out(call) for call in found])
    await bridge.call_log.settle()
    page = await bridge.store.list_calls(wanted, limit=limit, cursor=cursor)
    return CallList(calls=[call_out(call) for call in page.calls], next_cursor=page.next_cursor)


def _fits(call: LiveCall, wanted: CallFilter) -> bool:
    return (
        (wanted.since is None or call.started_at >= wanted.since.timestamp())
        and (wanted.until is None or call.started_at < wanted.until.timestamp())
        and wanted.agent in (None, call.agent)
        and wanted.direction in (None, call.direction)
        and wanted.leg_id in (None, call.leg_id, *call.names)
        and wanted.cause is None
    )


@router.post(
    "",
    summary="Dial out",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(403, 404, 502, 503, 504),
)
async def dial(bridge: Bridge, wanted: DialIn, response: Response) -> Dialled:
    """Call somebody and let an agent talk to them. Answered before anybody picks up: what comes of it is in the
    call's events."""
    try:
        call_id = await bridge.control.dial(wanted.request())
    except DialRefused as refused:
        raise ApiError(refused.status, refused.code, refused.message, retry_after(refused.status)) from refused
    response.headers["Location"] = f"/api/calls/{call_id}"
    return Dialled(id=call_id)


@router.get("/{call_id}", summary="One call with its turns and events", responses=describe(404, 503))
async def get_call(bridge: Bridge, call_id: CallId) -> CallDetail:
    """A call that is still up shows what has happened so far."""
    return detail_out(await find_call(bridge, call_id))


@router.delete(
    "/{call_id}",
    summary="Hang up",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=describe(404, 409, 503),
)
async def hang_up(bridge: Bridge, call_id: CallId) -> None:
    """End a live call, with cause `api-hung-up`. 409 if it has ended already."""
    if not await bridge.control.hang_up(call_id):
        await find_call(bridge, call_id)
        raise ApiError(409, "call-ended", f"call {call_id} has ended already")


@router.get(
    "/{call_id}/recording",
    summary="The call's recording",
    response_class=FileResponse,
    responses={
        200: {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The asked range", "content": {"audio/wav": {}}},
        416: {"description": "A range outside the file; plain text"},
        **describe(404, 503),
    },
)
@router.head("/{call_id}/recording", include_in_schema=False)
async def recording(bridge: Bridge, request: Request, call_id: CallId) -> FileResponse:
    """Stereo WAV: the caller left, the agent right. Ranges are served. 404 says why there is none."""
    history = await find_call(bridge, call_id)
    call = history.call
    if call.ended_at is None:
        raise ApiError(404, "recording-not-ready", "the call is still up: its recording can be had when it has ended")
    if call.recording is None:
        raise ApiError(404, "no-recording", _why_none(history))
    path = recording_path(bridge.settings.recordings_dir, call.recording)
    if path is None:
        raise ApiError(
            404, "recording-gone", f"the file {call.recording} is not in the recordings directory any more"
        )
    return FileResponse(
        path,
        media_type="audio/wav",
        filename=f"call-{call.id}.wav",
        content_disposition_type="inline",
    )


def _why_none(history: CallHistory) -> str:
    for event in history.events:
        if event.name == "note" and event.data.get("name") == "recording-unavailable":
            return f"the call was not recorded: {event.data.get('detail', '')}"
    if history.call.answered_at is None:
        return "the call was never answered"
    return f"the call was not recorded: recording is off for agent {history.call.agent!r}, or the bridge stopped"
