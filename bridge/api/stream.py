"""A call's events as they happen: Server-Sent Events (HTML Living Standard 9.2)."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from bridge.api.calls import CallId, find_call
from bridge.api.errors import ApiError, describe
from bridge.api.live import CallHistory, LiveEvents
from bridge.api.schemas import EventOut, event_out, replay
from bridge.api.services import Bridge

router = APIRouter(prefix="/api/calls", tags=["calls"])


class EventStreamResponse(StreamingResponse):
    media_type = "text/event-stream"


@router.get(
    "/{call_id}/events",
    summary="Follow a call",
    response_class=EventStreamResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **describe(404, 503)},
)
async def follow_call(
    bridge: Bridge, call_id: CallId, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> EventStreamResponse:
    """Server-Sent Events: everything from the call's start (or after `Last-Event-ID`), turns included, then each
    event as it happens. The stream ends with `call_ended`. `id` is the event's `seq`, `event` its name, `data` its
    JSON. Who is too slow for a very long call gets a `gap` event with the number that was missed."""
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
    history = bridge.live.find(call_id)
    if history is None:
        past = [event for event in replay(await find_call(bridge, call_id)) if event.seq > after]
        return EventStreamResponse(_recorded(past))
    limit = bridge.settings.max_streams
    if bridge.live.followers >= limit:
        raise ApiError(503, "too-many-streams", f"{limit} event streams are open already", {"Retry-After": "5"})
    return EventStreamResponse(_followed(bridge.live, history, after, bridge.settings.keepalive_s))


async def _recorded(events: Sequence[EventOut]) -> AsyncIterator[str]:
    for event in events:
        yield _sse(event)


async def _followed(live: LiveEvents, history: CallHistory, after: int, keepalive_s: float) -> AsyncIterator[str]:
    live.followers += 1
    try:
        while True:
            chunk = await history.after(after, keepalive_s)
            if chunk.missed:
                yield f'event: gap\ndata: {{"missed": {chunk.missed}}}\n\n'
            for item in chunk.events:
                yield _sse(event_out(item))
                after = item.seq
            if chunk.over:
                return
            if not chunk.events:
                yield ": still here\n\n"
    finally:
        live.followers -= 1


def _sse(event: EventOut) -> str:
    """One event in the stream's form; its JSON has no line breaks."""
    return f"id: {event.seq}\nevent: {event.name}\ndata: {event.model_dump_json()}\n\n"
