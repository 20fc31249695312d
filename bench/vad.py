"""Measures voice activity: onset and offset errors, misses, false starts, echo, and what it costs.

    python bench/vad.py [--audio DIRECTORY]

Ground truth is the level of the clean recordings (`vad_signals.extent`). Everything runs through `VoiceActivity` as
in a call, 20 ms a tick, in virtual time: a batch's results are there before the next tick.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from vad_signals import (
    RATE,
    Samples,
    babble,
    bangs,
    car,
    clicks,
    coughs,
    dtmf,
    frames,
    g711,
    gated,
    hum,
    level,
    music,
    pink,
    recordings,
    tone,
    white,
)

from bridge.audio.vad import VoiceActivity, VoiceSettings
from bridge.audio.vad_silero import SileroBatch, Window
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent


@dataclass(slots=True)
class Told:
    """What one stream's detector told, with when it did."""

    events: list[tuple[float, VoiceEvent]] = field(default_factory=list)

    @property
    def starts(self) -> list[tuple[float, SpeechStarted]]:
        return [(at, e) for at, e in self.events if isinstance(e, SpeechStarted)]

    @property
    def stops(self) -> list[tuple[float, SpeechStopped]]:
        return [(at, e) for at, e in self.events if isinstance(e, SpeechStopped)]


async def listen(
    activity: VoiceActivity, streams: Sequence[Samples], sent: Sequence[Samples] | None = None
) -> list[Told]:
    """All streams at once through one `VoiceActivity`; `sent[i]` is what we send on stream i meanwhile."""
    told = [Told() for _ in streams]
    now = 0.0

    def handler(index: int) -> Callable[[VoiceEvent], None]:
        return lambda event: told[index].events.append((now, event))

    detectors = [activity.open(RATE, handler(i)) for i in range(len(streams))]
    received = [list(frames(s)) for s in streams]
    ours = [list(frames(s)) for s in sent] if sent is not None else [[] for _ in streams]
    for tick in range(max(map(len, received))):
        now = (tick + 1) * 0.02
        for detector, line, mine in zip(detectors, received, ours, strict=True):
            if tick < len(line):
                detector.push(line[tick], now)
            if tick < len(mine):
                detector.reference(mine[tick], now)
        activity.after_tick(now)
        await activity.drain()
        await asyncio.sleep(0)
    for detector in detectors:
        detector.close()
    return told


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, mid, high, top = np.percentile(values, [5, 50, 95, 100])
    return f"{low:5.0f} {mid:5.0f} {high:5.0f} {top:5.0f}"


async def speech(activity: VoiceActivity, audio: Path) -> None:
    print("\nRecorded speech, ms: 5th percentile, median, 95th, worst")
    rng = np.random.default_rng(7)
    found = recordings(audio)
    conditions: list[tuple[str, list[tuple[Samples, float, float, str]]]] = []
    for name in ("clean8k", "snr20"):
        conditions.append((name, [(r.samples, r.onset_s, r.offset_s, r.name) for r in found if r.condition == name]))
    clean = [r for r in found if r.condition == "clean8k"]
    soft = [
        (g711(r.samples / 8 + white(rng, len(r.samples) / RATE, -60)), r.onset_s, r.offset_s, r.name) for r in clean
    ]
    conditions.append(("18 dB softer, noise at -60 dBFS", soft))
    lead = white(rng, 1.0, -42)
    noisy = [
        (
            np.concatenate([lead, r.samples + pink(rng, len(r.samples) / RATE + 1, -32)[: len(r.samples)]]),
            r.onset_s + 1,
            r.offset_s + 1,
            r.name,
        )
        for r in clean
    ]
    conditions.append(("10 dB pink noise, begins 1 s in", noisy))
    for name, cases in conditions:
        told = await listen(activity, [np.concatenate([s, s[-2400:], s[:2400]]) for s, *_ in cases])
        late, onset, offset, stop_late, missed, extra, splits = [], [], [], [], [], 0, 0
        for (_, on, off, label), t in zip(cases, told, strict=True):
            hits = [(at, e) for at, e in t.starts if on - 0.3 < at < off + 0.1]
            extra += sum(1 for at, _ in t.starts if not on - 0.3 < at < off + 0.1)
            if not hits:
                missed.append(label)
                continue
            splits += len(hits) - 1
            late.append((hits[0][0] - on) * 1000)
            onset.append((hits[0][1].at - on) * 1000)
            if t.stops:
                at, e = t.stops[-1]
                offset.append((e.at - off) * 1000)
                stop_late.append((at - off) * 1000)
        print(f"{name}: {len(cases)} utterances, missed {missed or 0}, false starts {extra}, pauses inside {splits}")
        print(f"   start told after onset   {spread(late)}      onset error   {spread(onset)}")
        print(f"   stop told after offset   {spread(stop_late)}      offset error  {spread(offset)}")


async def noises(activity: VoiceActivity, audio: Path) -> None:
    print("\nNot speech: starts a minute, windows scored a second")
    rng = np.random.default_rng(3)
    voices = [r.samples for r in recordings(audio) if r.condition == "clean8k"]
    seconds = 20.0
    ringback_us = gated(tone(seconds, -20, 440, 480), 2, 4)
    cases: list[tuple[str, Samples]] = [
        ("silence", np.zeros(int(seconds * RATE))),
        ("comfort noise -60", white(rng, seconds, -60)),
        ("hum 50 Hz -40", hum(seconds, -40, 50)),
        ("hum 50 Hz -25", hum(seconds, -25, 50)),
        ("hum 100 Hz -30", hum(seconds, -30, 100)),
        ("white -50", white(rng, seconds, -50)),
        ("white -40", white(rng, seconds, -40)),
        ("white -30", white(rng, seconds, -30)),
        ("pink -50", pink(rng, seconds, -50)),
        ("pink -40", pink(rng, seconds, -40)),
        ("pink -30", pink(rng, seconds, -30)),
        ("road -35, swelling", car(rng, seconds, -35)),
        ("clicks -10", clicks(rng, seconds, -10)),
        ("clicks -25", clicks(rng, seconds, -25)),
        ("bangs 20-60 ms -10", bangs(rng, seconds, -10)),
        ("bangs 20-60 ms -20", bangs(rng, seconds, -20)),
        ("DTMF -15", dtmf(seconds, -15)),
        ("DTMF -25", dtmf(seconds, -25)),
        ("ringback US -20", ringback_us),
        ("ringback EU -20", gated(tone(seconds, -20, 425), 1, 4)),
        ("ringback UK -20", gated(tone(seconds, -20, 400, 450), 0.4, 0.2)),
        ("busy -20", gated(tone(seconds, -20, 480, 620), 0.5, 0.5)),
        ("report: coughs -25", coughs(rng, seconds, -25)),
        ("report: music -25", music(rng, seconds, -25)),
        ("report: babble of 8 -45", babble(rng, seconds, -45, voices)),
        ("report: babble of 8 -30", babble(rng, seconds, -30, voices)),
    ]
    for name, signal in cases:
        before = activity.windows_scored
        (told,) = await listen(activity, [g711(signal)])
        starts = len(told.starts)
        speaking = sum(stop.at - start.at for (_, start), (_, stop) in zip(told.starts, told.stops, strict=False))
        scored = (activity.windows_scored - before) / seconds
        print(f"{name:26s} {starts * 60 / seconds:5.0f}   {scored:5.1f}   speech {speaking / seconds * 100:3.0f} %")


async def echo(activity: VoiceActivity, audio: Path) -> None:
    print("\nEcho of the agent: false starts in 60 s of its speech; barge-ins of 28 heard, told after onset (ms)")
    rng = np.random.default_rng(5)
    clean = [r for r in recordings(audio) if r.condition == "clean8k"]
    agent = np.concatenate([clean[i].samples for i in rng.permutation(len(clean))])[: 60 * RATE]
    for coupling in (-60, -40, -30, -20, -15, -10, -6):
        rows = []
        for delay_ms in (50, 150, 300):
            for room in (False, True):
                false = [
                    len(t.starts)
                    for t in await listen(activity, [returned(rng, agent, coupling, delay_ms, room)], [agent])
                ]
                rows.append(sum(false))
        unguarded = await listen(activity, [returned(rng, agent, coupling, 150, True)])
        print(
            f"{coupling:4d} dB: false starts {rows} (50/150/300 ms, line/room), {len(unguarded[0].starts)} unguarded"
        )
        for softer_db in (0, 12):
            late, missed, early = [], 0, 0
            streams, sent, onsets = [], [], []
            for index, r in enumerate(clean):
                ours = np.roll(agent, -index * RATE)[: 3 * RATE + len(r.samples)]
                line = returned(rng, ours, coupling, 150, True)
                line[3 * RATE :] += r.samples[: len(line) - 3 * RATE] * 10 ** (-softer_db / 20)
                streams.append(g711(line))
                sent.append(ours)
                onsets.append(3 + r.onset_s)
            for t, on in zip(await listen(activity, streams, sent), onsets, strict=True):
                hits = [at for at, _ in t.starts if on - 0.1 < at < on + 1]
                early += sum(1 for at, _ in t.starts if at <= on - 0.1)
                if hits:
                    late.append((hits[0] - on) * 1000)
                else:
                    missed += 1
            print(
                f"     caller {softer_db:2d} dB softer than we: barge-in missed {missed}, before it {early}, "
                f"told {spread(late)}"
            )


def returned(rng: np.random.Generator, sent: Samples, coupling_db: float, delay_ms: int, room: bool) -> Samples:
    """What comes back of `sent`: dispersed by a hybrid (6 ms) or a room (100 ms), delayed, with line noise."""
    count, decay = (800, 120) if room else (48, 10)
    response = rng.normal(0, 1, count) * np.exp(-np.arange(count) / decay)
    response[0] = 8 if room else 1
    response /= np.sqrt((response**2).sum())
    size = len(sent) + count
    back = np.fft.irfft(np.fft.rfft(sent, size) * np.fft.rfft(response, size), size)[: len(sent)]
    back = np.concatenate([np.zeros(delay_ms * RATE // 1000), back])[: len(sent)] * 10 ** (coupling_db / 20)
    return g711(back + white(rng, len(sent) / RATE, -62))


async def cost(audio: Path) -> None:
    print("\nCost")
    silero = SileroBatch()
    rng = np.random.default_rng(1)
    pcm = rng.normal(0, 1000, 288).astype(np.int16).tobytes()
    for count in (1, 8, 32, 128):
        windows = [Window(silero.acquire(), pcm, False) for _ in range(count)]
        silero.score(windows, RATE)
        repeats = 400 // count + 10
        began = time.process_time()
        for _ in range(repeats):
            silero.score(windows, RATE)
        each = (time.process_time() - began) / repeats / count * 1e6
        print(f"   Silero batch of {count:3d}: {each:6.1f} us a window")
    activity = VoiceActivity(VoiceSettings())
    quiet = list(frames(g711(white(rng, 4, -62))))
    speech_frames = list(frames(np.concatenate([r.samples for r in recordings(audio) if r.condition == "snr20"])))
    for name, line, reference in (
        ("silent caller", quiet, None),
        ("silent caller, agent speaking", quiet, speech_frames),
    ):
        detector = activity.open(RATE, lambda event: None)
        for i in range(100):
            detector.push(line[i], i * 0.02)
        began = time.process_time()
        for i in range(20000):
            if reference is not None:
                detector.reference(reference[i % 2000], i * 0.02)
            detector.push(line[i % len(line)], i * 0.02)
        each = (time.process_time() - began) / 20000 * 1e6
        print(f"   {name}: {each:.2f} us a frame, {each * 0.05:.3f} ms a call-second")
        detector.close()
    for calls in (1, 50, 200, 500):
        seconds = 10 if calls > 1 else 60
        before = activity.windows_scored, activity.batches
        base = np.concatenate([r.samples for r in recordings(audio) if r.condition == "snr20"])
        talk = [talking(rng, base, seconds) for _ in range(min(calls, 50))]
        lines = [list(frames(t)) for t, _ in talk]
        share = float(np.mean([s for _, s in talk]))
        detectors = [activity.open(RATE, lambda event: None) for _ in range(calls)]
        worst = 0.0
        began = time.process_time()
        for tick in range(seconds * 50):
            now = tick * 0.02
            started = time.perf_counter()
            for i, detector in enumerate(detectors):
                line = lines[i % len(lines)]
                detector.push(line[(tick + 7 * i) % len(line)], now)
            activity.after_tick(now)
            worst = max(worst, time.perf_counter() - started)
            await activity.drain()
        each = (time.process_time() - began) / (calls * seconds) * 1000
        windows = (activity.windows_scored - before[0]) / (calls * seconds)
        size = (activity.windows_scored - before[0]) / max(1, activity.batches - before[1])
        print(
            f"   {calls:3d} calls talking {share * 100:.0f} %: {each:.2f} ms of CPU a call-second, "
            f"{windows:.1f} windows a second, {size:.0f} a batch, longest tick {worst * 1000:.1f} ms"
        )
        for detector in detectors:
            detector.close()
    await activity.aclose()


def talking(rng: np.random.Generator, speech_: Samples, seconds: int) -> tuple[Samples, float]:
    """A caller who talks 40 % of the time, and the share that came out."""
    line = rng.normal(0, level(-42), seconds * RATE)
    at, spoken = int(rng.integers(0, 2 * RATE)), 0
    while at < len(line):
        count = int(rng.uniform(1.0, 4.0) * RATE)
        start = int(rng.integers(0, len(speech_) - count))
        count = min(count, len(line) - at)
        line[at : at + count] = speech_[start : start + count]
        spoken += count
        at += int(count / 0.4)
    return line, spoken / len(line)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, default=Path(__file__).parent.parent / "tests/data/audio")
    parser.add_argument("--only", choices=("speech", "noise", "echo", "cost"))
    parser.add_argument("--without-silero", action="store_true")
    options = parser.parse_args()
    if not (options.audio / "manifest.jsonl").exists():
        parser.error(f"no recordings: {options.audio}/manifest.jsonl is missing; give their directory with --audio")
    activity = VoiceActivity(VoiceSettings(silero=not options.without_silero))
    if options.only in (None, "speech"):
        await speech(activity, options.audio)
    if options.only in (None, "noise"):
        await noises(activity, options.audio)
    if options.only in (None, "echo"):
        await echo(activity, options.audio)
    await activity.aclose()
    if options.only in (None, "cost"):
        await cost(options.audio)


if __name__ == "__main__":
    asyncio.run(main())
