"""What the doctor says of contexts without a place for callers, and of too few RTP ports."""

import pytest

from bridge.asterisk.settings import AsteriskSettings
from bridge.doctor_asterisk_safety import contexts_with_stasis, enough_ports


def settings(calls: int | None = None) -> AsteriskSettings:
    return AsteriskSettings(
        name="pbx", url="http://127.0.0.1:8088", username="offhook", password_env="X", calls=calls
    )


@pytest.mark.parametrize(
    ("calls", "each", "box", "state", "words"),
    [
        (None, 4, 500, "ok", "2500 calls of 4 ports; 500 are let in"),
        (2500, 4, 5000, "ok", "2500 are let in"),
        (2501, 4, 5000, "wrong", "calls lets 2501 in"),
        (2501, 2, 5000, "ok", "5000 calls of 2 ports"),
        (None, 4, 5000, "note", "limits.calls lets 5000 in"),
        (9000, 4, 5000, "wrong", "limits.calls lets 5000 in"),
    ],
)
def test_ports_and_the_calls_that_are_let_in(calls: int | None, each: int, box: int, state: str, words: str) -> None:
    found = enough_ports(settings(calls), (10000, 19999), each, box)
    assert found.state == state
    assert words in found.says


def test_contexts_that_hand_calls_to_our_application() -> None:
    rows = [
        {"Event": "ListDialplan", "Context": "a", "Application": "Stasis", "AppData": "offhook,agent=sales"},
        {"Event": "ListDialplan", "Context": "a", "Application": "Stasis", "AppData": "offhook"},
        {
            "Event": "ListDialplan",
            "Context": "shipped",
            "Application": "Stasis",
            "AppData": "${OFFHOOK_APP},${words}",
        },
        {"Event": "ListDialplan", "Context": "b", "Application": "Stasis", "AppData": "offhook2"},
        {"Event": "ListDialplan", "Context": "c", "Application": "Dial", "AppData": "offhook"},
        {"Event": "ListDialplan", "Context": "offhook-amd", "Application": "Stasis", "AppData": "offhook"},
        {"Event": "ListDialplan", "Context": "included", "IncludeContext": "a"},
    ]
    assert contexts_with_stasis(rows, settings()) == ["a", "shipped"]
