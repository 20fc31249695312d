"""The ring of SIP messages: what it keeps, what it shows, what it never shows."""

from bridge.sip.flow import Flow
from bridge.sip.ladder import ladder, summary
from bridge.sip.trace import SipTrace, TracedMessage, without_secrets

PHONE = Flow("udp", ("192.0.2.7", 5060), ("192.0.2.1", 5060))
CARRIER = Flow("tls", ("198.51.100.3", 5061), ("192.0.2.1", 5061))

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/SAVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\na=sendonly\r\n"
)


def invite(call_id: str, extra: bytes = b"", body: bytes = b"") -> bytes:
    kind = b"Content-Type: application/sdp\r\n" if body else b""
    return (
        b"INVITE sip:agent@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n"
        b"From: <sip:a@192.0.2.7>;tag=1\r\nTo: <sip:agent@192.0.2.1>\r\nCall-ID: " + call_id.encode() + b"\r\n"
        b"CSeq: 1 INVITE\r\n" + extra + kind + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def ringing(call_id: str) -> bytes:
    return (
        b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n"
        b"From: <sip:a@192.0.2.7>;tag=1\r\nTo: <sip:agent@192.0.2.1>;tag=2\r\ni: " + call_id.encode() + b"\r\n"
        b"CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )


def test_only_the_messages_of_the_asked_calls_come_back_in_order():
    trace = SipTrace(ahead_s=1000.0)
    trace.tap(True, invite("one"), PHONE, 1.0)
    trace.tap(True, invite("two"), PHONE, 1.5)
    trace.tap(False, ringing("one"), PHONE, 2.0)
    found = trace.of_calls(["one"])
    assert [(m.at, m.received) for m in found] == [(1001.0, True), (1002.0, False)]
    assert [m.call_id for m in trace.of_calls(["one", "two"])] == ["one", "two", "one"]


def test_a_call_id_that_only_occurs_in_another_field_is_not_taken_for_it():
    trace = SipTrace(ahead_s=0)
    trace.tap(True, invite("one", b"In-Reply-To: two\r\n"), PHONE, 1.0)
    assert trace.of_calls(["two"]) == []
    assert trace.of_calls([""]) == []


def test_the_ring_never_holds_more_bytes_than_allowed():
    size = len(invite("000"))
    trace = SipTrace(ahead_s=0, max_bytes=10 * size)
    for number in range(100):
        trace.tap(True, invite(f"{number:03d}"), PHONE, float(number))
        assert trace.kept_bytes <= 10 * size
    assert len(trace) == 10
    assert trace.of_calls(["089"]) == []
    assert len(trace.of_calls(["090"])) == 1


def test_a_message_larger_than_the_ring_leaves_it_empty():
    trace = SipTrace(ahead_s=0, max_bytes=10)
    trace.tap(True, invite("one"), PHONE, 1.0)
    assert (len(trace), trace.kept_bytes) == (0, 0)


def test_followers_see_messages_until_they_stop():
    trace = SipTrace(ahead_s=0)
    seen: list[TracedMessage] = []
    unfollow = trace.follow(seen.append)
    trace.tap(True, invite("one"), PHONE, 1.0)
    unfollow()
    trace.tap(True, invite("two"), PHONE, 2.0)
    assert [m.call_id for m in seen] == ["one"]


def test_no_secret_is_shown():
    text = (
        "REGISTER sip:c SIP/2.0\r\n"
        'Authorization: Digest username="u", realm="r", nonce="n", uri="sip:c", response="0123456789abcdef"\r\n'
        'Proxy-Authorization: Digest username="u", response = "fedcba", cnonce=xyz, qop=auth\r\n'
        "Authorization: Bearer eyJhbGciOi\r\n"
        "X-Telnyx-Token: hunter2\r\n"
        "X-Offhook-Auth-Key: hunter3\r\n"
        "X-Queue: sales\r\n\r\n"
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20\r\n"
        "a=crypto:2 AEAD_AES_256_GCM inline:abcdef== ;inline:ghijkl|1:4\r\n"
        "k=clear:opensesame\r\n"
    )
    shown = without_secrets(text)
    for secret in (
        "0123456789abcdef",
        "fedcba",
        "xyz",
        "eyJhbGciOi",
        "hunter2",
        "hunter3",
        "d0Rmdm",
        "abcdef",
        "ghijkl",
        "opensesame",
    ):
        assert secret not in shown
    assert 'username="u", realm="r", nonce="n"' in shown
    assert "X-Queue: sales\r\n" in shown
    assert "|2^20" in shown
    assert shown.count("\r\n") == text.count("\r\n")


def test_a_message_in_a_few_words():
    assert summary(TracedMessage(0, True, PHONE, invite("one", body=SDP))) == (
        "INVITE sip:agent@192.0.2.1 [PCMU :4000 sendonly]"
    )
    assert summary(TracedMessage(0, False, PHONE, ringing("one"))) == "180 Ringing (INVITE)"
    assert summary(TracedMessage(0, True, PHONE, b"garbage\r\n\r\n")).startswith("malformed: garbage")
    assert "unreadable SDP" in summary(TracedMessage(0, True, PHONE, invite("one", body=b"v=0\r\nm=audio\r\n")))


def test_the_ladder_shows_who_sent_what_to_whom():
    text = ladder(
        [
            TracedMessage(10.0, True, PHONE, invite("one")),
            TracedMessage(10.02, False, PHONE, ringing("one")),
            TracedMessage(10.5, False, CARRIER, invite("two")),
            TracedMessage(10.75, True, CARRIER, ringing("two")),
        ]
    )
    heads, *rungs = text.splitlines()
    columns = [heads.index("192.0.2.7:5060"), heads.index("Offhook"), heads.index("198.51.100.3:5061/tls")]
    assert [rung[:9].strip() for rung in rungs] == ["0.000", "0.020", "0.500", "0.750"]
    for rung in rungs:
        assert [rung[column] for column in columns] == ["|", "|", "|"]
    left = [rung[columns[0] + 1 : columns[1]] for rung in rungs]
    right = [rung[columns[1] + 1 : columns[2]] for rung in rungs]
    assert left[0].startswith("- INVITE") and left[0].endswith(">")
    assert left[1].startswith("<- 180 Ringing") and left[1].endswith("-")
    assert right[2].startswith("- INVITE") and right[2].endswith(">")
    assert right[3].startswith("<- 180 Ringing")
    assert not left[2].strip() and not right[0].strip()


def test_an_arrow_past_a_party_in_between_crosses_its_column():
    third = Flow("udp", ("203.0.113.9", 5060), ("192.0.2.1", 5060))
    text = ladder(
        [
            TracedMessage(1.0, True, PHONE, invite("one")),
            TracedMessage(1.1, True, CARRIER, invite("two")),
            TracedMessage(1.2, True, third, invite("three")),
        ]
    )
    heads, *rungs = text.splitlines()
    assert rungs[2].rstrip().endswith("|")
    assert len(rungs[2].rstrip()) == heads.index("203.0.113.9:5060") + 1
    assert rungs[2][heads.index("Offhook") + 1] == "<"


def test_an_empty_ladder_is_no_text():
    assert ladder([]) == ""
