"""How a channel's end reads as a leg's: Asterisk's causes, SIP statuses, who ended it."""

import pytest

from bridge.asterisk.ari_events import Channel, ChannelDestroyed
from bridge.events import Cause
from bridge.legs.asterisk.ends import DIAL_STATUSES, end_of_call, end_of_dialling, end_of_offer, refusal

CHANNEL = Channel("offhook-1-out", "PJSIP/1001-00000001", "Down")


def destroyed(cause: int, tech_cause: int | None = None, text: str = "text") -> ChannelDestroyed:
    return ChannelDestroyed(CHANNEL, cause, text, tech_cause)


@pytest.mark.parametrize(
    ("cause", "tech_cause", "expected", "status", "q850", "by"),
    [
        (17, 486, Cause.BUSY, 486, 17, "far"),
        (17, None, Cause.BUSY, 486, 17, "far"),
        (19, 480, Cause.NO_ANSWER, 480, 19, "far"),
        (18, 408, Cause.NO_ANSWER, 408, 18, "far"),
        (20, None, Cause.NO_ANSWER, 480, 20, "far"),
        (21, 603, Cause.REJECTED, 603, 21, "far"),
        (21, 403, Cause.REJECTED, 403, 21, "far"),
        (1, 404, Cause.REJECTED, 404, 1, "far"),
        (28, 484, Cause.REJECTED, 484, 28, "far"),
        (58, 488, Cause.REJECTED, 488, 58, "far"),
        (34, 503, Cause.REJECTED, 503, 34, "network"),
        (38, 500, Cause.REJECTED, 500, 38, "network"),
        (16, None, Cause.REJECTED, 480, 16, "far"),
        (0, None, Cause.NO_ANSWER, 480, None, "far"),
        # A channel that ended with 200 and its like tells no refusal.
        (17, 200, Cause.BUSY, 486, 17, "far"),
    ],
)
def test_a_call_that_nobody_took(
    cause: int, tech_cause: int | None, expected: Cause, status: int, q850: int | None, by: str
) -> None:
    ended = end_of_dialling(destroyed(cause, tech_cause), dialled=True)
    assert (ended.cause, ended.status, ended.q850, ended.by) == (expected, status, q850, by)
    assert ended.detail.startswith(f"{status}: text")


def test_an_extension_that_does_not_exist_is_told_from_a_hang_up() -> None:
    """A Local channel without an extension ends with normal clearing, and without ever having been dialled."""
    ended = end_of_dialling(destroyed(16), dialled=False)
    assert (ended.cause, ended.status, ended.q850) == (Cause.REJECTED, 404, 1)
    assert "nothing to dial" in ended.detail
    assert end_of_dialling(destroyed(17), dialled=False).cause is Cause.BUSY


@pytest.mark.parametrize(
    ("cause", "expected", "by"),
    [
        (16, Cause.CALLER_HUNG_UP, "far"),
        (0, Cause.CALLER_HUNG_UP, "far"),
        (38, Cause.SIGNALLING_LOST, "network"),
        (44, Cause.MEDIA_TIMEOUT, "network"),
    ],
)
def test_the_end_of_a_call_that_was_up(cause: int, expected: Cause, by: str) -> None:
    ended = end_of_call(destroyed(cause))
    assert (ended.cause, ended.by, ended.status) == (expected, by, None)


def test_a_caller_who_gives_up_has_cancelled() -> None:
    ended = end_of_offer(destroyed(16))
    assert (ended.cause, ended.status, ended.by) == (Cause.CANCELLED, 487, "far")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("BUSY", Cause.BUSY),
        ("CONGESTION", Cause.REJECTED),
        ("NOANSWER", Cause.NO_ANSWER),
        ("CHANUNAVAIL", Cause.NO_ANSWER),
        ("DONTCALL", Cause.REJECTED),
    ],
)
def test_what_a_dialplan_says_before_it_hangs_up(said: str, expected: Cause) -> None:
    assert refusal(DIAL_STATUSES[said], said).cause is expected
