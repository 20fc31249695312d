"""Many calls of SIPp's on one bridge, at once and in a row: all of them end well, and leave nothing behind.

They take all that a small machine has: nothing else may run beside them.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from bridge_process import WAIT_S, BridgeProcess
from sipp_run import Sipp

RunSipp = Callable[..., Sipp]


def wait_for_record(bridge: BridgeProcess, run: Sipp, calls: int) -> None:
    """So many calls of a run, each on record once, each hung up by its caller."""

    def complete() -> bool:
        ours = [call for call in bridge.calls() if call["leg_id"].endswith(f"@{run.port}")]
        return Counter(call["cause"] for call in ours) == {"caller-hung-up": calls}

    bridge.wait_for(complete, WAIT_S, f"record of {calls} calls that their callers hung up")


@pytest.mark.parametrize(
    ("scenario", "calls", "rate"),
    [("call_with_rtp", 20, 1000), ("call_one_second", 100, 25)],
    ids=["burst", "stream"],
)
def test_many_calls_all_end_well(
    own_bridge: Callable[..., BridgeProcess], sipp: RunSipp, scenario: str, calls: int, rate: int
) -> None:
    bridge = own_bridge()
    run = sipp(scenario, bridge.sip_port, calls=calls, rate=rate).finish()
    wait_for_record(bridge, run, calls)
    bridge.wait_until_idle()
    bridge.stop()


def test_two_hundred_calls_in_a_row_leave_no_file_and_no_thread_open(
    own_bridge: Callable[..., BridgeProcess], sipp: RunSipp
) -> None:
    bridge = own_bridge()
    sipp("call_short", bridge.sip_port, calls=20, rate=200, at_once=4).finish()
    bridge.wait_until_idle()
    files, threads = bridge.open_files(), bridge.threads()
    run = sipp("call_short", bridge.sip_port, calls=200, rate=100, at_once=1).finish()
    bridge.wait_until_idle()
    wait_for_record(bridge, run, 200)
    # A connection of the record's pool or of HTTP may be open at one count and closed at the other.
    bridge.wait_for(lambda: bridge.open_files() <= files + 3, WAIT_S, f"return to {files} open files")
    bridge.wait_for(lambda: bridge.threads() <= threads + 1, WAIT_S, f"return to {threads} threads")
    bridge.stop()
