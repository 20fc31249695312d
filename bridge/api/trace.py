"""What an operator looks at when a call went wrong: its SIP messages, and its packets for Wireshark."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

from bridge.api.calls import CallId, find_call
from bridge.api.errors import ApiError, describe
from bridge.api.services import Bridge, Services
from bridge.capture import MEDIA_TYPE, Capture
from bridge.sip.flow import Address
from bridge.sip.ladder import ladder, summary
from bridge.sip.trace import TracedMessage

router = APIRouter(prefix="/api", tags=["trace"])

MAX_CAPTURES = 4
"""At a time: each costs about 20 us of CPU a packet."""


class MessageOut(BaseModel):
    """One SIP message."""

    at: datetime
    received: bool
    transport: Literal["udp", "tcp", "tls"]
    local: str
    remote: str
    summary: str
    text: str = Field(description="The whole message; secrets (digest responses, SRTP keys, tokens) are removed.")


class TraceOut(BaseModel):
    messages: list[MessageOut] = Field(description="Oldest first; empty when they are no longer kept.")


As = Annotated[Literal["json", "ladder"], Query(alias="as", description="`ladder`: text for a terminal.")]

_BOTH: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get(
    "/calls/{call_id}/trace",
    summary="The call's SIP messages",
    response_model=TraceOut,
    responses={**_BOTH, **describe(404, 503)},
)
async def trace_call(bridge: Bridge, call_id: CallId, form: As = "json") -> TraceOut | PlainTextResponse:
    """Of all its legs, as far back as the memory for it reaches (`sip.trace_mb`)."""
    return _shown(bridge.control.sip_messages(await _leg_ids(bridge, call_id)), form)


@router.get("/sip/trace", summary="The SIP messages of a Call-ID", response_model=TraceOut, responses=_BOTH)
async def trace_call_id(
    bridge: Bridge, call_id: Annotated[str, Query(max_length=256)], form: As = "json"
) -> TraceOut | PlainTextResponse:
    """For calls that made no record, and for registrations and OPTIONS."""
    return _shown(bridge.control.sip_messages([call_id]), form)


@router.get(
    "/calls/{call_id}/pcap",
    summary="Capture the call's packets",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {}}}, **describe(404, 409, 503)},
)
async def capture_call(bridge: Bridge, call_id: CallId) -> StreamingResponse:
    """A pcap stream for Wireshark: the SIP messages so far, then SIP, RTP and RTCP until the call ends or you stop
    reading. SRTP and TLS are shown in clear. Of a call that has ended: the SIP messages that are still kept."""
    if bridge.control.captures() >= MAX_CAPTURES:
        raise ApiError(503, "too-many-captures", f"{MAX_CAPTURES} captures are being taken", {"Retry-After": "10"})
    capture = bridge.control.capture(call_id) or _kept(bridge.control.sip_messages(await _leg_ids(bridge, call_id)))
    headers = {"Content-Disposition": f'attachment; filename="call-{call_id}.pcap"'}
    return StreamingResponse(_stream(capture), media_type=MEDIA_TYPE, headers=headers)


@contextmanager
def _kept(messages: Sequence[TracedMessage]) -> Iterator[Capture]:
    """Of a call that has ended."""
    capture = Capture()
    for message in messages:
        capture.sip(message)
    capture.finish()
    yield capture


async def _stream(capturing: AbstractContextManager[Capture]) -> AsyncIterator[bytes]:
    # Begun here, not by the route: a client that is gone by then never starts the capture.
    with capturing as capture:
        async for chunk in capture.chunks():
            yield chunk


async def _leg_ids(bridge: Services, call_id: str) -> Sequence[str]:
    live = bridge.control.leg_ids(call_id)
    if live is not None:
        return live
    history = await find_call(bridge, call_id)
    joined = [str(event.data.get("leg_id", "")) for event in history.events if event.name == "leg_joined"]
    return [history.call.leg_id, *joined]


def _shown(messages: Sequence[TracedMessage], form: str) -> TraceOut | PlainTextResponse:
    if form == "ladder":
        return PlainTextResponse(ladder(messages))
    return TraceOut(messages=[_message(message) for message in messages])


def _message(message: TracedMessage) -> MessageOut:
    return MessageOut(
        at=datetime.fromtimestamp(message.at, UTC),
        received=message.received,
        transport=message.flow.transport,
        local=_address(message.flow.local),
        remote=_address(message.flow.remote),
        summary=summary(message),
        text=message.text,
    )


def _address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
