"""What waits in Asterisk is measured, kept short without a hole, and counted when it is dropped."""

import json
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.asterisk.far_queue import (
    ANSWER_S,
    HIGHEST_LOW_S,
    LOW_S,
    SPARE_S,
    STALLED_S,
    Counted,
    FarQueue,
    Flushed,
)
from bridge.asterisk.media_dialect import MarkProcessed, MediaCommands, QueueStatus

FRAME_S = 0.02
NET_S = 0.0002


class Asterisk:
    """chan_websocket's queue: a frame leaves it each 20 ms by its own timer; marks are passed on the way."""

    def __init__(self, phase_s: float) -> None:
        self.now = 0.0
        self.next_s = phase_s
        self.queue: deque[str] = deque()
        self.holes = 0
        self.marks = 0
        self.waiting = False
        """It was given audio, so that a hole would be heard."""
        self.answers: list[tuple[float, MarkProcessed | QueueStatus]] = []

    @property
    def frames(self) -> int:
        return self.queue.count("frame")

    def run(self, until: float) -> None:
        while self.next_s <= until:
            self._play(self.next_s)
            self.next_s += FRAME_S
        self.now = until

    def _play(self, now: float) -> None:
        while self.queue and self.queue[0] != "frame":
            self.answers.append((now, MarkProcessed(self.queue.popleft())))
        if self.queue:
            self.queue.popleft()
        elif self.waiting:
            self.holes += 1

    def take(self, text: str) -> None:
        command = json.loads(text)
        match command["command"]:
            case "MARK_MEDIA":
                self.marks += 1
                self.queue.append(command["correlation_id"])
            case "GET_STATUS":
                self.answers.append((self.now, QueueStatus(self.frames, 800, 900, False, False, False)))
            case "FLUSH_MEDIA":
                self.queue.clear()
            case other:
                raise AssertionError(other)


class Call:
    """Our clock sends a frame each 20 ms into that queue."""

    def __init__(self, phase_s: float, *, silent: bool = True) -> None:
        self.asterisk = Asterisk(phase_s)
        self.far = FarQueue(MediaCommands("json"))
        self.now = 0.0
        self.silent = silent
        self.told: list[Counted | Flushed | None] = []
        self.asterisk.take(self.far.probe(0.0))

    def run(self, seconds: float, *, late_s: float = 0.0) -> None:
        """`late_s`: the first of these frames."""
        for n in range(round(seconds / FRAME_S)):
            self.tick(late_s if not n else 0.0)

    def tick(self, late_s: float = 0.0) -> None:
        at = self.now + late_s
        self.let_pass(at)
        copies = 1
        if self.now >= self.far.attend_at:
            command, copies = self.far.attend(self.now, silent=self.silent)
            if command:
                self.asterisk.take(command)
        self.far.sent += 1
        if copies:
            self.far.sent_at = self.now
        self.asterisk.queue.extend(["frame"] * copies)
        self.asterisk.waiting = True
        self.now += FRAME_S

    def let_pass(self, until: float) -> None:
        self.asterisk.run(until)
        for at, answer in self.asterisk.answers:
            if isinstance(answer, MarkProcessed):
                self.far.processed(answer, at + NET_S)
            else:
                self.told.append(self.far.status(answer, at + NET_S))
        self.asterisk.answers.clear()

    def cut(self, after_s: float) -> int:
        """So long after the last frame; returns how many frames we believe that Asterisk drops."""
        at = self.now - FRAME_S + after_s
        self.let_pass(at)
        cut = self.far.cut(at)
        for command in cut.commands:
            self.asterisk.take(command)
        self.asterisk.waiting = False
        return cut.frames


def test_what_a_frame_waits_too_long_is_known_by_two_measurements() -> None:
    call = Call(0.012, silent=False)
    call.run(0.4)
    assert call.far.spare_s is None
    call.run(1.2)
    assert call.far.spare_s == pytest.approx(0.012 - LOW_S, abs=0.001)


@pytest.mark.parametrize("earlier_s", [0.005, -0.005, -0.0075])
def test_frames_that_are_sent_at_another_time_wait_so_much_longer_or_shorter_and_that_is_no_hole(
    earlier_s: float,
) -> None:
    call = Call(0.012, silent=False)
    call.run(2)
    call.now -= earlier_s
    call.far.shift(earlier_s)
    assert call.far.wait_s == pytest.approx(0.012 + earlier_s, abs=0.001)
    assert call.far.spare_s == pytest.approx(0.012 + earlier_s - LOW_S, abs=0.001)
    call.run(4)
    assert call.far.wait_s == pytest.approx(0.012 + earlier_s, abs=0.001)
    assert call.asterisk.holes == call.far.holes == call.far.shortened == call.far.lengthened == 0


def test_what_a_hole_has_lengthened_is_made_short_by_sending_later_while_the_agent_talks() -> None:
    call = Call(0.012, silent=False)
    call.run(1.2)
    call.run(3, late_s=0.015)
    assert call.far.holes == 1
    for _ in range(4):
        call.now += 0.005
        call.far.shift(-0.005)
        call.run(0.1)
    call.run(3)
    assert call.far.wait_s == pytest.approx(0.012, abs=0.001)
    assert call.asterisk.holes == call.far.holes == 1
    assert call.far.shortened == 0


def test_a_queue_that_stays_as_it_is_is_measured_less_often() -> None:
    call = Call(0.012, silent=False)
    call.run(4)
    asked = call.asterisk.marks
    call.run(10)
    assert call.asterisk.marks - asked <= 11


@pytest.mark.parametrize("phase_ms", [0.1, 1, 2.5, 3.5, 7, 12, 19, 19.9])
def test_a_frame_waits_long_enough_and_not_longer_whatever_the_phase(phase_ms: float) -> None:
    call = Call(phase_ms / 1000)
    call.run(3)
    before = call.asterisk.holes
    call.silent = False
    call.run(10)
    assert call.asterisk.holes == before <= 1
    assert call.far.wait_s is not None
    assert LOW_S - 0.001 <= call.far.wait_s <= LOW_S + FRAME_S + SPARE_S


def test_the_wait_is_what_it_was_measured_to_be() -> None:
    call = Call(0.012)
    call.run(1)
    assert call.far.wait_s == pytest.approx(0.012, abs=0.001)
    assert call.far.far_frames == 1
    assert call.far.round_trip_s == pytest.approx(NET_S)


def test_a_frame_that_came_too_late_is_counted_as_a_hole_and_the_queue_made_short_again_in_silence() -> None:
    call = Call(0.012, silent=False)
    call.run(1.2)
    call.run(2, late_s=0.015)
    assert call.asterisk.holes == call.far.holes == 1
    assert call.far.wait_s == pytest.approx(0.032, abs=0.001)
    assert call.far.shortened == 0
    call.silent = True
    call.run(2)
    assert call.far.shortened == 1
    assert call.far.wait_s == pytest.approx(0.012, abs=0.001)
    assert call.far.holes == 1


def test_where_frames_are_late_again_and_again_more_is_kept_in_hand() -> None:
    call = Call(0.006)
    for _ in range(6):
        call.run(1.02, late_s=0.009)
    holes = call.far.holes
    assert holes >= 1
    call.run(1.02, late_s=0.009)
    assert call.far.holes == holes
    assert call.far.wait_s is not None and call.far.wait_s > 0.009


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 0.0199),
    st.lists(st.tuples(st.floats(0.0, 0.06), st.booleans(), st.integers(1, 60)), max_size=25),
)
def test_whatever_comes_late_the_queue_stays_bounded(phase_s: float, happens: list[tuple[float, bool, int]]) -> None:
    call = Call(phase_s)
    call.run(1)
    for late_s, silent, frames in happens:
        call.silent = silent
        call.run(frames * FRAME_S, late_s=late_s)
    call.silent = True
    call.run(10)
    assert call.far.wait_s is not None
    assert call.far.wait_s <= HIGHEST_LOW_S + FRAME_S + SPARE_S + 0.001
    assert call.asterisk.frames <= 5


@pytest.mark.parametrize("phase_ms", [4, 9, 15, 22])
@pytest.mark.parametrize("after_ms", [1, 7, 13, 19])
def test_a_cut_knows_how_many_frames_are_dropped(phase_ms: float, after_ms: float) -> None:
    call = Call(phase_ms / 1000, silent=False)
    call.run(2)
    believed = call.cut(after_ms / 1000)
    call.let_pass(call.now)
    counted, flushed = [told for told in call.told if told is not None]
    assert counted == Counted(frames=believed, believed=believed, since=0)
    assert flushed == Flushed(took_ms=pytest.approx(NET_S * 1000), dropped_ms=believed * 20)
    assert call.asterisk.frames == 0


def test_what_asterisk_counted_is_told_beside_what_was_believed() -> None:
    call = Call(0.012, silent=False)
    call.run(2)
    call.asterisk.queue.extend(["frame"] * 3)
    believed = call.cut(0.001)
    call.tick()
    assert call.told[-2:] == [
        Counted(frames=believed + 3, believed=believed, since=0),
        Flushed(pytest.approx(NET_S * 1000), (believed + 3) * 20),
    ]


def test_frames_sent_before_the_answer_are_told() -> None:
    call = Call(0.012)
    call.run(2)
    call.cut(0.001)
    answers, call.asterisk.answers = call.asterisk.answers, []
    call.run(0.1)
    told = [call.far.status(answer, call.now) for _, answer in answers if isinstance(answer, QueueStatus)]
    assert isinstance(told[0], Counted) and told[0].since == 5


def test_after_a_cut_the_queue_is_measured_anew() -> None:
    call = Call(0.009)
    call.run(2)
    call.cut(0.003)
    call.run(1)
    assert call.far.holes == 0
    assert call.far.wait_s == pytest.approx(0.009, abs=0.001)
    assert not call.far.stalled(call.now)


def test_a_mark_that_does_not_come_back_stalls_until_it_does() -> None:
    call = Call(0.012)
    call.run(1)
    call.asterisk.next_s = 1e9
    call.run(1)
    assert not call.far.stalled(call.now)
    call.run(1)
    assert call.far.stalled(call.now)
    call.asterisk.next_s = call.now
    call.let_pass(call.now + 2)
    assert not call.far.stalled(call.now + 2)
    assert STALLED_S < 2


def test_full_is_obeyed_until_there_is_room() -> None:
    far = FarQueue(MediaCommands("json"))
    far.take_full(True)
    assert far.stalled(0.0)
    far.take_full(False)
    assert not far.stalled(0.0)


def test_a_status_that_says_full_counts_as_well() -> None:
    far = FarQueue(MediaCommands("json"))
    far.probe(0.0)
    far.status(QueueStatus(950, 800, 900, True, False, False), 0.1)
    assert far.stalled(0.1)


def test_questions_that_nobody_answers_are_forgotten() -> None:
    far = FarQueue(MediaCommands("json"))
    far.cut(1.0)
    assert far.awaiting
    far.give_up(1.0 + ANSWER_S / 2)
    assert far.awaiting
    far.give_up(1.1 + ANSWER_S)
    assert not far.awaiting
    assert far.status(QueueStatus(3, 800, 900, False, False, False), 3.0) is None


def test_where_there_are_no_marks_nothing_is_measured_nor_awaited() -> None:
    far = FarQueue(MediaCommands("json"))
    command, copies = far.attend(0.0, silent=True)
    assert command and copies == 1
    far.refuse_marks()
    assert far.attend(10.0, silent=True) == ("", 1)
    far.cut(11.0)
    assert far.attend(12.0, silent=True) == ("", 1)
    assert not far.stalled(20.0)
    assert far.far_frames == 1
