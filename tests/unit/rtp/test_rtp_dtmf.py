"""Telephone events: each key press is told once, whatever got lost, and sent as RFC 4733 says."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rtp.dtmf import DIGITS, Digit, DtmfReceiver, DtmfSender


def event(code: int, duration: int, *, end: bool = False) -> bytes:
    return struct.pack(">BBH", code, (0x80 if end else 0) | 10, duration)


def press(
    receiver: DtmfReceiver, code: int, timestamp: int, ticks: int, *, ends: int = 3, now: float = 0.0
) -> list[Digit]:
    told = []
    for tick in range(1, ticks + 1):
        told += receiver.receive(event(code, 160 * tick), timestamp, now + tick * 0.02)
    for _ in range(ends):
        told += receiver.receive(event(code, 160 * ticks, end=True), timestamp, now + ticks * 0.02)
    return told


def test_key_is_told_once_for_its_three_ends() -> None:
    receiver = DtmfReceiver(8000)
    assert press(receiver, 5, 1000, 6) == [Digit("5", 120)]
    assert not receiver.pressed


def test_same_key_twice_is_two_digits() -> None:
    receiver = DtmfReceiver(8000)
    assert press(receiver, 11, 1000, 6) + press(receiver, 11, 3000, 4) == [Digit("#", 120), Digit("#", 80)]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_any_one_of_the_ends_is_enough(kept: int) -> None:
    receiver = DtmfReceiver(8000)
    told = [receiver.receive(event(1, 800, end=True), 1000, 0.1) for n in range(3) if n == kept]
    assert told == [[Digit("1", 100)]]


def test_lost_ends_are_made_up_for_by_time() -> None:
    receiver = DtmfReceiver(8000)
    assert press(receiver, 7, 1000, 5, ends=0) == []
    assert receiver.poll(0.25) == []
    assert receiver.poll(0.35) == [Digit("7", 100)]
    # Its end comes after all.
    assert receiver.receive(event(7, 800, end=True), 1000, 0.4) == []


def test_next_key_ends_the_one_whose_end_was_lost() -> None:
    receiver = DtmfReceiver(8000)
    press(receiver, 7, 1000, 5, ends=0)
    assert receiver.receive(event(8, 160), 2000, 0.2) == [Digit("7", 100)]
    assert receiver.receive(event(8, 320, end=True), 2000, 0.22) == [Digit("8", 40)]


def test_old_packets_of_a_key_before_are_ignored() -> None:
    receiver = DtmfReceiver(8000)
    press(receiver, 7, 1000, 5)
    receiver.receive(event(8, 160), 2000, 0.2)
    assert receiver.receive(event(7, 800, end=True), 1000, 0.2) == []
    assert receiver.receive(event(8, 320, end=True), 2000, 0.2) == [Digit("8", 40)]


def test_reordered_updates_do_not_shorten_the_key() -> None:
    receiver = DtmfReceiver(8000)
    receiver.receive(event(2, 800), 1000, 0.1)
    receiver.receive(event(2, 640), 1000, 0.1)
    assert receiver.receive(event(2, 160, end=True), 1000, 0.1) == [Digit("2", 100)]


def test_long_key_goes_on_in_new_segments() -> None:
    receiver = DtmfReceiver(8000)
    timestamp = 0xFFFFFF00
    assert receiver.receive(event(3, 0xFFFF), timestamp, 8.0) == []
    assert receiver.receive(event(3, 160), (timestamp + 0xFFFF) & 0xFFFFFFFF, 8.1) == []
    told = receiver.receive(event(3, 8000, end=True), (timestamp + 0xFFFF) & 0xFFFFFFFF, 9.0)
    assert told == [Digit("3", (0xFFFF + 8000) // 8)]


def test_duration_that_runs_over_goes_on_counting() -> None:
    receiver = DtmfReceiver(8000)
    receiver.receive(event(3, 65440), 1000, 8.0)
    receiver.receive(event(3, 64), 1000, 8.02)
    assert receiver.receive(event(3, 224, end=True), 1000, 8.04) == [Digit("3", (0x10000 + 224) // 8)]


@pytest.mark.parametrize("payload", [b"", b"\x01\x8a\x00", event(16, 800, end=True), event(255, 800, end=True)])
def test_what_is_no_key_is_ignored(payload: bytes) -> None:
    assert DtmfReceiver(8000).receive(payload, 1000, 0.0) == []


@given(st.lists(st.tuples(st.binary(max_size=6), st.integers(0, 0xFFFFFFFF), st.booleans())))
def test_random_events_never_raise(packets: list[tuple[bytes, int, bool]]) -> None:
    receiver = DtmfReceiver(8000)
    now = 0.0
    for payload, timestamp, poll in packets:
        now += 0.1
        for digit in receiver.poll(now) if poll else receiver.receive(payload, timestamp, now):
            assert digit.digit in DIGITS and digit.duration_ms >= 0


def test_digit_is_sent_as_the_rfc_says() -> None:
    sender = DtmfSender(8000)
    sender.queue("9", tone_ms=60, gap_ms=100)
    sent = []
    while sender.busy:
        sent.append(sender.next(1000 + 160 * len(sent)))
    packets = [packet for packet in sent if packet]
    assert [packet.payload for packet in packets] == [
        event(9, 160),
        event(9, 320),
        *[event(9, 480, end=True)] * 3,
    ]
    assert [packet.first for packet in packets] == [True, False, False, False, False]
    assert {packet.timestamp for packet in packets} == {1000}
    assert len(sent) == 3 + 5


@given(st.text("0123456789*#ABCD", max_size=6), st.integers(20, 400), st.integers(0, 300), st.integers(0, 0xFFFFFFFF))
def test_what_is_sent_is_received(digits: str, tone_ms: int, gap_ms: int, timestamp: int) -> None:
    sender, receiver = DtmfSender(8000), DtmfReceiver(8000)
    sender.queue(digits, tone_ms=tone_ms, gap_ms=gap_ms)
    told = []
    tick = 0
    while sender.busy:
        packet = sender.next((timestamp + 160 * tick) & 0xFFFFFFFF)
        if packet:
            told += receiver.receive(packet.payload, packet.timestamp, tick * 0.02)
        tick += 1
    rounded = -(-tone_ms // 20) * 20
    assert told == [Digit(digit, rounded) for digit in digits]


@pytest.mark.parametrize(("digits", "tone_ms"), [("12x", 100), ("1", 0)])
def test_what_can_not_be_sent_is_refused(digits: str, tone_ms: int) -> None:
    with pytest.raises(ValueError, match=r"keys|sent"):
        DtmfSender(8000).queue(digits, tone_ms=tone_ms)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_key_held_for_long_is_sent_as_long_as_one_event_can_be(rate: int) -> None:
    sender, receiver = DtmfSender(rate), DtmfReceiver(rate)
    sender.queue("7", tone_ms=60_000)
    digits, tick = [], 0
    while sender.busy:
        packet = sender.next(tick * rate // 50)
        tick += 1
        if packet is not None:
            digits += receiver.receive(packet.payload, packet.timestamp, tick / 50)
    assert [digit.digit for digit in digits] == ["7"]
    assert 0xFFFF * 1000 // rate - 20 <= digits[0].duration_ms <= 0xFFFF * 1000 // rate
