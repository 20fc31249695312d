"""Calls through an Asterisk: what is dialled for a target, and how the events of a dialled channel are read."""

from dataclasses import replace

import pytest

from bridge.asterisk.ari_events import (
    AriEvent,
    Channel,
    ChannelDestroyed,
    ChannelHold,
    ChannelStateChange,
    Dial,
)
from bridge.asterisk.settings import AsteriskSettings
from bridge.events import AnsweredBy, Cause, LegEnded, Progress
from bridge.legs.asterisk.amd import arguments_of, result_of
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.asterisk.outbound import CallProgress, PickedUp
from bridge.legs.base import LegError

CHANNEL = Channel("offhook-1-out", "PJSIP/1001-00000001", "Down")
SETTINGS = AsteriskSettings(name="pbx", url="http://127.0.0.1:8088", username="offhook", password_env="X")

RINGING = Progress(180)
EARLY = Progress(183, early_media=True)


def dial(status: str) -> Dial:
    return Dial(CHANNEL, None, status, "")


def state(name: str) -> ChannelStateChange:
    return ChannelStateChange(replace(CHANNEL, state=name))


def gone(cause: int) -> ChannelDestroyed:
    return ChannelDestroyed(CHANNEL, cause, "text", None)


def steps(*events: AriEvent) -> list[object]:
    progress = CallProgress()
    return [step for event in events if (step := progress.step(event)) is not None]


def test_ringing_is_told_once_though_asterisk_says_it_twice() -> None:
    assert steps(dial(""), state("Ringing"), dial("RINGING")) == [RINGING]
    assert steps(dial(""), dial("RINGING"), state("Ringing")) == [RINGING]


def test_early_media_is_told_after_ringing_and_before_the_answer() -> None:
    events = dial(""), dial("RINGING"), dial("PROGRESS"), state("Up"), dial("ANSWER")
    assert steps(*events) == [RINGING, EARLY, PickedUp()]


def test_the_answer_is_told_once_and_nothing_rings_after_it() -> None:
    assert steps(dial(""), state("Up"), dial("ANSWER"), dial("RINGING"), dial("PROGRESS")) == [PickedUp()]


def test_events_of_other_kinds_mean_nothing() -> None:
    assert steps(ChannelHold(CHANNEL, ""), dial("PROCEEDING"), state("Down")) == []


def test_a_call_that_was_up_ends_as_such() -> None:
    *_, ended = steps(dial(""), state("Up"), gone(16))
    assert isinstance(ended, LegEnded)
    assert (ended.cause, ended.status) == (Cause.CALLER_HUNG_UP, None)


def test_a_busy_tone_without_end_is_not_waited_for() -> None:
    (ended,) = steps(dial(""), dial("BUSY"), gone(17))
    assert isinstance(ended, LegEnded)
    assert (ended.cause, ended.status, ended.q850) == (Cause.BUSY, 486, 17)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([dial(""), gone(16)], Cause.REJECTED),
        ([dial(""), dial("RINGING"), gone(19)], Cause.NO_ANSWER),
        ([dial(""), dial("CONGESTION")], Cause.REJECTED),
        ([gone(16)], Cause.REJECTED),
    ],
)
def test_a_call_that_nobody_took_ends_with_one_cause(events: list[AriEvent], expected: Cause) -> None:
    *_, ended = steps(*events, gone(16))
    assert isinstance(ended, LegEnded)
    assert ended.cause is expected


@pytest.mark.parametrize(
    ("to", "endpoint"),
    [
        ("PJSIP/1001", "PJSIP/1001"),
        ("PJSIP/+4930123@carrier", "PJSIP/+4930123@carrier"),
        ("DAHDI/g1/1001", "DAHDI/g1/1001"),
        ("+4930123", "Local/+4930123@offhook-outbound/n"),
        ("queue:office", "Local/office@offhook-queue/n"),
        ("dialplan:100@phones", "Local/100@phones/n"),
    ],
)
def test_what_is_dialled_for_a_target(to: str, endpoint: str) -> None:
    call = asterisk_call(SETTINGS, to)
    assert (call.endpoint, call.shown_to) == (endpoint, to)


@pytest.mark.parametrize("to", ["sip:bob@example.org", "dialplan:100@phones,3", "not a target", "PJSIP/"])
def test_what_asterisk_can_not_dial_is_refused(to: str) -> None:
    with pytest.raises(LegError):
        asterisk_call(SETTINGS, to)


@pytest.mark.parametrize(
    "how",
    [
        {"caller": "+4930\r\n1"},
        {"caller_name": "a\x00b"},
        {"variables": {"CALLERID(num)": "1"}},
        {"headers": [("X-A\r\nB", "1")]},
        {"headers": [("X-A", "1\r\nB: 2")]},
    ],
)
def test_nothing_is_smuggled_into_what_is_sent(how: dict[str, object]) -> None:
    with pytest.raises(LegError):
        asterisk_call(SETTINGS, "PJSIP/1001", **how)  # type: ignore[arg-type] # one of each kind


def test_headers_are_for_pjsip_alone() -> None:
    assert asterisk_call(SETTINGS, "PJSIP/1001", headers=[("X-A", "1")]).headers == (("X-A", "1"),)
    with pytest.raises(LegError, match="PJSIP"):
        asterisk_call(SETTINGS, "+4930123", headers=[("X-A", "1")])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("offhook,amd=HUMAN,amd_cause=HUMAN-800-800", AnsweredBy("human", "HUMAN HUMAN-800-800")),
        ("offhook,amd=MACHINE,amd_cause=MAXWORDS-5-5", AnsweredBy("machine", "MACHINE MAXWORDS-5-5")),
        ("offhook,amd=NOTSURE,amd_cause=TOOLONG-5000", AnsweredBy("unsure", "NOTSURE TOOLONG-5000")),
        ("offhook,amd=HANGUP,amd_cause=", AnsweredBy("hung-up", "HANGUP")),
        ("offhook", AnsweredBy("unsure", "the context gives no result back")),
        ("offhook,amd=,amd_cause=", AnsweredBy("unsure", "the context gives no result back")),
    ],
)
def test_what_amd_said(data: str, expected: AnsweredBy) -> None:
    assert result_of(arguments_of(replace(CHANNEL, app_name="Stasis", app_data=data))) == expected
