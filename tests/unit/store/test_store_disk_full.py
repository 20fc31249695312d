"""A disk that fills up under the record, and has space again later."""

import json
import subprocess
import sys

# The limit on a file's size is the kernel's own refusal to write, for root too, and can be lifted again.
SCRIPT = """
import asyncio, json, os, resource, sys, time
from bridge.events import CallEnded, CallStarted, Cause, TurnEnded
from bridge.store.call_log import CallLog
from bridge.store.store import Store

async def main(path):
    store = await Store.open(f"sqlite:///{path}")
    log = CallLog(store, interval_s=0.001)
    log.start()
    log.record("c", CallStarted("inbound", "a", "b", "t", "agent", "sip", "x", 1_790_000_000.0))
    assert await log.settle()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal") + 8192, hard))
    for index in range(200):
        log.record("c", TurnEnded(index, "agent", "x" * 1000, 0.0, 1.0, "x", 1.0))
    deadline = time.monotonic() + 30
    while log.problem is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    problem, queued = log.problem, log.stats.queued
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.record("c", CallEnded(Cause.AGENT_HUNG_UP, "", 1_790_000_009.0, None, {}))
    while not await log.settle():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    lost = await log.flush_and_close()
    history = await store.get_call("c")
    await store.aclose()
    print(json.dumps({
        "problem": problem, "queued": queued, "later": log.problem, "lost": lost, "dropped": log.stats.dropped,
        "rejected": log.stats.rejected, "turns": [turn.index for turn in history.turns], "cause": history.call.cause,
    }))

asyncio.run(main(sys.argv[1]))
"""


def test_what_a_full_disk_refused_is_written_when_there_is_space_again(tmp_path):
    path = tmp_path / "offhook.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert "can't be written" in result["problem"]
    assert result["queued"] > 0
    assert result["later"] is None
    assert (result["lost"], result["dropped"], result["rejected"]) == (0, 0, 0)
    assert result["turns"] == list(range(200))
    assert result["cause"] == "agent-hung-up"
