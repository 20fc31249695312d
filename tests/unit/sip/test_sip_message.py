"""Messages: reading, writing, and what is wrong with bad ones."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.sip.errors import MalformedMessage, SipSyntaxError
from bridge.sip.message import CSeq, Headers, Request, Response, check, make_response, parse_message

INVITE = (
    b"INVITE sip:agent@192.0.2.2 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP proxy:5060;branch=z9hG4bK2, SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    b'f: "Alice"\r\n <sip:alice@192.0.2.1>\r\n\t;tag=a1\r\n'
    b"t: <sip:agent@192.0.2.2>\r\ni: abc@host\r\nCSEQ:  7   INVITE\r\n"
    b"m: <sip:alice@192.0.2.1>\r\nX-call_leg_id: 42\r\nc: application/sdp\r\nl: 4\r\n\r\nv=0\nrest"
)


def parsed(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def test_compact_names_and_folded_lines_are_read() -> None:
    message = parsed(INVITE)
    assert (message.method, message.uri) == ("INVITE", "sip:agent@192.0.2.2")
    assert message.from_.display_name == "Alice"
    assert message.from_.tag == "a1"
    assert message.cseq == CSeq(7, "INVITE")
    assert message.via.host == "proxy"
    assert len(message.headers.items_of("Via")) == 2
    assert message.headers.get("x-CALL_leg_ID") == "42"
    assert message.contact is not None
    assert message.content_type == "application/sdp"
    assert message.body == b"v=0\n"
    check(message)


def test_names_are_written_long_and_unknown_ones_as_they_came() -> None:
    text = parsed(INVITE).serialise().decode()
    assert "\r\nCall-ID: abc@host\r\n" in text
    assert "\r\nX-call_leg_id: 42\r\n" in text
    assert text.endswith("\r\nContent-Length: 4\r\n\r\nv=0\n")


def test_bare_line_feeds_and_leading_line_ends_are_forgiven() -> None:
    assert parsed(b"\r\n\r\n" + INVITE.replace(b"\r\n", b"\n")) == parsed(INVITE)


def test_without_content_length_the_body_is_the_rest() -> None:
    assert parsed(INVITE.replace(b"l: 4\r\n", b"")).body == b"v=0\nrest"


def test_a_head_that_is_not_utf8_is_echoed_as_it_came() -> None:
    message = parsed(INVITE.replace(b"Alice", b"Al\xefce"))
    assert message.from_.display_name == "Alïce"
    assert b"Al\xefce" in make_response(message, 200).serialise()


@pytest.mark.parametrize(
    ("old", "new", "reason", "status"),
    [
        (b"l: 4", b"l: 40", "Body Shorter Than Content-Length", 400),
        (b"l: 4", b"l: -4", "Malformed Content-Length", 400),
        (b"l: 4", b"l: 99999999999999", "Malformed Content-Length", 400),
        (b"l: 4", b"l: 4\r\nContent-Length: 5", "Conflicting Content-Length", 400),
        (b"SIP/2.0\r\nv", b"SIP/3.0\r\nv", "Version Not Supported", 505),
        (b"INVITE sip", b"INVITE  sip", "Malformed Request Line", 400),
        (b"X-call_leg_id: 42", b"no colon here", "Malformed Header Field", 400),
        (b"X-call_leg_id: 42", b"bad name: 42", "Malformed Header Field", 400),
        (b"X-call_leg_id: 42", b"X: a\0b", "Malformed Header Field", 400),
        (b"X-call_leg_id: 42", b"X: a\rb", "Malformed Header Field", 400),
        (b"\r\n\r\nv=0\nrest", b"", "Truncated Message", 400),
    ],
)
def test_malformed_request_says_how_to_answer_it(old: bytes, new: bytes, reason: str, status: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(INVITE.replace(old, new))
    assert (caught.value.reason, caught.value.status) == (reason, status)
    assert caught.value.request is not None
    assert caught.value.request.call_id == "abc@host"


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n\r\n", b"\x80\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"hello", b"SIP/2.0 99 Low\r\n\r\n",
     b"SIP/2.0 4294967301 better\r\n\r\n", b"SIP/2.0 2\xc2\xb20 x\r\n\r\n", b"IN\xffVITE a SIP/2.0\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_sip_has_no_answer(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data)
    assert caught.value.request is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"i: abc@host\r\n", b""),
        (b"CSEQ:  7   INVITE\r\n", b""),
        (b"t: <sip:agent@192.0.2.2>\r\n", b""),
        (b"7   INVITE", b"7 BYE"),
        (b"7   INVITE", b"2147483648 INVITE"),
        (b"7   INVITE", b"-1 INVITE"),
        (b"i: abc@host", b"i: abc@host\r\nCall-ID: other"),
        (b"i: abc@host", b"i: abc@host\r\nFrom: <sip:x@y>"),
        (b"i: abc@host", b"i: abc@host\r\nMax-Forwards: many"),
        (b"i: abc@host", b"i: abc@host\r\nMax-Forwards: 300"),
        (b"SIP/2.0/UDP proxy:5060", b"SIP/2.0/UDP"),
        (b'"Alice"', b'"Alice'),
        (b";tag=a1", b";tag="),
        (b"sip:agent@192.0.2.2 SIP", b"<sip:agent@192.0.2.2> SIP"),
    ],
)
def test_fields_that_every_request_must_have_are_checked(old: bytes, new: bytes) -> None:
    message = parsed(INVITE.replace(old, new, 1))
    with pytest.raises(MalformedMessage):
        check(message)


def test_too_many_header_lines_are_not_all_read() -> None:
    data = INVITE.replace(b"X-call_leg_id: 42", b"\r\n".join(b"X-%d: y" % i for i in range(500)))
    with pytest.raises(MalformedMessage) as caught:
        parse_message(data, max_headers=100)
    assert caught.value.status == 513
    assert caught.value.request is not None
    assert len(caught.value.request.headers) <= 100


def test_response_copies_what_identifies_the_request() -> None:
    response = make_response(parsed(INVITE), 180, to_tag="b1")
    assert (response.status, response.reason) == (180, "Ringing")
    assert response.headers.get_all("Via") == parsed(INVITE).headers.get_all("Via")
    assert response.to.tag == "b1"
    assert response.cseq == CSeq(7, "INVITE")
    assert make_response(parsed(INVITE), 299, "Fine").serialise().startswith(b"SIP/2.0 299 Fine\r\n")


def test_a_tag_that_is_there_stays() -> None:
    message = parsed(INVITE.replace(b"t: <sip:agent@192.0.2.2>", b"t: <sip:agent@192.0.2.2>;tag=mine"))
    assert make_response(message, 200, to_tag="other").to.tag == "mine"


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\0b"])
def test_nothing_can_be_smuggled_into_a_header(value: str) -> None:
    with pytest.raises(SipSyntaxError):
        Headers([("Subject", value)])
    with pytest.raises(SipSyntaxError):
        make_response(parsed(INVITE), 400, value)


def test_header_access_keeps_order_and_ignores_case() -> None:
    headers = Headers([("Via", "a"), ("X-One", "1"), ("v", "b, c"), ("allow", "INVITE,ACK")])
    assert headers.get("VIA") == "a"
    assert headers.get_all("via") == ["a", "b, c"]
    assert headers.items_of("Via") == ["a", "b", "c"]
    assert headers.tokens_of("Allow") == {"invite", "ack"}
    headers.replace_first("Via", "z")
    assert [name for name, _ in headers] == ["Via", "X-One", "Via", "allow".title()]
    assert headers.get_all("Via") == ["z", "b, c"]
    assert "x-one" in headers
    assert "X-Two" not in headers


_value = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=30)
_fields = st.lists(
    st.tuples(st.sampled_from(["Via", "From", "To", "X-Thing", "Subject", "s", "P-Asserted-Identity"]), _value),
    max_size=12,
)
_method = st.text("ABCXYZ", min_size=1, max_size=9)
_bodies = st.binary(max_size=60)


@given(_method, st.text("abc:@.;=0", min_size=1), _fields, _bodies)
@example("INVITE", "sip:a", [("Subject", "")], b"\r\n\r\n")
def test_request_survives_writing_and_reading(
    method: str, uri: str, fields: list[tuple[str, str]], body: bytes
) -> None:
    message = Request(method, uri, Headers(fields), body)
    again = parse_message(message.serialise())
    assert again == message
    assert again.serialise() == message.serialise()


@given(st.integers(100, 699), st.text("abc XYZ", max_size=20).map(str.strip), _fields, _bodies)
def test_response_survives_writing_and_reading(
    status: int, reason: str, fields: list[tuple[str, str]], body: bytes
) -> None:
    message = Response(status, reason, Headers(fields), body)
    assert parse_message(message.serialise()) == message


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for attempt in (data, b"INVITE sip:a SIP/2.0\r\n" + data, b"SIP/2.0 200 OK\r\n" + data):
        try:
            check(parse_message(attempt))
        except MalformedMessage:
            continue
