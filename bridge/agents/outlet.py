"""The playout as an agent holds it: paused for reasons, given a tone for want of a voice, left as it was found."""

from typing import Literal

from bridge.agents.tone import reorder_tone
from bridge.audio.playout import Playout

PauseReason = Literal["barge-in", "hold", "music"]


class Outlet:
    """One call's. What is said is written to the playout by others."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._pauses: set[PauseReason] = set()

    def pause(self, reason: PauseReason) -> None:
        self._pauses.add(reason)
        self._playout.pause()

    def unpause(self, reason: PauseReason) -> None:
        """Go on, unless there is another reason not to."""
        self._pauses.discard(reason)
        if self._pauses:
            self._playout.pause()
        else:
            self._playout.resume()

    def utterance_begun(self) -> None:
        """A new utterance begins unpaused; where there is a reason to pause, it waits like the others."""
        if self._pauses:
            self._playout.pause()

    def sound_tone(self) -> int:
        """The last resort of an agent that lost its voice; returns the playout's generation of it."""
        generation = self._playout.begin()
        self._playout.write(generation, reorder_tone(self._playout.sample_rate))
        self._playout.end(generation)
        return generation

    def close(self) -> None:
        """Leave the playout as it was found."""
        self._playout.drop()
        self._playout.resume()
