"""What chan_websocket has of our audio and has not played: measured by marks, kept short, dropped at a barge-in.

Asterisk takes a frame from its queue each 20 ms by a timer of its own, and plays silence where there is none: a frame
that comes a moment too late leaves a hole, and lengthens the queue for the rest of the call. So each frame is to wait
there a little, and not more: how long one does is what a mark tells that is sent with it. The queue is made longer
or shorter where we say nothing. Sans-IO: times (s, monotonic) are passed in, commands come out.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from bridge.asterisk.media_dialect import MarkProcessed, MediaCommands, QueueStatus
from bridge.audio.frames import FRAME_MS, FRAME_S

MARK_S = 0.5
"""Between two measurements ..."""
STEADY_MARK_S = 1.0
"""... and where the last one was ..."""
STEADY_S = 0.001
"""... so near to what was expected: each costs a message both ways, and a look at the socket for the answer."""

LOW_S = 0.003
"""Shortest wait that is good enough: what our own clock is late now and then."""
STEP_S = 0.005
HIGHEST_LOW_S = 0.03
"""The same on a path, or a machine, that is late more often: for each hole a step more, up to this."""
SPARE_S = 0.0005
"""Longer than the shortest good wait and a frame, until a frame is left out."""
RELAX = 0.995
"""What is left of a longer wait at each measurement: half of it after a minute."""

HOLE_S = 0.75 * FRAME_S
"""A wait that grew by more, without our doing: Asterisk had no frame when it wanted one."""

STALLED_S = 1.5
"""A mark that is out for so long: Asterisk reads nothing, or plays nothing. More audio would be late for good."""

ANSWER_S = 1.0
"""Longest wait for the answer to a flush."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Asterisk is told to drop what it has."""

    commands: tuple[str, ...]
    frames: int
    """That it has by our reckoning; `Flushed` corrects it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many frames Asterisk had when it dropped them: it tells so just before it does."""

    frames: int
    believed: int
    since: int
    """Frames sent since then."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Asterisk says that its queue is empty."""

    took_ms: float
    dropped_ms: float


@dataclass(slots=True)
class _Flush:
    at: float
    believed: int
    sent: int
    """Frames sent before it."""
    dropped: int = 0


class FarQueue:
    """One media channel's."""

    def __init__(self, commands: MediaCommands) -> None:
        self.attend_at = float("-inf")
        """When `attend` is to be asked next, as soon as a frame is sent."""
        self.sent = 0
        """Frames, but for those that only lengthen the queue. The transport counts them."""
        self.sent_at = 0.0
        """When the last of them was due."""
        self.wait_s: float | None = None
        """How long it is from when a frame is due to when Asterisk plays it; None: not known yet."""
        self._steady = False
        """The last measurement was what was expected."""
        self._wait_before_s: float | None = None
        """The same by the measurement before."""
        self.round_trip_s: float | None = None
        """The shortest from a question to its answer."""
        self.full = False
        """Asterisk said that it takes no more."""
        self.holes = 0
        """Times that Asterisk had no frame when it wanted one."""
        self.lengthened = self.shortened = 0
        """Frames of silence sent beyond those of the clock, and left out."""
        self._commands = commands
        self._low_s = LOW_S
        self._adjust = 0
        """Frames by which the queue is to be made longer (or shorter) in the next silence."""
        self._expected_s: float | None = None
        """What the next measurement is to be, if nothing happens."""
        self._changes = 0
        self._marks: deque[tuple[str, float, int]] = deque()
        """Not answered yet, when they were sent, and the changes before."""
        self._mark_number = 0
        self._next_mark = float("-inf")
        self._questions: deque[tuple[Literal["probe", "before", "after"], float, _Flush | None]] = deque()

    @property
    def far_frames(self) -> int:
        """Frames that are not played yet just after one was sent."""
        return 1 if self.wait_s is None else math.ceil(self.wait_s / FRAME_S)

    @property
    def spare_s(self) -> float | None:
        """By how much a frame waits longer than it need, by two measurements: one may have been held up itself. None:
        not known."""
        if self.wait_s is None or self._wait_before_s is None:
            return None
        return min(self.wait_s, self._wait_before_s) - self._low_s

    def shift(self, earlier_s: float) -> None:
        """From the next frame on they are due so much earlier (negative: later)."""
        self._change_wait(earlier_s)
        if self.wait_s is not None:
            self._judge(self.wait_s)

    @property
    def awaiting(self) -> bool:
        """An answer is awaited whose time matters."""
        return bool(self._marks or self._questions)

    def stalled(self, now: float) -> bool:
        """Nothing more should be sent: it would only be late."""
        return self.full or bool(self._marks and now - self._marks[0][1] > STALLED_S)

    def probe(self, now: float) -> str:
        """The command that measures the round trip."""
        self._questions.append(("probe", now, None))
        return self._commands.get_status

    # -- sending --------------------------------------------------------------------------------------------

    def attend(self, now: float, *, silent: bool) -> tuple[str, int]:
        """A frame is about to be sent, silent or not; `now` is the clock's time for it, however late it is. Returns
        the command to send before it (empty: none), and how often to send the frame: once, or twice or not at all to
        put the queue right."""
        copies = 1
        if self._adjust and silent:
            copies = 2 if self._adjust > 0 else 0
            self._change(1 if self._adjust > 0 else -1)
        command = ""
        if copies == 1 and now >= self._next_mark:
            command = self._mark(now)
        self.attend_at = float("-inf") if self._adjust else self._next_mark
        return command, copies

    def _mark(self, now: float) -> str:
        self._mark_number += 1
        id = f"m{self._mark_number}"
        self._marks.append((id, now, self._changes))
        self._next_mark = now + (STEADY_MARK_S if self._steady else MARK_S)
        return self._commands.mark(id)

    def _change(self, frames: int) -> None:
        self._adjust -= frames
        if frames > 0:
            self.lengthened += 1
        else:
            self.shortened += 1
        self._change_wait(frames * FRAME_S)

    def _change_wait(self, by_s: float) -> None:
        self._changes += 1
        if self.wait_s is not None:
            self.wait_s = max(0.0, self.wait_s + by_s)
        if self._wait_before_s is not None:
            self._wait_before_s = max(0.0, self._wait_before_s + by_s)
        if self._expected_s is not None:
            self._expected_s += by_s

    # -- what Asterisk says ---------------------------------------------------------------------------------

    def processed(self, event: MarkProcessed, now: float) -> None:
        """A mark was reached. Its frame has just left the queue."""
        while self._marks:
            id, sent_at, changes = self._marks.popleft()
            if id == event.id:
                # What was changed behind the mark it does not know.
                if changes == self._changes:
                    self._measured(max(0.0, now - sent_at - (self.round_trip_s or 0.0)))
                return

    def refuse_marks(self) -> None:
        """Asterisk knows none: nothing is measured."""
        self._marks.clear()
        self._next_mark = float("inf")

    def _measured(self, wait_s: float) -> None:
        grown = 0.0 if self._expected_s is None else wait_s - self._expected_s
        if grown > HOLE_S:
            self.holes += round(grown / FRAME_S)
            self._low_s = min(self._low_s + STEP_S, HIGHEST_LOW_S)
        else:
            # As far as measurements are apart.
            relaxed = RELAX * RELAX if self._steady else RELAX
            self._low_s = max(LOW_S, self._low_s * relaxed)
        self._steady = self._expected_s is not None and abs(grown) < STEADY_S
        self._wait_before_s = self.wait_s
        self.wait_s = self._expected_s = wait_s
        self._judge(wait_s)

    def _judge(self, wait_s: float) -> None:
        """Whether the queue is to be made longer or shorter."""
        low = self._low_s
        if wait_s < low:
            self._adjust = math.ceil((low - wait_s) / FRAME_S)
        elif wait_s > low + FRAME_S + SPARE_S:
            self._adjust = -int((wait_s - low) / FRAME_S)
        else:
            self._adjust = 0
        if self._adjust:
            self.attend_at = float("-inf")

    def take_full(self, full: bool) -> None:
        """XOFF or XON."""
        self.full = full

    # -- cutting off ----------------------------------------------------------------------------------------

    def cut(self, now: float) -> Cut:
        """Have everything dropped that Asterisk has not played."""
        wait_s = FRAME_S / 2 if self.wait_s is None else self.wait_s
        frames = min(self.sent, max(0, math.ceil((wait_s - (now - self.sent_at)) / FRAME_S)))
        flush = _Flush(now, frames, self.sent)
        self._questions.append(("before", now, flush))
        self._questions.append(("after", now, flush))
        # Marks in the queue are dropped with it, silently; and what was measured is no more.
        self._marks.clear()
        self._expected_s = self._wait_before_s = None
        self._adjust = 0
        if self._next_mark != float("inf"):
            self._next_mark = self.attend_at = float("-inf")
        commands = self._commands
        return Cut((commands.get_status, commands.flush, commands.get_status), frames)

    def status(self, event: QueueStatus, now: float) -> Counted | Flushed | None:
        """The answer to the oldest question."""
        self.full = event.full
        if not self._questions:
            return None
        what, asked_at, flush = self._questions.popleft()
        took_s = now - asked_at
        if self.round_trip_s is None or took_s < self.round_trip_s:
            self.round_trip_s = took_s
        if flush is None:
            return None
        if what == "before":
            flush.dropped = event.frames
            return Counted(event.frames, flush.believed, self.sent - flush.sent)
        return Flushed(took_s * 1000, flush.dropped * FRAME_MS)

    def give_up(self, now: float) -> None:
        """Forget questions that nobody answers."""
        while self._questions and now - self._questions[0][1] > ANSWER_S:
            self._questions.popleft()
