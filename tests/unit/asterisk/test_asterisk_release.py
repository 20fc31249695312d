"""What the dialplan is told of a call, and in which words."""

import pytest

from bridge.asterisk.ari_events import Channel, ChannelDestroyed, ChannelHangupRequest
from bridge.events import Cause, LegEnded
from bridge.legs.asterisk.ends import end_of_channel
from bridge.legs.asterisk.release import outcome_variables, status_of

CHANNEL = Channel("1.0", "PJSIP/x", "Up")


@pytest.mark.parametrize(
    ("cause", "was_up", "status"),
    [
        (Cause.AGENT_HUNG_UP, True, "ANSWERED"),
        (Cause.API_HUNG_UP, True, "ANSWERED"),
        (Cause.TRANSFERRED, True, "TRANSFER"),
        (Cause.REFUSED_BUSY, False, "REFUSED"),
        (Cause.REFUSED_MEDIA, False, "REFUSED"),
        (Cause.API_HUNG_UP, False, "REFUSED"),
        (Cause.INTERNAL_ERROR, True, "FAILED"),
        (Cause.MEDIA_TIMEOUT, True, "FAILED"),
        (Cause.SIGNALLING_LOST, False, "FAILED"),
    ],
)
def test_the_status_says_in_one_word_how_it_went(cause: Cause, was_up: bool, status: str) -> None:
    assert status_of(cause, was_up=was_up) == status


def test_a_call_is_told_of_by_three_variables() -> None:
    assert outcome_variables("FAILED", Cause.ENGINE_FAILED, "no\nvoice") == {
        "OFFHOOK_STATUS": "FAILED",
        "OFFHOOK_CAUSE": "engine-failed",
        "OFFHOOK_DETAIL": "no voice",
    }


@pytest.mark.parametrize(
    ("event", "was_up", "ended"),
    [
        (ChannelHangupRequest(CHANNEL, None, False), True, LegEnded(Cause.CALLER_HUNG_UP, by="far")),
        (ChannelHangupRequest(CHANNEL, None, False), False, LegEnded(Cause.CANCELLED, by="far", status=487)),
    ],
)
def test_a_hangup_without_a_cause_is_the_callers(event: ChannelHangupRequest, was_up: bool, ended: LegEnded) -> None:
    assert end_of_channel(event, was_up=was_up) == ended


def test_the_cause_of_a_hangup_is_read() -> None:
    ended = end_of_channel(ChannelHangupRequest(CHANNEL, 41, False), was_up=True)
    assert (ended.cause, ended.q850) == (Cause.SIGNALLING_LOST, 41)
    ended = end_of_channel(ChannelDestroyed(CHANNEL, 16, "Normal Clearing"), was_up=True)
    assert (ended.cause, ended.q850, ended.by) == (Cause.CALLER_HUNG_UP, 16, "far")


def test_the_flags_of_a_soft_hangup_are_no_cause() -> None:
    for was_up, cause in ((True, Cause.CALLER_HUNG_UP), (False, Cause.CANCELLED)):
        ended = end_of_channel(ChannelHangupRequest(CHANNEL, 32, True), was_up=was_up)
        assert (ended.cause, ended.by, ended.q850) == (cause, "far", None)
    ended = end_of_channel(ChannelHangupRequest(CHANNEL, 1, True), was_up=True)
    assert (ended.cause, ended.by) == (Cause.MEDIA_TIMEOUT, "network")
