"""The turn detector: tables for what ends a turn and when, and a property over any order of inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.settings import TurnSettings
from bridge.agents.turn_events import (
    AskSettled,
    EagerCancel,
    EagerStart,
    TurnComplete,
    TurnForgotten,
    TurnOutput,
)
from bridge.agents.turns import TurnDetector

LAZY = TurnSettings(eager=False)


def spoken(detector: TurnDetector, text: str, *, at: float = 10.0, length: float = 1.0) -> list[TurnOutput]:
    """The caller has spoken `text` from `at`; the pause was told 200 ms after, the text came 200 ms later."""
    end = at + length
    out = detector.voice_started(at + 0.1, at)
    out += detector.voice_stopped(end + 0.2, end)
    out += detector.heard(end + 0.4, text, settled=True, pause=detector.pauses)
    return out


def kinds(outputs: list[TurnOutput]) -> list[type]:
    return [type(output) for output in outputs]


def complete(outputs: list[TurnOutput]) -> TurnComplete:
    (turn,) = (output for output in outputs if isinstance(output, TurnComplete))
    return turn


@pytest.mark.parametrize(
    ("text", "silence_ms"),
    [
        ("We would like to come at seven.", 500),
        ("yes", 400),
        ("No, thank you.", 400),
        ("yes we can", 500),
        ("I would like a table for", 1200),
        ("so um", 1200),
        ("You know...", 1200),
        ("on Friday,", 1200),
        ("my number is five five five", 1200),
        ("It's 555-12", 1200),
        ("0 3 0 1 2 3 4 5 6 7", 500),
        ("for four", 500),
        ("at seven thirty", 500),
        ("at 7:30.", 500),
        ("it's J O H", 1200),
        ("born in 1987", 500),
        ("What is that for?", 500),
        ("", None),
    ],
)
def test_silence_that_ends_a_turn_depends_on_how_its_text_ends(text: str, silence_ms: int | None) -> None:
    detector = TurnDetector(LAZY)
    out = spoken(detector, text)
    if silence_ms is None:
        assert out[-1] == TurnForgotten("noise: voice without words")
        assert not detector.open and detector.deadline() is None
        return
    due = detector.deadline()
    assert due == pytest.approx(11 + max(silence_ms, 400) / 1000) or silence_ms == 400
    turn = complete(out + (detector.tick(due) if due is not None else []))
    assert (turn.text, turn.started_at, turn.ended_at, turn.stt_ms) == (text, 10.0, 11.0, 0.0)
    assert turn.endpoint_ms == pytest.approx(max(silence_ms, 400))
    assert not detector.open


def test_late_text_ends_the_turn_at_once_and_its_wait_is_told_apart() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    assert detector.voice_stopped(11.2, 11) == [AskSettled(1)]
    assert detector.tick(11.9) == []
    turn = complete(detector.heard(12.0, "good evening to you", settled=True, pause=1))
    assert (turn.endpoint_ms, turn.stt_ms) == (pytest.approx(500), pytest.approx(500))


def test_text_that_does_not_come_is_given_up_for_the_best_partial() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.heard(10.9, "good evening", settled=False, pause=0)
    detector.voice_stopped(11.2, 11)
    assert detector.deadline() == pytest.approx(11.2 + 2.5)
    assert complete(detector.tick(13.7)).text == "good evening"


def test_text_that_failed_is_not_waited_for() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.voice_stopped(11.2, 11)
    assert detector.stt_failed(11.3) == []
    assert complete(detector.tick(11.5)).text == ""


def test_settled_text_of_an_earlier_pause_settles_nothing() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.voice_stopped(11.2, 11)
    detector.voice_started(11.4, 11.3)
    assert detector.heard(11.5, "a table", settled=True, pause=1) == []
    detector.voice_stopped(12.2, 12)
    detector.heard(12.3, "a table", settled=True, pause=1)
    assert detector.tick(12.6) == []
    assert complete(detector.heard(12.7, "a table for two", settled=True, pause=2)).text == "a table for two"


def test_caller_who_goes_on_continues_the_turn() -> None:
    detector = TurnDetector(LAZY)
    assert kinds(spoken(detector, "a table")) == [AskSettled]
    out = spoken(detector, "a table for two", at=11.45)
    turn = complete(out + detector.tick(13))
    assert (turn.text, turn.started_at, turn.ended_at) == ("a table for two", 10.0, 12.45)


def test_eager_start_comes_with_the_text_and_is_void_when_the_caller_goes_on() -> None:
    detector = TurnDetector(TurnSettings())
    assert spoken(detector, "a table please")[-1] == EagerStart("a table please")
    assert detector.voice_started(11.48, 11.42) == [EagerCancel()]
    assert detector.tick(11.6) == []


def test_eager_start_waits_while_the_text_looks_unfinished() -> None:
    detector = TurnDetector(TurnSettings())
    assert kinds(spoken(detector, "a table for")) == [AskSettled]
    assert detector.deadline() == pytest.approx(11.7)
    assert detector.tick(11.7) == [EagerStart("a table for")]
    assert detector.deadline() == pytest.approx(12.2)
    assert complete(detector.tick(12.2)).text == "a table for"


def test_no_turn_ends_while_the_agent_has_the_floor() -> None:
    detector = TurnDetector(TurnSettings())
    detector.floor(9, True)
    assert kinds(spoken(detector, "I want a table")) == [AskSettled]
    assert detector.tick(30) == [] and detector.deadline() is None
    turn = complete(detector.floor(31, False))
    assert turn.held and turn.text == "I want a table"


def test_forgotten_words_do_not_come_back() -> None:
    detector = TurnDetector(LAZY)
    detector.floor(9, True)
    spoken(detector, "mhm")
    assert detector.forget(11.5, "backchannel") == [TurnForgotten("backchannel")]
    assert detector.floor(15, False) == [] and not detector.open


def test_voice_that_goes_on_when_its_words_are_forgotten_is_a_new_turn() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.forget(10.5, "echo")
    assert detector.open and detector.started_at == 10.5
    assert detector.abandon(11, "hold") == [TurnForgotten("hold")]
    assert not detector.open


def test_turn_that_is_too_long_is_cut_and_the_voice_goes_on_in_the_next() -> None:
    detector = TurnDetector(TurnSettings(max_turn_ms=5000))
    detector.voice_started(10.1, 10)
    assert detector.deadline() == 15
    assert detector.tick(15) == [AskSettled(1)]
    turn = complete(detector.heard(15.3, "and so on and", settled=True, pause=1))
    assert (turn.text, turn.ended_at) == ("and so on and", 15)
    assert detector.open and detector.started_at == 15.3


def test_turn_that_is_too_long_is_cut_even_if_its_text_never_comes() -> None:
    detector = TurnDetector(TurnSettings(max_turn_ms=5000))
    detector.voice_started(10.1, 10)
    detector.heard(12, "on and", settled=False, pause=0)
    detector.tick(15)
    at = 15.0
    for _ in range(8):
        assert kinds(detector.voice_stopped(at + 0.2, at)) == [AskSettled]
        detector.voice_started(at + 0.29, at + 0.25)
        at += 0.28
    assert at == pytest.approx(17.24)
    assert detector.deadline() == pytest.approx(17.5)
    assert complete(detector.tick(17.5)).text == "on and"


def test_keys_end_with_a_pause_or_hash_and_join_spoken_words() -> None:
    detector = TurnDetector(LAZY)
    assert detector.key(10, "#") == [] and not detector.open
    detector.key(10, "1")
    detector.key(11, "2")
    assert detector.deadline() == 13
    assert complete(detector.tick(13)).text == "12"
    detector.key(20, "3")
    assert complete(detector.key(20.1, "#")).text == "3"
    spoken(detector, "my number is", at=30)
    detector.key(31.5, "5")
    assert complete(detector.tick(33.5)).text == "my number is 5"


def test_every_decision_is_logged_with_its_reason() -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, "a table please")
    detector.tick(12)
    entry = detector.log[-1]
    assert entry.at == 12 and isinstance(entry.what, TurnComplete)
    assert entry.what.why == "500 ms of silence: complete"


INPUTS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.one_of(
            st.tuples(st.just("started"), st.floats(0, 0.3)),
            st.tuples(st.just("stopped"), st.floats(0, 0.3)),
            st.tuples(
                st.just("heard"),
                st.sampled_from(["", "yes", "and", "a table please", "five five"]),
                st.booleans(),
                st.integers(0, 1),
            ),
            st.tuples(st.just("floor"), st.booleans()),
            st.tuples(st.just("key"), st.sampled_from("1#")),
            st.tuples(st.sampled_from(["forget", "abandon", "failed", "tick"])),
        ),
    ),
    max_size=60,
)


@given(INPUTS, st.booleans())
def test_any_order_of_inputs_is_consistent(inputs: list, eager: bool) -> None:
    detector = TurnDetector(TurnSettings(eager=eager, max_turn_ms=5000))
    now = 100.0
    floor = eager_under_way = False
    asked = 0

    def check(outputs: list[TurnOutput], *, was_open: bool) -> None:
        nonlocal eager_under_way, asked
        for output in outputs:
            match output:
                case AskSettled():
                    assert output.pause == asked + 1
                    asked += 1
                case EagerStart():
                    assert not eager_under_way and not floor and output.text
                    eager_under_way = True
                case EagerCancel():
                    assert eager_under_way
                    eager_under_way = False
                case TurnComplete():
                    assert not floor and was_open
                    assert output.started_at <= output.ended_at <= now
                    assert output.endpoint_ms >= 0 and output.stt_ms >= 0
                    eager_under_way = False
                    was_open = False
                case TurnForgotten():
                    assert was_open and not eager_under_way
                    was_open = False

    for wait, action in inputs:
        end = now + wait
        # Time passes as it does in a call: every deadline is kept.
        for _ in range(50):
            due = detector.deadline()
            if due is None or due > end:
                break
            now = max(now, due)
            was_open = detector.open
            check(detector.tick(now), was_open=was_open)
            after = detector.deadline()
            assert after is None or after > now, "a deadline that was kept must move on"
        else:
            raise AssertionError("too many deadlines")
        now = end
        was_open = detector.open or action[0] in ("started", "key")
        match action:
            case ("started", ago):
                outputs = detector.voice_started(now, now - ago)
            case ("stopped", ago):
                outputs = detector.voice_stopped(now, now - ago)
            case ("heard", text, settled, stale):
                outputs = detector.heard(now, text, settled=settled, pause=max(0, detector.pauses - stale))
            case ("floor", floor):
                outputs = detector.floor(now, floor)
            case ("key", digit):
                outputs = detector.key(now, digit)
            case ("forget",):
                outputs = detector.forget(now, "test")
            case ("abandon",):
                outputs = detector.abandon(now, "test")
            case ("failed",):
                outputs = detector.stt_failed(now)
            case _:
                outputs = detector.tick(now)
        check(outputs, was_open=was_open)
        assert detector.pauses == asked
