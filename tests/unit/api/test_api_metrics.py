"""Metrics: what the events of calls add up to, as Prometheus reads it."""

import math
import typing
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.api.metrics import MAX_TOOLS, Metrics
from bridge.events import (
    Answered,
    AnsweredBy,
    BargeIn,
    Bridged,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    Cause,
    DtmfReceived,
    FarFlushed,
    FarPartyChanged,
    FormCompleted,
    Held,
    LegEnded,
    LegJoined,
    LegNote,
    MediaLost,
    MediaSetUp,
    Note,
    OneWay,
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

STARTED = CallStarted("inbound", "a", "b", "t", "receptionist", "sip", "x", 1.0)
QUALITY = {
    "packets_received": 500.0,
    "packets_sent": 510.0,
    "packets_lost": 7.0,
    "packets_late": 2.0,
    "packets_rejected": 1.0,
    "concealed_ms": 140.0,
    "jitter_ms": 3.0,
    "mos": 4.35,
    "mos_remote": 0.0,
}

ONE_OF_EACH: list[CallEvent] = [
    STARTED,
    Answered(),
    CallAnswered(1.0, 250.0),
    Progress(180),
    TurnEnded(0, "agent", "Hi", 0.0, 900.0, "Hi", 900.0),
    TurnEnded(1, "caller", "A table", 1000.0, 1900.0, "A table", 900.0),
    TurnEnded(
        2,
        "agent",
        "For",
        2.0,
        3.0,
        "F",
        1.0,
        True,
        TurnDelays(400.0, 0.0, 15.0, 150.0, 620.0, playout_ms=12.5, tts="piper"),
    ),
    BargeIn(1.0, True, "words", 200.0),
    BargeIn(2.0, False, "cough", 480.0),
    ToolCalled("book", {}, True, "ok", 3.0, 4.0),
    FormCompleted("booking", {}, 5.0),
    ProviderFailed("tts", "local", "boom", 6.0),
    DtmfReceived("5", 100),
    Held(),
    Resumed(),
    MediaLost(1000),
    OneWayAudio(OneWay.NOT_HEARD, "no RTP ever came"),
    TransferResult(200, "OK"),
    TransferAsked("sip:bob@example.org"),
    FarPartyChanged("id", "192.0.2.1:5060", "bob", "Replaces"),
    MediaSetUp("websocket", "slin16", 12.0),
    FarFlushed(7.5, 40.0),
    AnsweredBy("machine", "MACHINE MAXWORDS"),
    LegNote("x", "y"),
    LegJoined("id", 1.0),
    SecondDialled("sip:bob@example.org", 1.0),
    SecondAnswered("sip:bob@example.org", "id", 2.0),
    Bridged("sip:bob@example.org", "muted", 3.0),
    Unbridged(4.0),
    SecondEnded("sip:bob@example.org", Cause.BUSY, "486 Busy Here", "far", 486, 17, 5.0),
    Note("x", "y", 1.0),
    LegEnded(Cause.CALLER_HUNG_UP),
    CallEnded(Cause.CALLER_HUNG_UP, "", 2.0, None, QUALITY),
]


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by name and labels, as Prometheus' own parser reads it."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a sample that comes twice"
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return read(metrics).get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def after_a_call() -> Metrics:
    metrics = Metrics()
    for event in ONE_OF_EACH:
        metrics.observe("c", event)
    return metrics


def test_every_kind_of_event_is_taken():
    assert {type(event) for event in ONE_OF_EACH} == set(typing.get_args(CallEvent))


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("offhook_calls_started_total", {"direction": "inbound", "agent": "receptionist"}, 1),
        (
            "offhook_calls_ended_total",
            {"direction": "inbound", "agent": "receptionist", "cause": "caller-hung-up"},
            1,
        ),
        ("offhook_calls_live", {}, 0),
        ("offhook_call_setup_seconds_sum", {"direction": "inbound"}, 0.25),
        ("offhook_trunk_media_setup_seconds_sum", {"trunk": "t", "transport": "websocket"}, 0.012),
        ("offhook_trunk_flush_seconds_bucket", {"trunk": "t", "le": "0.01"}, 1),
        ("offhook_trunk_answered_by_total", {"trunk": "t", "who": "machine"}, 1),
        ("offhook_turns_total", {"agent": "receptionist", "speaker": "agent"}, 2),
        ("offhook_turns_total", {"agent": "receptionist", "speaker": "caller"}, 1),
        ("offhook_turns_interrupted_total", {"agent": "receptionist"}, 1),
        ("offhook_reply_delay_seconds_count", {"agent": "receptionist"}, 1),
        ("offhook_reply_delay_seconds_bucket", {"agent": "receptionist", "le": "0.6"}, 0),
        ("offhook_reply_delay_seconds_bucket", {"agent": "receptionist", "le": "0.8"}, 1),
        (
            "offhook_reply_stage_seconds_sum",
            {"agent": "receptionist", "stage": "tts", "provider": "piper"},
            0.15,
        ),
        (
            "offhook_reply_stage_seconds_sum",
            {"agent": "receptionist", "stage": "playout", "provider": ""},
            0.0125,
        ),
        ("offhook_barge_ins_total", {"agent": "receptionist", "confirmed": "yes"}, 1),
        ("offhook_barge_ins_total", {"agent": "receptionist", "confirmed": "no"}, 1),
        ("offhook_tool_calls_total", {"tool": "book", "ok": "yes"}, 1),
        ("offhook_forms_completed_total", {"agent": "receptionist", "form": "booking"}, 1),
        ("offhook_provider_failures_total", {"role": "tts", "provider": "local"}, 1),
        ("offhook_rtp_packets_total", {"fate": "received"}, 500),
        ("offhook_rtp_packets_total", {"fate": "lost"}, 7),
        ("offhook_rtp_packets_total", {"fate": "rejected"}, 1),
        ("offhook_rtp_concealed_seconds_total", {}, 0.14),
        ("offhook_rtp_jitter_seconds_count", {}, 1),
        ("offhook_trunk_attempts_total", {"trunk": "t", "direction": "inbound"}, 1),
        ("offhook_trunk_answered_total", {"trunk": "t", "direction": "inbound"}, 1),
        ("offhook_trunk_ended_total", {"trunk": "t", "direction": "inbound", "cause": "caller-hung-up"}, 1),
        ("offhook_trunk_setup_seconds_sum", {"trunk": "t", "direction": "inbound"}, 0.25),
        ("offhook_trunk_one_way_audio_total", {"trunk": "t", "reason": "no audio from the caller"}, 1),
        ("offhook_trunk_mos_sum", {"trunk": "t", "side": "received"}, 4.35),
        ("offhook_trunk_rtp_packets_total", {"trunk": "t", "fate": "lost"}, 7),
    ],
)
def test_a_call_is_counted(after_a_call, name: str, labels: Mapping[str, str], expected: float):
    assert value(after_a_call, name, **labels) == pytest.approx(expected)


def test_a_far_end_that_reports_nothing_has_no_mos(after_a_call):
    assert b'offhook_trunk_mos_count{side="sent"' not in after_a_call.render()


def test_a_trunk_is_judged_by_the_callers_line_where_another_box_tells_of_it():
    metrics = Metrics()
    metrics.observe("c", STARTED)
    beyond = {"caller_packets_received": 450.0, "caller_packets_lost": 50.0, "caller_mos": 3.4}
    metrics.observe("c", replace(ONE_OF_EACH[-1], quality={**QUALITY, "mos_remote": 4.4, **beyond}))
    assert value(metrics, "offhook_trunk_mos_sum", trunk="t", side="received") == 3.4
    # What the caller heard is not known: our own stretch says nothing of it.
    assert value(metrics, "offhook_trunk_mos_count", trunk="t", side="sent") is None
    assert value(metrics, "offhook_trunk_rtp_packets_total", trunk="t", fate="lost") == 50
    assert value(metrics, "offhook_trunk_rtp_packets_total", trunk="t", fate="received") == 450
    # Those that we got are counted as before.
    assert value(metrics, "offhook_rtp_packets_total", fate="lost") == 7


def test_calls_of_no_trunk_are_counted_apart():
    metrics = Metrics()
    metrics.observe("c", CallStarted("inbound", "a", "b", "", "echo", "sip", "x", 1.0))
    assert value(metrics, "offhook_trunk_attempts_total", trunk="none", direction="inbound") == 1


def test_live_calls_are_those_that_started_and_did_not_end():
    metrics = Metrics()
    for number in range(5):
        metrics.observe(f"c{number}", STARTED)
    metrics.observe("c0", ONE_OF_EACH[-1])
    assert value(metrics, "offhook_calls_live") == 4


def test_a_stretch_of_duplicates_does_not_turn_a_counter_back(after_a_call):
    after_a_call.observe("d", CallEnded(Cause.DRAINED, "", 1.0, None, {"packets_lost": -3.0}))
    assert value(after_a_call, "offhook_rtp_packets_total", fate="lost") == 7


def test_tool_names_that_a_model_makes_up_do_not_fill_the_memory():
    metrics = Metrics()
    for number in range(10 * MAX_TOOLS):
        metrics.observe("c", ToolCalled(f"tool{number}", {}, False, "no such tool", 0.0, 0.0))
    assert value(metrics, "offhook_tool_calls_total", tool="other", ok="no") == 9 * MAX_TOOLS


def test_readings_of_other_parts_are_shown_with_type_and_labels():
    metrics = Metrics()
    metrics.register(lambda: {"clock_lateness_ms": 1.5, "clock_late_ticks_total": 3})
    metrics.register(lambda: {"pool_jobs_total{engine=stt}": 4, 'pool_jobs_total{engine="tts", worker="0"}': 5.0})
    assert value(metrics, "offhook_clock_lateness_ms") == 1.5
    assert value(metrics, "offhook_clock_late_ticks_total") == 3
    assert value(metrics, "offhook_pool_jobs_total", engine="stt") == 4
    assert value(metrics, "offhook_pool_jobs_total", engine="tts", worker="0") == 5
    text = metrics.render().decode()
    assert "# TYPE offhook_clock_lateness_ms gauge" in text
    assert "# TYPE offhook_clock_late_ticks_total counter" in text


def test_readings_are_taken_anew_each_time():
    metrics = Metrics()
    numbers = iter([1.0, 2.0, math.inf])
    metrics.register(lambda: {"queue": next(numbers)})
    assert [value(metrics, "offhook_queue") for _ in range(3)] == [1.0, 2.0, math.inf]


@pytest.mark.parametrize("name", ["Bad", "a b", "", "x{", "ünder"])
def test_a_reading_whose_name_is_none_is_an_error(name: str):
    metrics = Metrics()
    metrics.register(lambda: {name: 1.0})
    with pytest.raises(ValueError, match="no name of a metric"):
        metrics.render()


@pytest.mark.parametrize("name", ["calls_live", "turns_total", "turns", "rtp_packets_total{fate=x}"])
def test_a_reading_can_not_take_the_name_of_a_metric_that_is_there(name: str):
    metrics = Metrics()
    metrics.register(lambda: {name: 1.0})
    with pytest.raises(ValueError, match="choose another name"):
        metrics.render()


def test_methods_that_strangers_make_up_are_one_label():
    metrics = Metrics()
    for method in ("GET", "BREW", "PROPFIND"):
        metrics.count_request(method, "unmatched", 401, 0.001)
    assert value(metrics, "offhook_http_requests_total", method="other", route="unmatched", status="401") == 2
