"""What ARI's messages say, how requests are written, and the pauses between attempts."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError, AriUnauthorizedError
from bridge.asterisk.ari_events import (
    ApplicationReplaced,
    Bridge,
    BridgeDestroyed,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelEnteredBridge,
    ChannelHangupRequest,
    ChannelHold,
    ChannelLeftBridge,
    ChannelTransfer,
    ChannelUnhold,
    ChannelVarset,
    Dial,
    MalformedError,
    PlaybackFinished,
    RecordingFailed,
    RecordingFinished,
    RecordingStarted,
    StasisEnd,
    StasisStart,
    parse_bridge,
    parse_channel,
)
from bridge.asterisk.ari_wire import (
    Backoff,
    RestResponse,
    authorization,
    error_message,
    outcome,
    read_message,
    rest_request,
    rest_url,
    segment,
    socket_url,
)

REAL = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data/asterisk/ari_messages.jsonl").read_text().splitlines()
]
"""Of Asterisk 22.10."""

CHANNEL = {"id": "1.1", "name": "PJSIP/x-1", "state": "Up", "dialplan": {"app_name": "Stasis", "app_data": "offhook"}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def real(kind: str) -> Any:
    return read_message(json.dumps(next(one for one in REAL if one["type"] == kind)))


def event(kind: str, **fields: Any) -> Any:
    return read_message(json.dumps({"type": kind, "application": "offhook", **fields}))


def test_a_call_that_comes_in_is_read_with_its_arguments() -> None:
    start = real("StasisStart")
    assert isinstance(start, StasisStart)
    assert start.args == ("agent=reception", "campaign=spring")
    assert start.replaces is None
    assert start.channel.name.startswith("Local/tone@calls-")
    assert start.channel.state == "Up"
    assert (start.channel.context, start.channel.extension, start.channel.priority) == ("calls", "stasis", 1)
    assert (start.channel.app_name, start.channel.app_data) == ("Stasis", "offhook,agent=reception,campaign=spring")
    assert start.channel.created


def test_every_event_of_a_real_call_is_read() -> None:
    kinds = {type(found) for one in REAL if (found := read_message(json.dumps(one))) is not None}
    assert kinds >= {
        ApplicationReplaced,
        BridgeDestroyed,
        ChannelDestroyed,
        ChannelEnteredBridge,
        ChannelHangupRequest,
        ChannelLeftBridge,
        ChannelVarset,
        Dial,
        PlaybackFinished,
        RecordingFinished,
        RecordingStarted,
        RestResponse,
        StasisEnd,
        StasisStart,
    }
    unknown = {one["type"] for one in REAL if read_message(json.dumps(one)) is None}
    assert unknown <= {"ChannelCallerId", "ChannelConnectedLine", "ChannelDialplan", "BridgeCreated"}


def test_what_real_events_say_is_kept() -> None:
    destroyed = real("ChannelDestroyed")
    assert destroyed.cause == 16 or destroyed.cause_text
    entered = real("ChannelEnteredBridge")
    assert entered.channel.id in entered.bridge.channels
    assert (entered.bridge.type, entered.bridge.name) == ("mixing", "offhook-joined")
    assert real("RecordingStarted").name == "offhook/rec1"
    assert real("ApplicationReplaced") == ApplicationReplaced("offhook")
    assert real("PlaybackFinished").id == "p1"


def test_events_that_no_capture_holds_are_read_as_documented() -> None:
    channel = parse_channel(CHANNEL)
    digit = event("ChannelDtmfReceived", channel=CHANNEL, digit="#", duration_ms=80)
    assert digit == ChannelDtmfReceived(channel, "#", 80)
    assert event("ChannelHold", channel=CHANNEL, musicclass="jazz") == ChannelHold(channel, "jazz")
    assert event("ChannelHold", channel=CHANNEL) == ChannelHold(channel, "")
    assert event("ChannelUnhold", channel=CHANNEL) == ChannelUnhold(channel)
    assert event("ChannelVarset", variable="X", value="") == ChannelVarset(None, "X", "")
    request = event("ChannelHangupRequest", channel=CHANNEL)
    assert request == ChannelHangupRequest(channel, None, False)
    assert event("Dial", peer=CHANNEL, dialstatus="BUSY") == Dial(channel, None, "BUSY", "")
    recording = {"name": "a", "target_uri": "bridge:b", "format": "wav", "state": "failed", "cause": "no space"}
    assert event("RecordingFailed", recording=recording) == RecordingFailed("a", "bridge:b", "no space")
    transfer = event(
        "ChannelTransfer",
        state="channel_declined",
        refer_to={"requested_destination": {"destination": "200"}},
        referred_by={"source_channel": CHANNEL},
    )
    assert transfer == ChannelTransfer(channel, "200", "channel_declined")
    replaced = event("StasisStart", channel=CHANNEL, args=[], replace_channel={**CHANNEL, "id": "1.2"})
    assert replaced.replaces.id == "1.2"


def test_variables_come_with_external_media() -> None:
    answer = next(one for one in REAL if one.get("uri") == "channels/externalMedia")
    channel = parse_channel(json.loads(answer["message_body"]))
    assert channel.variables["UNICASTRTP_LOCAL_ADDRESS"] == "127.0.0.1"
    assert int(channel.variables["UNICASTRTP_LOCAL_PORT"])
    # Two reports of one channel are the same channel, whichever of them tells its variables.
    assert channel == parse_channel({**json.loads(answer["message_body"]), "channelvars": {}})


def test_lists_of_a_real_asterisk_are_read() -> None:
    channels = next(one for one in REAL if one.get("uri") == "channels" and one["type"] == "RESTResponse")
    assert all(parse_channel(one).id for one in json.loads(channels["message_body"]))
    bridge = parse_bridge(
        {"id": "b", "channels": ["x"], "bridge_type": "mixing", "technology": "softmix", "name": "n"}
    )
    assert bridge == Bridge("b", "n", "mixing", "softmix", ("x",))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        "null",
        "{}",
        '{"type": 3}',
        '{"type": "StasisStart"}',
        '{"type": "StasisStart", "channel": "x", "args": []}',
        '{"type": "StasisStart", "channel": {"id": ""}, "args": []}',
        '{"type": "StasisStart", "channel": {"id": "1"}, "args": "agent"}',
        '{"type": "ChannelDestroyed", "channel": {"id": "1"}, "cause": "busy"}',
        '{"type": "ChannelDtmfReceived", "channel": {"id": "1"}, "digit": 5}',
        '{"type": "RESTResponse", "request_id": 1, "status_code": 200}',
        '{"type": "RESTResponse", "request_id": "1", "status_code": true}',
        '{"type": "RESTResponse", "request_id": "1", "status_code": 200, "message_body": {}}',
        b"\x00\xff\xfe",
        "[" * 100_000,
    ],
)
def test_what_is_no_message_is_malformed(text: str | bytes) -> None:
    with pytest.raises(MalformedError):
        read_message(text)


@settings(deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=60) | json_values.map(json.dumps))
def test_no_garbage_raises_anything_else(data: str | bytes) -> None:
    with contextlib.suppress(MalformedError):
        read_message(data)


@settings(deadline=None)
@given(message=st.sampled_from(REAL), name=st.text(max_size=10), junk=json_values, data=st.data())
def test_no_real_message_with_a_wrong_field_raises_anything_else(
    message: dict[str, Any], name: str, junk: Any, data: st.DataObject
) -> None:
    broken = json.loads(json.dumps(message))
    where = broken
    while True:
        key = data.draw(st.sampled_from(sorted(where)) if where else st.just(name))
        inner = where.get(key)
        if isinstance(inner, dict) and inner and data.draw(st.booleans()):
            where = inner
            continue
        where[key] = junk
        break
    with contextlib.suppress(MalformedError):
        read_message(json.dumps(broken))


@settings(deadline=None)
@given(path=st.text(), query=st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_requests_keep_every_character(path: str, query: dict[str, str]) -> None:
    written = json.loads(rest_request("7", "POST", f"channels/{segment(path)}/variable", query, None))
    assert (written["type"], written["request_id"], written["method"]) == ("RESTRequest", "7", "POST")
    uri, _, rest = written["uri"].partition("?")
    assert not uri.startswith("/")
    assert [unquote(part) for part in uri.split("/")] == ["channels", path, "variable"]
    # Asterisk takes a plus for a space, so that none may stand for itself.
    assert "+" not in rest
    assert dict(parse_qsl(rest, keep_blank_values=True)) == query


def test_a_body_goes_as_text_inside_the_message() -> None:
    written = json.loads(rest_request("1", "POST", "channels/create", {}, {"variables": {"A": "ü"}}))
    assert written["content_type"] == "application/json"
    assert json.loads(written["message_body"]) == {"variables": {"A": "ü"}}
    assert "message_body" not in json.loads(rest_request("1", "POST", "channels", {}, None))


def test_addresses_keep_prefix_and_port_and_hold_no_password() -> None:
    assert socket_url("http://10.0.0.1:8088", "off hook") == "ws://10.0.0.1:8088/ari/events?app=off%20hook"
    assert socket_url("https://[::1]:8089/pbx", "a") == "wss://[::1]:8089/pbx/ari/events?app=a"
    assert (
        rest_url("http://h/pbx", "channels/PJSIP%2F1", {"a b": "c&d"})
        == "http://h/pbx/ari/channels/PJSIP%2F1?a%20b=c%26d"
    )
    assert urlsplit(rest_url("http://h", "bridges", {})).query == ""
    assert base64.b64decode(authorization("u", "p:ä").split()[1]).decode() == "u:p:ä"


def test_answers_become_values_or_errors() -> None:
    assert outcome("GET", "bridges", 200, b"[]") == []
    assert outcome("POST", "channels/1/answer", 204, "") is None
    with pytest.raises(AriNotFoundError, match="GET channels/x: 404 Channel not found") as missing:
        outcome("GET", "channels/x", 404, '{"message": "Channel not found"}')
    assert missing.value.status == 404
    for status in (401, 403):
        with pytest.raises(AriUnauthorizedError, match=str(status)):
            outcome("GET", "channels", status, b"")
    with pytest.raises(AriRefusedError, match="500 <html> no") as refused:
        outcome("POST", "channels", 500, b"<html>\n no")
    assert refused.value.status == 500
    with pytest.raises(AriRefusedError, match="301"):
        outcome("GET", "channels", 301, b"")
    with pytest.raises(AriError, match="no JSON"):
        outcome("GET", "channels", 200, b"<html>")


@settings(deadline=None)
@given(body=st.binary(max_size=80) | st.text(max_size=80))
def test_what_an_answer_says_of_an_error_is_one_short_line(body: str | bytes) -> None:
    said = error_message(body)
    assert len(said) <= 200 and "\n" not in said


def test_the_first_pause_is_short_and_then_they_double_up_to_the_longest() -> None:
    backoff = Backoff(longest_s=1.0)
    assert [round(backoff.next_s(0.0), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@settings(deadline=None)
@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=80), longest=st.floats(0.01, 60))
def test_pauses_stay_within_bounds(chances: list[float], longest: float) -> None:
    backoff = Backoff(longest)
    pauses = [backoff.next_s(chance) for chance in chances]
    assert pauses[0] == min(0.1, longest)
    assert all(0 < pause <= longest for pause in pauses)


def test_only_a_connection_that_lasted_begins_the_row_again() -> None:
    backoff = Backoff(10.0)
    pauses = [backoff.next_s(0.0, lasted_s=0.5) for _ in range(4)]
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert backoff.next_s(1.0, lasted_s=60.0) == 0.1


def test_channels_of_odd_reports_are_read() -> None:
    assert parse_channel({"id": "x"}) == Channel("x", "", "")
    with pytest.raises(MalformedError):
        parse_channel([])
