"""How many conversations a box holds: phones with the sample conversation call a real bridge's receptionist.

Delays are what a caller would hear: between voice onsets and ends as the phone's own detector finds them in what came
over the wire, the phone's jitter buffer (some 20 to 40 ms) included. The phones share one process, apart from the
bridge; their voice detection takes CPU of the same box.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.served import Served, quantile, serve
from bridge.audio.clock import MediaClock
from bridge.audio.vad import VoiceActivity
from bridge.events import Cause
from bridge.legs.base import LegError
from bridge.legs.sip_endpoint import SipEndpoint
from bridge.phone import (
    PhoneError,
    PhoneOptions,
    PhoneReport,
    Talk,
    Utterance,
    open_phone,
    sample_conversation,
)

STAGGER_S = 0.7
"""Callers do not ring in chorus."""

STAGES = (
    *("endpoint_ms", "stt_ms", "llm_ms", "tools_ms", "clause_ms", "tts_ms", "playout_ms", "reply_ms"),
    "ahead_ms",
)
"""Of `TurnDelays`: the parts of a reply in their order, the whole, and how far ahead of the decision it was begun."""

CONFIG = """
rtp: {port_min: 20000, port_max: 24999}
limits: {conversations: 200, clock_lateness_ms: 10000}
log: {level: warning}
agents:
  receptionist: {kind: conversation, brief_file: receptionist, record: true}
routes: [{to: agent, agent: receptionist}]
"""
"""Neither limit refuses a call here: how it goes beyond them is to be measured."""

HEADER = (
    f"{'phones':>7}{'reply p50':>10}{'p95':>6}{'n':>5}{'barge-in p50':>13}{'p95':>6}{'n':>4}"
    f"{'greeting p50':>13}{'max':>6}{'CPU %':>7}{'phones %':>9}{'late**':>7}{'failed':>8}"
    "   the bridge's own stages, p50 (p95)"
)
FOOTNOTE = """delays in ms as heard by the phone; CPU %: the bridge with its workers, phones %: theirs, of one core
** the most late step of the bridge's media clock in the last 10 s, ms"""


@dataclass(slots=True)
class PhoneResult:
    """One call, as JSON from the phones' process."""

    call_id: str = ""
    failure: str = ""
    greeting_ms: float | None = None
    reply_ms: list[float] = field(default_factory=list)
    stop_ms: list[float] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.conversation", description=__doc__)
    parser.add_argument("--phones", default="1,2,4,6,8", help="numbers of callers at once (default %(default)s)")
    parser.add_argument("--call", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.call:
        print(json.dumps([asdict(result) for result in asyncio.run(call(options.target, options.call))]))
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
        serve(CONFIG, Path(folder)) as bridge,
    ):
        print("Conversation: the receptionist on embedded engines, phones with the sample conversation", flush=True)
        print(HEADER)
        medians: dict[int, float] = {}
        for phones in (int(number) for number in options.phones.split(",")):
            # Few phones give few replies: they talk more than once.
            medians[phones] = measure(bridge, phones, rounds=2 if phones == 1 else 1)
    print(FOOTNOTE)
    print(verdict(medians))
    return 1 if any(math.isnan(median) for median in medians.values()) else 0


def verdict(medians: dict[int, float]) -> str:
    """From what number of phones on the median reply delay is twice that of the first."""
    first = next(iter(medians.values()))
    if any(math.isnan(median) for median in medians.values()):
        return "no verdict: at some number of phones there was no reply at all"
    doubled = [phones for phones, median in medians.items() if median > 2 * first]
    return f"the median reply delay has doubled at {doubled[0]} phones" if doubled else "the delay did not double"


def measure(bridge: Served, phones: int, rounds: int) -> float:
    """Print one row; returns the median reply delay (ms)."""
    target = f"sip:agent@127.0.0.1:{bridge.sip_port}"
    results: list[PhoneResult] = []
    began, cpu, own = time.monotonic(), bridge.cpu_s(), sum(os.times()[2:4])
    for _ in range(rounds):
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "bench.conversation",
            f"--call={phones}",
            f"--target={target}",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        results += [PhoneResult(**fields) for fields in json.loads(done.stdout)]
    seconds = time.monotonic() - began
    cpu, own = bridge.cpu_s() - cpu, sum(os.times()[2:4]) - own
    replies = [ms for result in results for ms in result.reply_ms]
    stops = [ms for result in results for ms in result.stop_ms]
    greetings = [result.greeting_ms for result in results if result.greeting_ms is not None]
    failures = [result.failure for result in results if result.failure]
    clock = bridge.metrics()["offhook_clock_lateness_max_ms"]
    stages = ", ".join(
        f"{name.removesuffix('_ms')} {quantile(values, 0.5):.0f} ({quantile(values, 0.95):.0f})"
        for name, values in stage_delays(bridge, results).items()
    )
    print(
        f"{phones:>7}{quantile(replies, 0.5):>10.0f}{quantile(replies, 0.95):>6.0f}{len(replies):>5}"
        f"{quantile(stops, 0.5):>13.0f}{quantile(stops, 0.95):>6.0f}{len(stops):>4}"
        f"{quantile(greetings, 0.5):>13.0f}{max(greetings, default=float('nan')):>6.0f}"
        f"{100 * cpu / seconds:>7.0f}{100 * own / seconds:>9.0f}{clock:>7.1f}"
        f"{len(failures):>5}/{len(results)}   {stages}",
        flush=True,
    )
    for failure in failures:
        print(f"        {failure}", flush=True)
    return quantile(replies, 0.5)


def stage_delays(bridge: Served, results: list[PhoneResult]) -> dict[str, list[float]]:
    """The bridge's own account of its replies, by stage."""
    found: dict[str, list[float]] = {name: [] for name in STAGES}
    for result in results:
        with contextlib.suppress(httpx.HTTPError, IndexError):
            known = bridge.json(f"/api/calls?leg_id={result.call_id}&limit=1")["calls"][0]
            turns: list[dict[str, Any]] = bridge.json(f"/api/calls/{known['id']}")["turns"]
            for turn in turns:
                delays = turn["delays"]
                if turn["speaker"] == "agent" and delays["reply_ms"] is not None:
                    for name in STAGES:
                        if delays[name] is not None:
                            found[name].append(delays[name])
    return found


async def call(target: str, count: int) -> list[PhoneResult]:
    """The phones' process: `count` calls at once on one clock."""
    async with contextlib.AsyncExitStack() as stack:
        clock, voice, endpoint = await open_phone(stack, "Offhook bench")
        return await asyncio.gather(*(_phone(number, target, endpoint, clock, voice) for number in range(count)))


async def _phone(
    number: int, target: str, endpoint: SipEndpoint, clock: MediaClock, voice: VoiceActivity
) -> PhoneResult:
    await asyncio.sleep(number * STAGGER_S)
    options = PhoneOptions(
        target=target,
        script=tuple(Utterance(Path(path), cut) for path, cut in sample_conversation()),
        out=None,
        wait_s=20.0,
        api_url="",
        data_dir=Path(),
        from_user=f"bench{number}",
    )
    report, result = PhoneReport(), PhoneResult()
    begun = clock.time()
    try:
        leg = await endpoint.dial(target, from_user=options.from_user, timeout_s=options.wait_s)
    except LegError as error:
        result.failure = str(error)
        return result
    result.call_id = leg.info.id
    talk = Talk(leg, clock, options, report, lambda line: None)
    try:
        await talk.reach_answer(begun)
        talk.attend(voice)
        await talk.hold_conversation()
    except PhoneError as error:
        result.failure = str(error)
    finally:
        await leg.hangup(Cause.AGENT_HUNG_UP)
        talk.close()
    result.greeting_ms, result.reply_ms, result.stop_ms = report.greeting_ms, report.reply_ms, report.stop_ms
    return result


if __name__ == "__main__":
    raise SystemExit(main())
