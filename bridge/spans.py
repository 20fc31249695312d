"""Calls as OpenTelemetry spans, made from the events of their record: a trace for each call, a span for each turn.

Nothing here runs on the media's path: the events come when they have happened, and say themselves when that was.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge.events import (
    BargeIn,
    Bridged,
    CallAnswered,
    CallEnded,
    CallStarted,
    Cause,
    DtmfReceived,
    FormCompleted,
    Held,
    MediaLost,
    Note,
    OneWayAudio,
    Progress,
    ProviderFailed,
    Resumed,
    SecondAnswered,
    SecondDialled,
    SecondEnded,
    ToolCalled,
    TransferAsked,
    TransferResult,
    TurnDelays,
    TurnEnded,
    Unbridged,
)
from bridge.log import mask_text
from bridge.store.encode import clean_json, clean_text, event_name
from bridge.store.records import Recorded

Attributes = dict[str, str | bool | int | float]

MAX_PENDING = 64
"""Barge-ins, failures and tools of one turn that is under way; of more, the oldest are left out."""

MAX_TEXT = 2000
"""Characters of one attribute."""

FAILED = frozenset((Cause.ENGINE_FAILED, Cause.INTERNAL_ERROR, Cause.MEDIA_TIMEOUT, Cause.SIGNALLING_LOST))
"""Calls that end so are errors; any other end is a call's normal course."""

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_BEFORE_THE_VOICE = ("endpoint", "stt", "llm", "tools", "clause")


@dataclass(slots=True)
class _Call:
    span: Span
    context: Context
    began_ns: int
    zero_ns: int
    """When its media began: the zero of `at_ms`."""
    last_ns: int
    """The latest that was told of it: it can't end before."""
    pending: deque[BargeIn | ProviderFailed | ToolCalled] = field(default_factory=lambda: deque(maxlen=MAX_PENDING))
    """What belongs to the agent's turn that is under way."""

    def at(self, at_ms: float) -> int:
        at_ns = self.zero_ns + round(at_ms * 1e6)
        self.last_ns = max(self.last_ns, at_ns)
        return at_ns


class CallSpans:
    """The spans of all live calls. `CallLog.subscribe(spans.observe)` feeds it."""

    def __init__(self, tracer: Tracer, *, content: bool = False) -> None:
        """`content`: show what was said, and numbers in full."""
        self._tracer = tracer
        self._content = content
        self._calls: dict[str, _Call] = {}

    def observe(self, item: Recorded) -> None:
        """Take one event; calls whose start was not seen are left out."""
        event = item.event
        if isinstance(event, CallStarted):
            self._calls[item.call_id] = self._start(item.call_id, event)
            return
        call = self._calls.get(item.call_id)
        if call is None:
            return
        match event:
            case CallAnswered():
                call.zero_ns = call.last_ns = _ns(event.answered_at)
                call.span.add_event("answered", {}, call.zero_ns)
                call.span.set_attribute("offhook.call.setup_ms", event.setup_ms)
            case CallEnded():
                del self._calls[item.call_id]
                self._end(call, event)
            case TurnEnded(speaker="agent"):
                self._agent_turn(call, event)
            case TurnEnded():
                self._caller_turn(call, event)
            case BargeIn() | ProviderFailed() | ToolCalled():
                call.pending.append(event)
            case _:
                self._tell(call, item)

    def close(self) -> None:
        """End the spans of calls that did not end."""
        for call in self._calls.values():
            self._settle(call)
            call.span.end(call.last_ns)
        self._calls.clear()

    # -- the call -------------------------------------------------------------------------------------------

    def _start(self, call_id: str, event: CallStarted) -> _Call:
        began_ns = _ns(event.started_at)
        span = self._tracer.start_span(
            "call",
            parent_of(event.headers),
            SpanKind.SERVER if event.direction == "inbound" else SpanKind.CLIENT,
            _known(
                {
                    "offhook.call.id": call_id,
                    "offhook.call.direction": event.direction,
                    "offhook.call.from": self._number(event.from_),
                    "offhook.call.to": self._number(event.to),
                    "offhook.trunk": event.trunk,
                    "offhook.agent": event.agent,
                    "offhook.leg.kind": event.leg_kind,
                    "offhook.leg.id": clean_text(event.leg_id)[:MAX_TEXT],
                }
            ),
            start_time=began_ns,
        )
        return _Call(span, trace.set_span_in_context(span, Context()), began_ns, began_ns, began_ns)

    def _end(self, call: _Call, event: CallEnded) -> None:
        self._settle(call)
        span = call.span
        span.set_attributes(
            _known(
                {
                    "offhook.call.cause": event.cause.value,
                    # Of a transfer it is the number.
                    "offhook.call.detail": self._number(event.detail),
                    "offhook.call.ended_by": event.by,
                    "offhook.sip.status": event.status,
                    "offhook.q850.cause": event.q850,
                    "offhook.media.codec": event.codec,
                    "offhook.media.srtp": event.srtp,
                    "offhook.media.one_way": event.one_way,
                    **{f"offhook.media.{name}": value for name, value in event.quality.items()},
                }
            )
        )
        if event.cause in FAILED:
            span.set_status(Status(StatusCode.ERROR, event.cause.value))
        span.end(max(call.last_ns, _ns(event.ended_at)))

    def _settle(self, call: _Call) -> None:
        """What no turn came for (the agent never got to speak) is the call's own."""
        for event in call.pending:
            if isinstance(event, ToolCalled):
                self._tool(call, call.context, event)
            else:
                self._happened(call, call.span, event)
        call.pending.clear()

    def _tell(self, call: _Call, item: Recorded) -> None:
        """An event of the call itself."""
        event = item.event
        shown: Mapping[str, object]
        match event:
            case Held() | Resumed() | Unbridged():
                shown = {}
            case Bridged():
                shown = {"offhook.agent.part": event.agent}
            case Progress() | TransferResult():
                shown = {"offhook.sip.status": event.status}
            case MediaLost():
                shown = {"offhook.silent_ms": event.silent_ms}
            case OneWayAudio():
                shown = {"offhook.media.one_way": event.reason.value}
            case SecondDialled() | SecondAnswered() | TransferAsked():
                shown = {"offhook.target": self._number(event.target)}
            case SecondEnded():
                shown = {"offhook.call.cause": event.cause.value, "offhook.sip.status": event.status}
            case DtmfReceived():
                # Which key it was is what was said.
                shown = {"offhook.digit": event.digit if self._content else ""}
            case FormCompleted():
                shown = {"offhook.form": event.form, "offhook.form.fields": self._json(event.fields)}
            case Note():
                shown = {"offhook.note": event.name, "offhook.note.detail": event.detail if self._content else ""}
            case _:
                return
        at_ns = max(call.began_ns, _ns(item.at))
        call.last_ns = max(call.last_ns, at_ns)
        call.span.add_event(event_name(event), _known(shown), at_ns)

    # -- turns ----------------------------------------------------------------------------------------------

    def _caller_turn(self, call: _Call, turn: TurnEnded) -> None:
        span = self._tracer.start_span(
            "caller turn",
            call.context,
            attributes=_known(
                {
                    "offhook.turn.index": turn.index,
                    "offhook.turn.why": self._reason(turn.why),
                    "offhook.turn.text": self._said(turn.text),
                }
            ),
            start_time=call.at(turn.started_ms),
        )
        span.end(call.at(turn.ended_ms))

    def _agent_turn(self, call: _Call, turn: TurnEnded) -> None:
        delays, parts = turn.delays, turn.delays.parts()
        waited_ms = sum(parts.values()) if delays.reply_ms is None else delays.reply_ms
        from_ms = turn.started_ms - waited_ms
        span = self._tracer.start_span(
            "agent turn",
            call.context,
            attributes=_known(
                {
                    "offhook.turn.index": turn.index,
                    "offhook.turn.interrupted": turn.interrupted,
                    "offhook.turn.heard_ms": turn.heard_ms,
                    "offhook.turn.text": self._said(turn.text),
                    "offhook.turn.heard_text": self._said(turn.heard_text),
                    "offhook.reply_ms": delays.reply_ms,
                    **{f"offhook.{name}_ms": value for name, value in parts.items()},
                    "offhook.rest_ms": delays.rest_ms,
                    "offhook.ahead_ms": delays.ahead_ms,
                }
            ),
            start_time=call.at(from_ms),
        )
        context = trace.set_span_in_context(span, Context())
        for name, began_ms, ended_ms in _steps(parts, from_ms, turn.started_ms):
            if name != "tools":
                step = self._tracer.start_span(
                    name, context, attributes=_done_by(name, delays), start_time=call.at(began_ms)
                )
                step.end(call.at(ended_ms))
        speech = self._tracer.start_span("speech", context, start_time=call.at(turn.started_ms))
        speech.end(call.at(turn.ended_ms))
        late: list[BargeIn | ProviderFailed | ToolCalled] = []
        for event in call.pending:
            if event.at_ms > turn.ended_ms:
                late.append(event)
            elif isinstance(event, ToolCalled):
                self._tool(call, context, event)
            else:
                self._happened(call, span, event)
        call.pending.clear()
        call.pending.extend(late)
        span.end(call.at(turn.ended_ms))

    def _tool(self, call: _Call, context: Context, event: ToolCalled) -> None:
        span = self._tracer.start_span(
            "tool",
            context,
            attributes=_known(
                {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": clean_text(event.name)[:64],
                    "offhook.tool.arguments": self._json(event.arguments),
                    "offhook.tool.result": self._said(event.result),
                }
            ),
            start_time=call.at(event.at_ms),
        )
        if not event.ok:
            span.set_status(Status(StatusCode.ERROR, "the tool failed"))
        span.end(call.at(event.at_ms + event.took_ms))

    def _happened(self, call: _Call, span: Span, event: BargeIn | ProviderFailed) -> None:
        if isinstance(event, BargeIn):
            shown: Mapping[str, object] = {
                "offhook.barge_in.confirmed": event.confirmed,
                "offhook.barge_in.reason": self._reason(event.reason),
                "offhook.barge_in.pause_ms": event.pause_ms,
            }
            span.add_event("barge-in", _known(shown), call.at(event.at_ms))
            return
        shown = {
            "offhook.role": event.role,
            "offhook.provider": event.provider,
            "offhook.went_on": event.went_on,
            "error.message": self._text(event.error),
        }
        span.add_event("provider failed", _known(shown), call.at(event.at_ms))
        span.set_status(Status(StatusCode.ERROR, f"{event.role} {event.provider} failed"))

    # -- what may be shown ----------------------------------------------------------------------------------

    def _said(self, text: str) -> str:
        return clean_text(text)[:MAX_TEXT] if self._content else ""

    def _json(self, value: object) -> str:
        return self._said(json.dumps(clean_json(value), ensure_ascii=False)) if self._content else ""

    def _number(self, number: str) -> str:
        return clean_text(number if self._content else mask_text(number, loose=True))[:MAX_TEXT]

    def _text(self, text: str) -> str:
        return clean_text(text if self._content else mask_text(text))[:MAX_TEXT]

    def _reason(self, reason: str) -> str:
        """A detector's words, without the caller's that it quotes."""
        if self._content:
            return clean_text(reason)[:MAX_TEXT]
        head, colon, rest = reason.partition(": ")
        # `500 ms of silence: complete` is its own, `backchannel: yes` the caller's.
        kept = f"{head}{colon}{rest}" if head.endswith("of silence") else head
        return clean_text(_QUOTED.sub("'…'", kept))[:MAX_TEXT]


def parent_of(headers: Mapping[str, str]) -> Context:
    """The trace that a call is part of by its `traceparent` or `X-Traceparent` header (W3C Trace Context); without
    one, or with a malformed one, the call begins its own."""
    carrier = {name: headers.get(name) or headers.get(f"x-{name}", "") for name in ("traceparent", "tracestate")}
    return TraceContextTextMapPropagator().extract(
        {name: value for name, value in carrier.items() if value}, Context()
    )


def _steps(parts: Mapping[str, float], from_ms: float, started_ms: float) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end of each part: the first ones from the end of the caller's speech on, voice and playout back
    from the first packet. What is between them was nobody's."""
    at_ms = from_ms
    for name in _BEFORE_THE_VOICE:
        if name in parts:
            yield name, at_ms, at_ms + parts[name]
            at_ms += parts[name]
    voiced_ms = started_ms - parts.get("playout", 0.0)
    if "tts" in parts:
        yield "tts", voiced_ms - parts["tts"], voiced_ms
    if "playout" in parts:
        yield "playout", voiced_ms, started_ms


def _done_by(part: str, delays: TurnDelays) -> Attributes:
    provider = delays.provider(part)
    if part != "llm":
        return _known({"offhook.provider": provider})
    _, _, model = delays.llm.partition("/")
    return _known(
        {
            "offhook.provider": provider,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
        }
    )


def _known(values: Mapping[str, object]) -> Attributes:
    """Those that say something."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str | bool | int | float) and value != "" and value == value
    }


def _ns(at: float) -> int:
    """Unix time (s) as the spans have it."""
    return round(at * 1e9)
