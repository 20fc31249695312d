"""The AudioSocket protocol: messages in any split, what ends a connection, and a recording of Asterisk's own."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.asterisk.audiosocket import (
    DIGITS,
    END,
    HELLO_S,
    MAX_AHEAD_MS,
    RATES_HZ,
    AudioReceived,
    AudioSocketEvent,
    AudioSocketProtocol,
    ConnectionOver,
    DigitPressed,
    Identified,
    Violation,
    audio_message,
    sends_digits,
)

CALL = UUID("dc8387a8-de4c-4e6c-bf0a-bf23a5bf9c27")
HELLO = b"\x01\x00\x10" + CALL.bytes
CAPTURE = Path(__file__).parents[2] / "data/asterisk/audiosocket_slin16.jsonl"


def message(kind: int, payload: bytes) -> bytes:
    return bytes((kind, len(payload) >> 8, len(payload) & 0xFF)) + payload


def identified() -> AudioSocketProtocol:
    protocol = AudioSocketProtocol(0.0)
    assert protocol.receive(HELLO, 0.0) == [Identified(CALL)]
    return protocol


def violation(protocol: AudioSocketProtocol, data: bytes, now: float = 0.0) -> Violation | None:
    events = protocol.receive(data, now)
    assert isinstance(events[-1], ConnectionOver)
    assert protocol.over
    assert protocol.receive(HELLO, now) == ()
    return events[-1].violation


def test_a_call_is_identified_and_its_audio_and_digits_are_told() -> None:
    protocol = AudioSocketProtocol(0.0)
    pcm = bytes(range(256)) + bytes(64)
    data = HELLO + message(0x10, pcm) + message(0x03, b"5") + message(0x12, pcm * 2)
    assert protocol.receive(data, 0.0) == [
        Identified(CALL),
        AudioReceived(pcm, 8000),
        DigitPressed("5"),
        AudioReceived(pcm * 2, 16000),
    ]
    assert protocol.uuid == CALL
    assert protocol.received == {"uuid": 1, "audio": 2, "digit": 1}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(sorted(RATES_HZ)), st.binary(max_size=400).map(lambda b: b[: len(b) & ~1])),
            st.tuples(st.just(0x03), st.sampled_from([digit.encode() for digit in DIGITS])),
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_messages_mean_the_same_however_they_are_split(messages: list[tuple[int, bytes]], splits: list[int]) -> None:
    data = HELLO + b"".join(message(kind, payload) for kind, payload in messages)
    whole = AudioSocketProtocol(0.0).receive(data, 0.0)
    protocol = AudioSocketProtocol(0.0)
    events: list[AudioSocketEvent] = []
    at = turn = 0
    while at < len(data):
        size = splits[turn % len(splits)]
        events += protocol.receive(data[at : at + size], 0.0)
        at, turn = at + size, turn + 1
    assert events == list(whole)
    assert len(events) == 1 + sum(1 for _, payload in messages if payload)


@given(st.lists(st.binary(max_size=200), max_size=30))
def test_garbage_never_raises_and_ends_once(chunks: list[bytes]) -> None:
    protocol = AudioSocketProtocol(0.0)
    events: list[AudioSocketEvent] = []
    for index, chunk in enumerate(chunks):
        events += protocol.receive(chunk, index * 0.02)
        assert len(protocol._buffer) <= 400 * 192 * 2 + 3
    events += protocol.receive_eof()
    assert sum(isinstance(event, ConnectionOver) for event in events) == 1
    assert isinstance(events[-1], ConnectionOver)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_behind_a_good_start_never_raises(garbage: bytes, cut: int) -> None:
    protocol = identified()
    protocol.receive(garbage[:cut], 0.0)
    protocol.receive(garbage[cut:], 1.0)
    assert protocol.next_deadline() is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(0x10, bytes(320)), Violation.UNIDENTIFIED),
        (message(0x03, b"1"), Violation.UNIDENTIFIED),
        (message(0x7F, b""), Violation.UNIDENTIFIED),
        (message(0x01, bytes(15)), Violation.LENGTH),
        (message(0x01, bytes(17)), Violation.LENGTH),
        (b"GET / HTTP/1.1\r\n", Violation.UNIDENTIFIED),
        (b"\x16\x03\x01\x02\x00\x01", Violation.UNIDENTIFIED),
        (HELLO + HELLO, Violation.SECOND_UUID),
        (HELLO + message(0x02, bytes(6)), Violation.KIND),
        (HELLO + message(0x19, bytes(320)), Violation.KIND),
        (HELLO + message(0x10, bytes(321)), Violation.LENGTH),
        (HELLO + message(0x03, b""), Violation.LENGTH),
        (HELLO + message(0x03, b"12"), Violation.LENGTH),
        (HELLO + message(0x03, b"x"), Violation.DIGIT),
        (HELLO + message(0x00, b"x"), Violation.LENGTH),
        (HELLO + message(0xFF, bytes(65)), Violation.LENGTH),
        (HELLO + b"\x10\x19\x02", Violation.OVERSIZE),
        (HELLO + b"\x12\xff\xfe", Violation.OVERSIZE),
    ],
)
def test_what_is_not_the_protocol_is_named(data: bytes, expected: Violation) -> None:
    assert violation(AudioSocketProtocol(0.0), data) is expected


def test_a_message_is_refused_by_its_header_without_waiting_for_the_rest() -> None:
    protocol = identified()
    assert violation(protocol, b"\x10\xff\xfe") is Violation.OVERSIZE
    assert not protocol._buffer


def test_audio_of_another_rate_than_the_call_s_is_refused() -> None:
    protocol = identified()
    protocol.expect_rate(16000)
    assert protocol.receive(message(0x12, bytes(640)), 0.0) == [AudioReceived(bytes(640), 16000)]
    assert violation(protocol, message(0x10, bytes(320))) is Violation.RATE


def test_an_audio_message_without_audio_means_nothing() -> None:
    assert identified().receive(message(0x10, b""), 0.0) == []


@pytest.mark.parametrize("letter", [b"a", b"D"])
def test_digits_are_told_in_upper_case(letter: bytes) -> None:
    assert identified().receive(message(0x03, letter), 0.0) == [DigitPressed(letter.decode().upper())]


def test_the_far_side_ends_by_message_by_error_or_by_closing() -> None:
    ended = identified().receive(END + b"more", 0.0)
    assert ended == [ConnectionOver("far", None, "Asterisk ended the call")]
    hung_up = identified().receive(message(0xFF, b"\x01"), 0.0)
    assert hung_up == [ConnectionOver("far", None, "error 1: the calling party hung up")]
    failed = identified().receive(message(0xFF, b"\x06"), 0.0)
    assert failed == [
        ConnectionOver("far", None, "error 6: audio could not be passed on, out of memory", far_hung_up=False)
    ]
    assert identified().receive(message(0xFF, b""), 0.0) == [
        ConnectionOver("far", None, "error 0: no reason given", far_hung_up=False)
    ]
    protocol = identified()
    assert protocol.receive_eof() == (ConnectionOver("far", None, "Asterisk closed the connection"),)
    assert protocol.receive_eof() == ()


def test_who_does_not_say_which_call_it_is_for_is_closed() -> None:
    protocol = AudioSocketProtocol(10.0)
    assert protocol.receive(HELLO[:-1], 11.0) == []
    assert protocol.next_deadline() == 10.0 + HELLO_S
    assert protocol.handle_timer(11.9) == ()
    (over,) = protocol.handle_timer(12.0)
    assert isinstance(over, ConnectionOver) and over.violation is Violation.LATE
    assert protocol.next_deadline() is None


def test_who_did_has_no_deadline() -> None:
    protocol = identified()
    assert protocol.next_deadline() is None
    assert protocol.handle_timer(1e9) == ()


def test_a_stall_is_caught_up_and_a_flood_is_not() -> None:
    frame = message(0x10, bytes(320))
    protocol = identified()
    # Ten seconds at once, after ten seconds of nothing, and real time from then on.
    assert len(protocol.receive(frame * 500, 10.0)) == 500
    for index in range(1000):
        assert len(protocol.receive(frame, 10.0 + index * 0.02)) == 1
    flooded = identified()
    assert violation(flooded, frame * (MAX_AHEAD_MS // 20 + 1)) is Violation.FLOOD


def test_g711_under_the_name_of_slin_is_noticed() -> None:
    protocol = identified()
    half = message(0x10, bytes(160))
    for index in range(99):
        assert len(protocol.receive(half, 5.0 + index * 0.02)) == 1
    assert violation(protocol, half, 5.0 + 99 * 0.02) is Violation.CODEC


@pytest.mark.parametrize(("size", "every_s"), [(160, 0.01), (320, 0.02), (160, 0.04)])
def test_real_slin_of_any_length_is_not_suspected(size: int, every_s: float) -> None:
    protocol = identified()
    for index in range(500):
        assert len(protocol.receive(message(0x10, bytes(size)), 5.0 + index * every_s)) == 1


def test_what_we_say_is_what_asterisk_reads() -> None:
    pcm = bytes(range(160)) * 2
    assert audio_message(pcm, 8000) == b"\x10\x01\x40" + pcm
    assert audio_message(pcm * 2, 16000)[:3] == b"\x12\x02\x80"
    assert END == b"\x00\x00\x00"
    for rate_hz in RATES_HZ.values():
        protocol = identified()
        assert protocol.receive(audio_message(pcm, rate_hz), 0.0) == [AudioReceived(pcm, rate_hz)]


@pytest.mark.parametrize(("pcm", "rate_hz"), [(bytes(320), 11025), (bytes(321), 8000)])
def test_what_has_no_message_is_refused(pcm: bytes, rate_hz: int) -> None:
    with pytest.raises(ValueError, match="no AudioSocket message"):
        audio_message(pcm, rate_hz)


@pytest.mark.parametrize(
    ("version", "sends"),
    [
        ("16.28.0~dfsg-0+deb11u4", False),
        ("18.10.0", False),
        ("20.13.9", False),
        ("20.14.0", True),
        ("21.8.0", False),
        ("21.9.0", True),
        ("22.3.0", False),
        ("22.4.0-rc1", True),
        ("Asterisk 22.10.1+dfsg", True),
        ("23.0.0", True),
        ("certified/20.7-cert3", False),
        ("", False),
        ("master", False),
        ("GIT-22-abc", False),
    ],
)
def test_which_asterisks_send_digits(version: str, sends: bool) -> None:
    assert sends_digits(version) is sends


def test_a_recorded_call_of_asterisk_22_is_understood() -> None:
    protocol = AudioSocketProtocol(0.0)
    protocol.expect_rate(16000)
    events: list[AudioSocketEvent] = []
    for line in CAPTURE.read_text().splitlines():
        entry = json.loads(line)
        if entry["ev"] != "as_rx":
            continue
        payload = bytes(entry["len"])
        if entry["uuid"]:
            payload = bytes.fromhex(entry["uuid"])
        elif entry["digit"]:
            payload = entry["digit"].encode()
        assert entry["len"] == len(payload)
        events += protocol.receive(message(int(entry["kind"], 16), payload), entry["t"])
    assert events[0] == Identified(CALL)
    assert protocol.received == {"uuid": 1, "audio": 400, "digit": 1}
    assert events.count(DigitPressed("5")) == 1
    assert not protocol.over
