"""What the whole bridge costs per bridged call: N SIP calls to the echo agent of a real `offhook serve`.

Callers talk 40 % of the time (recorded speech over line noise), the voice detector runs on every call. Gaps are those
between kernel arrival times of a call's packets, so the generator's own reading does not blur them.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bench.rtp_load import LoadResult, RtpLoad, Wire
from bench.served import Served, quantile, serve
from bench.sip_load import Offer, SipLoad
from bench.vad_signals import RATE, level, read_wav
from bridge.audio.codec import PCMU, Codec
from bridge.audio.resample import Resampler

SETUP_RATE = 50.0
SETTLE_S = 3.0
TALKING = 0.4

CONFIG = """
rtp: {port_min: 20000, port_max: 24999}
limits: {calls: 2000, clock_lateness_ms: 10000}
log: {level: warning}
agents: {echo: {kind: echo}}
routes: [{to: echo, agent: echo}]
"""
"""The clock's lateness refuses no call here: it is to be measured."""

HEADER = (
    f"{'calls':>6}{'up':>5}{'ms CPU/call-s':>14}{'CPU %':>7}{'gap p50':>8}{'p99':>7}{'p99.9':>7}{'max':>7}{'lost':>6}"
    f"{'rx lost':>8}{'rx late':>8}{'ticks late':>11}{'MB/call':>9}{'set-up p50':>11}{'p99':>7}{'again':>6}"
    f"{'late*':>7}"
)
FOOTNOTE = """gaps and set-up in ms; lost: sent by the bridge, not arrived; rx: as the bridge counts what we sent
ticks late: steps of the media clock that began 10 ms late or more, of all, while measuring
again: INVITEs, BYEs and 200s that had to be sent again
* packets that the load generator itself sent more than 5 ms late (they delay no packet of the bridge's)"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bridging", description=__doc__)
    parser.add_argument("--calls", default="1,50,200,500", help="numbers of calls (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (default %(default)s)")
    options = parser.parse_args(arguments)
    payloads = talking(60)
    print(f"Bridging: echo agent, G.711, voice detection on, callers talk {TALKING * 100:.0f} % of the time")
    print(HEADER)
    for calls in (int(number) for number in options.calls.split(",")):
        with (
            tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
            serve(CONFIG, Path(folder)) as bridge,
        ):
            print(measure(bridge, calls, options.seconds, Wire(payloads)), flush=True)
    print(FOOTNOTE)
    return 0


def measure(bridge: Served, calls: int, seconds: float, wire: Wire, offer: Offer = Offer()) -> str:  # noqa: B008
    """One row."""
    media = RtpLoad(wire=wire)
    sip = SipLoad(("127.0.0.1", bridge.sip_port), "echo", media, calls, SETUP_RATE, offer)
    try:
        memory = bridge.rss_mb()
        media.run(calls / SETUP_RATE + 1.0, measure=False, poll=sip.poll, poll_slots=1)
        media.run(SETTLE_S, measure=False, poll=sip.poll, poll_slots=10)
        steps = bridge.metrics()
        media.run(1.0, measure=False)
        cpu = bridge.cpu_s()
        result = media.run(seconds, measure=True)
        cpu = bridge.cpu_s() - cpu
        after = bridge.metrics()
        memory = bridge.rss_mb() - memory
        ended = sip.hang_up()
        fates = bridge.metrics()
    finally:
        sip.close()
        media.close()
    return _row(calls, sip, result, cpu, memory, steps, after, fates) + (
        "" if ended == sip.up else f"\n       only {ended} of {sip.up} BYEs were confirmed"
    )


def _row(
    calls: int,
    sip: SipLoad,
    result: LoadResult,
    cpu: float,
    memory: float,
    before: dict[str, float],
    after: dict[str, float],
    fates: dict[str, float],
) -> str:
    def stepped(name: str) -> int:
        return int(after[f"offhook_clock_{name}_total"] - before[f"offhook_clock_{name}_total"])

    def fate(name: str) -> int:
        return int(fates.get(f'offhook_rtp_packets_total{{fate="{name}"}}', 0))

    counts = sip.counts
    again = counts.invites_repeated + counts.byes_repeated + counts.finals_repeated
    late = f"{stepped('late_steps') + stepped('skipped_steps')}/{stepped('steps')}"
    line = (
        f"{calls:>6}{sip.up:>5}"
        f"{cpu * 1000 / (max(1, sip.up) * result.seconds):>14.2f}{100 * cpu / result.seconds:>7.0f}"
        f"{result.gap_p50_ms:>8.1f}{result.gap_p99_ms:>7.1f}{result.gap_p999_ms:>7.1f}{result.gap_max_ms:>7.1f}"
        f"{result.lost:>6}{fate('lost'):>8}{fate('late'):>8}{late:>11}{memory / calls:>9.2f}"
        f"{quantile(counts.setup_ms, 0.5):>11.0f}{quantile(counts.setup_ms, 0.99):>7.0f}{again:>6}"
        f"{result.late_sends:>7}"
    )
    if counts.refused:
        line += f"\n       refused: {sorted(set(counts.refused))}, {len(counts.refused)} calls"
    return line


def talking(seconds: int, codec: Codec = PCMU) -> list[bytes]:
    """A caller of the sample conversation who talks 40 % of the time, as 20 ms payloads."""
    sample = Path(__file__).parent.parent / "bridge/sample"
    speech = np.concatenate([read_wav(path) for path in sorted(sample.glob("*.wav"))])
    rng = np.random.default_rng(7)
    line = rng.normal(0, level(-62), seconds * RATE)
    at = 0
    while at < len(line):
        count = min(int(rng.uniform(1.0, 4.0) * RATE), len(line) - at)
        start = int(rng.integers(0, len(speech) - count))
        line[at : at + count] = speech[start : start + count]
        at += int(count / TALKING)
    encode = codec.encoder()
    pcm = np.clip(line, -32768, 32767).astype(np.int16).tobytes()
    if codec.sample_rate != RATE:
        pcm = Resampler(RATE, codec.sample_rate).process(pcm)
    size = codec.sample_rate // 50 * 2
    return [encode(pcm[i : i + size]) for i in range(0, len(pcm) - size + 1, size)]


if __name__ == "__main__":
    raise SystemExit(main())
