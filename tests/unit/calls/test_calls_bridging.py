"""The junction: who hears whom, at which rate, and that nothing piles up between the legs."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.frames import FrameSink, Unsubscribe, frame_bytes
from bridge.audio.playout import Playout
from bridge.audio.tones import tone, tone_level
from bridge.bridging import (
    BRIDGED,
    CONFERENCE,
    EARLY,
    MAX_WAITING_FRAMES,
    QUIET_TICKS,
    RINGING,
    TALKING,
    WAITING,
    FramePipe,
    Junction,
    mix,
)
from bridge.legs.base import Leg

CALLER_HZ, SECOND_HZ, AGENT_HZ = 500.0, 1000.0, 2000.0
HOLD_HZ, RINGBACK_HZ = 440.0, 480.0
LEVEL = 4000
FRAMES = 25
"""Frames that a party talks in: half a second."""


class Party:
    """A leg on a table: frames in, frames out, by hand."""

    def __init__(self, rate: int) -> None:
        self.sample_rate = rate
        self.playout = Playout(rate)
        self.sinks: list[FrameSink] = []
        self.sent: list[bytes] = []
        self.recorded: list[bytes] = []
        self.playout.listen(lambda pcm, now: self.recorded.append(pcm))

    def listen(self, sink: FrameSink) -> Unsubscribe:
        self.sinks.append(sink)
        return lambda: self.sinks.remove(sink) if sink in self.sinks else None

    def tick(self, frame: bytes, *, held: bool = False) -> None:
        for sink in self.sinks:
            sink(frame, 0.0)
        self.sent.append(self.playout.withhold(0.0) if held else self.playout.take(0.0))


class Table:
    def __init__(self, caller_rate: int = 8000, second_rate: int = 8000) -> None:
        self.caller, self.second = Party(caller_rate), Party(second_rate)
        self.heard_by_agent: list[bytes] = []
        self.junction = Junction(_leg(self.caller))
        self.junction.attach(_leg(self.second))
        self.caller.listen(lambda pcm, now: self.heard_by_agent.append(self.junction.agent_hears(pcm, now)))
        generation = self.caller.playout.begin()
        self.caller.playout.write(generation, tone((AGENT_HZ,), 10_000, caller_rate, level=LEVEL))

    def talk(self, frames: int = FRAMES, *, second_first: bool = False) -> None:
        """All three talk for a while; only what is heard from here on counts."""
        for heard in (self.caller.sent, self.second.sent, self.heard_by_agent, self.caller.recorded):
            heard.clear()
        spoken = [
            frames_of(tone((hz,), 20 * frames, party.sample_rate, level=LEVEL), party.sample_rate)
            for party, hz in ((self.caller, CALLER_HZ), (self.second, SECOND_HZ))
        ]
        for caller, second in zip(*spoken, strict=True):
            ticks: list[Callable[[], None]] = [
                lambda caller=caller: self.caller.tick(caller),
                lambda second=second: self.second.tick(second),
            ]
            for tick in reversed(ticks) if second_first else ticks:
                tick()


def _leg(party: Party) -> Leg:
    return party  # type: ignore[return-value]  # the part of a leg that a junction needs


def frames_of(pcm: bytes, rate: int) -> list[bytes]:
    size = frame_bytes(rate)
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def voices(frames: list[bytes], rate: int) -> set[float]:
    """The parties that sound in the middle of the frames."""
    pcm = b"".join(frames[5:-1])
    known = (CALLER_HZ, SECOND_HZ, AGENT_HZ)
    return {hz for hz in known if tone_level(pcm, hz, rate) > LEVEL / 2}


RATES = [(8000, 8000), (8000, 16000), (16000, 8000), (8000, 48000), (48000, 16000)]


@pytest.mark.parametrize(("caller_rate", "second_rate"), RATES)
@pytest.mark.parametrize("second_first", [False, True])
@pytest.mark.parametrize(
    ("routing", "caller_hears", "second_hears", "agent_hears"),
    [
        (TALKING, {AGENT_HZ}, set(), {CALLER_HZ}),
        (WAITING, set(), set(), set()),
        (RINGING, {AGENT_HZ}, set(), {CALLER_HZ}),
        (EARLY, {AGENT_HZ, SECOND_HZ}, set(), {CALLER_HZ}),
        (BRIDGED, {SECOND_HZ}, {CALLER_HZ}, set()),
        (CONFERENCE, {SECOND_HZ, AGENT_HZ}, {CALLER_HZ, AGENT_HZ}, {CALLER_HZ, SECOND_HZ}),
    ],
)
def test_each_party_hears_whom_it_should(
    routing, caller_hears, second_hears, agent_hears, second_first, caller_rate, second_rate
) -> None:
    table = Table(caller_rate, second_rate)
    table.junction.routing = routing
    table.talk(second_first=second_first)
    assert voices(table.caller.sent, caller_rate) == caller_hears
    assert voices(table.second.sent, second_rate) == second_hears
    assert voices(table.heard_by_agent, caller_rate) == agent_hears
    assert table.caller.recorded == table.caller.sent
    assert {len(f) for f in table.caller.sent} == {frame_bytes(caller_rate)}
    assert {len(f) for f in table.second.sent} == {frame_bytes(second_rate)}
    assert table.junction.frames_dropped == 0


def level(frames: list[bytes], hz: float) -> float:
    return tone_level(b"".join(frames[1:15]), hz, 8000)


def test_who_waits_hears_the_hold_tone_and_who_is_put_through_hears_it_ring() -> None:
    table = Table()
    table.junction.routing = WAITING
    table.talk()
    assert level(table.caller.sent, HOLD_HZ) > 500
    assert level(table.second.sent, HOLD_HZ) > 500
    table.junction.routing = RINGING
    table.talk()
    assert level(table.caller.sent, RINGBACK_HZ) > 500


def test_a_party_whose_other_side_holds_without_music_hears_the_hold_tone() -> None:
    table = Table()
    table.junction.routing = BRIDGED
    table.junction.caller_hold.begin(music=False)
    table.talk()
    assert level(table.second.sent, HOLD_HZ) > 500
    assert level(table.caller.sent, HOLD_HZ) < 100


@pytest.mark.parametrize("silence", [bytes(320), b"\x08\x00" * 160], ids=["mu-law", "A-law"])
def test_who_holds_with_music_that_never_comes_is_found_out(silence: bytes) -> None:
    table = Table()
    table.junction.routing = BRIDGED
    table.junction.second_hold.begin(music=True)
    table.talk()
    assert level(table.caller.sent, SECOND_HZ) > 3000, "this is its music"
    assert level(table.caller.sent, HOLD_HZ) < 100
    table.caller.sent.clear()
    for _ in range(QUIET_TICKS + 15):
        table.second.tick(silence)
        table.caller.tick(bytes(320))
    assert level(table.caller.sent[: QUIET_TICKS - 5], HOLD_HZ) < 100
    assert level(table.caller.sent[-15:], HOLD_HZ) > 500
    table.junction.second_hold.end()
    table.talk()
    assert level(table.caller.sent, HOLD_HZ) < 100


def test_parted_legs_hear_their_own_playout_and_nothing_is_left_on_them() -> None:
    table = Table()
    table.junction.routing = BRIDGED
    table.talk()
    table.junction.close()
    table.junction.close()
    table.talk()
    assert voices(table.caller.sent, 8000) == {AGENT_HZ}
    assert voices(table.second.sent, 8000) == set()
    assert table.second.sinks == [] and table.second.playout.blend is None and table.caller.playout.blend is None


def test_an_older_junction_does_not_take_the_newer_ones_place_away() -> None:
    table = Table()
    newer = Junction(_leg(table.caller))
    table.junction.close()
    assert table.caller.playout.blend is not None
    newer.close()


def test_a_caller_waits_while_there_is_no_second_leg_yet() -> None:
    caller = Party(8000)
    junction = Junction(_leg(caller))
    junction.routing = WAITING
    for _ in range(20):
        caller.tick(bytes(320))
    assert level(caller.sent, HOLD_HZ) > 500
    assert junction.frames_dropped == 0


def test_a_second_leg_that_changes_its_rate_is_attached_anew() -> None:
    table = Table()
    table.junction.routing = BRIDGED
    table.talk()
    table.second.sample_rate, table.second.playout = 16000, Playout(16000)
    table.junction.attach(_leg(table.second))
    table.talk()
    assert voices(table.second.sent, 16000) == {CALLER_HZ}
    assert voices(table.caller.sent, 8000) == {SECOND_HZ}
    assert len(table.second.sinks) == 1


def test_an_announcement_to_the_second_party_is_heard_by_it_alone() -> None:
    table = Table()
    table.junction.routing = BRIDGED
    generation = table.second.playout.begin()
    table.second.playout.write(generation, tone((3000.0,), 1000, 8000, level=LEVEL))
    table.talk()
    assert level(table.second.sent, 3000.0) > LEVEL / 2
    assert level(table.caller.sent, 3000.0) < 100


def test_a_leg_that_sends_nothing_for_a_while_is_not_late_afterwards() -> None:
    table = Table()
    table.junction.routing = BRIDGED
    for _ in range(50):
        table.caller.tick(bytes(320))
    assert table.junction.frames_dropped == 50 - MAX_WAITING_FRAMES
    table.second.tick(bytes(320), held=True)
    assert table.junction.frames_dropped == 50 - MAX_WAITING_FRAMES


@given(st.lists(st.lists(st.integers(-32768, 32767), min_size=4, max_size=4), max_size=5))
def test_a_mix_is_the_sum_cut_at_full_scale(parts: list[list[int]]) -> None:
    got = np.frombuffer(mix(np.array(part, "<i2").tobytes() for part in parts), "<i2")
    expected = np.clip(np.sum(parts, axis=0), -32768, 32767) if parts else np.array([])
    assert got.tolist() == np.atleast_1d(expected).tolist()


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_a_pipe_gives_one_frame_for_each_it_takes(in_rate: int, out_rate: int) -> None:
    pipe = FramePipe(in_rate, out_rate)
    for frame in frames_of(tone((300.0,), 2000, in_rate), in_rate):
        pipe.push(frame)
        taken = pipe.take()
        assert taken is not None and len(taken) == frame_bytes(out_rate)
        assert pipe.take() is None
