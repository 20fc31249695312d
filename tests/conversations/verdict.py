"""What became of a situation against what was expected of it. Times are measured, never judged."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from call import Outcome
from hearing import share_of_words
from situation import ExpectedForm, ExpectedTurn
from standin_voice import CHAR_MS

ENOUGH = 0.6
"""Of the words; the small recogniser stumbles over some."""
EDGE_MS = 400
"""Of what memory holds and what was on the wire: half a word, and where in a packet a turn begins."""


def failures(outcome: Outcome) -> list[str]:
    """What was not as it should be."""
    return list(_failures(outcome))


def _failures(outcome: Outcome) -> Iterator[str]:
    expected = outcome.situation.expected(outcome.engines)
    if outcome.trouble:
        yield outcome.trouble
    record = outcome.record
    if not record:
        return
    if record["cause"] not in expected.cause:
        yield f"the call ended with {record['cause']}, not {' or '.join(expected.cause)}"
    yield from _turns(outcome.turns, expected.turns)
    said = [turn["text"] for turn in outcome.turns if turn["speaker"] == "agent"]
    for pattern in expected.never:
        yield from (f"the agent said {text!r} ({pattern})" for text in said if _fits(pattern, text))
    for words in expected.heard:
        if share_of_words(outcome.heard, words.lower()) < ENOUGH:
            yield f"{words!r} is not in the agent's audio, which is: {outcome.heard!r}"
    called = [call["name"] for call in outcome.events("tool_called")]
    if missing := [name for name in expected.tools if name not in called]:
        yield f"tools not called: {', '.join(missing)}; called: {', '.join(called) or 'none'}"
    forms = outcome.events("form_completed")
    for form in expected.forms:
        if not any(_is_form(form, found) for found in forms):
            yield f"no form {form}; there are: {forms}"
    stops = [event for event in outcome.events("barge_in") if event["confirmed"]]
    if expected.stops is not None and len(stops) != expected.stops:
        yield f"the caller stopped the agent {len(stops)} times, not {expected.stops}: {stops}"
    failed = {event["role"] for event in outcome.events("provider_failed")}
    if failed != set(expected.failed):
        yield f"providers failed: {sorted(failed)}, not {sorted(expected.failed)}"
    names = {event["name"] for event in record["events"]} | {e["name"] for e in outcome.events("note")}
    if missing := [name for name in expected.events if name not in names]:
        yield f"not on record: {missing}; there are: {sorted(names)}"
    if outcome.engines == "standins":
        yield from (told.what for told in memory(outcome) if told.wrong)


def _turns(turns: list[dict[str, Any]], expected: list[ExpectedTurn]) -> Iterator[str]:
    at = 0
    for wanted in expected:
        speaker, pattern = ("agent", wanted.agent) if wanted.agent else ("caller", wanted.caller)
        while at < len(turns) and not (
            turns[at]["speaker"] == speaker
            and _fits(pattern, turns[at]["text"])
            and wanted.interrupted in (None, turns[at]["interrupted"])
        ):
            at += 1
        if at == len(turns):
            yield f"no turn {wanted.model_dump(exclude_defaults=True)} where it should be"
            return
        at += 1


def _fits(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _is_form(wanted: ExpectedForm, found: dict[str, Any]) -> bool:
    fields = found["fields"]
    return found["form"] == wanted.form and all(
        _fits(pattern, str(fields.get(name, ""))) for name, pattern in wanted.fields.items()
    )


# -- memory against the wire ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One turn of a stand-in's voice, whose tone is as long as its text."""

    what: str
    off_ms: float
    wrong: bool


def memory(outcome: Outcome) -> list[Told]:
    """What the record says was heard of each turn of the agent, against the tones on the wire."""
    found = []
    agents = [turn for turn in outcome.turns if turn["speaker"] == "agent"]
    for number, turn in enumerate(agents):
        after = agents[number + 1]["started_ms"] if number + 1 < len(agents) else float("inf")
        on_wire = loud_ms(outcome, turn["started_ms"] - 60, min(after - 60, turn["ended_ms"] + 400))
        words = turn["heard_text"].split()
        in_memory = len(turn["heard_text"]) * CHAR_MS
        longest = max((len(word) for word in turn["text"].split()), default=0) * CHAR_MS
        off_ms = in_memory - on_wire
        limit = EDGE_MS + (longest if turn["interrupted"] else 0) + 2 * CHAR_MS
        what = (
            f"memory holds {len(words)} words ({in_memory} ms) of a turn of which {on_wire:.0f} ms were on the wire"
        )
        found.append(Told(f"{what}: {turn['heard_text']!r} of {turn['text']!r}", off_ms, abs(off_ms) > limit))
    return found


def loud_ms(outcome: Outcome, from_ms: float, to_ms: float) -> float:
    """How much of the agent's audio there was in this time of the call."""
    if not outcome.packets:
        return 0.0
    first = outcome.packets[0].timestamp
    times = ((packet, ((packet.timestamp - first) & 0xFFFFFFFF) / 8) for packet in outcome.packets)
    return 20.0 * sum(packet.loud for packet, at in times if from_ms <= at < to_ms)
