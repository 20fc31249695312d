"""What is missing in a stream without timestamps, told from what is late by when the audio after it came.

A frame that the caller's network lost is simply not there: all that follows would be stamped a frame too early, and
seem to be late from then on. What is late for once is followed by what is not, at once where a burst makes up for a
stall; after a hole all comes late, by whole frames. So where nothing has come in time for longer than is usual on
this stream, a hole is believed in. If something comes earlier than it could have after it, there was none.
"""

from bridge.audio.frames import FRAME_MS
from bridge.rtp.jitter import JitterBuffer
from bridge.rtp.timeline import Record

LEVELS = 5
"""Frames of lateness whose usual length is known."""

NEARLY = 0.75
"""Of a frame: as late as that may be a frame, as the fastest path is measured with a late clock, and rounded."""

PATIENCE_S = 0.09
"""The least time for which nothing came in time, until it is a hole: five frames."""

LONGEST_S = 0.7
"""The longest: beyond it, the path has become longer for whatever reason, which is the same."""

USUAL = 2.0
"""Times as long as what was late and ended."""

FORGET_S = 8.0
"""In which half of what was usual is forgotten, and after which a hole is not taken back any more: it is what the
jitter buffer remembers."""

STALL_FRAMES = 25
"""What a stall may hold back; more would not be waited for."""

JUMP_S = 1.0
"""What is later is no matter of holes."""


class HoleFinder:
    """Sans-IO. Of one jitter buffer, which it has stamped anew."""

    __slots__ = (
        "_base",
        "_buffer",
        "_earliest",
        "_ended_at",
        "_frame",
        "_jump",
        "_limit",
        "_moved",
        "_moved_at",
        "_moved_since",
        "_record",
        "_run",
        "_since",
        "_timeline",
        "_usual",
        "found",
    )

    def __init__(self, buffer: JitterBuffer) -> None:
        self.found = 0
        """Frames found missing, those of pauses (up to `STALL_FRAMES` of each) included."""
        self._buffer = buffer
        self._timeline = timeline = buffer.timeline
        self._frame = timeline.clock_rate * FRAME_MS // 1000
        self._limit = self._frame * NEARLY
        self._jump = timeline.clock_rate * JUMP_S
        self._run: list[tuple[float, float]] = []
        """Arrival and lateness of the last frames, all of them late."""
        self._since = [0.0] * LEVELS
        """Since when all has been so many frames late (and one); 0: it has not."""
        self._usual = [PATIENCE_S] * LEVELS
        """How long that may be (s), as known at `_ended_at`."""
        self._ended_at = [0.0] * LEVELS
        self._record: Record | None = None
        """The timeline's, from before the run."""
        self._moved = 0
        """Frames found missing of late, since `_moved_since` or before, at `_moved_at`."""
        self._moved_at = self._moved_since = 0.0
        self._base = self._earliest = float("-inf")
        """The timeline's base then, and by what shorter transit it shows that less is missing."""

    def pause(self, frames: int, arrival: float) -> None:
        """What comes now is to be stamped later by so many frames: nothing came for as long. If it was no pause but
        a stall, what it held back comes next, in a burst, and they are taken back."""
        self._begin()
        if self._timeline.started:
            self._count(min(frames, STALL_FRAMES), arrival, arrival)

    def look(self, timestamp: int, arrival: float) -> int:
        """Called with each frame of a stream that has begun before the buffer gets it: how it is stamped now, and
        when it came. Returns by how much (units) it and all before it are to be stamped later; the buffer has been
        told."""
        timeline = self._timeline
        transit = timeline.transit(timestamp, arrival)
        if self._earliest < transit < timeline.base + self._limit:
            if self._run:
                self._end(0, arrival)
                self._run.clear()
            return 0
        return self._judge(transit, arrival)

    def _begin(self) -> None:
        self._run.clear()
        self._since = [0.0] * LEVELS

    def _judge(self, transit: float, arrival: float) -> int:
        late = transit - self._timeline.base
        if not -self._jump < late < self._jump:
            self._begin()
            return 0
        if transit <= self._earliest:
            return self._take_back(transit, arrival)
        if not self._run:
            self._record = self._timeline.record()
        self._run.append((arrival, late))
        levels = self._climb(late, arrival)
        for level in reversed(range(levels)):
            since = self._since[level]
            if arrival - since >= self._patience(level, arrival):
                return self._believe(since)
        return 0

    def _climb(self, late: float, arrival: float) -> int:
        levels = min(LEVELS, self._whole(late))
        self._end(levels, arrival)
        for level in range(levels):
            if not self._since[level]:
                self._since[level] = arrival
        return levels

    def _whole(self, late: float) -> int:
        return int(late / self._frame + 1 - NEARLY)

    def _patience(self, level: int, arrival: float) -> float:
        usual = self._usual[level]
        if usual > PATIENCE_S:
            usual *= 0.5 ** ((arrival - self._ended_at[level]) / FORGET_S)
        return max(PATIENCE_S, usual)

    def _end(self, levels: int, arrival: float) -> None:
        """Something came that is no more than `levels` frames late."""
        for level in range(levels, LEVELS):
            since = self._since[level]
            if not since:
                return
            self._since[level] = 0.0
            self._learn(level, arrival - since, arrival)

    def _learn(self, level: int, lasted_s: float, arrival: float) -> None:
        self._usual[level] = min(LONGEST_S, max(self._patience(level, arrival), USUAL * lasted_s))
        self._ended_at[level] = arrival

    def _believe(self, since: float) -> int:
        """All since then has been later than before."""
        run, frame = self._run, self._frame
        missing = min(self._whole(late) for arrival, late in run if arrival >= since)
        left = [(arrival, late - min(missing, self._whole(late)) * frame) for arrival, late in run]
        still = len(left)
        while still and left[still - 1][1] >= self._limit:
            still -= 1
        self._buffer.restamp(missing * frame)
        timeline = self._timeline
        assert self._record is not None
        # The last has not been noted yet.
        noted = [late for _, late in left[:-1]]
        timeline.amend(self._record, noted[:still])
        self._record = timeline.record()
        timeline.amend(self._record, noted[still:])
        self._run = left[still:]
        self._since = [0.0] * LEVELS
        for arrival, late in self._run:
            self._climb(late, arrival)
        self._count(missing, left[-1][0], since)
        return missing * frame

    def _count(self, missing: int, arrival: float, since: float) -> None:
        base = self._timeline.base
        if not self._moved or arrival - self._moved_at > FORGET_S:
            self._moved, self._base = 0, base
        self._base = max(self._base, base)
        self._earliest = self._base - self._frame / 2
        self._moved += missing
        self._moved_at, self._moved_since = arrival, since
        self.found += missing

    def _take_back(self, transit: float, arrival: float) -> int:
        """It came earlier than it could have if all that was found missing was."""
        self._end(0, arrival)
        self._run.clear()
        frame, timeline = self._frame, self._timeline
        frames = min(self._moved, int((self._base - transit) / frame + 0.5))
        self._moved -= frames
        if arrival - self._moved_at > FORGET_S:
            self._moved = frames = 0
        if not self._moved:
            self._earliest = float("-inf")
        if not frames:
            return 0
        self.found -= frames
        for level in range(min(frames, LEVELS)):
            self._learn(level, arrival - self._moved_since, arrival)
        self._buffer.restamp(-frames * frame)
        timeline.raise_base(self._base)
        return -frames * frame
