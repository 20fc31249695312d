"""SIP messages cut out of a stream of bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.message import parse_message
from bridge.sip.stream import PING, PONG, Broken, Frame, Message, Ping, Pong, SipStream

MAX = 2000


def message(body: bytes = b"", *, length: str | None = None, name: str = "Content-Length") -> bytes:
    line = f"{name}: {len(body) if length is None else length}\r\n"
    return b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\n" + line.encode() + b"\r\n" + body


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def frames_of(*pieces: bytes, stream: SipStream | None = None) -> list[Frame]:
    stream = stream or SipStream(MAX)
    frames = []
    for piece in pieces:
        stream.feed(piece)
        while (frame := stream.next()) is not None:
            frames.append(frame)
    return frames


UNITS = st.one_of(
    st.just((PING, Ping())),
    st.binary(max_size=300).map(lambda body: (message(body), Message(message(body)))),
    st.binary(max_size=30).map(lambda body: (message(body, name="l"), Message(message(body, name="l")))),
)


@given(st.lists(UNITS, max_size=6), st.lists(st.integers(0, 5000), max_size=40))
def test_what_comes_out_does_not_depend_on_how_the_bytes_were_cut(
    units: list[tuple[bytes, Frame]], cuts: list[int]
) -> None:
    data = b"".join(raw for raw, _ in units)
    stream = SipStream(MAX)
    assert frames_of(*cut(data, cuts), stream=stream) == [frame for _, frame in units]
    assert not stream.mid_message
    assert stream.messages == sum(isinstance(frame, Message) for _, frame in units)


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=20))
def test_any_bytes_give_the_same_frames_whole_and_in_pieces(junk: bytes, cuts: list[int]) -> None:
    assert frames_of(*cut(junk, cuts)) == frames_of(junk)


@given(st.binary(max_size=200), st.lists(st.integers(0, 500), max_size=20))
def test_a_message_behind_any_head_ends_where_the_parser_ends_it(body: bytes, cuts: list[int]) -> None:
    head = b"INFO sip:a@b SIP/2.0\r\nX-One: a\n b\nL : " + str(len(body)).encode() + b"\r\n\r\n"
    [frame] = frames_of(*cut(head + body, cuts))
    assert isinstance(frame, Message)
    assert parse_message(frame.data).body == body


def test_line_breaks_before_a_message_are_skipped() -> None:
    assert frames_of(b"\r\n", message()) == [Message(message())]
    assert frames_of(b"\n\r", message()) == [Message(message())]


def test_a_lone_line_break_is_the_pong_that_was_waited_for() -> None:
    stream = SipStream(MAX)
    stream.pinged()
    assert frames_of(b"\r", b"\n", stream=stream) == [Pong()]
    assert frames_of(PONG, stream=stream) == []
    assert frames_of(PONG, stream=stream) == [Ping()]


def test_two_line_breaks_apart_are_a_ping_only_with_nothing_between() -> None:
    assert frames_of(PONG, message(), PONG) == [Message(message())]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no SIP"),
        (b"\x16\x03\x01\x02\x00\x01", "no SIP"),
        (b"\0", "no SIP"),
        (b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\n\r\n", "no Content-Length"),
        (message(length="5\r\nl: 6"), "repeated"),
        (message(length="-1"), "malformed"),
        (message(length=""), "malformed"),
        (message(length="1e3"), "malformed"),
        (message(length="4 4"), "malformed"),
        (message(length="9999999999"), "malformed"),
        (message(length=str(MAX)), "message too long"),
        (b"OPTIONS sip:" + b"a" * MAX, "head too long"),
        (b"OPTIONS sip:a SIP/2.0\r\n" + b"X: y\r\n" * MAX, "head too long"),
    ],
)
def test_what_can_not_be_read_breaks_the_stream(data: bytes, reason: str) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        stream = SipStream(MAX)
        *before, last = frames_of(message(), *pieces, stream=stream)
        assert before == [Message(message())]
        assert isinstance(last, Broken)
        assert reason in last.reason
        assert frames_of(message(), stream=stream) == []


def test_equal_repeated_lengths_are_taken() -> None:
    data = b"OPTIONS sip:a SIP/2.0\r\nl: 2\r\nContent-Length:\r\n 2\r\n\r\nab"
    assert frames_of(data) == [Message(data)]


def test_half_a_message_is_seen_as_such() -> None:
    stream = SipStream(MAX)
    assert frames_of(message()[:10], stream=stream) == []
    assert stream.mid_message
    frames_of(message()[10:], stream=stream)
    assert not stream.mid_message
