"""Two thousand calls of every bad habit, over a network that loses packets: nothing is left of them."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from bridge_process import BridgeProcess
from soak_callers import Callers, Habit, open_callers

CALLS = 2000
AT_ONCE = 140
WARM_UP = 800

VARIABLES = {
    "OFFHOOK_RTP_FIRST_MEDIA_TIMEOUT_S": "5",
    "OFFHOOK_RTP_MEDIA_TIMEOUT_S": "5",
    # The memory for traces fills up to its bound by design; it must not hide what else grows.
    "OFFHOOK_SIP_TRACE_MB": "1",
    "OFFHOOK_LOG_LEVEL": "error",
}

GONE = ("offhook_calls_live", "offhook_rtp_streams", "offhook_rtp_ports_in_use", "offhook_sip_calls")
"""Gauges that are zero when nobody calls."""

GROWTH_MB = 12.0
"""The allocator's slack and the record's caches; two thousand calls that leave 10 kB each would be 20 MB."""


@pytest.mark.timeout(500)
def test_two_thousand_calls_of_every_kind_leave_nothing_behind(tmp_path: Path) -> None:
    bridge = BridgeProcess(tmp_path / "bridge", t1_ms=100, rtp_ports=4000, variables=VARIABLES)
    try:
        asyncio.run(soak(bridge, WARM_UP, seed=1))
        settle(bridge)
        before = State(bridge)
        outcomes = asyncio.run(soak(bridge, CALLS, seed=2))
        settle(bridge)
        after = State(bridge)
        assert_all_ended_well(outcomes, recorded_causes(bridge))
        assert before.timers == 0
        bridge.wait_for(lambda: State(bridge).is_no_more_than(before), 30, f"return to {vars(before)}")
        assert after.rss_mb - before.rss_mb < GROWTH_MB
        bridge.stop()
    except BaseException:
        bridge.kill()
        raise


def recorded_causes(bridge: BridgeProcess) -> Counter[str]:
    """Of all calls, as soon as every call on record has ended there too."""

    def found() -> Counter[str] | None:
        causes = Counter(call["cause"] for call in bridge.calls())
        return causes if None not in causes else None

    causes: Counter[str] = bridge.wait_for(found, 60, "end of every call on record")
    return causes


def assert_all_ended_well(outcomes: Counter[str], causes: Counter[str]) -> None:
    assert {habit: outcomes[habit] for habit in Habit if outcomes[habit] < 50} == {}, outcomes
    assert outcomes["re-INVITEs"] > 50
    # Cancelled INVITEs that never arrived make no record; every other call has one, and one cause.
    assert causes.total() > 0.95 * (CALLS + WARM_UP), (causes, outcomes)
    for cause in ("caller-hung-up", "api-hung-up", "media-timeout"):
        assert causes[cause] > 50, causes
    assert not causes["internal-error"], causes


async def soak(bridge: BridgeProcess, calls: int, *, seed: int) -> Counter[str]:
    callers: Callers = await open_callers(("127.0.0.1", bridge.sip_port), seed=seed)
    callers.hang_up = lambda call_id: hang_up(bridge, call_id)
    try:
        await callers.call_all(calls, at_once=AT_ONCE)
        await callers.drain(20)
    finally:
        callers.close()
    return callers.outcomes


def hang_up(bridge: BridgeProcess, leg_id: str) -> None:
    for call in bridge.calls(leg_id=leg_id, live=True):
        # It may be ending by itself: then there is nothing to hang up.
        bridge.try_hang_up(call["id"])


def settle(bridge: BridgeProcess) -> None:
    """Wait until calls, streams, ports, dialogs and transactions are gone."""

    def gone() -> bool:
        metrics = bridge.metrics()
        return all(metrics[name] == 0 for name in (*GONE, "offhook_sip_transactions"))

    bridge.wait_for(gone, 60, f"return to zero of {GONE}")


class State:
    """What a process holds on to."""

    def __init__(self, bridge: BridgeProcess) -> None:
        metrics = bridge.metrics()
        self.files = bridge.open_files()
        self.threads = bridge.threads()
        self.tasks = metrics["offhook_event_loop_tasks"]
        self.timers = metrics["offhook_sip_timers"]
        status = Path(f"/proc/{bridge.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        self.rss_mb = int(found[1]) / 1024

    def is_no_more_than(self, before: "State") -> bool:
        """But for memory. A connection of the record's pool or of HTTP may be open at one time and closed at the
        other."""
        return (
            self.tasks <= before.tasks
            and self.timers == 0
            and self.files <= before.files + 3
            and self.threads <= before.threads + 1
        )
