"""SRTP of one stream: what is taken, what is refused, and what a change of keys does."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.rtp.packet import RtpPacket
from bridge.rtp.rtcp import ReceiverReport, serialise_compound
from bridge.rtp.srtp import MAX_SOURCES, OLD_KEY_S, PROFILES, TAGS, Srtp
from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.sdes import SUITES

REPORT = serialise_compound([ReceiverReport(77)])


def key(suite: str) -> bytes:
    return secrets.token_bytes(SUITES[suite].key_bytes + SUITES[suite].salt_bytes)


def pair(suite: str = "AES_CM_128_HMAC_SHA1_80") -> tuple[Srtp, Srtp]:
    one, other = key(suite), key(suite)
    return Srtp(SrtpKeys(suite, one, other)), Srtp(SrtpKeys(suite, other, one))


def rtp(sequence: int, *, ssrc: int = 77, payload: bytes = b"x" * 160) -> bytes:
    return RtpPacket(0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc, payload).serialize()


def sealed(sender: Srtp, packet: bytes) -> bytes:
    data = sender.protect(packet)
    assert data is not None and packet[12:] not in data
    return data


def test_every_suite_of_signalling_is_known_here() -> None:
    assert set(SUITES) == set(PROFILES) == set(TAGS)


@pytest.mark.parametrize("suite", PROFILES)
def test_both_sides_understand_each_other(suite: str) -> None:
    us, them = pair(suite)
    for sequence in range(100):
        assert them.unprotect(sealed(us, rtp(sequence)), 0.0) == rtp(sequence)
        assert us.unprotect(sealed(them, rtp(sequence)), 0.0) == rtp(sequence)
    report = us.protect_rtcp(REPORT)
    assert report is not None and them.unprotect_rtcp(report, 0.0) == REPORT
    assert (us.accepted, us.refused, us.replayed) == (100, 0, 0)


def test_counter_of_wraps_goes_on_over_two_of_them_with_losses_and_swaps() -> None:
    us, them = pair()
    start = 65000
    for sequence in range(start, start + 132_000, 2):
        second, first = sealed(us, rtp(sequence)), sealed(us, rtp(sequence + 1))
        if sequence % 5 == 0:
            continue
        assert them.unprotect(first, 0.0) == rtp(sequence + 1)
        assert them.unprotect(second, 0.0) == rtp(sequence)
    assert them.refused == them.replayed == 0


def test_replay_is_refused_and_counted_apart() -> None:
    us, them = pair()
    data = [sealed(us, rtp(sequence)) for sequence in range(2000)]
    for packet in data:
        assert them.unprotect(packet, 0.0) is not None
    for old in (data[1999], data[1500], data[3]):
        assert them.unprotect(old, 0.0) is None
    assert (them.replayed, them.refused) == (3, 0)


def test_replayed_report_is_refused() -> None:
    us, them = pair()
    report = us.protect_rtcp(REPORT)
    assert report is not None and them.unprotect_rtcp(report, 0.0) is not None
    assert them.unprotect_rtcp(report, 0.0) is None


def test_wrong_key_is_counted_as_refused() -> None:
    us, _ = pair()
    stranger, _ = pair()
    assert [us.unprotect(sealed(stranger, rtp(i)), 0.0) for i in range(5)] == [None] * 5
    assert (us.refused, us.refused_in_a_row, us.accepted) == (5, 5, 0)
    report = stranger.protect_rtcp(REPORT)
    assert report is not None and us.unprotect_rtcp(report, 0.0) is None


@given(st.binary(max_size=1600), st.sampled_from(sorted(PROFILES)))
@settings(max_examples=60)
def test_junk_raises_nothing(data: bytes, suite: str) -> None:
    us, _ = pair(suite)
    assert us.unprotect(data, 0.0) is None
    assert us.unprotect_rtcp(data, 0.0) is None


def test_another_ssrc_under_the_same_key_is_taken_at_once() -> None:
    us, them = pair()
    for ssrc in range(1, 4 * MAX_SOURCES):
        for sequence in range(60000, 60003):
            assert them.unprotect(sealed(us, rtp(sequence, ssrc=ssrc)), 0.0) is not None
    assert them.refused == 0


def test_new_keys_count_from_the_next_packet_and_late_ones_under_the_old_key_are_taken() -> None:
    us, them = pair()
    fresh_us, fresh_them = pair()
    on_the_way = [sealed(us, rtp(i)) for i in range(5)]
    assert them.unprotect(sealed(us, rtp(5)), 10.0) is not None
    us.rekey(fresh_us.keys, 10.0)
    them.rekey(fresh_them.keys, 10.0)
    for packet in on_the_way[:4]:
        assert them.unprotect(packet, 10.1) is not None
    assert them.unprotect(sealed(us, rtp(6)), 10.1) == rtp(6)
    assert them.unprotect(on_the_way[4], 10.1 + OLD_KEY_S) is None
    assert (them.accepted, them.refused) == (6, 1)


def test_a_key_that_stays_keeps_its_count_of_wraps() -> None:
    us, them = pair()
    for sequence in (65000, 65535, 65536 + 10):
        them.unprotect(sealed(us, rtp(sequence)), 0.0)
    keys = them.keys
    them.rekey(SrtpKeys(keys.suite, key(keys.suite), keys.receive), 5.0)
    assert them.unprotect(sealed(us, rtp(65536 + 11)), 5.1) is not None


@pytest.mark.parametrize("suite", PROFILES)
def test_key_numbers_in_the_far_ends_packets_are_taken_out(suite: str) -> None:
    us, plain = pair(suite)
    them = Srtp(SrtpKeys(suite, plain.keys.send, plain.keys.receive, receive_mki_bytes=4))
    rtp_tag, rtcp_tag = TAGS[suite]

    def with_mki(data: bytes | None, tag: int) -> bytes:
        assert data is not None
        return data[: len(data) - tag] + b"\0\0\0\1" + data[len(data) - tag :]

    assert them.unprotect(with_mki(us.protect(rtp(1)), rtp_tag), 0.0) == rtp(1)
    assert them.unprotect_rtcp(with_mki(us.protect_rtcp(REPORT), rtcp_tag), 0.0) == REPORT
    assert them.unprotect(b"\x80" + bytes(12), 0.0) is None


def test_a_packet_too_long_to_encrypt_is_not_sent() -> None:
    us, _ = pair()
    assert us.protect(rtp(1, payload=bytes(1600))) is None


def test_keys_are_not_shown() -> None:
    us, _ = pair()
    assert us.keys.send.hex() not in repr(us.keys) and repr(us.keys.send) not in repr(us.keys)
