"""chan_websocket: what a real Asterisk said is understood, what we say fits, and garbage is only unknown."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.asterisk.media_dialect import (
    MAX_COMMAND_BYTES,
    MAX_ID,
    BufferingCompleted,
    Control,
    DigitEnded,
    MarkProcessed,
    MediaCommands,
    MediaEvent,
    MediaFault,
    MediaStart,
    MediaXoff,
    MediaXon,
    QueueDrained,
    QueueStatus,
    UnknownMediaEvent,
    parse_event,
)

CAPTURES = Path(__file__).parents[2] / "data" / "asterisk"


def said(capture: str) -> list[MediaEvent]:
    lines = (CAPTURES / capture).read_text().splitlines()
    messages = [json.loads(line) for line in lines]
    return [parse_event(message["m"]) for message in messages if message["ev"] == "ws_text"]


def status(frames: int, *, full: bool = False, paused: bool = False) -> QueueStatus:
    return QueueStatus(frames, 800, 900, full, False, paused)


@pytest.mark.parametrize("control", ["json", "plain-text"])
def test_what_a_real_asterisk_said_is_understood(control: Control) -> None:
    events = said(f"ws_server_ulaw_{control}.jsonl")
    assert events[:7] == [
        status(100),
        BufferingCompleted("c1"),
        QueueDrained(),
        status(150),
        status(100, paused=True),
        status(0),
        MediaXoff(),
    ]
    assert isinstance(events[7], QueueStatus) and events[7].full and events[7].frames > 1000
    assert isinstance(events[8], QueueStatus) and events[8].frames < events[7].frames
    assert events[9] == MediaXon()
    assert events[10] == DigitEnded("5")
    assert all(isinstance(event, MediaFault) and event.text for event in events[11:])


def test_the_other_way_round_it_says_the_same() -> None:
    assert said("ws_client_slin16_json.jsonl") == [status(100), BufferingCompleted("c1"), QueueDrained()]


def test_the_start_tells_the_format_in_either_dialect() -> None:
    values = {
        "event": "MEDIA_START",
        "connection_id": "6b0c",
        "channel": "WebSocket/INCOMING/0x7f",
        "channel_id": "leg-1-media",
        "format": "slin16",
        "optimal_frame_size": 640,
        "ptime": 20,
        "channel_variables": {"CALL": "a-1"},
    }
    started = parse_event(json.dumps(values))
    assert started == MediaStart("6b0c", "WebSocket/INCOMING/0x7f", "leg-1-media", "slin16", 640, 20, {"CALL": "a-1"})
    plain = (
        "MEDIA_START connection_id:6b0c channel:WebSocket/INCOMING/0x7f channel_id:leg-1-media format:slin16 "
        "optimal_frame_size:640 ptime:20"
    )
    assert parse_event(plain) == MediaStart("6b0c", "WebSocket/INCOMING/0x7f", "leg-1-media", "slin16", 640, 20)


def test_a_mark_comes_back_by_its_id() -> None:
    assert parse_event('{"event":"MEDIA_MARK_PROCESSED","channel_id":"x","correlation_id":"m7"}') == MarkProcessed(
        "m7"
    )
    assert parse_event("MEDIA_MARK_PROCESSED m7") == MarkProcessed("m7")
    assert parse_event("MEDIA_MARK_PROCESSED") == MarkProcessed("")
    assert parse_event("MEDIA_MARK_PROCESSED channel_id:x correlation_id:m7") == MarkProcessed("m7")


def test_commands_are_written_as_asterisk_reads_them() -> None:
    commands = MediaCommands("json")
    assert commands.flush == '{"command":"FLUSH_MEDIA"}'
    assert commands.mark("m1") == '{"command":"MARK_MEDIA","correlation_id":"m1"}'
    assert commands.stop_buffering("b") == '{"command":"STOP_MEDIA_BUFFERING","correlation_id":"b"}'
    plain = MediaCommands("plain-text")
    assert plain.flush == "FLUSH_MEDIA"
    assert plain.mark("m1") == "MARK_MEDIA m1"
    assert [plain.start_buffering, plain.stop_buffering("b"), plain.get_status, plain.report_queue_drained] == [
        "START_MEDIA_BUFFERING",
        "STOP_MEDIA_BUFFERING b",
        "GET_STATUS",
        "REPORT_QUEUE_DRAINED",
    ]
    assert [plain.pause, plain.go_on, plain.hang_up, plain.answer] == [
        "PAUSE_MEDIA",
        "CONTINUE_MEDIA",
        "HANGUP",
        "ANSWER",
    ]


@pytest.mark.parametrize("control", ["json", "plain-text"])
def test_the_longest_command_is_not_too_long(control: Control) -> None:
    commands = MediaCommands(control)
    id = "m" * MAX_ID
    every = [value for value in vars(commands).values() if isinstance(value, str)]
    every += [commands.mark(id), commands.stop_buffering(id)]
    assert max(len(command) for command in every) <= MAX_COMMAND_BYTES


@given(st.text())
def test_an_unfit_id_is_refused_and_a_fit_one_is_written(id: str) -> None:
    fit = 0 < len(id) <= MAX_ID and all(c.isascii() and (c.isalnum() or c in "_.-") for c in id)
    for control in ("json", "plain-text"):
        if fit:
            assert id in MediaCommands(control).mark(id)
        else:
            with pytest.raises(ValueError, match="no correlation id"):
                MediaCommands(control).mark(id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HELLO",
        "{",
        "[]",
        "null",
        "{}",
        '{"event":7}',
        '{"event":"SOMETHING_NEW"}',
        '{"event":"DTMF_END","digit":"55"}',
        "DTMF_END digit:x",
        "{" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_not_known_is_said_to_be_unknown(text: str) -> None:
    event = parse_event(text)
    assert isinstance(event, UnknownMediaEvent)
    assert len(event.text) <= 200


NAMES = st.sampled_from(
    [
        "MEDIA_START",
        "MEDIA_XOFF",
        "MEDIA_XON",
        "MEDIA_MARK_PROCESSED",
        "MEDIA_BUFFERING_COMPLETED",
        "QUEUE_DRAINED",
        "STATUS",
        "DTMF_END",
        "ERROR",
    ]
)
KEYS = st.sampled_from(
    ["channel_id", "correlation_id", "queue_length", "digit", "ptime", "optimal_frame_size", "channel_variables"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(NAMES, st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=6))
def test_any_json_event_is_read_without_an_exception(name: str, values: dict[str, object]) -> None:
    event = parse_event(json.dumps(values | {"event": name}))
    if isinstance(event, QueueStatus):
        assert event.frames >= 0


@given(NAMES, st.text())
def test_any_plain_event_is_read_without_an_exception(name: str, rest: str) -> None:
    parse_event(f"{name} {rest}")


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    parse_event(text)


def test_numbers_that_are_none_count_as_nothing() -> None:
    assert parse_event("STATUS queue_length:-5") == QueueStatus(0, 0, 0, False, False, False)
    assert parse_event("STATUS queue_length:" + "9" * 100_000) == QueueStatus(0, 0, 0, False, False, False)
    assert parse_event('{"event":"STATUS","queue_length":true}') == QueueStatus(0, 0, 0, False, False, False)
    assert parse_event('{"event":"STATUS","queue_length":1e3}') == QueueStatus(0, 0, 0, False, False, False)
