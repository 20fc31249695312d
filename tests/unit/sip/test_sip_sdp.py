"""Session descriptions: reading and writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.errors import SdpError
from bridge.sip.sdp import (
    Connection,
    MediaDescription,
    Origin,
    SessionDescription,
    parse_sdp,
)

FULL = (
    b"v=0\r\no=jdoe 2890844526 2890842807 IN IP4 10.47.16.5\r\ns=SDP Seminar\r\ni=A seminar\r\n"
    b"u=http://www.example.com/sdp.pdf\r\ne=j.doe@example.com (Jane Doe)\r\nc=IN IP4 224.2.17.12/127\r\n"
    b"b=AS:128\r\nt=2873397496 2873404696\r\na=recvonly\r\nm=audio 49170 RTP/AVP 0 96\r\nb=AS:64\r\n"
    b"a=rtpmap:96 L16/16000/2\r\na=fmtp:96 x=1; y=2\r\nm=video 51372/2 RTP/AVP 99\r\nc=IN IP6 2001:db8::1\r\n"
    b"a=rtpmap:99 h263-1998/90000\r\n"
)


def test_description_is_read_whole_and_written_as_it_was() -> None:
    sdp = parse_sdp(FULL)
    assert sdp.origin == Origin("jdoe", "2890844526", "2890842807", "10.47.16.5")
    assert sdp.connection == Connection("224.2.17.12", suffix="/127")
    audio, video = sdp.media
    assert (audio.port, audio.protocol, audio.formats) == (49170, "RTP/AVP", ("0", "96"))
    assert audio.rtpmaps() == {96: ("L16", 16000, 2)}
    assert audio.fmtp(96) == "x=1; y=2"
    assert (video.port_count, video.connection) == (2, Connection("2001:db8::1", "IP6"))
    assert sdp.connection_of(audio).address == "224.2.17.12"
    assert sdp.connection_of(video).address == "2001:db8::1"
    assert sdp.serialise() == FULL


def test_line_ends_blank_lines_and_unknown_lines_are_forgiven() -> None:
    loose = FULL.replace(b"\r\n", b"\n").replace(b"t=", b"x=what\n\nt=")
    assert parse_sdp(loose) == parse_sdp(FULL)


@pytest.mark.parametrize(
    ("session", "media", "direction"),
    [("", "", "sendrecv"), ("a=inactive", "", "inactive"), ("a=inactive", "a=recvonly", "recvonly"),
     ("", "a=sendonly", "sendonly")],
)  # fmt: skip
def test_direction_of_the_stream_counts_above_the_sessions(session: str, media: str, direction: str) -> None:
    text = f"v=0\no=- 1 1 IN IP4 h\ns=-\nc=IN IP4 h\nt=0 0\n{session}\nm=audio 4 RTP/AVP 0\n{media}\n"
    sdp = parse_sdp(text.encode())
    assert sdp.direction_of(sdp.media[0]) == direction


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_null_address_is_recognised(address: str) -> None:
    assert Connection(address).is_null
    assert not Connection("pbx.example.com").is_null


@pytest.mark.parametrize(
    "text",
    ["", "v=1\no=- 1 1 IN IP4 h\n", "v=0\ns=-\n", "v=0\no=- 1 IN IP4 h\n", "hello",
     "v=0\no=- 1 1 IN IP4 h\nc=IN IP4\n",
     "v=0\no=- 1 1 IN IP4 h\nm=audio\n", "v=0\no=- 1 1 IN IP4 h\nm=audio 70000 RTP/AVP 0\n",
     "v=0\no=- 1 1 IN IP4 h\nm=audio x RTP/AVP 0\n", "v=0\no=- 1 1 IN IP4 h\nc=IN IP9 h\n",
     "v=0\no=- 1 1 IN IP4 h\n" + "m=audio 4 RTP/AVP 0\n" * 40, "v=0\no=- 1 1 IN IP4 h\n" + "a=x\n" * 600],
)  # fmt: skip
def test_malformed_description_is_refused(text: str) -> None:
    with pytest.raises(SdpError):
        parse_sdp(text.encode())


def test_missing_connection_is_told_when_it_is_needed() -> None:
    sdp = parse_sdp(b"v=0\no=- 1 1 IN IP4 h\ns=-\nt=0 0\nm=audio 4 RTP/AVP 0\n")
    with pytest.raises(SdpError, match="no c= line"):
        sdp.connection_of(sdp.media[0])


_token = st.text("abcXYZ0159-._", min_size=1, max_size=8)
_text = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)
_attributes = st.lists(st.tuples(_token, st.none() | _text), max_size=4).map(tuple)
_connections = st.none() | st.builds(
    Connection, _token, st.sampled_from(["IP4", "IP6"]), st.just("IN"), st.sampled_from(["", "/127", "/1/2"])
)
_media = st.builds(
    MediaDescription,
    _token,
    st.integers(0, 65535),
    st.sampled_from(["RTP/AVP", "RTP/SAVP", "udptl"]),
    st.lists(_token, max_size=4).map(tuple),
    _connections,
    _attributes,
    st.none() | st.integers(1, 9),
    st.lists(st.tuples(st.just("b"), _text), max_size=2).map(tuple),
)
_sessions = st.builds(
    SessionDescription,
    st.builds(Origin, _token, _token, _token, _token),
    st.lists(_media, max_size=3).map(tuple),
    _connections,
    _attributes,
    _token,
    st.just("0 0"),
    st.lists(st.tuples(st.just("b"), _text), max_size=2).map(tuple),
)


@given(_sessions)
def test_description_survives_writing_and_reading(sdp: SessionDescription) -> None:
    assert parse_sdp(sdp.serialise()) == sdp


@given(st.binary(max_size=200), st.integers(0, len(FULL)))
def test_random_bytes_are_read_or_refused(junk: bytes, at: int) -> None:
    for data in (junk, FULL[:at] + junk + FULL[at:], FULL[:at] + junk):
        try:
            sdp = parse_sdp(data)
        except SdpError:
            continue
        sdp.serialise()
