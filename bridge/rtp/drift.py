"""How fast a far end's clock runs against ours, from the transit times of its packets over minutes."""

from collections import deque

import numpy as np

BLOCKS_A_POINT = 10
"""The least transit of about ten seconds is nearly free of jitter."""

POINTS = 30
"""Five minutes: temperature moves a crystal."""

FEWEST_POINTS = 4

STEP_S = 0.02
"""More than a clock drifts between two points (2000 ppm over 10 s): the path has changed, and points before the step
say nothing of those after it."""


class DriftMeter:
    """Sans-IO: told the least transit of each block of packets, it knows their slope."""

    __slots__ = ("_blocks", "_least", "_least_at", "_points", "_ppm")

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=POINTS)
        """Arrival and transit, both in seconds."""
        self._ppm: float | None = None
        """As last computed; None: not with the present points."""
        self._blocks = 0
        self._least = float("inf")
        self._least_at = 0.0

    def note(self, arrival: float, transit: float) -> None:
        """The packet of a block whose transit (arrival less timestamp, s) was the least, and its arrival (s)."""
        if transit < self._least:
            self._least, self._least_at = transit, arrival
        self._blocks += 1
        if self._blocks == BLOCKS_A_POINT:
            if self._points and abs(self._points[-1][1] - self._least) > STEP_S:
                self._points.clear()
            self._points.append((self._least_at, self._least))
            self._ppm = None
            self._begin_point()

    def restart(self) -> None:
        """The stream begins anew: its transit says nothing of the one before."""
        self._points.clear()
        self._ppm = None
        self._begin_point()

    def _begin_point(self) -> None:
        self._blocks = 0
        self._least = float("inf")

    @property
    def ppm(self) -> float | None:
        """Parts per million by which the far end's clock is faster than ours (negative: slower); None until it has
        been heard for half a minute. Computed when asked, once for each new point."""
        if len(self._points) < FEWEST_POINTS:
            return None
        if self._ppm is None:
            at, transit = np.array(self._points).T
            first, second = np.triu_indices(len(at), 1)
            # The median of all slopes (Theil-Sen) does not mind a few points that queues held up.
            self._ppm = float(-1e6 * np.median((transit[second] - transit[first]) / (at[second] - at[first])))
        return self._ppm
