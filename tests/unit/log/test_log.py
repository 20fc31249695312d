"""What the log shows, and what it must not."""

import asyncio
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bridge import log as logs
from bridge.log import RateLimited, mask_number, mask_text

CALL = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def written(act: Callable[[], object], *, secret: str = "", **settings: Any) -> str:
    """What ends up on the stream when `act` logs."""
    stream = io.StringIO()
    configured = logs.configure(stream=stream, **settings)
    if secret:
        configured.hide(secret)
    act()
    configured.close()
    return stream.getvalue()


def lines(act: Callable[[], object], **settings: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(act, format="json", **settings).splitlines()]


# Made before the set-up, as modules make theirs.
early = structlog.get_logger("bridge.early")


def test_json_lines_hold_time_level_logger_and_fields():
    (line,) = lines(lambda: early.info("call ended", cause="caller-hung-up", seconds=12.5))
    assert line["event"] == "call ended"
    assert line["level"] == "info"
    assert line["logger"] == "bridge.early"
    assert line["timestamp"].endswith("Z")
    assert (line["cause"], line["seconds"]) == ("caller-hung-up", 12.5)


async def test_each_call_s_lines_carry_its_id_also_those_of_libraries():
    stream = io.StringIO()
    configured = logs.configure(stream=stream, format="json")

    async def call(call_id: str) -> None:
        structlog.contextvars.bind_contextvars(call=call_id)
        early.info("ours")
        await asyncio.sleep(0)
        logging.getLogger("some.library").warning("theirs %s", "x")

    await asyncio.gather(call("a"), call("b"))
    configured.close()
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sorted((line["event"], line["call"]) for line in found) == [
        ("ours", "a"),
        ("ours", "b"),
        ("theirs x", "a"),
        ("theirs x", "b"),
    ]


def test_the_level_holds_for_ours_and_libraries_chatter_is_left_out():
    def act() -> None:
        early.debug("too fine")
        logging.getLogger("uvicorn.error").info("Started server process")
        logging.getLogger("alembic.runtime.migration").info("Running upgrade")
        logging.getLogger("sqlalchemy.engine").warning("worth it")

    assert [line["event"] for line in lines(act, level="info")] == ["worth it"]
    assert [line["event"] for line in lines(act, level="debug")] == ["too fine", "worth it"]


def test_a_traceback_is_shown_and_masked():
    def act() -> None:
        try:
            raise ValueError("no route for sip:+4930123456@pbx")
        except ValueError:
            early.exception("crashed")
        try:
            raise KeyError("+4930123456")
        except KeyError:
            logging.getLogger("library").exception("crashed too")

    text = written(act, format="json")
    assert "ValueError: no route for sip:+49…3456@pbx" in text
    assert "KeyError: '+49…3456'" in text
    assert "0123456" not in text


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+4930123456", "+49…3456"),
        ("004930123456", "00…3456"),
        ("030123456", "…56"),
        ("+1 (555) 010-9999", "+15…9999"),
        ("123456", "…56"),
    ],
)
def test_a_number_keeps_its_ends_only(number: str, masked: str):
    assert mask_number(number) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("INVITE sip:+4930123456@10.0.0.1:5060 SIP/2.0", "INVITE sip:+49…3456@10.0.0.1:5060 SIP/2.0"),
        ("From: <sips:004930123456@x>;tag=8341", "From: <sips:00…3456@x>;tag=8341"),
        ("tel:+1-555-010-9999", "tel:+15…9999"),
        ("rang +49 30 123 4567 twice", "rang +49…4567 twice"),
        ("caller 015112345678 left", "caller 01…5678 left"),
        ("sip:agent@127.0.0.1", "sip:agent@127.0.0.1"),
        ("sip:1001@pbx", "sip:1001@pbx"),
    ],
)
def test_numbers_in_free_text_are_masked(text: str, masked: str):
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        f"call {CALL} ended",
        "12345678-1234-1234-1234-123456789012",
        "192.168.100.200:20000",
        "listening on 0.0.0.0:5060",
        "on 2026-10-08T12:00:00.123456Z",
        "took 123456.78 ms",
        "port 20000 to 24999",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_ids_addresses_and_times_are_left_alone(text: str):
    assert mask_text(text) == text


@given(st.text(alphabet="0123456789", min_size=7, max_size=15), st.sampled_from(["", "+", "00"]))
def test_no_number_survives_anywhere(digits: str, prefix: str):
    number = prefix + digits
    for text in (number, f"from {number}", f"<sip:{number}@10.0.0.1>", f"tel:{number}", f"'{number}'"):
        assert digits not in mask_text(text), text


def test_number_fields_are_masked_however_they_are_written_and_ids_never():
    def act() -> None:
        early.info(
            "call started",
            from_="030 123.45.67",
            to="agent",
            text="it is 555 01 02 03 thanks",
            call="12345678901234567890123456789012",
            leg_id="9876543210@pbx",
            duration_ms=1234567,
            headers={"from": "+4930123456", "call_id": "1234567"},
            numbers=["+4930123456"],
        )

    (line,) = lines(act)
    assert line["from_"] == "03…4567"
    assert line["to"] == "agent"
    assert line["text"] == "it is …03 thanks"
    assert line["call"] == "12345678901234567890123456789012"
    assert line["leg_id"] == "9876543210@pbx"
    assert line["duration_ms"] == 1234567
    assert line["headers"] == {"from": "+49…3456", "call_id": "1234567"}
    assert line["numbers"] == ["+49…3456"]


def test_numbers_are_shown_when_asked_for_but_secrets_never():
    (line,) = lines(lambda: early.info("x", from_="+4930123456", api_key="abc"), mask=False)
    assert line["from_"] == "+4930123456"
    assert line["api_key"] == "[hidden]"


def test_secrets_are_taken_out_by_field_form_and_value():
    def act() -> None:
        early.info(
            "GET /x Authorization: Bearer abcdefgh12345 and our-own-key-value",
            authorization="anything",
            OPENAI_API_KEY="sk-1",
            url="postgresql://offhook:hunter22@db/calls",
            nested={"password": "x", "fine": "api_key=abcdefgh"},
            tokens=12,
            items=["Bearer abcdefghijk"],
        )

    text = written(act, format="json", secret="our-own-key-value")
    for secret in ("abcdefgh", "our-own-key", "anything", "sk-1", "hunter22", '"x"'):
        assert secret not in text
    assert '"tokens": 12' in text


def test_a_caller_can_neither_forge_a_line_nor_drive_the_terminal():
    text = written(lambda: early.warning("bad header \x1b[2J\r\nINFO forged", name="a\nb\x07"), format="console")
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert "\\x1b[2J\\x0d\\nINFO forged" in text


def test_a_second_set_up_replaces_the_first():
    first = io.StringIO()
    logs.configure(stream=first)
    assert "once" in written(lambda: early.info("once"))
    assert first.getvalue() == ""


def test_a_reader_that_stalls_holds_nobody_up_and_what_is_lost_is_counted(monkeypatch):
    monkeypatch.setattr(logs, "QUEUE_LINES", 50)
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", buffering=1)
    configured = logs.configure(stream=stream, format="json")
    # Far more than pipe (64 KiB) and queue hold; nobody reads, and still every call returns.
    for number in range(500):
        early.info("line", number=number, filler="x" * 1000)
    assert configured.dropped > 0
    dropped = configured.dropped
    received: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reading, 65536):
            received.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    configured.close()
    stream.close()
    reader.join()
    os.close(reading)
    text = b"".join(received).decode()
    assert text.count('"event": "line"') == 500 - dropped
    assert "log lines dropped" in text


def test_a_closed_reader_is_no_reason_to_crash():
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    configured = logs.configure(stream=stream)
    for _ in range(10):
        early.info("into the void")
    configured.close()
    os.close(writing)


# -- floods -------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_cut_and_summed_up_after_the_interval():
    clock = Clock()

    def act() -> None:
        limited = RateLimited(early, limit=3, interval_s=10, clock=clock)
        for number in range(1000):
            limited.warning("garbage", number=number)
        limited.warning("other", number=0)
        clock.now += 10
        limited.warning("garbage", number=1000)

    found = lines(act)
    assert [line.get("number") for line in found] == [0, 1, 2, 0, None, 1000]
    assert found[4]["suppressed"] == 997
    assert found[4]["event"] == "garbage"


def test_nothing_is_summed_up_when_nothing_was_held_back():
    clock = Clock()

    def act() -> None:
        limited = RateLimited(early, limit=3, interval_s=10, clock=clock)
        limited.info("garbage")
        clock.now += 10
        limited.flush()
        limited.info("garbage")

    assert len(lines(act)) == 2


class Lines:
    """A logger that keeps what it is told, and says when the summary came."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []
        self.summed_up = asyncio.Event()

    def info(self, _event: str, **fields: Any) -> None:
        self.fields.append(fields)
        if "suppressed" in fields:
            self.summed_up.set()


async def test_a_flood_that_stops_is_summed_up_by_itself():
    told = Lines()
    limited = RateLimited(told, limit=1, interval_s=0.01)
    for number in range(3):
        limited.info("garbage", number=number)
    await asyncio.wait_for(told.summed_up.wait(), 30)
    assert told.fields == [{"number": 0}, {"suppressed": 2, "seconds": 0.01}]
