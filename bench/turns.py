"""Turn taking, measured: what stops the agent, how fast, and what must not but does.

    python -m bench.turns [barge-in] [replies] [memory]

Every case of `bench.barge_corpus` is played over the agent's speech in a call of its own, in virtual time: real voice
activity, real detectors, a real conversation; the recogniser is a stand-in that knows the text. Delays run from the
sound's true onset on our line to the agent's last 20 ms on it; a real leg adds its jitter buffer, 20 ms on a clean
line.

In the table: `wrong` did not stop the agent though they should have, or the other way round; of those that stopped it
wrongly, `went on` are those after which the agent took up what it was saying by itself. `pauses` are those that the
agent was let go on after, with their length in ms.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import structlog

from bench.barge_corpus import AUDIO, Case, corpus
from bench.replay import Recogniser, Replay, play, spread_words
from bench.served import quantile
from bench.turns_memory import measure_memory
from bench.turns_replies import measure_replies
from bench.vad_signals import RATE, Samples, recordings
from bench.virtual_time import in_virtual_time
from bridge.agents.settings import BargeInSettings, ConversationSettings
from bridge.audio.vad import VoiceActivity
from bridge.events import BargeIn

CALLS_AT_ONCE = 40
"""Fewer than make voice windows wait for each other."""

AFTER_S = 3.0
"""Of each call after its line: a late decision shows."""

BUDGET_MS = (150, 250)
"""Of the barge-in delay: median and 95th percentile (DESIGN.md)."""


USUAL = ("speech", "speech, 20 dB noise")
"""Kinds that the budget is about."""

ORDER = (True, None, False)
"""Of `Case.stops` in the table."""


@dataclass(slots=True)
class Outcome:
    """What a case came to."""

    case: Case
    stopped: bool = False
    delay_ms: float | None = None
    """Onset to the agent's last 20 ms before the pause that stopped it."""
    recovered: bool = False
    """It was stopped, and then took up what it was saying, by itself."""
    pauses: list[BargeIn] = field(default_factory=list)
    """All that the caller's line caused, confirmed ones included."""

    @property
    def wrong(self) -> bool:
        return self.case.stops is not None and self.stopped != self.case.stops


def speech_of_the_agent(voice: str) -> tuple[str, Samples]:
    """Some thirty seconds in one of the two recorded voices, `kokoro` or `piper`."""
    clean = [r for r in recordings(AUDIO) if r.condition == "clean8k" and r.name.startswith(voice)]
    parts = [r.samples[int(r.onset_s * RATE) : int((r.offset_s + 0.15) * RATE)] for r in clean]
    text = "This is what the agent says, for quite some time, and nobody ought to stop it without a reason."
    return text, np.concatenate(parts)


async def barge_in(cases: Sequence[Case], settings: BargeInSettings, how: Recogniser) -> list[Outcome]:
    """Every case in a call of its own, many at once."""
    text, hers = speech_of_the_agent("kokoro")
    _, his = speech_of_the_agent("piper")
    greeted = ConversationSettings(greeting=text, barge_in=settings)
    asked = ConversationSettings(greeting="", barge_in=settings)
    question = next(r for r in recordings(AUDIO) if r.name == "piper_hours_clean8k")
    said = spread_words("What time do you close on Sundays?", question.onset_s, question.offset_s)
    outcomes: list[Outcome] = []
    activity = VoiceActivity()
    # Those of one length together: a call ends when the longest does.
    ordered = sorted(cases, key=lambda case: len(case.line))
    for at in range(0, len(ordered), CALLS_AT_ONCE):
        batch = ordered[at : at + CALLS_AT_ONCE]
        calls = [
            Replay(
                activity,
                np.concatenate([question.samples, case.line]) if case.known else case.line,
                asked if case.known else greeted,
                words=said if case.known else spread_words(case.text, case.onset_s, case.end_s),
                how=how,
                reply=text,
                echo=case.echo,
                # Never the caller's own: an echo is known by its waveform.
                voice={text: his if case.name.startswith("kokoro") else hers},
                name=f"{case.kind} {case.name}",
            )
            for case in batch
        ]
        await play(activity, calls, max(call.line_s for call in calls) + AFTER_S)
        for case, call in zip(batch, calls, strict=True):
            onset_s = case.onset_s + (len(question.samples) / RATE if case.known else 0.0)
            outcomes.append(_outcome(case, call, onset_s, replies=1 if case.known else 0))
    await activity.aclose()
    return outcomes


def _outcome(case: Case, call: Replay, onset_s: float, replies: int) -> Outcome:
    outcome = Outcome(case, pauses=[event for event in call.events if isinstance(event, BargeIn)])
    confirmed = next((event for event in outcome.pauses if event.confirmed), None)
    if confirmed is not None:
        outcome.stopped = True
        paused_at = call.answered_at + confirmed.at_ms / 1000
        last = max((at for at, voiced in call.leg.sent if voiced and at <= paused_at + 0.021), default=paused_at)
        # A frame is heard until its end, and the line's first frame had come 20 ms after the answer.
        outcome.delay_ms = (last - call.answered_at - onset_s) * 1000
        outcome.recovered = call.llm.requests <= replies
    return outcome


def show(outcomes: Sequence[Outcome]) -> bool:
    """Print the table; whether the budget is kept."""
    print(
        f"{'over the agent':<24}{'n':>4}{'wrong':>7}{'went on':>9}{'stop p50':>10}{'p95':>6}{'max':>6}"
        f"{'pauses':>8}{'ms p50':>8}{'max':>6}   why wrong"
    )
    ordered = sorted(outcomes, key=lambda o: (ORDER.index(o.case.stops), o.case.kind))
    good: list[float] = []
    usual: list[float] = []
    false = missed = 0
    for kind, group in groupby(ordered, key=lambda o: o.case.kind):
        rows = list(group)
        stops = rows[0].case.stops is not False
        delays = [o.delay_ms for o in rows if o.delay_ms is not None]
        rejected = [pause.pause_ms for o in rows for pause in o.pauses if not pause.confirmed]
        wrong = [o for o in rows if o.wrong]
        reasons = {_reason(o) for o in wrong}
        if rows[0].case.stops:
            good += delays
            usual += delays if kind in USUAL else []
            missed += len(wrong)
        else:
            false += len(wrong)
        print(
            f"{kind:<24}{len(rows):>4}{len(wrong):>7}{sum(o.recovered for o in wrong):>9}"
            f"{_number(delays, 0.5, stops):>10}{_number(delays, 0.95, stops):>6}{_number(delays, 1, stops):>6}"
            f"{len(rejected):>8}{_number(rejected, 0.5):>8}{_number(rejected, 1):>6}"
            f"   {'; '.join(sorted(reasons))}"
        )
    median, late = quantile(usual, 0.5), quantile(usual, 0.95)
    kept = median <= BUDGET_MS[0] and late <= BUDGET_MS[1]
    print(
        f"stops by speech of a usual level: median {median:.0f} ms, 95th percentile {late:.0f} ms "
        f"(budget {BUDGET_MS[0]}, {BUDGET_MS[1]}: {'kept' if kept else 'NOT kept'}); all stops: median "
        f"{quantile(good, 0.5):.0f} ms, 95th percentile {quantile(good, 0.95):.0f} ms; missed {missed}, false {false}"
    )
    return kept


def _reason(outcome: Outcome) -> str:
    confirmed = next((pause for pause in outcome.pauses if pause.confirmed), None)
    if confirmed is not None:
        return confirmed.reason
    return f"{outcome.case.name}: " + (outcome.pauses[-1].reason if outcome.pauses else "not noticed")


def _number(values: Sequence[float], q: float, shown: bool = True) -> str:
    return f"{quantile(list(values), q):.0f}" if values and shown else "-"


def measure_barge_in(options: argparse.Namespace) -> bool:
    cases = corpus(voice=not options.without_voice)
    if options.kind:
        cases = [case for case in cases if case.kind.startswith(options.kind)]
    settings = BargeInSettings(sensitivity=options.sensitivity)
    kept = True
    for name, how in (
        ("a recogniser that answers when it is asked (the embedded one)", Recogniser()),
        ("a recogniser that streams", Recogniser(settled_ms=150, streams=True)),
    ):
        print(f"\nBarge-in, sensitivity {options.sensitivity}, {name}", flush=True)
        outcomes = in_virtual_time(lambda how=how: barge_in(cases, settings, how))
        kept = show(outcomes) and kept
        if options.verbose:
            for outcome in outcomes:
                if outcome.wrong or options.kind or (outcome.delay_ms or 0) > BUDGET_MS[1]:
                    told = ", ".join(f"{pause.reason} after {pause.pause_ms:.0f} ms" for pause in outcome.pauses)
                    print(f"   {outcome.case.kind}, {outcome.case.name}: {outcome.delay_ms} ms; {told}")
    return kept


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "barge-in": measure_barge_in,
    "replies": lambda _: measure_replies(),
    "memory": lambda _: measure_memory(),
}
"""Each prints its table and returns whether its budget is kept."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.turns", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--sensitivity", choices=("low", "normal", "high"), default="normal")
    parser.add_argument("--kind", default="", help="only sounds of this kind")
    parser.add_argument("--without-voice", action="store_true", help="leave out what the embedded voice must speak")
    parser.add_argument("--strict", action="store_true", help="fail where a budget is not kept")
    parser.add_argument("--verbose", action="store_true", help="tell each case that went wrong")
    options = parser.parse_args(arguments)
    if unknown := set(options.what) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; known: {', '.join(MEASUREMENTS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    kept = [MEASUREMENTS[name](options) for name in options.what or MEASUREMENTS]
    return 1 if options.strict and not all(kept) else 0


if __name__ == "__main__":
    sys.exit(main())
