"""What a call's events become as spans: one trace, turns with their parts, and no word of it unless asked."""

import json
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge.events import (
    BargeIn,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    Cause,
    DtmfReceived,
    FormCompleted,
    Held,
    Note,
    ProviderFailed,
    ToolCalled,
    TransferAsked,
    TurnDelays,
    TurnEnded,
)
from bridge.spans import CallSpans
from bridge.store.records import Recorded

T0 = 1_790_000_000.0
"""Unix time of the call's start; it is answered 2 s later."""

STARTED = CallStarted("inbound", "+4930123456", "+4989654321", "carrier", "receptionist", "sip", "abc@host", T0)
ANSWERED = CallAnswered(T0 + 2, 250.0)
ENDED = CallEnded(
    Cause.CALLER_HUNG_UP, "BYE", T0 + 20, None, {"mos": 4.2, "packets_lost": 3.0}, by="far", codec="PCMU"
)
DELAYS = TurnDelays(
    500.0,
    0.0,
    100.0,
    150.0,
    840.0,
    "openai/gpt-4.1-mini",
    tools_ms=40.0,
    clause_ms=20.0,
    playout_ms=10.0,
    stt="deepgram",
    tts="cartesia",
)
CALLER = TurnEnded(
    0, "caller", "my number is 030 123456", 1000.0, 3000.0, "", 2000.0, why="500 ms of silence: complete"
)
AGENT = TurnEnded(1, "agent", "We open at nine.", 3840.0, 5000.0, "We open", 1160.0, True, DELAYS)
BARGE_IN = BargeIn(4800.0, True, "words: stop it please", 200.0)
TOOL = ToolCalled("book_table", {"name": "Ann Smith"}, True, "booked for Ann Smith", 40.0, 3620.0)
FAILED = ProviderFailed("tts", "elevenlabs", "no audio in 2000 ms", 3700.0, went_on="cartesia")


def spans_of(
    *events: CallEvent, content: bool = False, start: CallStarted = STARTED, end: CallEnded | None = ENDED
) -> dict[str, list[ReadableSpan]]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    spans = CallSpans(provider.get_tracer("test"), content=content)
    told: Sequence[CallEvent] = (start, *events, *([] if end is None else [end]))
    for seq, event in enumerate(told):
        spans.observe(Recorded("call-1", seq, T0 + 3, event))
    spans.close()
    found: dict[str, list[ReadableSpan]] = {}
    for span in memory.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def ms(span: ReadableSpan) -> tuple[float, float]:
    """Its begin and end, from the call's answer."""
    assert span.start_time is not None and span.end_time is not None
    zero = (T0 + 2) * 1e9
    return round((span.start_time - zero) / 1e6, 3), round((span.end_time - zero) / 1e6, 3)


def shown(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_call_is_one_trace_with_its_attributes_and_times() -> None:
    found = spans_of(ANSWERED, CALLER, AGENT)
    (call,) = found["call"]
    assert call.kind is SpanKind.SERVER and call.parent is None and call.status.status_code is StatusCode.UNSET
    assert ms(call) == (-2000, 18000)
    assert shown(call) == {
        "offhook.call.id": "call-1",
        "offhook.call.direction": "inbound",
        "offhook.call.from": "+49…3456",
        "offhook.call.to": "+49…4321",
        "offhook.trunk": "carrier",
        "offhook.agent": "receptionist",
        "offhook.leg.kind": "sip",
        "offhook.leg.id": "abc@host",
        "offhook.call.setup_ms": 250.0,
        "offhook.call.cause": "caller-hung-up",
        "offhook.call.detail": "BYE",
        "offhook.call.ended_by": "far",
        "offhook.media.codec": "PCMU",
        "offhook.media.mos": 4.2,
        "offhook.media.packets_lost": 3.0,
    }
    assert len({span.context.trace_id for spans in found.values() for span in spans if span.context}) == 1


def test_reply_begins_where_the_caller_ended_and_its_parts_follow_each_other() -> None:
    found = spans_of(ANSWERED, CALLER, TOOL, AGENT)
    (turn,) = found["agent turn"]
    (caller,) = found["caller turn"]
    assert ms(caller) == (1000, 3000) and ms(turn) == (3000, 5000)
    assert {
        name: ms(spans[0]) for name, spans in found.items() if name not in ("call", "agent turn", "caller turn")
    } == {
        "endpoint": (3000, 3500),
        "stt": (3500, 3500),
        "llm": (3500, 3600),
        "tool": (3620, 3660),
        "clause": (3640, 3660),
        # 20 ms were the bridge's own.
        "tts": (3680, 3830),
        "playout": (3830, 3840),
        "speech": (3840, 5000),
    }
    for name in ("endpoint", "stt", "llm", "tool", "tts", "playout", "speech"):
        parent, context = found[name][0].parent, turn.context
        assert parent is not None and context is not None and parent.span_id == context.span_id
    assert shown(found["llm"][0])["gen_ai.request.model"] == "gpt-4.1-mini"
    assert shown(found["tts"][0]) == {"offhook.provider": "cartesia"}
    assert shown(turn)["offhook.reply_ms"] == 840.0 and shown(turn)["offhook.rest_ms"] == pytest.approx(20.0)


def test_greeting_begins_with_what_it_waited_for() -> None:
    greeting = TurnEnded(
        0, "agent", "Hello.", 200.0, 900.0, "Hello.", 700.0, delays=TurnDelays(tts_ms=80.0, playout_ms=20.0)
    )
    found = spans_of(ANSWERED, greeting)
    assert ms(found["agent turn"][0]) == (100, 900) and ms(found["tts"][0]) == (100, 180)


def test_barge_in_and_failure_are_events_of_the_turn_they_happened_in() -> None:
    found = spans_of(ANSWERED, CALLER, FAILED, BARGE_IN, AGENT)
    (turn,) = found["agent turn"]
    failure, barge_in = turn.events
    assert (failure.name, barge_in.name) == ("provider failed", "barge-in")
    assert barge_in.timestamp == round((T0 + 2 + 4.8) * 1e9)
    assert dict(barge_in.attributes or {}) == {
        "offhook.barge_in.confirmed": True,
        "offhook.barge_in.reason": "words",
        "offhook.barge_in.pause_ms": 200.0,
    }
    assert dict(failure.attributes or {})["offhook.went_on"] == "cartesia"
    assert turn.status.status_code is StatusCode.ERROR and turn.status.description == "tts elevenlabs failed"


def test_what_happens_after_a_turn_belongs_to_the_next_or_to_the_call() -> None:
    late = ProviderFailed("llm", "openai", "gone", 9000.0)
    found = spans_of(ANSWERED, late, AGENT)
    assert not found["agent turn"][0].events
    (call,) = found["call"]
    assert [event.name for event in call.events] == ["answered", "provider failed"]
    assert call.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("cause", [Cause.ENGINE_FAILED, Cause.INTERNAL_ERROR, Cause.MEDIA_TIMEOUT])
def test_call_that_broke_is_an_error(cause: Cause) -> None:
    end = CallEnded(cause, "", T0 + 20, None, {})
    (call,) = spans_of(end=end)["call"]
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, cause.value)


def test_tool_that_failed_is_an_error() -> None:
    failed = ToolCalled("book_table", {}, False, "no", 40.0, 3620.0)
    assert spans_of(ANSWERED, failed, AGENT)["tool"][0].status.status_code is StatusCode.ERROR


PRIVATE = (
    ANSWERED,
    TurnEnded(0, "caller", "it is secretword", 0.0, 900.0, "", 900.0, why="1200 ms of silence: ends in 'secretword'"),
    ToolCalled("t", {"name": "secretword"}, True, "secretword", 1.0, 3600.0),
    BargeIn(4800.0, False, "backchannel: secretword", 200.0),
    TurnEnded(1, "agent", "so secretword", 3840.0, 5000.0, "secretword", 1160.0, True, DELAYS),
    DtmfReceived("7", 80),
    FormCompleted("booking", {"name": "secretword", "phone": "030123456"}, 6000.0),
    Note("summary", "secretword 030123456", 6000.0),
    TransferAsked("sip:+4930123456@host", "secretword"),
    Held(),
)


def written(spans: dict[str, list[ReadableSpan]]) -> str:
    return json.dumps([json.loads(span.to_json()) for group in spans.values() for span in group], ensure_ascii=False)


def test_no_word_and_no_number_is_shown_unless_asked_for() -> None:
    text = written(spans_of(*PRIVATE, end=CallEnded(Cause.TRANSFERRED, "+49 30 12 34 56", T0 + 20, None, {})))
    assert "34 56" not in text
    assert "secretword" not in text and "123456" not in text and '"7"' not in text
    assert "held" in text and "booking" in text


def test_words_and_numbers_are_shown_when_asked_for() -> None:
    found = spans_of(*PRIVATE, content=True)
    text = written(found)
    assert "+4930123456" in text and '"7"' in text
    assert shown(found["caller turn"][0])["offhook.turn.text"] == "it is secretword"
    assert shown(found["agent turn"][0])["offhook.turn.heard_text"] == "secretword"
    assert json.loads(str(shown(found["tool"][0])["offhook.tool.arguments"])) == {"name": "secretword"}


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("name", ["traceparent", "x-traceparent"])
def test_call_joins_the_trace_that_its_invite_names(name: str) -> None:
    start = CallStarted("inbound", "a", "b", "", "x", "sip", "l", T0, {name: TRACEPARENT})
    found = spans_of(ANSWERED, AGENT, start=start)
    (call,) = found["call"]
    assert call.context is not None and call.parent is not None
    assert f"{call.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{call.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert {span.context.trace_id for span in found["tts"] if span.context} == {call.context.trace_id}


@pytest.mark.parametrize(
    "value", ["", "nonsense", f"{TRACEPARENT}, {TRACEPARENT}", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
def test_malformed_trace_begins_a_new_one(value: str) -> None:
    start = CallStarted("inbound", "a", "b", "", "x", "sip", "l", T0, {"traceparent": value})
    assert spans_of(start=start)["call"][0].parent is None


def test_call_that_never_ended_is_shown_at_the_stop() -> None:
    found = spans_of(ANSWERED, CALLER, end=None)
    assert ms(found["call"][0]) == (-2000, 3000)


def test_thousands_of_events_in_one_turn_are_bounded() -> None:
    flood = [BargeIn(float(4000 + n / 10), False, "no words", 20.0) for n in range(5000)]
    found = spans_of(ANSWERED, *flood, AGENT)
    assert 0 < len(found["agent turn"][0].events) <= 64
