"""Sounds over the agent's speech, through real voice activity and a whole conversation, in virtual time: the part of
`bench/turns.py` that must never get worse."""

import hashlib
from collections.abc import Iterable
from functools import cache

import pytest

from bench.barge_corpus import Case, corpus
from bench.replay import Recogniser
from bench.turns import Outcome, barge_in
from bench.virtual_time import in_virtual_time
from bridge.agents.settings import BargeInSettings

QUIET_KINDS = (
    "breathing",
    "clicks",
    "coughs",
    "hold music",
    "keyboard",
    "keys (DTMF)",
    "knocks",
    "own echo at -20 dB",
    "throat clearing",
)


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(corpus(voice=False))


def chosen(*kinds: str, each: int) -> list[Case]:
    return [case for kind in kinds for case in [c for c in all_cases() if c.kind == kind][:each]]


def replayed(cases: list[Case], settings: BargeInSettings | None = None) -> list[Outcome]:
    return in_virtual_time(lambda: barge_in(cases, settings or BargeInSettings(), Recogniser()))


def test_corpus_is_the_same_at_every_run() -> None:
    def digest(cases: Iterable[Case]) -> str:
        return hashlib.sha256(b"".join(case.line.tobytes() for case in cases)).hexdigest()

    assert digest(corpus(voice=False)) == digest(all_cases())


def test_speech_stops_the_agent_within_the_budget() -> None:
    outcomes = replayed(chosen("speech", "speech, 20 dB noise", each=8))
    delays = sorted(outcome.delay_ms for outcome in outcomes if outcome.delay_ms is not None)
    assert len(delays) == 16, "nobody has to shout"
    assert delays[len(delays) // 2] <= 150 and delays[-1] <= 250


@pytest.mark.parametrize("kind", QUIET_KINDS)
def test_what_is_no_speech_does_not_stop_the_agent(kind: str) -> None:
    outcomes = replayed(chosen(kind, each=10))
    assert outcomes and not [outcome.case.name for outcome in outcomes if outcome.stopped]


def test_agent_that_may_not_be_interrupted_talks_on() -> None:
    outcomes = replayed(chosen("speech", each=3), BargeInSettings(enabled=False))
    assert not any(outcome.pauses for outcome in outcomes)
