"""What the far side had not played yet is taken back: nothing is lost at a false alarm, nothing claimed as heard."""

import numpy as np
import pytest

from bridge.audio.frames import frame_bytes
from bridge.audio.playout import Playout

RATE = 8000
FRAME = frame_bytes(RATE)
SILENCE = bytes(FRAME)
FADED = 5 * RATE // 1000


class FarSide:
    """Has what was sent and not played; drops it when the agent is cut off."""

    def __init__(self, buffered: int, believed: int | None = None) -> None:
        """It buffers so many frames; `believed`: what its transport thinks."""
        self.playout = Playout(RATE)
        self.playout.keep(10)
        self.playout.on_cut = self._on_cut
        self.playout.far_frames = buffered if believed is None else believed
        self.buffered = buffered
        self.queue: list[bytes] = []
        self.played: list[bytes] = []
        self.cuts = 0

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.queue.append(self.playout.take(0.0))
            if len(self.queue) > self.buffered:
                self.played.append(self.queue.pop(0))

    def _on_cut(self) -> None:
        self.cuts += 1
        self.queue.clear()
        faded = self.playout.take_back(self.playout.far_frames)
        if faded:
            self.queue.append(faded)

    @property
    def heard(self) -> bytes:
        return b"".join(self.played)


def ramp(ms: int) -> bytes:
    """Each sample another, so that any hole or repetition shows."""
    return np.arange(1000, 1000 + RATE * ms // 1000, dtype="<i2").tobytes()


def talking(far: FarSide, ms: int = 400, frames: int = 8) -> bytes:
    pcm = ramp(ms)
    generation = far.playout.begin()
    far.playout.write(generation, pcm)
    far.playout.end(generation)
    far.ticks(frames)
    return pcm


def test_heard_leaves_out_the_frames_that_the_far_side_still_has() -> None:
    far = FarSide(3)
    talking(far)
    assert far.playout.sent_ms == 160
    assert far.playout.far_buffer_ms == 60
    assert far.playout.heard_ms == 100
    assert len(far.heard) == 5 * FRAME


def test_silence_after_an_utterance_is_no_part_of_what_is_not_heard_yet() -> None:
    far = FarSide(3)
    talking(far, ms=40, frames=4)
    assert far.playout.sent_ms == 40
    assert far.playout.heard_ms == 20
    far.ticks(1)
    assert far.playout.heard_ms == 40
    assert far.playout.far_buffer_ms == 0


def test_a_false_alarm_goes_on_where_the_far_party_stopped_hearing() -> None:
    far = FarSide(3)
    pcm = talking(far)
    far.playout.pause()
    assert far.cuts == 1
    assert far.playout.heard_ms == far.playout.sent_ms == 100
    assert far.playout.queued_ms == 300
    far.ticks(10)
    heard = np.frombuffer(far.heard, "<i2")
    assert far.heard[: 5 * FRAME] == pcm[: 5 * FRAME]
    # The first 5 ms of what was dropped, faded out, and then silence.
    faded = heard[5 * FRAME // 2 : 6 * FRAME // 2]
    assert faded[0] == np.frombuffer(pcm, "<i2")[5 * FRAME // 2]
    assert np.all(np.diff(faded[:FADED].astype(int)) < 0)
    assert not faded[FADED:].any()
    far.playout.resume()
    far.ticks(18)
    went_on = far.heard[-15 * FRAME :]
    # Faded in, and then as it was written.
    assert went_on[FADED * 2 : 15 * FRAME] == pcm[5 * FRAME + FADED * 2 : 20 * FRAME]
    assert far.playout.sent_ms == far.playout.heard_ms == 400


def test_what_is_dropped_was_not_heard() -> None:
    far = FarSide(3)
    talking(far)
    assert far.playout.drop() == 300
    assert far.playout.heard_ms == far.playout.sent_ms == 100
    far.ticks(3)
    assert far.playout.heard_ms == 100
    assert np.frombuffer(far.heard, "<i2")[5 * FRAME // 2 + FADED :].any() == np.False_


def test_an_utterance_in_place_of_one_that_sounds_cuts_it_off() -> None:
    far = FarSide(2)
    talking(far)
    generation = far.playout.begin()
    far.playout.write(generation, ramp(100))
    assert far.cuts == 1
    assert far.playout.heard_ms == 0
    far.ticks(4)
    assert far.playout.sent_ms == 80 and far.playout.heard_ms == 40


def test_frames_of_the_utterance_before_are_no_part_of_the_next() -> None:
    far = FarSide(3)
    talking(far, ms=100, frames=5)
    assert not far.playout.speaking
    far.playout.begin()
    assert far.cuts == 0
    assert far.playout.far_buffer_ms == 0
    assert far.playout.take_back(3) == b""
    assert far.playout.sent_ms == 0


def test_only_an_utterance_that_has_begun_to_sound_is_cut() -> None:
    far = FarSide(2)
    far.playout.pause()
    generation = far.playout.begin()
    far.playout.write(generation, ramp(100))
    far.playout.pause()
    far.playout.drop()
    assert far.cuts == 0


def test_a_paused_utterance_that_is_dropped_is_cut_once() -> None:
    far = FarSide(2)
    talking(far)
    far.playout.pause()
    far.playout.pause()
    far.playout.drop()
    assert far.cuts == 1


def test_what_is_in_the_far_buffer_is_cut_also_when_the_producer_was_too_slow() -> None:
    far = FarSide(3)
    generation = far.playout.begin()
    far.playout.write(generation, ramp(100))
    far.ticks(6)
    assert far.playout.queued_ms == 0
    far.playout.pause()
    assert far.cuts == 1
    assert far.playout.heard_ms == 60
    assert far.playout.queued_ms == 40
    far.playout.resume()
    far.ticks(5)
    assert far.playout.sent_ms == 100


@pytest.mark.parametrize("ticks_later", [0, 2])
def test_more_was_dropped_than_believed(ticks_later: int) -> None:
    far = FarSide(4, believed=2)
    pcm = talking(far)
    far.playout.pause()
    far.ticks(ticks_later)
    assert far.playout.heard_ms == 120
    far.playout.take_back(2, since=ticks_later)
    assert far.playout.heard_ms == 80
    far.playout.resume()
    far.ticks(40)
    assert pcm[4 * FRAME + 2 * FADED :] in far.heard


def test_less_was_dropped_than_believed() -> None:
    far = FarSide(1, believed=3)
    pcm = talking(far)
    far.playout.pause()
    assert far.playout.heard_ms == 100
    far.playout.played_after_all(2)
    assert far.playout.heard_ms == 140
    far.playout.resume()
    far.ticks(40)
    assert pcm[7 * FRAME + 2 * FADED :] in far.heard
    assert pcm[6 * FRAME + 2 * FADED :] not in far.heard


def test_less_was_dropped_of_an_utterance_that_is_over() -> None:
    far = FarSide(1, believed=3)
    talking(far)
    far.playout.drop()
    far.playout.played_after_all(2)
    assert far.playout.heard_ms == 140


def test_late_news_change_nothing_of_an_utterance_that_went_on() -> None:
    far = FarSide(2)
    talking(far)
    far.playout.pause()
    far.playout.resume()
    far.ticks(2)
    sent = far.playout.sent_ms
    assert far.playout.take_back(2, since=2) == b""
    far.playout.played_after_all(2)
    assert far.playout.sent_ms == sent


def test_without_a_far_buffer_nothing_is_kept_or_taken_back() -> None:
    playout = Playout(RATE)
    generation = playout.begin()
    playout.write(generation, ramp(100))
    playout.take(0.0)
    assert playout.take_back(1) == b""
    assert playout.sent_ms == 20
