"""What the agent believes was heard of its words after an interruption, against what was really played."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.barge_corpus import AUDIO, Case, corpus
from bench.replay import Recogniser, Replay, play, spread_words
from bench.served import quantile
from bench.vad_signals import RATE, Samples, recordings
from bench.virtual_time import in_virtual_time
from bridge.agents.settings import ConversationSettings
from bridge.agents.words import words
from bridge.audio.vad import VoiceActivity
from bridge.events import BargeIn
from bridge.providers.base import WordTiming

CALLS_AT_ONCE = 40
AFTER_S = 3.0
QUIET_S = 0.15
"""Kept behind each sentence of the agent's."""

STOPPING = ("speech", "speech, 12 dB softer", "speech, 20 dB noise")
WORST = 1
"""Words: the agent takes one for heard at 60 % of it, here it is at 50 %."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What the agent says, in one piece: recorded sentences one after the other."""

    text: str
    samples: Samples
    timings: tuple[WordTiming, ...]
    """Of each word, about: by its share of its sentence's letters."""


def measure_memory() -> bool:
    """Print the table; whether, with a voice that tells, no memory is off by more than `WORST` words."""
    print("\nMemory: words that the agent keeps of its own after it was interrupted, against those that were played")
    print(
        f"{'voice':<28}{'cuts':>6}{'played':>8}{'kept':>7}{'right, %':>10}{'exact':>7}{'off by 1':>9}{'more':>6}"
        f"{'worst':>7}"
    )
    cases = [case for case in corpus(voice=False) if case.kind in STOPPING and not case.known]
    kept = True
    for name, timed in (("tells when words sound", True), ("tells nothing of its words", False)):
        off = in_virtual_time(lambda timed=timed: _cuts(cases, timed))
        pairs = [(played, believed) for played, believed in off]
        wrong = [abs(played - believed) for played, believed in pairs]
        total = sum(played for played, _ in pairs)
        right = 100 * (1 - sum(wrong) / max(1, total))
        print(
            f"{name:<28}{len(pairs):>6}{total:>8}{sum(believed for _, believed in pairs):>7}{right:>10.1f}"
            f"{sum(not w for w in wrong):>7}{sum(w == 1 for w in wrong):>9}{sum(w > 1 for w in wrong):>6}"
            f"{quantile([float(w) for w in wrong], 1):>7.0f}"
        )
        kept = kept and (not timed or max(wrong, default=0) <= WORST)
    return kept


async def _cuts(cases: Sequence[Case], timed: bool) -> list[tuple[int, int]]:
    """Of each interruption: words played, and words that the memory has."""
    activity = VoiceActivity()
    found = []
    for at in range(0, len(cases), CALLS_AT_ONCE):
        batch = cases[at : at + CALLS_AT_ONCE]
        # Never the caller's own voice: an echo is known by its waveform.
        spoken = [_speech("piper" if case.name.startswith("kokoro") else "kokoro") for case in batch]
        calls = [
            Replay(
                activity,
                case.line,
                ConversationSettings(greeting=said.text),
                words=spread_words(case.text, case.onset_s, case.end_s),
                how=Recogniser(settled_ms=150, streams=True),
                voice={said.text: said.samples},
                timings={said.text: said.timings} if timed else None,
                name=f"{case.kind} {case.name}",
            )
            for case, said in zip(batch, spoken, strict=True)
        ]
        await play(activity, calls, max(call.line_s for call in calls) + AFTER_S)
        for call, said in zip(calls, spoken, strict=True):
            believed = next((m.content for m in call.llm.memory if m.role == "assistant" and m.interrupted), None)
            if believed is not None:
                found.append((_played(call, said), len(words(believed))))
    await activity.aclose()
    return found


def _speech(voice: str) -> Speech:
    """Of one of the recorded voices."""
    told = {}
    for line in (AUDIO / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        told[entry["file"].removesuffix(".wav")] = entry["text"]
    texts, parts, timings, at_ms = [], [], [], 0.0
    for recording in recordings(AUDIO):
        if recording.condition != "clean8k" or not recording.name.startswith(voice):
            continue
        text = told[recording.name]
        samples = recording.samples[int(recording.onset_s * RATE) : int((recording.offset_s + QUIET_S) * RATE)]
        start_ms = at_ms
        for word, end_s in spread_words(text, 0.0, recording.offset_s - recording.onset_s):
            timings.append(WordTiming(word, start_ms, at_ms + end_s * 1000))
            start_ms = at_ms + end_s * 1000
        texts.append(text)
        parts.append(samples)
        at_ms += len(samples) * 1000 / RATE
    return Speech(" ".join(texts), np.concatenate(parts), tuple(timings))


def _played(call: Replay, said: Speech) -> int:
    """Words of the greeting that were sent, by half at least."""
    confirmed = next(event for event in call.events if isinstance(event, BargeIn) and event.confirmed)
    paused_at = call.answered_at + confirmed.at_ms / 1000
    sent_ms = 20.0 * sum(has_voice and at <= paused_at + 0.021 for at, has_voice in call.leg.sent)
    heard = [word for word in said.timings if (word.start_ms + word.end_ms) / 2 <= sent_ms]
    return len(words(" ".join(word.word for word in heard)))
