"""What the words of a target mean."""

import pytest

from bridge.targets import (
    DialplanTarget,
    EndpointTarget,
    NumberTarget,
    QueueTarget,
    SipTarget,
    Target,
    TargetError,
    parse_target,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("sip:200@pbx.example.com", SipTarget("sip:200@pbx.example.com")),
        ("+4930123456", NumberTarget("+4930123456")),
        ("*97", NumberTarget("*97")),
        ("PJSIP/1001", EndpointTarget("PJSIP", "1001")),
        ("PJSIP/+4930123@carrier", EndpointTarget("PJSIP", "+4930123@carrier")),
        ("Local/600@from-internal/n", EndpointTarget("Local", "600@from-internal/n")),
        ("dialplan:s@after-hours", DialplanTarget("after-hours", "s")),
        ("dialplan:100@ext-local,greet", DialplanTarget("ext-local", "100", "greet")),
        ("queue:support", QueueTarget("support")),
    ],
)
def test_targets_by_their_words(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", "nobody", "sip:", "sip:a b@c", "PJSIP/", "PJSIP/a b", "PJSIP/1001&PJSIP/1002", "PJSIP/1,30",
             "dialplan:s", "dialplan:s@c,1,2", "queue:", "queue:a,b", "1" * 33, "sip:" + "a" * 300]
)  # fmt: skip
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(TargetError):
        parse_target(text)
