"""What the API takes and gives, as JSON."""

import dataclasses
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bridge.api.control import DialRequest, LiveCall, MachineWish
from bridge.events import Cause
from bridge.store.encode import event_data, event_name
from bridge.store.records import CallHistory, CallRecord, EventRecord, Recorded, TurnRecord
from bridge.targets import DIALPLAN_PATTERN, ENDPOINT_PATTERN, QUEUE_PATTERN


class Status(BaseModel):
    """One word; the reasons only for who brings the key."""

    status: Literal["ok", "ready", "not-ready"]
    reasons: list[str] | None = Field(default=None, description="Why no calls are taken. Only with the API key.")
    live_calls: int | None = Field(default=None, description="Calls that ring or are up. Only with the API key.")


class CallOut(BaseModel):
    """One call. Numbers are shown in full."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    state: Literal["ringing", "up", "ended"]
    direction: Literal["inbound", "outbound"]
    from_: str = Field(alias="from", description="The far party's user or number.")
    to: str = Field(description="The dialled user or number.")
    trunk: str
    agent: str = Field(description="Empty for a call that was refused before an agent had it.")
    leg_kind: str = Field(description="What carries the call: `sip`, `asterisk`, `audiosocket`.")
    leg_id: str = Field(description="What the other side calls this call: the SIP Call-ID, the channel id.")
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    setup_ms: float | None = Field(
        default=None, description="From the INVITE, or the request to dial, to the answer."
    )
    cause: Cause | None = Field(default=None, description="The one reason the call ended with.")
    detail: str = ""
    recording: str | None = Field(default=None, description="Path of the stereo WAV (caller left, agent right).")
    quality: dict[str, float] | None = Field(
        default=None,
        description="Media of the leg, so far or at its end: packets by their fate, jitter_ms, loss_percent, "
        "round_trip_ms, mos and mos_remote (E-model, 1 to 4.5: of what we heard, and of what the far side did), "
        "clock_drift_ppm. Of an Asterisk's call these are of the stretch between Asterisk and Offhook; those with "
        "`caller_` before them (caller_mos, caller_loss_percent, caller_jitter_ms, ...) are of that between the "
        "caller and Asterisk, as Asterisk measured it. What was not measured is left out.",
    )
    codec: str = Field(default="", description="What we sent: `PCMU`, `OPUS`, ...; empty without media.")
    srtp: str = Field(default="", description="The crypto suite of the media; empty: in clear.")
    one_way: str = Field(default="", description="Why audio flows one way only, where it does now or did at the end.")


class DelaysOut(BaseModel):
    """Where the time of an agent's turn went, in ms; null where the step did not happen. The parts are what the
    caller waited for, one after another: endpoint, stt, llm, tools, clause, tts, playout. They add up to `reply_ms`
    but for what the bridge itself took."""

    endpoint_ms: float | None = Field(description="End of the caller's speech to the decision that the turn is over.")
    stt_ms: float | None = Field(description="Decision to the final text; 0 when it was there before.")
    llm_ms: float | None = Field(description="Requests to the language model until its first text, or tools.")
    tts_ms: float | None = Field(description="First clause given to the voice until its first audio.")
    reply_ms: float | None = Field(description="End of the caller's speech to the agent's first speech on the wire.")
    llm: str = Field(description="Who wrote the reply, as `provider/model`; empty: no language model.")
    tools_ms: float | None = Field(description="Tools that were carried out before the first speech.")
    clause_ms: float | None = Field(description="First text to the first clause long enough for the voice.")
    playout_ms: float | None = Field(description="First audio from the voice until the first packet with it.")
    ahead_ms: float | None = Field(
        description="How long before the decision the reply was begun (an eager start). No part of `reply_ms`."
    )
    stt: str = Field(description="The provider that understood the caller.")
    tts: str = Field(description="The provider that spoke.")


class TurnOut(BaseModel):
    """One utterance. Times are ms since the answer, the zero of the recording."""

    index: int
    speaker: Literal["caller", "agent"]
    text: str = Field(description="The caller's words as understood, or all the agent meant to say.")
    started_ms: float
    ended_ms: float
    heard_text: str = Field(description="The part that was played out before the turn ended or was cut off.")
    heard_ms: float
    interrupted: bool
    delays: DelaysOut
    why: str = Field(description="The caller's: what made it over, in the turn detector's words.")


class EventOut(BaseModel):
    """Anything that happened on a call."""

    seq: int = Field(description="0, 1, 2 ... within the call, turns counted too.")
    at: datetime
    name: str = Field(examples=["call_started", "barge_in", "form_completed"])
    data: dict[str, Any]


class CallDetail(CallOut):
    """One call with everything that happened on it."""

    turns: list[TurnOut]
    events: list[EventOut] = Field(description="Every event but the turns.")


class CallList(BaseModel):
    calls: list[CallOut]
    next_cursor: str | None = Field(default=None, description="Give it as `cursor` for the next page.")


# No character that could end the URI inside a SIP header.
_TO_DIAL = re.compile(
    r"(sips?:[^\s<>\",\x00-\x20\x7f]+|\+?[0-9A-D*#(][0-9A-D*# ().\/-]*"
    rf"|{ENDPOINT_PATTERN}|{DIALPLAN_PATTERN}|{QUEUE_PATTERN})"
)


def _to_dial(value: str) -> str:
    if not _TO_DIAL.fullmatch(value):
        raise ValueError(
            f"{value[:64]!r} can't be dialled: it is a SIP URI (sip:USER@HOST), with `trunk` a number; with an "
            "Asterisk as `trunk` also an endpoint (PJSIP/1001), a place in its dialplan (dialplan:EXTEN@CONTEXT) or "
            "a queue (queue:NAME)"
        )
    return value


class DialIn(BaseModel):
    """A call to be made."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {"to": "sip:+4930123456@192.168.1.5", "agent": "receptionist"},
                {"to": "+4930123456", "trunk": "carrier", "agent": "receptionist"},
                {"to": "PJSIP/1001", "trunk": "pbx", "agent": "receptionist", "machine": "hangup"},
                {"to": "queue:support", "trunk": "pbx", "agent": "receptionist", "timeout_s": 120},
            ]
        },
    )

    to: Annotated[
        str,
        AfterValidator(_to_dial),
        Field(
            max_length=256,
            json_schema_extra={"pattern": f"^{_TO_DIAL.pattern}$"},
            description="A SIP URI; with `trunk` a number. With an Asterisk as `trunk`, as far as its `dial` setting "
            "permits: one of its endpoints, e.g. `PJSIP/1001` or `PJSIP/+4930123@carrier`; a number that its "
            "`outbound_context` dials; a place in its dialplan, `dialplan:EXTEN@CONTEXT`, from its first priority "
            "on; or a queue, `queue:NAME`: the call counts as answered when one of its members takes it.",
        ),
    ]
    agent: Annotated[str, Field(min_length=1, max_length=64)]
    from_: Annotated[str, Field(alias="from", max_length=64, pattern=r"^[\w.+*#-]*$")] = ""
    timeout_s: Annotated[float, Field(ge=1, le=300)] = 30
    trunk: Annotated[str, Field(max_length=64, description="The trunk to call by; empty: straight to the URI.")] = ""
    headers: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[Xx]-[A-Za-z0-9_-]{1,62}$")],
            Annotated[str, Field(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")],
        ],
        Field(
            max_length=20,
            description="X- headers for the INVITE, as far as the trunk's `allow_headers` go; of an Asterisk to its "
            "endpoints `PJSIP/...` alone.",
        ),
    ] = Field(default_factory=dict)

    caller_name: Annotated[
        str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f\"<>]*$", description="Of a call by an Asterisk.")
    ] = ""
    variables: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")],
            Annotated[str, Field(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")],
        ],
        Field(
            max_length=50,
            description="Channel variables of a call by an Asterisk; a name that begins with `_` is handed on to the "
            "channels that it dials.",
        ),
    ] = Field(default_factory=dict)
    machine: Annotated[
        MachineWish,
        Field(
            description="Whether an Asterisk is to tell answering machines from people before the agent speaks, and "
            "what then: `talk` to either, `hangup` on a machine. `off`: not asked, the agent speaks at once."
        ),
    ] = "off"

    def request(self) -> DialRequest:
        return DialRequest(
            to=self.to,
            agent=self.agent,
            from_=self.from_,
            timeout_s=self.timeout_s,
            trunk=self.trunk,
            headers=tuple(self.headers.items()),
            caller_name=self.caller_name,
            variables=tuple(self.variables.items()),
            machine=self.machine,
        )


class Dialled(BaseModel):
    id: str = Field(description="The call's id; it may still fail: follow its events.")


# -- from the record and the live calls ---------------------------------------------------------------------


def recording_url(call_id: str) -> str:
    return f"/api/calls/{call_id}/recording"


def call_fields(call: CallRecord) -> dict[str, Any]:
    state = "ended" if call.ended_at else "up" if call.answered_at else "ringing"
    return {
        "id": call.id,
        "state": state,
        "direction": call.direction,
        "from": call.from_,
        "to": call.to,
        "trunk": call.trunk,
        "agent": call.agent,
        "leg_kind": call.leg_kind,
        "leg_id": call.leg_id,
        "started_at": call.started_at,
        "answered_at": call.answered_at,
        "ended_at": call.ended_at,
        "setup_ms": call.setup_ms,
        "cause": call.cause,
        "detail": call.detail,
        "recording": recording_url(call.id) if call.recording else None,
        "quality": call.quality,
        "codec": call.codec,
        "srtp": call.srtp,
        "one_way": call.one_way,
    }


def call_out(call: CallRecord) -> CallOut:
    return CallOut.model_validate(call_fields(call))


def live_out(call: LiveCall) -> CallOut:
    return CallOut.model_validate(
        {
            "id": call.id,
            "state": "ringing" if call.answered_at is None else "up",
            "direction": call.direction,
            "from": call.from_,
            "to": call.to,
            "trunk": call.trunk,
            "agent": call.agent,
            "leg_kind": call.leg_kind,
            "leg_id": call.leg_id,
            "started_at": datetime.fromtimestamp(call.started_at, UTC),
            "answered_at": None if call.answered_at is None else datetime.fromtimestamp(call.answered_at, UTC),
            "quality": call.quality or None,
            "codec": call.codec,
            "srtp": call.srtp,
            "one_way": call.one_way,
        }
    )


def detail_out(history: CallHistory) -> CallDetail:
    return CallDetail.model_validate(
        {
            **call_fields(history.call),
            "turns": [_turn_data(turn) for turn in history.turns],
            "events": [{"seq": e.seq, "at": e.at, "name": e.name, "data": e.data} for e in history.events],
        }
    )


def event_out(item: Recorded) -> EventOut:
    """An event as it happens. What the record gives later (`replay`) is the same."""
    at = datetime.fromtimestamp(item.at, UTC)
    return EventOut(seq=item.seq, at=at, name=event_name(item.event), data=event_data(item.event))


def replay(history: CallHistory) -> list[EventOut]:
    """Everything that happened on a call, turns too, in order."""
    happened = [_event(event) for event in history.events]
    said = [EventOut(seq=turn.seq, at=turn.at, name="turn_ended", data=_turn_data(turn)) for turn in history.turns]
    return sorted(happened + said, key=lambda event: event.seq)


def _event(event: EventRecord) -> EventOut:
    return EventOut(seq=event.seq, at=event.at, name=event.name, data=event.data)


def _turn_data(turn: TurnRecord) -> dict[str, Any]:
    return {
        "index": turn.index,
        "speaker": turn.speaker,
        "text": turn.text,
        "started_ms": turn.started_ms,
        "ended_ms": turn.ended_ms,
        "heard_text": turn.heard_text,
        "heard_ms": turn.heard_ms,
        "interrupted": turn.interrupted,
        "delays": dataclasses.asdict(turn.delays),
        "why": turn.why,
    }
