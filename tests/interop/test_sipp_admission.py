"""SIPp as a caller who has to prove who he is, finds the trunk full, or is nobody we know."""

from collections.abc import Callable, Iterator

import pytest
from bridge_process import BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

USERS = """\
trunks:
  - {name: phones, users: [{username: alice, password_env: OFFHOOK_TEST_PASSWORD}]}
guard: {failures: 1000}
"""
SMALL = """\
trunks:
  - {name: small, networks: [127.0.0.0/8], calls: 1}
"""
STRANGERS = """\
trunks:
  - {name: elsewhere, networks: [192.0.2.0/24]}
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """A bridge that takes calls from its users alone."""
    # SIPp reads the first challenge alone, and knows MD5 alone.
    sip = ", allow_from: [], nonce_s: 5, digest: [MD5, SHA-256]"
    folder = tmp_path_factory.mktemp("bridge") / "box"
    process = BridgeProcess(folder, sip=sip, more=USERS, variables={"OFFHOOK_TEST_PASSWORD": "sesame"})
    try:
        yield process
        process.wait_until_idle()
        process.stop()
    finally:
        process.kill()


@pytest.mark.parametrize("scenario", ["digest_right", "digest_stale"])
def test_caller_who_proves_who_he_is_gets_through(guarded: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, guarded.sip_port).finish()
    (call,) = guarded.calls(leg_id=run.call_id())
    assert (guarded.wait_until_ended(call["id"])["cause"], call["trunk"]) == ("caller-hung-up", "phones")


@pytest.mark.parametrize("scenario", ["digest_wrong", "digest_unknown_user"])
def test_caller_who_does_not_is_not_let_in(guarded: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, guarded.sip_port).finish()
    assert guarded.calls(leg_id=run.call_id()) == []


def test_trunk_that_has_its_fill_gets_503(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(more=SMALL)
    run = sipp("call_long", bridge.sip_port)
    bridge.wait_for_live(run.call_id())
    sipp("refused_trunk_full", bridge.sip_port).finish()
    run.finish()
    sipp("call_short", bridge.sip_port).finish()
    bridge.wait_until_idle()
    bridge.stop()


def test_stranger_gets_403(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(sip=", allow_from: []", more=STRANGERS)
    run = sipp("stranger_refused", bridge.sip_port).finish()
    sipp("stranger_options", bridge.sip_port).finish()
    assert bridge.calls(leg_id=run.call_id()) == []
    bridge.wait_until_idle()
    bridge.stop()
