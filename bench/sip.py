"""`make bench-sip`: what a trunk asks of the bridge: calls set up a second, concurrent calls by codec and with SRTP,
and what a bad network does to them.

Set-up is judged by SIPp, an independent caller; media by our own generator, which counts every packet. Both run on
the same cores as the bridge: CPU is the bridge's own, and where the generator was the limit its column says so.
"""

import argparse
import base64
import csv
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pylibsrtp import Policy, Session

from bench.bridging import CONFIG, FOOTNOTE, HEADER, measure, talking
from bench.rtp_load import Cipher, Wire
from bench.served import Served, serve
from bench.sip_load import PCMU_FORMATS, Offer
from bridge.audio.codec import find_codec

SCENARIO = Path(__file__).parent.parent / "tests/interop/sipp/call_short.xml"

SUITE = "AES_CM_128_HMAC_SHA1_80"

_KEY = bytes(range(30))

_crypto = re.compile(rf"a=crypto:\d+ {SUITE} inline:([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way for calls to carry their media."""

    name: str
    encoding: str
    clock_rate: int
    payload_type: int
    formats: str


KINDS = {
    "PCMU": Kind("PCMU", "PCMU", 8000, 0, PCMU_FORMATS),
    "PCMA": Kind("PCMA", "PCMA", 8000, 8, "RTP/AVP 8\r\na=rtpmap:8 PCMA/8000"),
    "G722": Kind("G722", "G722", 8000, 9, "RTP/AVP 9\r\na=rtpmap:9 G722/8000"),
    "L16": Kind("L16", "L16", 16000, 97, "RTP/AVP 97\r\na=rtpmap:97 L16/16000"),
    "opus": Kind(
        "opus", "OPUS", 48000, 111, "RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1"
    ),
    "SRTP": Kind(
        "PCMU over SRTP", "PCMU", 8000, 0,
        f"RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\na=crypto:1 {SUITE} inline:{base64.b64encode(_KEY).decode()}",
    ),
}  # fmt: skip


class _SrtpCall:
    """One caller's SRTP: its own key for what it sends, the answer's for what it gets."""

    def __init__(self, answer: str) -> None:
        found = _crypto.search(answer)
        if found is None:
            raise ValueError(f"the answer has no key: {answer!r}")
        self._out = _srtp(_KEY, Policy.SSRC_ANY_OUTBOUND)
        self._in = _srtp(base64.b64decode(found[1]), Policy.SSRC_ANY_INBOUND)

    def protect(self, packet: bytes) -> bytes:
        return self._out.protect(packet)

    def unprotect(self, packet: bytes) -> bytes:
        return self._in.unprotect(packet)


def _srtp(key: bytes, kind: int) -> Session:
    return Session(Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AES128_CM_SHA1_80))


def _cipher(answer: str) -> Cipher:
    return _SrtpCall(answer)


# -- set-up -------------------------------------------------------------------------------------------------


def setup(rates: list[int], seconds: int) -> None:
    """Calls that are set up and hung up at once, at growing rates."""
    sipp = shutil.which("sipp")
    if sipp is None:
        raise SystemExit("SIPp is not installed: apt-get install sip-tester")
    print(f"\nSet-up: calls to the echo agent by SIPp for {seconds} s each, hung up at once")
    print(
        f"{'calls/s':>8}{'done':>7}{'failed':>8}{'sent again':>12}{'ms CPU/call':>13}{'CPU %':>7}{'SIPp CPU %':>12}"
    )
    for rate in rates:
        with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder, serve(CONFIG, Path(folder)) as bridge:
            print(_setup_row(sipp, bridge, rate, seconds, Path(folder)), flush=True)


def _setup_row(sipp: str, bridge: Served, rate: int, seconds: int, folder: Path) -> str:
    calls = rate * seconds
    command = [sipp, f"127.0.0.1:{bridge.sip_port}", "-sf", str(SCENARIO), "-i", "127.0.0.1", "-m", str(calls)]
    command += ["-r", str(rate), "-l", str(calls), "-nostdin", "-timeout", str(seconds + 40), "-trace_stat"]
    command += ["-stf", str(folder / "stat.csv")]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = bridge.cpu_s()
    with (folder / "sipp.log").open("wb") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False)
    cpu = bridge.cpu_s() - cpu
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    with (folder / "stat.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    done, failed = int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])
    return (
        f"{rate:>8}{done:>7}{failed:>8}{int(last['Retransmissions(C)']):>12}{cpu * 1000 / max(1, done):>13.2f}"
        f"{100 * cpu / seconds:>7.0f}{100 * own / seconds:>12.0f}"
    )


# -- media --------------------------------------------------------------------------------------------------


def media(kinds: list[str], counts: list[int], seconds: float) -> None:
    """Concurrent calls, voice detection on."""
    print(
        f"\nConcurrent calls for {seconds:.0f} s each: echo agent, voice detection on, callers talk 40 % of the time"
    )
    for name in kinds:
        kind = KINDS[name]
        codec = find_codec(kind.encoding, kind.clock_rate)
        if codec is None:
            print(f"{kind.name}: not on this machine")
            continue
        wire = Wire(talking(20, codec), kind.payload_type, codec.clock_rate // 50)
        print(f"{kind.name}\n{HEADER}")
        for calls in counts:
            with (
                tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
                serve(CONFIG, Path(folder)) as bridge,
            ):
                offer = Offer(kind.formats, _cipher if name == "SRTP" else None)
                print(measure(bridge, calls, seconds, wire, offer), flush=True)
    print(FOOTNOTE)


# -- bad networks -------------------------------------------------------------------------------------------


def networks(losses: list[float], jitter_ms: int, calls: int, seconds: float) -> None:
    """G.711 calls over a network that loses and delays, made in the generator."""
    print(
        f"\nBad networks: {calls} G.711 calls for {seconds:.0f} s each; jitter: late by 0 to {jitter_ms} ms at random"
    )
    print(
        f"{'loss %':>7}{'jitter':>8}{'lost %':>8}{'late %':>8}{'concealed %':>13}{'jitter ms':>11}{'buffer ms':>11}"
        f"{'MOS':>7}{'expected':>10}"
    )
    payloads = talking(20)
    for loss, jitter in [(0.0, 0), (0.0, jitter_ms), *((loss, jitter_ms) for loss in losses)]:
        with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder, serve(CONFIG, Path(folder)) as bridge:
            measure(bridge, calls, seconds, Wire(payloads, loss=loss, jitter_ms=jitter))
            found = bridge.json(f"/api/calls?limit={min(200, calls)}")["calls"]
        print(_network_row(loss, jitter, [call["quality"] for call in found if call["quality"]]), flush=True)
    print("medians over the calls; expected: by G.107 for G.711 with concealment, of the loss sent and the delay")


def _network_row(loss: float, jitter: int, qualities: list[dict[str, float]]) -> str:
    def median(name: str) -> float:
        values = [quality[name] for quality in qualities if quality.get(name) is not None]
        return statistics.median(values) if values else float("nan")

    packets = max(1.0, median("packets_received") + median("packets_lost"))
    delay = median("buffer_ms") + 20
    return (
        f"{100 * loss:>7.0f}{jitter:>8}{100 * median('packets_lost') / packets:>8.1f}"
        f"{100 * median('packets_late') / packets:>8.1f}{median('concealed_ms') / packets / 20 * 100:>13.1f}"
        f"{median('jitter_ms'):>11.1f}{median('buffer_ms'):>11.0f}{median('mos'):>7.2f}"
        f"{expected_mos(loss, delay):>10.2f}"
    )


def expected_mos(loss: float, delay_ms: float) -> float:
    """G.711 with packet loss concealment (ITU-T G.107, G.113: Ie 0, Bpl 25.1), random loss, one-way delay."""
    impairment = 95 * (100 * loss) / (100 * loss + 25.1)
    r = 93.2 - impairment - 0.024 * delay_ms - 0.11 * max(0.0, delay_ms - 177.3)
    return 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6 if r > 0 else 1.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sip", description=__doc__)
    parser.add_argument("--rates", default="25,50,75,100,150", help="calls a second (default %(default)s)")
    parser.add_argument("--calls", default="50,200,500", help="concurrent calls (default %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="codecs (default %(default)s)")
    parser.add_argument("--losses", default="0.01,0.05,0.2", help="parts of packets lost (default %(default)s)")
    parser.add_argument("--jitter", type=int, default=30, help="ms (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (default %(default)s)")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    if rates := [int(rate) for rate in options.rates.split(",") if rate]:
        setup(rates, int(options.seconds))
    if counts := [int(number) for number in options.calls.split(",") if number]:
        media([kind for kind in options.kinds.split(",") if kind], counts, options.seconds)
    if losses := [float(loss) for loss in options.losses.split(",") if loss]:
        networks(losses, options.jitter, 20, options.seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
