"""Digits as INFO brings them and as we send them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import DtmfReceived
from bridge.legs.sip_dtmf import DEFAULT_MS, LONGEST_MS, PLAIN, RELAY, InfoDigits, parse_info, relay_body


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (RELAY, b"Signal=5\r\nDuration=160\r\n", DtmfReceived("5", 160)),
        (RELAY, b"Signal= 5\r\nDuration= 250", DtmfReceived("5", 250)),
        (RELAY, b"signal=d\nduration=90\n", DtmfReceived("D", 90)),
        (RELAY, b"Signal=10\r\n", DtmfReceived("*", DEFAULT_MS)),
        (RELAY, b"Signal=11\r\nDuration=999999\r\n", DtmfReceived("#", LONGEST_MS)),
        ("Application/DTMF-Relay; charset=x", b"Signal=#\r\n", DtmfReceived("#", DEFAULT_MS)),
        (PLAIN, b"7", DtmfReceived("7", DEFAULT_MS)),
        (PLAIN, b" 12\r\n", DtmfReceived("A", DEFAULT_MS)),
        (RELAY, b"Signal=16\r\n", None),
        (RELAY, b"Signal=hf\r\n", None),
        (RELAY, b"Duration=100\r\n", None),
        (PLAIN, b"", None),
        ("text/plain", b"5", None),
    ],
)
def test_an_info_is_read(content_type: str, body: bytes, expected: DtmfReceived | None) -> None:
    assert parse_info(content_type, body) == expected


@given(st.sampled_from([RELAY, PLAIN]), st.binary(max_size=700))
def test_no_body_breaks_the_reader(content_type: str, body: bytes) -> None:
    digit = parse_info(content_type, body)
    assert digit is None or (len(digit.digit) == 1 and 0 <= digit.duration_ms <= LONGEST_MS)


@given(st.sampled_from("0123456789*#ABCD"), st.integers(1, LONGEST_MS))
def test_what_we_send_can_be_read(digit: str, duration_ms: int) -> None:
    assert parse_info(RELAY, relay_body(digit, duration_ms)) == DtmfReceived(digit, duration_ms)


class Sender:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.arrived = asyncio.Event()
        self.digits = InfoDigits(self._send)

    def _send(self, content_type: str, body: bytes) -> None:
        digit = parse_info(content_type, body)
        assert digit is not None
        self.sent.append(digit.digit)
        self.arrived.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.sent) < count:
                self.arrived.clear()
                await self.arrived.wait()


async def test_each_digit_waits_for_the_answer_to_the_one_before() -> None:
    sender = Sender()
    sender.digits.queue("123", tone_ms=1, gap_ms=1)
    assert sender.sent == ["1"]
    await asyncio.sleep(0.05)
    assert sender.sent == ["1"]
    sender.digits.answered(200)
    await sender.until(2)
    sender.digits.answered(200)
    await sender.until(3)
    sender.digits.close()


async def test_digits_are_no_faster_than_keys() -> None:
    sender = Sender()
    began = asyncio.get_running_loop().time()
    sender.digits.queue("12", tone_ms=60, gap_ms=40)
    sender.digits.answered(200)
    assert sender.sent == ["1"]
    await sender.until(2)
    assert asyncio.get_running_loop().time() - began >= 0.099
    sender.digits.close()


async def test_a_refusal_drops_the_rest() -> None:
    sender = Sender()
    sender.digits.queue("123", tone_ms=1, gap_ms=1)
    sender.digits.answered(415)
    await asyncio.sleep(0.05)
    assert sender.sent == ["1"]
    sender.digits.close()
