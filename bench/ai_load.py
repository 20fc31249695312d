"""Callers of an AI agent: they say recorded sentences, listen, and measure when the answer begins."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.rtp_load import Stream
from bench.vad_signals import RATE, extent, level, read_wav
from bridge.audio.codec import PCMU

AUDIO = Path(__file__).parent.parent / "tests/data/audio"

TURN_S = 15
"""A caller's turn and the answer: four a minute."""

SPOKEN = (("phone", "hours"), ("book", "human"), ("doctor", "order"), ("addr", "order"))
"""What is said in the turns, by one voice without a pause between: some 40 % of the time."""

GAP_S = 0.2
LINE_DB = -62
"""Of the noise on the line."""

_LOUDNESS = bytes(0x7F - (code & 0x7F) for code in range(256))
LOUD = 0x40
"""A mu-law code's loudness, of 0x7F, that no noise has."""


@dataclass(frozen=True, slots=True)
class Script:
    """A caller's side of the conversation, over and over."""

    payloads: list[bytes]
    """20 ms of mu-law each."""
    ends: frozenset[int]
    """After which of them a turn is over."""
    talking: float
    """Part of the time."""


def script() -> Script:
    line = np.random.default_rng(7).normal(0, level(LINE_DB), len(SPOKEN) * TURN_S * RATE)
    ends, spoken = set(), 0
    for turn, names in enumerate(SPOKEN):
        at = turn * TURN_S * RATE
        for name in names:
            samples = read_wav(AUDIO / f"piper_{name}_clean8k.wav")
            onset_s, offset_s = extent(samples)
            said = samples[int(onset_s * RATE) : int(offset_s * RATE)]
            line[at : at + len(said)] += said
            spoken += len(said)
            end = at + len(said)
            at = end + int(GAP_S * RATE)
        ends.add((end - 1) // 160)
    encode = PCMU.encoder()
    pcm = np.clip(line, -32768, 32767).astype("<i2").tobytes()
    payloads = [encode(pcm[at : at + 320]) for at in range(0, len(pcm), 320)]
    return Script(payloads, frozenset(ends), spoken / len(line))


def is_loud(payload: bytes) -> bool:
    """Whether there is speech in 20 ms of mu-law."""
    return max(payload.translate(_LOUDNESS), default=0) >= LOUD


class Replies:
    """A `rtp_load.Watch`: how long callers wait for the agent, from their last packet of speech to its first."""

    def __init__(self, ends: frozenset[int]) -> None:
        self._ends = ends
        self._since: dict[Stream, float] = {}
        """Callers who have finished, and when (s, wall clock)."""
        self.ms: list[float] = []
        self.missing = 0
        """Turns to which nothing was said before the next one was over."""

    def reset(self) -> None:
        self._since.clear()
        self.ms.clear()
        self.missing = 0

    def sent(self, stream: Stream, place: int) -> None:
        if place in self._ends:
            self.missing += stream in self._since
            self._since[stream] = time.time()

    def came(self, stream: Stream, payload: bytes, at: float) -> None:
        since = self._since.get(stream)
        if since is not None and at > since and is_loud(payload):
            del self._since[stream]
            self.ms.append((at - since) * 1000)
