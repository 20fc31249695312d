"""`a=crypto` lines: which are taken, which refused and why, and what both sides end up with."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.sdes import (
    SUITES,
    SdesError,
    accept_line,
    answer_line,
    choose,
    new_keys,
    parse_crypto,
)

KEY = bytes(range(30))
TEXT = base64.b64encode(KEY).decode()
CM = "AES_CM_128_HMAC_SHA1_80"


@pytest.mark.parametrize(
    "value",
    [
        f"1 {CM} inline:{TEXT}",
        f"1 {CM.lower()} INLINE:{TEXT}",
        f"1  {CM}\tinline:{TEXT} ",
        f"1 {CM} inline:{TEXT}|2^31",
        f"1 {CM} inline:{TEXT}|1048576",
        f"1 {CM} inline:{TEXT}|2^48",
        f"1 {CM} inline:{TEXT} KDR=0",
        f"1 {CM} inline:{TEXT} -WHATEVER=5",
    ],
)
def test_line_is_read(value: str) -> None:
    line = parse_crypto(value)
    assert (line.tag, line.suite, line.key, line.mki_bytes) == (1, CM, KEY, 0)


@pytest.mark.parametrize("tail", ["|2^20|1:4", "|1:4"])
def test_key_number_is_read(tail: str) -> None:
    assert parse_crypto(f"5 {CM} inline:{TEXT}{tail}").mki_bytes == 4


def test_key_without_base64_padding_is_read() -> None:
    key = bytes(range(28))
    text = base64.b64encode(key).decode().rstrip("=")
    assert parse_crypto(f"2 AEAD_AES_128_GCM inline:{text}").key == key


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "without tag"),
        (f"x {CM} inline:{TEXT}", "without tag"),
        (f"1 F8_128_HMAC_SHA1_80 inline:{TEXT}", "F8_128_HMAC_SHA1_80 is not known"),
        (f"1 {CM} uri:{TEXT}", "method"),
        (f"1 {CM} inline:{TEXT}x", "base64|bytes"),
        (f"1 {CM} inline:{TEXT[:-4]}", "27 bytes instead of 30"),
        (f"1 AEAD_AES_256_GCM inline:{TEXT}", "30 bytes instead of 44"),
        (f"1 {CM} inline:!!!{TEXT[3:]}", "base64"),
        (f"1 {CM} inline:{TEXT};inline:{TEXT}", "several keys"),
        (f"1 {CM} inline:{TEXT}|2^19", "good for"),
        (f"1 {CM} inline:{TEXT}|2^99", "good for"),
        (f"1 {CM} inline:{TEXT}|5", "good for"),
        (f"1 {CM} inline:{TEXT}|soon", "can't be read"),
        (f"1 {CM} inline:{TEXT}|1:129", "MKI of 129"),
        (f"1 {CM} inline:{TEXT}|1:0", "MKI of 0"),
        (f"1 {CM} inline:{TEXT} UNENCRYPTED_SRTP", "UNENCRYPTED_SRTP"),
        (f"1 {CM} inline:{TEXT} UNENCRYPTED_SRTCP", "UNENCRYPTED_SRTCP"),
        (f"1 {CM} inline:{TEXT} UNAUTHENTICATED_SRTP", "UNAUTHENTICATED_SRTP"),
        (f"1 {CM} inline:{TEXT} WSH=64", "WSH"),
        (f"1 {CM} inline:{TEXT} KDR=5", "KDR"),
        (f"1 {CM} inline:{TEXT} FEC_ORDER=FEC_SRTP", "FEC_ORDER"),
    ],
)
def test_line_is_refused(value: str, why: str) -> None:
    with pytest.raises(SdesError, match=why) as caught:
        parse_crypto(value)
    assert TEXT not in str(caught.value)


@given(st.text(max_size=120))
def test_junk_is_refused_in_our_own_words(value: str) -> None:
    try:
        parse_crypto(value)
    except SdesError:
        return


def test_first_usable_line_of_several_is_chosen() -> None:
    short = base64.b64encode(bytes(28)).decode()
    lines = [
        f"1 F8_128_HMAC_SHA1_80 inline:{TEXT}",
        f"2 {CM} inline:{TEXT} UNENCRYPTED_SRTP",
        f"3 AEAD_AES_128_GCM inline:{short}",
        f"4 {CM} inline:{TEXT}",
    ]
    assert choose(lines).tag == 3


def test_refusal_of_all_lines_says_why_each() -> None:
    with pytest.raises(SdesError, match=r"F8.*not known; crypto line 2 asks for UNENCRYPTED_SRTP"):
        choose([f"1 F8 inline:{TEXT}", f"2 {CM} inline:{TEXT} UNENCRYPTED_SRTP"])
    with pytest.raises(SdesError, match="no a=crypto line"):
        choose([])


def test_offer_has_a_fresh_key_of_the_right_size_for_each_suite() -> None:
    ours, again = new_keys(), new_keys()
    assert [line.suite for line in ours] == list(SUITES)
    assert len({line.key for line in (*ours, *again)}) == 2 * len(SUITES)
    assert all(parse_crypto(str(line)) == line for line in ours)


@pytest.mark.parametrize("suite", SUITES)
def test_both_sides_end_with_the_same_keys_crosswise(suite: str) -> None:
    offered, answering = new_keys(), new_keys()
    wanted = next(line for line in offered if line.suite == suite)
    line, theirs = answer_line(parse_crypto(str(wanted)), answering)
    ours = accept_line([str(line)], offered)
    assert line.tag == wanted.tag and ours.suite == theirs.suite == suite
    assert (ours.send, ours.receive) == (theirs.receive, theirs.send)
    assert ours.send != ours.receive


def test_an_answer_must_take_one_line_that_was_offered() -> None:
    offered = new_keys()
    with pytest.raises(SdesError, match="0 a=crypto lines"):
        accept_line([], offered)
    with pytest.raises(SdesError, match="2 a=crypto lines"):
        accept_line([str(offered[0]), str(offered[1])], offered)
    with pytest.raises(SdesError, match="not offered"):
        accept_line([f"9 {CM} inline:{TEXT}"], offered)
    with pytest.raises(SdesError, match="not offered"):
        accept_line([f"2 {CM} inline:{TEXT}"], offered)


def test_keys_are_not_shown() -> None:
    line = parse_crypto(f"1 {CM} inline:{TEXT}")
    assert repr(KEY) not in repr(line) and TEXT not in repr(line)
