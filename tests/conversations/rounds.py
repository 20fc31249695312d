"""Many situations at once on one bridge, as many as a small box holds."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import sounds
from call import Outcome, play
from hearing import transcribe
from house import open_house
from measures import TABLE_ENV, table
from situation import Engines, Situation

from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.settings import EngineSettings

AT_ONCE: dict[Engines, int] = {"local": 5, "standins": 16}
"""Calls on two cores, the callers' own work included."""
LATE_MS = 120.0
"""A caller whose voice leaves later than this has not spoken as the script wants: gaps are heard, and end a turn."""
TRIES = 3
"""Of a call whose caller was late."""
CUT = 50
"""Silent packets between two stretches of speech."""
PAUSE = b"\0" * 320 * 15
LONGEST_BYTES = 16_000 * 25
"""Of audio recognised at a time."""


def play_all(situations: Sequence[Situation], engines: Engines, folder: Path) -> dict[str, Outcome]:
    """The outcome of each situation by its name."""
    for step in (step for situation in situations for step in situation.script if step.say):
        # Now, as synthesis takes its time, and a caller who waits for it misses his packets.
        sounds.phrase(step.say, step.voice)
    outcomes = asyncio.run(_play_all(situations, engines, folder))
    if path := os.environ.get(TABLE_ENV):
        with Path(path).open("a") as file:
            file.write(table(sorted(outcomes.values(), key=lambda outcome: outcome.situation.name)))
    return outcomes


async def _play_all(situations: Sequence[Situation], engines: Engines, folder: Path) -> dict[str, Outcome]:
    places = asyncio.Semaphore(AT_ONCE[engines])
    async with open_house(situations, engines, folder) as house:

        async def one(situation: Situation) -> Outcome:
            async with places:
                outcome = await play(situation, engines, house)
                # What has died stays dead.
                again = 0 if any(step.dies for step in situation.script) else TRIES - 1
                for _ in range(again):
                    if outcome.late_ms <= LATE_MS:
                        break
                    outcome = await play(situation, engines, house)
                return outcome

        # Long ones first, or the last one would be waited for alone.
        in_turn = sorted(situations, key=lambda situation: -len(situation.script))
        outcomes = await asyncio.gather(*(one(situation) for situation in in_turn))
    if engines == "local":
        await _listen(outcomes, folder)
    return {outcome.situation.name: outcome for outcome in outcomes}


async def _listen(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Have the recogniser hear what the agents said, where that is judged."""
    ears = LocalEngines(EngineSettings(workers=1, stt_deadline_s=30), folder, roles=("stt",))
    wanted = [outcome for outcome in outcomes if outcome.situation.expected("local").heard]
    if not wanted:
        return
    await ears.start()
    try:
        for outcome in wanted:
            outcome.heard = " ".join([await _understood(ears, part) for part in _stretches(outcome)])
    finally:
        await ears.aclose()


async def _understood(ears: LocalEngines, pcm: bytes) -> str:
    text = await transcribe(ears, pcm)
    return text or f"[{len(pcm) / 16_000:.1f} s that the recogniser makes nothing of]"


def _stretches(outcome: Outcome) -> list[bytes]:
    """The agent's audio off the wire, cut at its silences of a second."""
    stretches: list[bytearray] = []
    silent = CUT
    for packet in outcome.packets:
        if packet.loud:
            if silent >= CUT or len(stretches[-1]) > LONGEST_BYTES:
                stretches.append(bytearray(PAUSE))
            silent = 0
        else:
            silent += 1
        if silent < CUT:
            stretches[-1] += packet.pcm
    return [bytes(stretch + PAUSE) for stretch in stretches]
