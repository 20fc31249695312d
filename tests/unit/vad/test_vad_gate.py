"""The level gate tracks the line's noise and is never deaf for long."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.vad_gate import BLOCK_FRAMES, BLOCKS, GateSettings, LevelGate

WINDOW_FRAMES = BLOCK_FRAMES * BLOCKS


def gate_after(*levels: tuple[float, int]) -> LevelGate:
    """A gate that heard each level for so many frames."""
    gate = LevelGate(GateSettings())
    for level, frames in levels:
        for _ in range(frames):
            gate.passes(level, speaking=False)
    return gate


def test_steady_noise_passes_only_until_it_is_known() -> None:
    gate = LevelGate(GateSettings())
    passed = [gate.passes(300.0, speaking=False) for _ in range(100)]
    assert passed[0]
    assert not any(passed[20:])


def test_what_is_6_db_above_the_noise_passes() -> None:
    gate = gate_after((300.0, 100))
    assert not gate.passes(590.0, speaking=False)
    assert gate.passes(610.0, speaking=False)


def test_weak_sounds_pass_while_speech_is_under_way() -> None:
    gate = gate_after((300.0, 100))
    assert gate.passes(460.0, speaking=True)
    assert not gate.passes(460.0, speaking=False)


def test_nothing_below_the_least_level_passes() -> None:
    gate = gate_after((0.0, 100))
    assert not gate.passes(39.0, speaking=False)
    assert gate.passes(41.0, speaking=False)


def test_noise_that_begins_in_the_call_is_shut_out_within_the_window() -> None:
    gate = gate_after((10.0, 100))
    passed = [gate.passes(500.0, speaking=False) for _ in range(WINDOW_FRAMES + BLOCK_FRAMES)]
    assert passed[0]
    assert not passed[-1]


def test_noise_judged_as_such_is_shut_out_at_once() -> None:
    gate = gate_after((10.0, 105), (500.0, 9))
    assert gate.passes(500.0, speaking=False)
    gate.learn_noise()
    assert gate.passes(500.0, speaking=False), "the block in which it began still holds quiet frames"
    for _ in range(BLOCK_FRAMES):
        gate.passes(500.0, speaking=False)
    gate.learn_noise()
    assert not gate.passes(500.0, speaking=False)


def test_not_deaf_after_loud_music() -> None:
    gate = gate_after((10.0, 100), (8000.0, 500))
    assert not gate.passes(8000.0, speaking=False)
    gate.passes(10.0, speaking=False)
    assert gate.passes(100.0, speaking=False)


def test_speech_with_pauses_does_not_lift_the_floor() -> None:
    gate = gate_after((50.0, 100))
    for _ in range(30):
        for level in (3000.0, 2500.0, 60.0, 2000.0, 1500.0):
            gate.passes(level, speaking=True)
    assert gate.floor <= 60.0


@given(st.lists(st.floats(0, 32768), min_size=WINDOW_FRAMES + 2 * BLOCK_FRAMES, max_size=300))
def test_the_floor_is_never_above_the_lowest_of_the_last_window(levels: list[float]) -> None:
    gate = LevelGate(GateSettings())
    for level in levels:
        gate.passes(level, speaking=False)
    assert gate.floor <= min(levels[-(WINDOW_FRAMES - 2 * BLOCK_FRAMES) :])
    assert gate.floor >= min(levels)
