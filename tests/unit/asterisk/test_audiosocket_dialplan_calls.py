"""What is kept of calls without ARI: before they connect, while they live, after they ended, and for how long."""

import uuid

import pytest

from bridge.asterisk.dialplan_calls import (
    ANNOUNCED_S,
    ENDED_S,
    MAX_KEPT,
    Announcement,
    DialplanCalls,
    LiveError,
    status_of,
    where,
)
from bridge.events import Cause

CALL = uuid.UUID(int=1)


def ended(calls: DialplanCalls, cause: Cause, *, was_up: bool = True) -> str:
    calls.begin(CALL, 0.0)
    calls.end(CALL, cause, "", 0.0, was_up=was_up)
    found = calls.find(CALL, 0.0)
    assert found is not None and found.cause is cause
    return found.status


def test_an_announcement_is_used_once() -> None:
    calls = DialplanCalls()
    calls.announce(CALL, Announcement(from_="100"), 0.0)
    assert calls.begin(CALL, 1.0) == Announcement(from_="100")
    calls.end(CALL, Cause.CALLER_HUNG_UP, "", 2.0, was_up=True)
    assert calls.begin(CALL, 3.0) is None


def test_an_announcement_expires() -> None:
    calls = DialplanCalls()
    calls.announce(CALL, Announcement(from_="100"), 0.0)
    assert calls.begin(CALL, ANNOUNCED_S) is None


def test_the_last_announcement_counts() -> None:
    calls = DialplanCalls()
    calls.announce(CALL, Announcement(from_="100"), 0.0)
    calls.announce(CALL, Announcement(from_="200"), 50.0)
    assert calls.begin(CALL, 100.0) == Announcement(from_="200")


def test_a_call_is_live_once() -> None:
    calls = DialplanCalls()
    calls.begin(CALL, 0.0)
    with pytest.raises(LiveError):
        calls.begin(CALL, 0.0)
    with pytest.raises(LiveError):
        calls.announce(CALL, Announcement(), 0.0)


@pytest.mark.parametrize(
    ("cause", "was_up", "status"),
    [
        (Cause.AGENT_HUNG_UP, True, "ANSWERED"),
        (Cause.CALLER_HUNG_UP, True, "ANSWERED"),
        (Cause.MAX_LENGTH, True, "ANSWERED"),
        # The caller was put through to somebody by us: there is nowhere to go on to.
        (Cause.TRANSFERRED, True, "ANSWERED"),
        (Cause.REFUSED_BUSY, False, "REFUSED"),
        (Cause.REFUSED_NO_ROUTE, False, "REFUSED"),
        (Cause.ENGINE_FAILED, True, "FAILED"),
        (Cause.DRAINED, True, "FAILED"),
        (Cause.SIGNALLING_LOST, True, "FAILED"),
    ],
)
def test_what_a_dialplan_is_told_of_an_end(cause: Cause, was_up: bool, status: str) -> None:
    assert status_of(cause, was_up=was_up) == status
    assert ended(DialplanCalls(), cause, was_up=was_up) == status


def test_a_caller_is_sent_on_only_if_the_transfer_was_the_end() -> None:
    calls = DialplanCalls()
    calls.begin(CALL, 0.0)
    calls.send_to(CALL, "200")
    calls.end(CALL, Cause.CALLER_HUNG_UP, "", 0.0, was_up=True)
    found = calls.find(CALL, 0.0)
    assert found is not None and (found.status, found.target) == ("ANSWERED", "")


def test_an_end_is_known_for_a_while_and_the_first_one_stays() -> None:
    calls = DialplanCalls()
    assert ended(calls, Cause.AGENT_HUNG_UP) == "ANSWERED"
    calls.end(CALL, Cause.INTERNAL_ERROR, "", 1.0, was_up=True)
    found = calls.find(CALL, ENDED_S - 1)
    assert found is not None and found.cause is Cause.AGENT_HUNG_UP
    assert calls.find(CALL, ENDED_S) is None


def test_what_is_kept_is_bounded_and_counted() -> None:
    calls = DialplanCalls()
    for index in range(MAX_KEPT + 10):
        calls.announce(uuid.UUID(int=index), Announcement(), 0.0)
    assert len(calls) == MAX_KEPT
    assert calls.find(uuid.UUID(int=9), 0.0) is None
    assert calls.find(uuid.UUID(int=10), 0.0) is not None
    calls.announce(CALL, Announcement(), ANNOUNCED_S + 1)
    assert len(calls) == 1
    assert calls.expired == MAX_KEPT + 10


def test_variables_are_lines_of_bounded_length_and_number() -> None:
    calls = DialplanCalls()
    calls.begin(CALL, 0.0)
    calls.set_variables(CALL, {"A": "one\ntwo\x00", "B": "x" * 1000})
    calls.set_variables(CALL, {"B": "y"})
    found = calls.find(CALL, 0.0)
    assert found is not None and found.variables == {"A": "one two", "B": "y"}
    with pytest.raises(ValueError, match="64 variables"):
        calls.set_variables(CALL, {f"V{index}": "" for index in range(64)})


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("", {}),
        ("+4930123", {"kind": "number", "extension": "+4930123"}),
        (
            "dialplan:200@sales",
            {"kind": "dialplan", "context": "sales", "extension": "200", "priority": "1"},
        ),
        ("queue:support", {"kind": "queue", "queue": "support"}),
        ("PJSIP/1001", {"kind": "endpoint", "endpoint": "PJSIP/1001"}),
        ("sip:200@pbx.example.com", {"kind": "sip"}),
    ],
)
def test_a_target_in_the_words_of_a_dialplan(target: str, parts: dict[str, str]) -> None:
    assert {name: value for name, value in where(target).items() if value} == parts
