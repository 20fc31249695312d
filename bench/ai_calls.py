"""What an AI call costs, and how late it answers: N calls to an agent of a real `offhook serve` on cloud providers.

    python -m bench.ai_calls [--calls 1,25,50,100,200] [--soak MINUTES]

The providers are stand-ins with fixed times (`bench.ai_standins`), reached by the same SDKs and sockets as the real
ones, but without TLS. Bridge, providers and callers are processes of their own. Callers take a turn each 15 s and
talk 40 % of the time.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ai_load import TURN_S, Replies, Script, script
from bench.ai_standins import KEYS, LLM_FIRST_MS, STT_FINAL_MS, TTS_FIRST_MS, VOICE, Providers, providers
from bench.rtp_load import LoadResult, RtpLoad, Wire, cpu_seconds
from bench.served import Served, quantile, serve
from bench.sip_load import SipLoad

SETUP_RATE = 20.0
SETTLE_S = 10.0
"""Greetings are over, and every caller has had a turn begin."""

CONFIG = """
rtp: {{port_min: 20000, port_max: 24999}}
limits: {{calls: 2000, conversations: 2000, clock_lateness_ms: 10000}}
log: {{level: warning}}
providers:
  deepgram: {{kind: deepgram, base_url: '{deepgram}'}}
  openai: {{kind: openai, base_url: '{openai}', llm: {{model: stand-in}}}}
  elevenlabs: {{kind: elevenlabs, base_url: '{elevenlabs}', tts: {{voice: {voice}}}}}
agents:
  ai:
    kind: conversation
    greeting: Hello, how can I help you?
    stt: deepgram
    llm: openai
    tts: elevenlabs
    record: false
routes: [{{to: ai, agent: ai}}]
"""
"""No limit refuses a call: what happens beyond them is to be measured."""

HEADER = (
    f"{'calls':>6}{'up':>5}{'ms CPU/call-s':>14}{'CPU %':>7}{'MB/call':>9}{'reply p50':>10}{'p95':>6}{'n':>5}"
    f"{'none':>5}{'added p50':>10}{'p95':>6}{'gap p99.9':>10}{'max':>7}{'lost':>6}{'ticks late':>12}{'late*':>7}"
    f"{'callers %':>10}{'providers %':>12}"
)
FOOTNOTE = f"""reply: the caller's last packet of speech to the agent's first, ms; none: turns without an answer
added: that less the silence waited for and the providers' own times as far as the caller waited for them
   ({STT_FINAL_MS} ms for the text, {LLM_FIRST_MS} to the first token, the first clause's writing, {TTS_FIRST_MS} to
   the first audio)
MB: of the bridge and its workers, less what they had before the first call; what is mapped from files not counted
gaps between the agent's packets, ms; lost: sent by the bridge, not arrived
ticks late: steps of the media clock that began 10 ms late or more, of all
* packets that the callers themselves sent more than 5 ms late"""


def configuration(at: Providers) -> str:
    return CONFIG.format(deepgram=at.deepgram, openai=at.openai, elevenlabs=at.elevenlabs, voice=VOICE)


@dataclass(slots=True)
class Cost:
    """Of one number of calls."""

    sip: SipLoad
    result: LoadResult
    replies: Replies
    cpu_s: float
    callers_cpu_s: float
    providers_cpu_s: float
    memory_mb: float
    """Of the calls."""
    total_mb: float
    before: dict[str, float]
    after: dict[str, float]
    added_ms: list[float]
    parts: dict[str, list[float]]

    @property
    def cpu_ms(self) -> float:
        """Of one call-second."""
        return self.cpu_s * 1000 / (max(1, self.sip.up) * self.result.seconds)

    def row(self) -> str:
        result, calls = self.result, self.result.calls
        late = f"{self._stepped('late_steps') + self._stepped('skipped_steps')}/{self._stepped('steps')}"
        line = (
            f"{calls:>6}{self.sip.up:>5}{self.cpu_ms:>14.2f}{100 * self.cpu_s / result.seconds:>7.0f}"
            f"{self.memory_mb / max(1, calls):>9.2f}{_ms(self.replies.ms, 0.5):>10}{_ms(self.replies.ms, 0.95):>6}"
            f"{len(self.replies.ms):>5}{self.replies.missing:>5}"
            f"{_ms(self.added_ms, 0.5):>10}{_ms(self.added_ms, 0.95):>6}"
            f"{result.gap_p999_ms:>10.1f}{result.gap_max_ms:>7.1f}{result.lost:>6}"
            f"{late:>12}{result.late_sends:>7}"
            f"{100 * self.callers_cpu_s / result.seconds:>10.0f}{100 * self.providers_cpu_s / result.seconds:>12.0f}"
        )
        if self.sip.counts.refused:
            line += f"\n       refused: {sorted(set(self.sip.counts.refused))}, {len(self.sip.counts.refused)} calls"
        return line

    def shares(self) -> str:
        """Where the reply delay went, by the bridge's own account."""
        told = ", ".join(
            f"{name} {_ms(values, 0.5)} ({_ms(values, 0.95)})" for name, values in self.parts.items() if values
        )
        return f"       of the reply, p50 (p95) ms: {told}"

    def _stepped(self, name: str) -> int:
        return int(self.after[f"offhook_clock_{name}_total"] - self.before[f"offhook_clock_{name}_total"])


def _ms(values: list[float], part: float) -> str:
    return f"{quantile(values, part):.0f}" if values else "-"


def measure(
    bridge: Served, at: Providers, calls: int, seconds: float, spoken: Script, *, profiled: bool = False
) -> Cost:
    replies = Replies(spoken.ends)
    media = RtpLoad(wire=Wire(spoken.payloads), watch=replies)
    sip = SipLoad(("127.0.0.1", bridge.sip_port), "ai", media, calls, SETUP_RATE)
    try:
        memory = bridge.own_mb()
        media.run(calls / SETUP_RATE + 1.0, measure=False, poll=sip.poll, poll_slots=1)
        media.run(SETTLE_S, measure=False, poll=sip.poll, poll_slots=10)
        before = bridge.metrics()
        media.run(1.0, measure=False)
        if profiled:
            os.kill(bridge.pid, signal.SIGUSR2)
        replies.reset()
        cpu = (bridge.cpu_s(), time.process_time(), cpu_seconds(at.pid))
        result = media.run(seconds, measure=True)
        spent = (bridge.cpu_s() - cpu[0], time.process_time() - cpu[1], cpu_seconds(at.pid) - cpu[2])
        after = bridge.metrics()
        memory, total = bridge.own_mb() - memory, bridge.pss_mb()
        ended = sip.hang_up()
        if ended != sip.up:
            print(f"       only {ended} of {sip.up} BYEs were confirmed")
    finally:
        sip.close()
        media.close()
    delays = [delays for delays in _delays(bridge, calls) if delays.get("reply_ms") is not None]
    parts = {name: [d[f"{name}_ms"] for d in delays if d.get(f"{name}_ms") is not None] for name in PARTS}
    added = [_added_ms(each) for each in delays]
    # The wire's own part: what lies between the bridge's account of a reply and the caller's.
    outside = quantile(replies.ms, 0.5) - quantile(parts["reply"], 0.5) if replies.ms and parts["reply"] else 0.0
    added = [ms + outside for ms in added]
    return Cost(sip, result, replies, *spent, memory, total, before, after, added, parts)


PARTS = ("endpoint", "stt", "llm", "clause", "tts", "playout", "reply")


def _delays(bridge: Served, calls: int) -> Iterable[dict[str, Any]]:
    """Of every reply of the newest calls."""
    for call in bridge.calls(calls):
        for turn in bridge.json(f"/api/calls/{call['id']}")["turns"]:
            if turn["speaker"] == "agent":
                yield turn["delays"]


def _added_ms(delays: dict[str, Any]) -> float:
    """What of a reply's delay is neither the silence that the agent waits for nor a provider's own time."""

    def own(name: str, most: float) -> float:
        return min(delays.get(f"{name}_ms") or 0.0, most)

    providers_ms = own("stt", STT_FINAL_MS) + own("llm", LLM_FIRST_MS) + own("tts", TTS_FIRST_MS)
    waited_ms = (delays.get("endpoint_ms") or 0.0) + (delays.get("clause_ms") or 0.0)
    return float(delays["reply_ms"]) - waited_ms - providers_ms


def soak(bridge: Served, calls: int, minutes: float, spoken: Script) -> None:
    """Calls of a minute, `calls` at once, one lot after the other: does the memory stay flat?"""
    print(f"{'minute':>7}{'calls so far':>13}{'own MB':>8}{'in calls MB':>12}{'files':>7}{'threads':>8}")
    begun, made = time.monotonic(), 0
    while (minute := (time.monotonic() - begun) / 60) < minutes:
        media = RtpLoad(wire=Wire(spoken.payloads))
        sip = SipLoad(("127.0.0.1", bridge.sip_port), "ai", media, calls, SETUP_RATE)
        try:
            media.run(calls / SETUP_RATE + 1.0, measure=False, poll=sip.poll, poll_slots=1)
            media.run(max(1.0, 56 - calls / SETUP_RATE), measure=False, poll=sip.poll, poll_slots=10)
            busy = bridge.own_mb()
            made += sip.up
            sip.hang_up()
        finally:
            sip.close()
            media.close()
        time.sleep(2)
        print(
            f"{minute + 1:>7.1f}{made:>13}{bridge.own_mb():>8.1f}{busy:>12.1f}{bridge.open_files():>7}"
            f"{bridge.threads():>8}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ai_calls", description=__doc__)
    parser.add_argument("--calls", default="1,10,25,50,100,200", help="numbers of calls (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement (default %(default)s)")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="calls in a row instead: is the memory flat?")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of the bridge there")
    options = parser.parse_args(arguments)
    spoken = script()
    print(
        f"AI calls: Deepgram, OpenAI and ElevenLabs as stand-ins, G.711, callers talk {spoken.talking * 100:.0f} % "
        f"of the time and take {60 / TURN_S:.0f} turns a minute, no recording"
    )
    numbers = [int(number) for number in options.calls.split(",")]
    if not options.soak:
        print(HEADER)
    for calls in numbers[-1:] if options.soak else numbers:
        with (
            providers() as at,
            tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder,
            serve(configuration(at), Path(folder), variables=KEYS, profile=options.profile) as bridge,
        ):
            if options.soak:
                soak(bridge, calls, options.soak, spoken)
            else:
                cost = measure(bridge, at, calls, options.seconds, spoken, profiled=options.profile is not None)
                print(f"{cost.row()}\n{cost.shares()}", flush=True)
    if not options.soak:
        print(FOOTNOTE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
