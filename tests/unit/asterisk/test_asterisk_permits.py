"""Which targets the patterns of an Asterisk's `dial` setting let through."""

import pytest
from pydantic import ValidationError

from bridge.asterisk.permits import DEFAULT_DIAL, permits
from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.base import NotPermittedError
from bridge.targets import parse_target


def settings(**changes: object) -> AsteriskSettings:
    given = {"name": "pbx", "url": "http://127.0.0.1:8088", "username": "offhook", "password_env": "X", **changes}
    return AsteriskSettings.model_validate(given)


@pytest.mark.parametrize(
    ("patterns", "target", "permitted"),
    [
        (DEFAULT_DIAL, "PJSIP/1001", True),
        (DEFAULT_DIAL, "pjsip/carrier/sip:bob@10.0.0.1:5060", True),
        (DEFAULT_DIAL, "SIP/1001", True),
        (DEFAULT_DIAL, "IAX2/user@host/100", True),
        (DEFAULT_DIAL, "DAHDI/g1/4930123", True),
        (DEFAULT_DIAL, "Local/s@world", False),
        (DEFAULT_DIAL, "Console/dsp", False),
        (DEFAULT_DIAL, "AudioSocket/10.0.0.1:9092/uuid", False),
        (DEFAULT_DIAL, "WebSocket/elsewhere", False),
        (DEFAULT_DIAL, "dialplan:s@sales", True),
        (DEFAULT_DIAL, "queue:support", True),
        (("PJSIP/10??",), "PJSIP/1001", True),
        (("pjsip/10??",), "PJSIP/1001", True),
        (("PJSIP/10??",), "PJSIP/10011", False),
        (("PJSIP/10??",), "PJSIP/10/1", False),
        (("PJSIP/*@carrier",), "PJSIP/+4930123@carrier", True),
        (("PJSIP/*@carrier",), "PJSIP/other/sip:x@carrier", False),
        (("PJSIP/*@carrier",), "PJSIP/+4930123@Carrier", False),
        (("PJSIP/carrier/*",), "PJSIP/carrier/sip:x@y", True),
        (("dialplan:*@sales",), "dialplan:s@sales,vip", True),
        (("dialplan:*@sales",), "dialplan:s@presales", False),
        (("dialplan:*@sales",), "queue:sales", False),
        (("queue:support",), "queue:support", True),
        (("queue:support",), "queue:support2", False),
        ((), "PJSIP/1001", False),
        ((), "1001", True),
        ((), "sip:a@b", True),
    ],
)
def test_what_a_pattern_lets_through(patterns: tuple[str, ...], target: str, permitted: bool) -> None:
    assert permits(patterns, parse_target(target)) is permitted


@pytest.mark.parametrize("pattern", ["", "*", "PJSIP", "PJSIP/", "1001", "PJSIP/a b", "dialplan:", "PJSIP/[1]"])
def test_what_is_no_pattern_is_refused_with_what_one_is(pattern: str) -> None:
    with pytest.raises(ValidationError, match="is no pattern of targets"):
        settings(dial=[pattern])


def test_calls_by_the_api_are_refused_with_the_setting_s_name() -> None:
    with pytest.raises(NotPermittedError, match=r"'Local/s@world' may not be called on Asterisk 'pbx'.*`dial`"):
        asterisk_call(settings(), "Local/s@world")
    assert asterisk_call(settings(dial=["Local/*"]), "Local/s@world").endpoint == "Local/s@world"
    # What we make of a number or a place is Local too, and no affair of the patterns.
    assert asterisk_call(settings(dial=[]), "1001").endpoint == "Local/1001@offhook-outbound/n"
