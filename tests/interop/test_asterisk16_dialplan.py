"""Offhook's part in an existing shop with Asterisk 16 and chan_sip: it loads clean, and calls go both ways."""

from collections.abc import Iterator

import pytest
from asterisk16_shop import Asterisk16
from stasis_application import Application


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk16]:
    pbx = Asterisk16(tmp_path_factory.mktemp("shop") / "asterisk")
    yield pbx
    pbx.stop()


@pytest.fixture
def quiet_shop(shop: Asterisk16) -> Iterator[Asterisk16]:
    """With its phone at the queue, and without a call before and after the test."""
    shop.cli("queue add member SIP/desk to office")
    yield shop
    shop.hang_up_all()
    shop.assert_empty()


def test_it_loads_without_a_complaint(shop: Asterisk16) -> None:
    assert [line for line in shop.problems() if "offhook" in line] == []
    contexts = shop.cli("dialplan show")
    assert all(f"'{name}'" in contexts for name in ("offhook", "offhook-queue", "offhook-transfer", "offhook-amd"))
    assert "offhook" in shop.cli("ari show users")
    assert "offhook" in shop.cli("manager show users")
    assert "offhook" in shop.cli("sip show peers")


def test_a_call_reaches_the_application_and_goes_on_to_the_queue(quiet_shop: Asterisk16) -> None:
    heard = quiet_shop.heard_s("desk")
    with Application(quiet_shop) as application:
        quiet_shop.call_in("4930123456")
        start = application.started()
        assert start["args"] == ["did=4930123456"]
        application.give_back(
            start["channel"]["id"],
            {"OFFHOOK_STATUS": "TRANSFER", "OFFHOOK_SUMMARY": "Wants a table"},
            context="offhook-queue",
            extension="office",
            priority="1",
        )
        quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("desk") > heard + 0.5, 30, "tone at the desk")


def test_a_caller_whose_offhook_died_goes_on_to_the_queue(quiet_shop: Asterisk16) -> None:
    heard = quiet_shop.heard_s("desk")
    with Application(quiet_shop) as application:
        quiet_shop.call_in("4930123456")
        channel = application.started()["channel"]["id"]
        application.post(f"/channels/{channel}/answer")
        # As Offhook does while it lives.
        application.post(f"/channels/{channel}/variable", variable="TIMEOUT(absolute)", value="1.000")
        quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("desk") > heard + 0.5, 30, "tone at the desk")


@pytest.mark.parametrize("number", ["700", "701"], ids=["ari", "sip"])
def test_while_offhook_is_down_a_call_lands_in_the_queue(quiet_shop: Asterisk16, number: str) -> None:
    quiet_shop.program.wait_for(lambda: "UNREACHABLE" in quiet_shop.cli("sip show peers"), 30, "peer that is down")
    heard = quiet_shop.heard_s("desk")
    quiet_shop.originate(f"Local/{number}@phones/n", "tone@world")
    quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("desk") > heard + 0.5, 30, "tone at the desk")
