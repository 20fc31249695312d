"""What a call through Asterisk costs: a real Asterisk 22 as `pbx/asterisk/install` sets it up, and `offhook serve`.

    python -m bench.asterisk [--quick] [--calls 1,25,50,100] [--media rtp,websocket] [--profile FILE]

Callers speak SIP and RTP with Asterisk, whose dialplan says `Stasis(offhook,agent=echo)`. Voice detection runs on
every call. Asterisk's own CPU is measured beside ours: on a shared machine the ratio says more than either. How late
the audio is, is measured by `bench.asterisk_delay`, with the same Asterisk.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from bench import asterisk_delay
from bench.bridging import TALKING, talking
from bench.rtp_load import LoadResult, RtpLoad, Wire
from bench.served import Served, process_cpu_s, quantile, serve
from bench.sip_load import SipLoad
from bridge.asterisk.settings import AsteriskSettings, MediaKind

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests/interop"))

from asterisk_shop import AsteriskShop  # noqa: E402
from free_ports import free_port  # noqa: E402

SETUP_RATE = 10.0
"""Calls a second: what a busy PBX of this size sees, not a flood."""
SETTLE_S = 3.0
CONNECT_S = 60.0

NUMBER = "9000"
DIALPLAN = f"[from-carrier](+)\nexten => {NUMBER},1,Stasis(offhook,agent=echo)\n same => n,Hangup()\n"
"""Beside what is shipped, in the file that is the operator's."""

CONFIG = """
rtp: {{port_min: 20000, port_max: 24999}}
limits: {{calls: 2000, clock_lateness_ms: 10000}}
log: {{level: warning}}
agents: {{echo: {{kind: echo}}}}
audiosocket: {{listen: 127.0.0.1, port: {audiosocket}}}
asterisk:
  - {{name: pbx, url: '{url}', username: {user}, password_env: ARI_PASSWORD, media: {media}}}
"""
"""The clock's lateness refuses no call here: it is to be measured."""

HEADER = (
    f"{'media':>12}{'calls':>6}{'up':>5}{'ms CPU/call-s':>14}{'%/call':>7}{'Asterisk':>9}{'%/call':>7}{'ratio':>7}"
    f"{'ARI p50':>8}{'p95':>6}{'answer p50':>11}{'p95':>6}{'200 p50':>8}{'p95':>6}"
    f"{'gap p50':>8}{'p99':>6}{'p99.9':>6}{'max':>6}{'lost':>6}{'short':>6}{'rx lost':>8}{'late':>5}"
    f"{'ticks late':>11}{'late*':>6}"
)
FOOTNOTE = f"""ms CPU/call-s, %/call: CPU time of the bridge in a second of a call, and in % of one core; then
Asterisk's own; ratio: ours to Asterisk's in the same seconds (CPU is counted in steps of 10 ms: coarse for one)
ARI: from our first request for the audio until it can flow; answer: StasisStart to answered, ours; 200: the caller's
INVITE to its 200, Asterisk's part included; ms. Calls come at {SETUP_RATE:.0f} a second.
gaps: between kernel arrival times of a caller's packets, ms; lost: by Asterisk's sequence numbers, at the callers
short: packets that callers sent, less those that came back meanwhile: lost on the way there and back; by
WebSocket holes too, 20 ms in which Asterisk had no frame when it wanted one, after which all comes that much later
rx lost, late: as the bridge counts what Asterisk sent it, all the call long
ticks late: steps of the media clock that began 10 ms late or more, of all, while measuring
* packets that the load generator itself sent more than 5 ms late
Bridge, Asterisk and callers share this machine's few cores with whatever else runs on it: compare CPU time and
ratios of one run, not wall time; gaps, delays and losses grow with the machine's load, not only with ours."""


@dataclass(frozen=True, slots=True)
class Pbx:
    """The Asterisk of a run."""

    shop: AsteriskShop

    @property
    def sip(self) -> tuple[str, int]:
        return "127.0.0.1", self.shop.sip_port

    def cpu_s(self) -> float:
        return process_cpu_s(self.shop.program.process.pid)


@contextlib.contextmanager
def asterisk() -> Iterator[Pbx]:
    """Run it until the context is left; fetched first where it is not in the user's cache."""
    with tempfile.TemporaryDirectory(prefix="offhook-bench-asterisk-") as folder:
        # Its RTP ports as shipped: what tests have is too little, as a call takes four.
        shop = AsteriskShop(Path(folder), dialplan=DIALPLAN, replaced={"rtp.conf": []})
        try:
            yield Pbx(shop)
        finally:
            shop.stop()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.asterisk", description=__doc__)
    parser.add_argument("--calls", default="1,25,50,100", help="numbers of calls (default %(default)s)")
    parser.add_argument(
        "--media", default="rtp,websocket", help="kinds (default %(default)s, AudioSocket at 25 calls)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default %(default)s)")
    parser.add_argument("--delay-calls", type=int, default=25, help="of the measurement of delays; 0: none")
    parser.add_argument("--quick", action="store_true", help="few calls, for less long: a first look, no result")
    parser.add_argument("--profile", type=Path, help="where to write a profile of the bridge in the last row")
    options = parser.parse_args(arguments)
    rows = [(media, int(calls)) for media in options.media.split(",") for calls in options.calls.split(",")]
    if options.media == parser.get_default("media") and options.calls == parser.get_default("calls"):
        rows.append(("audiosocket", 25))
    if options.quick:
        rows, options.seconds, options.delay_calls = [("rtp", 10), ("websocket", 10)], 3.0, 5
    payloads = talking(60)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"Asterisk: echo agent, voice detection on, callers talk {TALKING * 100:.0f} % of the time; load: {load}")
    with asterisk() as pbx:
        print(HEADER, flush=True)
        for media, calls in rows:
            profile = options.profile if (media, calls) == rows[-1] else None
            with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder:
                print(measure(pbx, media, calls, options.seconds, Wire(payloads), Path(folder), profile), flush=True)
        print(FOOTNOTE, flush=True)
        if options.delay_calls:
            print(f"\nDelay: frame by frame, both ways at once\n{asterisk_delay.HEADER}", flush=True)
            for media in dict.fromkeys(media for media, _ in rows):
                print(delay(pbx, media, options.delay_calls, options.seconds, 2 if options.quick else 8), flush=True)
            print(asterisk_delay.FOOTNOTE)
    return 0


def delay(pbx: Pbx, media: str, calls: int, seconds: float, cuts: int) -> str:
    """One row."""
    shop = pbx.shop
    settings = AsteriskSettings(
        name="pbx",
        url=shop.ari_url,
        username=shop.username,
        password_env=asterisk_delay.PASSWORD,
        media=cast(MediaKind, media),
    )

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def run(file: Path) -> str:
        bench = asterisk_delay.Bench(settings, shop.password, free_port())
        return await asterisk_delay.measure(bench, shop.sip_port, NUMBER, calls, SETUP_RATE, seconds, cuts, file)

    with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder:
        row = asyncio.run(run(Path(folder) / "heard"))
    shop.assert_empty()
    return row


def measure(
    pbx: Pbx, media_kind: str, calls: int, seconds: float, wire: Wire, folder: Path, profile: Path | None
) -> str:
    """One row."""
    config = CONFIG.format(audiosocket=free_port(), url=pbx.shop.ari_url, user=pbx.shop.username, media=media_kind)
    with serve(config, folder, variables={"ARI_PASSWORD": pbx.shop.password}, profile=profile) as bridge:
        _wait_until_connected(bridge)
        media = RtpLoad(wire=wire)
        sip = SipLoad(pbx.sip, NUMBER, media, calls, SETUP_RATE)
        try:
            media.run(calls / SETUP_RATE + 1.0, measure=False, poll=sip.poll, poll_slots=1)
            media.run(SETTLE_S, measure=False, poll=sip.poll, poll_slots=10)
            before = bridge.metrics()
            media.run(1.0, measure=False)
            cpu = -bridge.cpu_s(), -pbx.cpu_s()
            result = media.run(seconds, measure=True)
            cpu = cpu[0] + bridge.cpu_s(), cpu[1] + pbx.cpu_s()
            after = bridge.metrics()
            ended = sip.hang_up()
        finally:
            sip.close()
            media.close()
        pbx.shop.assert_empty()
        setups = _setups(bridge, calls)
        row = _row(media_kind, calls, sip, result, cpu, setups, (before, after, bridge.metrics()))
    return row + ("" if ended == sip.up else f"\n       only {ended} of {sip.up} BYEs were confirmed")


def _wait_until_connected(bridge: Served) -> None:
    until = time.monotonic() + CONNECT_S
    while bridge.json("/api/asterisk")["asterisks"][0]["state"] != "up":
        if time.monotonic() > until:
            raise RuntimeError(f"the bridge does not reach Asterisk: {bridge.json('/api/asterisk')}")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Setups:
    """Of the calls of a row, ms."""

    ari_ms: list[float]
    answer_ms: list[float]


def _setups(bridge: Served, calls: int) -> Setups:
    ari, answer = [], []
    for call in bridge.calls(calls):
        if call["setup_ms"] is not None:
            answer.append(float(call["setup_ms"]))
        for event in bridge.json(f"/api/calls/{call['id']}")["events"]:
            if event["name"] == "media_set_up":
                ari.append(float(event["data"]["took_ms"]))
    return Setups(ari, answer)


def _row(
    media_kind: str,
    calls: int,
    sip: SipLoad,
    result: LoadResult,
    cpu: tuple[float, float],
    setups: Setups,
    metrics: tuple[dict[str, float], dict[str, float], dict[str, float]],
) -> str:
    before, after, fates = metrics

    def stepped(name: str) -> int:
        return int(after[f"offhook_clock_{name}_total"] - before[f"offhook_clock_{name}_total"])

    def fate(name: str, of: dict[str, float] = fates) -> int:
        return int(of.get(f'offhook_rtp_packets_total{{fate="{name}"}}', 0))

    each = [1000 * part / (max(1, sip.up) * result.seconds) for part in cpu]
    ratio = each[0] / each[1] if each[1] else float("nan")
    late = f"{stepped('late_steps') + stepped('skipped_steps')}/{stepped('steps')}"
    times = [
        f"{quantile(values, 0.5):>{first}.1f}{quantile(values, 0.95):>6.1f}"
        for values, first in ((setups.ari_ms, 8), (setups.answer_ms, 11), (sip.counts.setup_ms, 8))
    ]
    line = (
        f"{media_kind:>12}{calls:>6}{sip.up:>5}{each[0]:>14.2f}{each[0] / 10:>7.2f}"
        f"{each[1]:>9.2f}{each[1] / 10:>7.2f}{ratio:>7.2f}{''.join(times)}"
        f"{result.gap_p50_ms:>8.1f}{result.gap_p99_ms:>6.1f}{result.gap_p999_ms:>6.1f}{result.gap_max_ms:>6.1f}"
        f"{result.lost:>6}{result.sent - result.received:>6}{fate('lost'):>8}{fate('late'):>5}{late:>11}"
        f"{result.late_sends:>6}"
    )
    if sip.counts.refused:
        line += f"\n       refused: {sorted(set(sip.counts.refused))}, {len(sip.counts.refused)} calls"
    return line


if __name__ == "__main__":
    raise SystemExit(main())
