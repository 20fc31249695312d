"""SIPp as a caller who has to prove who he is, finds the trunk full, or is nobody we know."""

import re
from collections.abc import Callable, Iterator
from hashlib import md5

import pytest
from bare_peer import BarePeer
from bridge_process import WAIT_S, BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]

USERS = """\
trunks:
  - {name: phones, users: [{username: alice, password_env: OFFHOOK_TEST_PASSWORD}]}
guard: {failures: 1000}
"""
SLOW = """\
trunks:
  - {name: slow, networks: [127.0.0.0/8], calls_per_s: 0.01}
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
    call = guarded.one_call(run.call_id())
    assert (guarded.wait_until_ended(call["id"])["cause"], call["trunk"]) == ("caller-hung-up", "phones")


@pytest.mark.parametrize("scenario", ["digest_wrong", "digest_unknown_user"])
def test_caller_who_does_not_is_not_let_in(guarded: BridgeProcess, sipp: RunSipp, scenario: str) -> None:
    run = sipp(scenario, guarded.sip_port).finish()
    assert guarded.calls(leg_id=run.call_id()) == []


def test_credentials_of_one_call_open_no_other(guarded: BridgeProcess, sipp: RunSipp) -> None:
    with BarePeer(guarded.sip_port) as peer:
        (nonce,) = re.findall(r'nonce="([^"]+)", algorithm=MD5', peer.ask())
    uri = f"sip:echo@127.0.0.1:{guarded.sip_port}"
    secret, request = (md5(text.encode()).hexdigest() for text in ("alice:offhook:sesame", f"INVITE:{uri}"))
    response = md5(f"{secret}:{nonce}:00000001:abc:auth:{request}".encode()).hexdigest()
    credentials = (
        f'Digest username="alice", realm="offhook", nonce="{nonce}", uri="{uri}", algorithm=MD5, '
        f'response="{response}", qop=auth, nc=00000001, cnonce="abc"'
    )
    first = sipp("digest_given", guarded.sip_port, keys={"credentials": credentials}).finish()
    assert guarded.one_call(first.call_id())["trunk"] == "phones"
    again = sipp("digest_replayed", guarded.sip_port, keys={"credentials": credentials}).finish()
    assert guarded.calls(leg_id=again.call_id()) == []


@pytest.mark.parametrize(
    ("limit", "value", "detail"),
    [
        ("CALLS_PER_S", "0.01", "more than 0.01 calls a second (limits.calls_per_s)"),
        ("CALLS", "1", "1 calls are live (limits.calls)"),
    ],
)
def test_box_that_has_its_fill_gets_503(
    own_bridge: Callable[..., BridgeProcess], sipp: RunSipp, limit: str, value: str, detail: str
) -> None:
    bridge = own_bridge(variables={f"OFFHOOK_LIMITS_{limit}": value, "OFFHOOK_LIMITS_RETRY_AFTER_S": "7"})
    first = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(first.call_id())
    run = sipp("refused_trunk_full", bridge.sip_port).finish()
    (refused,) = run.received("SIP/2.0 503")
    assert "Retry-After: 7" in refused
    call = bridge.one_call(run.call_id())
    assert (call["cause"], call["detail"]) == ("refused-busy", detail)
    # What comes too fast may come later; a full box is better not asked at all.
    sipp("options" if limit == "CALLS_PER_S" else "options_draining", bridge.sip_port).finish()
    bridge.hang_up(call_id)
    first.finish()
    bridge.wait_until_idle()
    sipp("options", bridge.sip_port).finish()
    bridge.stop()


def test_trunk_whose_calls_come_too_fast_gets_503(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(more=SLOW)
    sipp("call_short", bridge.sip_port).finish()
    run = sipp("refused_trunk_full", bridge.sip_port).finish()
    call = bridge.one_call(run.call_id())
    assert call["detail"] == "more than 0.01 calls a second on trunk slow (calls_per_s)"
    (trunk,) = bridge.trunks()
    assert (trunk["attempts"], trunk["refused"]) == (2, 1)
    bridge.wait_until_idle()
    bridge.stop()


def test_box_whose_media_runs_late_gets_503(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    # No clock is that good: the first call's own media brings the lateness that keeps others away.
    bridge = own_bridge(variables={"OFFHOOK_LIMITS_CLOCK_LATENESS_MS": "0.001"})
    run = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    bridge.wait_for(lambda: any("refusing new calls" in line for line in bridge.said), WAIT_S, "lateness in the log")
    refused = sipp("refused_trunk_full", bridge.sip_port).finish()
    sipp("options_draining", bridge.sip_port).finish()
    call = bridge.one_call(refused.call_id())
    assert call["detail"].startswith("the media clock runs ")
    assert bridge.call(call_id)["state"] == "up"
    bridge.hang_up(call_id)
    run.finish()
    bridge.wait_until_idle()
    bridge.stop()


def test_trunk_that_has_its_fill_gets_503(own_bridge: Callable[..., BridgeProcess], sipp: RunSipp) -> None:
    bridge = own_bridge(more=SMALL)
    run = sipp("hung_up_by_bridge", bridge.sip_port)
    call_id = bridge.wait_for_live(run.call_id())
    sipp("refused_trunk_full", bridge.sip_port).finish()
    bridge.hang_up(call_id)
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
