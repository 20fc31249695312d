"""Keys for a model that hears by itself, as a machine in fake time."""

from bridge.agents.realtime_keys import Keys


def test_keys_end_with_a_pause_after_the_last() -> None:
    keys = Keys(1500)
    assert not keys and keys.deadline() is None
    assert not keys.press(10.0, "4")
    assert not keys.press(11.0, "*")
    assert keys and keys.deadline() == 12.5
    assert (keys.began_at, keys.ended_at) == (10.0, 11.0)
    assert keys.take() == "4*"
    assert not keys and keys.deadline() is None


def test_the_hash_key_ends_those_before_it_and_alone_is_nothing() -> None:
    keys = Keys(1500)
    assert not keys.press(9.0, "#")
    assert not keys
    keys.press(10.0, "7")
    assert keys.press(10.5, "#")
    assert keys.take() == "7"
    assert keys.ended_at == 10.0


def test_keys_after_those_taken_begin_anew() -> None:
    keys = Keys(1500)
    keys.press(10.0, "1")
    keys.take()
    keys.press(20.0, "2")
    assert keys.began_at == 20.0
    assert keys.take() == "2"
