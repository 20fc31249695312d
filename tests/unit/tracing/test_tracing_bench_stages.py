"""The bench shows every delay that a turn has."""

import dataclasses

from bench.conversation import STAGES
from bridge.events import TurnDelays


def test_the_bench_shows_every_delay_of_a_turn() -> None:
    delays = {field.name for field in dataclasses.fields(TurnDelays) if field.name.endswith("_ms")}
    assert set(STAGES) == delays
