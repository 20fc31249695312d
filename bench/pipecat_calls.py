"""The same AI calls through Pipecat's own Telnyx bot and through the bridge, on the same providers, as a ratio.

    python -m bench.pipecat_calls [--calls 1,5,10]

The bot is what Pipecat's generator writes (`bench/peers/pipecat_bot.py`), run by its own runner in an environment of
its own; one process takes all calls, over Telnyx's media streams, which the callers here speak as the carrier does.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.ai_calls import configuration, measure
from bench.ai_load import Replies, Script, script
from bench.ai_standins import KEYS, VOICE, Providers, providers
from bench.peers.pipecat_env import pipecat_python
from bench.rtp_load import Stream, cpu_seconds
from bench.served import quantile, serve
from bridge.agents.remote_dialect import StreamFacts, TelnyxDialect

BOT = Path(__file__).parent / "peers/pipecat_bot.py"
START_S = 120.0
APART_S = 0.5
"""Between two calls' beginnings: each makes a pipeline and loads a voice detector."""
SETTLE_S = 12.0
FRAME_S = 0.02

HEADER = (
    f"{'calls':>6}{'':>10}{'ms CPU/call-s':>14}{'CPU %':>7}{'MB':>7}{'reply p50':>10}{'p95':>7}{'n':>5}{'none':>5}"
    f"{'callers %':>10}"
)


@contextlib.contextmanager
def bot(at: Providers, folder: Path) -> Iterator[tuple[int, int]]:
    """Pipecat's runner with the bot: its process and its port. Raises RuntimeError where it does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | KEYS
    environment |= {
        "DEEPGRAM_URL": at.deepgram.replace("http", "ws", 1),
        "OPENAI_URL": at.openai,
        "ELEVENLABS_URL": at.elevenlabs.replace("http", "ws", 1),
        "ELEVENLABS_VOICE": VOICE,
        "TELNYX_API_KEY": "key",
    }
    log = folder / "bot.log"
    command = [pipecat_python(), BOT, "-t", "telnyx", "-x", "bot.invalid", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            until = time.monotonic() + START_S
            while "Uvicorn running" not in log.read_text(errors="replace"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Pipecat did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.2)
            yield process.pid, port
        finally:
            # At once: to each call's end it would ask Telnyx itself to hang up.
            process.kill()
            process.wait()


class Caller:
    """One call, as Telnyx brings it."""

    def __init__(self, number: int, spoken: Script, replies: Replies) -> None:
        self._spoken = spoken
        self._shift = number * 997 % len(spoken.payloads)
        self._replies = replies
        # Replies are kept by stream; this one has no socket of its own to send on.
        self._stream = Stream(socket.socket(), ("", 0))
        self._stream.sock.close()
        facts = StreamFacts(f"{number + 1:032x}", f"{number + 1:032x}", "+4930123", "+4930456", "PCMU", 8000)
        self._dialect = TelnyxDialect(facts)
        self.gone = False

    async def run(self, port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/ws", compression=None, max_queue=None) as bot_socket:
            for message in self._dialect.begin():
                await bot_socket.send(message)
            listening = asyncio.create_task(self._listen(bot_socket))
            try:
                await self._speak(bot_socket)
            except ConnectionClosed:
                self.gone = True
            finally:
                listening.cancel()

    async def _speak(self, bot_socket: ClientConnection) -> None:
        payloads = self._spoken.payloads
        begun = time.monotonic()
        for number in range(1 << 40):
            place = (number + self._shift) % len(payloads)
            await bot_socket.send(self._dialect.media(payloads[place], number * 20))
            self._replies.sent(self._stream, place)
            await asyncio.sleep(max(0.0, begun + (number + 1) * FRAME_S - time.monotonic()))

    async def _listen(self, bot_socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for raw in bot_socket:
                message = json.loads(raw)
                if message.get("event") == "media":
                    payload = base64.b64decode(message["media"]["payload"])
                    self._replies.came(self._stream, payload, time.time())


@dataclass(frozen=True, slots=True)
class Row:
    calls: int
    cpu_ms: float
    """Of a call-second."""

    def said(self, who: str, cpu_percent: float, memory_mb: float, replies: Replies, callers_percent: float) -> str:
        return (
            f"{self.calls:>6}{who:>10}{self.cpu_ms:>14.1f}{cpu_percent:>7.0f}{memory_mb:>7.0f}"
            f"{quantile(replies.ms, 0.5):>10.0f}{quantile(replies.ms, 0.95):>7.0f}{len(replies.ms):>5}"
            f"{replies.missing:>5}{callers_percent:>10.0f}"
        )


async def through_pipecat(pid: int, port: int, numbers: list[int], seconds: float, spoken: Script) -> list[Row]:
    """Calls are added until there are as many as are wanted; none is hung up in between."""
    replies, callers, rows = Replies(spoken.ends), [], []
    tasks: list[asyncio.Task[None]] = []
    for wanted in numbers:
        for number in range(len(tasks), wanted):
            callers.append(Caller(number, spoken, replies))
            tasks.append(asyncio.create_task(callers[-1].run(port)))
            await asyncio.sleep(APART_S)
        await asyncio.sleep(SETTLE_S)
        replies.reset()
        begun, cpu, own = time.monotonic(), cpu_seconds(pid), time.process_time()
        await asyncio.sleep(seconds)
        lasted = time.monotonic() - begun
        cpu, own = cpu_seconds(pid) - cpu, time.process_time() - own
        if any(task.done() for task in tasks) or any(caller.gone for caller in callers):
            raise RuntimeError("Pipecat has ended a call")
        rows.append(Row(wanted, cpu * 1000 / (wanted * lasted)))
        memory_mb = _pss_mb(pid)
        print(rows[-1].said("Pipecat", 100 * cpu / lasted, memory_mb, replies, 100 * own / lasted), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rows


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pipecat_calls", description=__doc__)
    parser.add_argument("--calls", default="1,5,10", help="numbers of calls (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default %(default)s)")
    options = parser.parse_args(arguments)
    numbers = sorted(int(number) for number in options.calls.split(","))
    spoken = script()
    print("The same calls on the same stand-ins, by Pipecat's Telnyx bot and by the bridge (SIP)")
    print(HEADER)
    with (
        tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
        providers() as at,
        bot(at, Path(folder)) as (pid, port),
    ):
        theirs = asyncio.run(through_pipecat(pid, port, numbers, options.seconds, spoken))
    for pipecat in theirs:
        with (
            providers() as at,
            tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
            serve(configuration(at), Path(folder), variables=KEYS) as bridge,
        ):
            cost = measure(bridge, at, pipecat.calls, options.seconds, spoken)
            ours = Row(pipecat.calls, cost.cpu_ms)
            percent = 100 * cost.cpu_s / options.seconds
            callers = 100 * cost.callers_cpu_s / options.seconds
            print(ours.said("bridge", percent, cost.total_mb, cost.replies, callers), end="")
            print(f"   {pipecat.cpu_ms / ours.cpu_ms:.0f} times less CPU", flush=True)
    print(
        "MB: proportional set size of the whole process; reply: the caller's last packet of speech to the first heard"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
