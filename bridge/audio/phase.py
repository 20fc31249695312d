"""Which of the clock's phases suits a stream: the one that comes soon after its packets, so that none waits long.

A stream is put on the clock before its first packet, so how long its packets wait for its step is chance. Steps are
moved earlier where all of them wait, as they do more and more if the far end's clock is fast, and later before
packets come too late for them. What is sent moves along, so the moves are few, and their sum is no more than the far
end's drift accounts for: a far end that gets packets ahead of time may have to leave some out.
"""

from collections.abc import Callable
from math import inf

FIRST_S = 1.0
"""How long a stream is watched at its start: the far end's jitter buffer is young, nobody hears it change."""

STEADY_S = 6.0
"""How long later on."""

REST_S = 30.0
"""After a move, until the next."""

PATIENCE_S = 10.0
"""How long the end of what the agent says is waited for."""

LEEWAY_S = 0.0015
"""Left between a packet and its step, lest a clock that drifts moves it back at once."""

WORTHWHILE_S = 0.005
"""That is to be gained at least: the clock's phases are no nearer to each other."""

LEAD_S = 0.02
"""What is sent may be ahead of, or behind, where it was after the first move by this much ..."""

DRIFT = 100e-6
"""... and by what the far end's clock has drifted since, if no more than this part of the time: crystals are that
good."""


class PhaseFinder:
    """Sans-IO: told now and then how long audio waits, it has the stream's steps moved."""

    __slots__ = ("_drift", "_first", "_lead", "_least", "_most", "_moved_at", "_rest_until", "_shift", "_since")

    def __init__(self, shift: Callable[[float], float], now: float) -> None:
        """`shift` moves the stream's steps earlier by so many seconds at most, later by so many at least if negative,
        and returns by how much it did (`MediaClock.shift`)."""
        self._shift = shift
        self._first = True
        self._drift = 0.0
        """Of the far end's clock, as far as it is known: fast, above zero."""
        self._lead = 0.0
        """By how much what is sent was ahead at `_moved_at`."""
        self._moved_at = now
        self._rest_until = self._since = now
        self._least, self._most = inf, -inf

    def look(
        self,
        now: float,
        spare_s: float | None,
        *,
        speaking: bool,
        joined: bool = False,
        drift_ppm: float | None = None,
    ) -> None:
        """Called about twice a second. `spare_s`: how much longer than it must the audio of the last step waited for
        it (negative: not long enough); None: nothing plays. `speaking`: something is being said to the far end.
        `joined`: another stream takes each frame in steps of its own; were these moved past those again and again,
        one would go short of frames, and the other keep some back for good. `drift_ppm`: by how much the far end's
        clock is faster than ours; None: not known."""
        self._drift = max(-DRIFT, min(DRIFT, (drift_ppm or 0.0) * 1e-6))
        if spare_s is None or now < self._rest_until or (joined and not self._first):
            self._restart(now)
            return
        self._least = min(self._least, spare_s)
        self._most = max(self._most, spare_s)
        watched_s = now - self._since
        if watched_s < (FIRST_S if self._first else STEADY_S):
            return
        by_s = self._wanted(now)
        if by_s and speaking and not self._first and watched_s < STEADY_S + PATIENCE_S:
            return
        if by_s and (moved_s := self._shift(by_s)):
            self._lead = 0.0 if self._first else self._lead_at(now) + moved_s
            self._moved_at = now
            self._rest_until = now + REST_S
        self._first = False
        self._restart(now)

    def _wanted(self, now: float) -> float:
        """How much earlier steps are to come; 0: they are well where they are."""
        by_s = self._least - LEEWAY_S
        if not self._first:
            by_s = min(by_s, LEAD_S - self._lead_at(now))
        if by_s >= WORTHWHILE_S:
            return by_s
        if self._most < -LEEWAY_S and (self._first or self._lead_at(now) > -LEAD_S):
            return self._most - LEEWAY_S
        return 0.0

    def _lead_at(self, now: float) -> float:
        """What is left of the lead now (below zero: of the lag)."""
        settled = self._drift * (now - self._moved_at)
        if self._lead > 0:
            return max(0.0, self._lead - max(0.0, settled))
        return min(0.0, self._lead - min(0.0, settled))

    def _restart(self, now: float) -> None:
        self._since = now
        self._least, self._most = inf, -inf
