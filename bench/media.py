"""What bridging costs: N echo calls (G.711 in, jitter buffer, decode, listener, playout, encode, out) on one clock.

`python -m bench.media` prints a table. The bridge runs in a process of its own, without SIP, VAD or recording; the
load comes from this one, over loopback. Gaps are between kernel times of a call's packets.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time

from bench.rtp_load import FOOTNOTE, HEADER, RtpLoad, cpu_seconds, row
from bridge.audio.clock import PHASES, MediaClock
from bridge.audio.codec import PCMU
from bridge.audio.playout import Playout
from bridge.rtp.mux import RtpMux
from bridge.rtp.ports import PortPool
from bridge.rtp.session import RtpFormat, RtpSession

HOST = "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", default="1,50,200,500", help="numbers of calls to measure (default %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="length of each measurement (default %(default)s)"
    )
    parser.add_argument("--phases", type=int, default=PHASES, help="phases of the clock (default %(default)s)")
    parser.add_argument("--gc", choices=("default", "freeze", "off"), default="freeze", help="the bridge's collector")
    parser.add_argument("--bridge", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bridge:
        asyncio.run(echo_bridge(options.phases, options.gc))
        return 0
    print(HEADER)
    for calls in (int(number) for number in options.calls.split(",")):
        measure(calls, options)
    print(FOOTNOTE)
    return 0


def measure(calls: int, options: argparse.Namespace) -> None:
    load = RtpLoad(HOST)
    socks = [load.open() for _ in range(calls)]
    command = [sys.executable, "-m", "bench.media", "--bridge", f"--phases={options.phases}", f"--gc={options.gc}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None

        def ask(question: object) -> dict[str, float | list[int]]:
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            bridge.stdin.write(json.dumps(question) + "\n")
            bridge.stdin.flush()
            answer: dict[str, float | list[int]] = json.loads(bridge.stdout.readline())
            return answer

        ports = ask([sock.getsockname()[1] for sock in socks])["ports"]
        assert isinstance(ports, list)
        for sock, port in zip(socks, ports, strict=True):
            load.add(sock, (HOST, port))
        load.run(3.0, measure=False)
        before = cpu_seconds(bridge.pid)
        result = load.run(options.seconds, measure=True)
        cpu = cpu_seconds(bridge.pid) - before
        stats = ask("stats")
        lateness = stats["lateness_p99_ms"]
        assert isinstance(lateness, float)
        print(row(result, cpu, lateness), flush=True)
        if stats["late"] or stats["lost"]:
            print(f"       in the bridge: {stats['late']} packets late, {stats['lost']} lost", flush=True)
        bridge.stdin.close()
    load.close()


async def echo_bridge(phases: int, collector: str) -> None:
    """The child: answers one line of JSON with another, until its input ends."""
    clock = MediaClock(phases=phases)
    mux = RtpMux()
    clock.before_tick(mux.poll)
    clock.start()
    loop = asyncio.get_running_loop()
    pool = PortPool(HOST, 30000, 39999)
    sessions: list[RtpSession] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        answer: dict[str, object]
        if isinstance(question, list):
            sessions, ports = open_sessions(clock, mux, pool, question)
            answer = {"ports": ports}
            gc.collect()
            if collector == "freeze":
                gc.freeze()
            elif collector == "off":
                gc.disable()
        else:
            answer = {
                "lateness_p99_ms": clock.lateness_p99_ms(),
                "late": sum(session.quality.packets_late for session in sessions),
                "lost": sum(session.quality.packets_lost for session in sessions),
            }
        print(json.dumps(answer), flush=True)


def open_sessions(
    clock: MediaClock, mux: RtpMux, pool: PortPool, remotes: list[int]
) -> tuple[list[RtpSession], list[int]]:
    sessions, ports = [], []
    for remote in remotes:
        pair = pool.allocate(time.monotonic())
        playout = Playout(8000)
        session = RtpSession(
            RtpFormat(PCMU, 0), playout, remote=(HOST, remote), now=clock.time(), on_event=lambda event: None
        )
        generation = playout.begin()

        def echo(frame: bytes, now: float, playout: Playout = playout, generation: int = generation) -> None:
            playout.write(generation, frame)

        session.listen(echo)
        clock.add(mux.open(pair, session, fail), fail)
        sessions.append(session)
        ports.append(pair.port)
    return sessions, ports


def fail(error: Exception) -> None:
    raise error


if __name__ == "__main__":
    sys.exit(main())
