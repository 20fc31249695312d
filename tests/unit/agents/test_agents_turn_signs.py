"""The turn detector's further signs: the recogniser's endpointing, a semantic model, and what the agent asked for."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.expecting import Asking
from bridge.agents.settings import TurnSettings
from bridge.agents.turn_events import (
    AskSettled,
    EagerCancel,
    EagerStart,
    Sign,
    TurnComplete,
    TurnForgotten,
    TurnOutput,
)
from bridge.agents.turns import TurnDetector
from bridge.agents.words import Expected
from bridge.providers.base import Tool
from bridge.providers.brief import Brief, Form, Slot

LAZY = TurnSettings(eager=False)


def spoken(detector: TurnDetector, text: str) -> list[TurnOutput]:
    """Spoken from 10.0 to 11.0; the pause was told 180 ms after, its text came 20 ms later."""
    out = detector.voice_started(10.1, 10)
    out += detector.voice_stopped(11.18, 11)
    return out + detector.heard(11.2, text, settled=True, pause=detector.pauses)


def complete(outputs: list[TurnOutput]) -> TurnComplete:
    (turn,) = (output for output in outputs if isinstance(output, TurnComplete))
    return turn


def silence_ms(detector: TurnDetector) -> int:
    """How long the silence must be as things stand."""
    due = detector.deadline()
    assert due is not None
    return round((due - 11) * 1000)


# -- the recogniser's own word -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "confidence", "expected_ms"),
    [
        ("I would like a table", None, 300),
        ("I would like a table", 0.83, 300),
        ("I would like a table", 0.3, 500),
        ("yes", 0.9, 300),
        ("I would like a table for", 0.99, 1200),
        ("so um", None, 1200),
        ("my number is five five five", 0.99, 1200),
        ("it's J O H", 0.99, 1200),
        ("it is john@example", 0.99, 1200),
        ("it is john@example.com", 0.99, 300),
    ],
)
def test_recognisers_end_shortens_the_silence_unless_the_text_is_incomplete(
    text: str, confidence: float | None, expected_ms: int
) -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, text)
    detector.endpoint(11.22, "end", confidence)
    assert silence_ms(detector) == expected_ms
    turn = complete(detector.tick(11 + expected_ms / 1000))
    assert turn.endpoint_ms == pytest.approx(expected_ms)
    assert ("the recogniser says it is over" in turn.why) == (expected_ms == 300)


def test_end_that_comes_late_ends_the_turn_at_once() -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, "I would like a table")
    assert complete(detector.endpoint(11.4, "end")).endpoint_ms == pytest.approx(400)


def test_end_makes_a_settled_text_unnecessary() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.heard(10.9, "good evening", settled=False, pause=0)
    detector.endpoint(11.1, "end", 0.8)
    assert detector.voice_stopped(11.18, 11) == [AskSettled(1)]
    turn = complete(detector.tick(11.3))
    assert (turn.text, turn.stt_ms) == ("good evening", 0)


def test_end_without_any_text_does_not_end_a_turn() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.voice_stopped(11.18, 11)
    assert detector.endpoint(11.2, "end") == []
    assert detector.deadline() == pytest.approx(11.18 + 2.5)


def test_end_is_void_when_the_caller_goes_on() -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, "I would like a table")
    detector.endpoint(11.22, "end", 0.9)
    detector.voice_started(11.28, 11.25)
    detector.voice_stopped(12.18, 12)
    detector.heard(12.2, "I would like a table for two", settled=True, pause=2)
    assert detector.deadline() == pytest.approx(12.5)


def test_end_is_void_when_other_words_come_after_it() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.heard(10.8, "a table", settled=False, pause=0)
    detector.endpoint(10.9, "end", 0.9)
    detector.heard(11.0, "a table for", settled=False, pause=0)
    detector.voice_stopped(11.18, 11)
    assert detector.deadline() == pytest.approx(11.18 + 2.5)


def test_resumption_makes_the_silence_start_anew() -> None:
    detector = TurnDetector(TurnSettings())
    assert spoken(detector, "I would like a table")[-1] == EagerStart("I would like a table")
    detector.endpoint(11.25, "eager", 0.4)
    assert detector.endpoint(11.4, "resumed")[0] == EagerCancel()
    assert detector.tick(11.5) == []
    assert complete(detector.tick(11.9)).text == "I would like a table"


def test_likely_end_starts_a_reply_while_our_voice_activity_still_hangs_over() -> None:
    detector = TurnDetector(TurnSettings())
    detector.voice_started(10.1, 10)
    detector.heard(10.9, "when are you open", settled=False, pause=0)
    assert detector.endpoint(11.05, "eager", 0.4) == [EagerStart("when are you open")]
    assert detector.voice_stopped(11.18, 11) == [AskSettled(1)]
    assert detector.heard(11.25, "When are you open?", settled=True, pause=1) == [], "the same words, in good style"
    assert complete(detector.tick(11.5)).text == "When are you open?"


def test_prepared_reply_is_thrown_away_when_the_settled_text_has_other_words() -> None:
    detector = TurnDetector(TurnSettings())
    detector.voice_started(10.1, 10)
    detector.heard(10.9, "when are you", settled=False, pause=0)
    detector.endpoint(11.05, "eager")
    detector.voice_stopped(11.18, 11)
    out = detector.heard(11.25, "when are you open", settled=True, pause=1)
    assert out == [EagerCancel(), EagerStart("when are you open")]


def test_likely_end_of_an_incomplete_text_starts_nothing() -> None:
    detector = TurnDetector(TurnSettings())
    detector.voice_started(10.1, 10)
    detector.heard(10.9, "I would like a table for", settled=False, pause=0)
    assert detector.endpoint(11.05, "eager") == []


def test_turn_ends_over_a_television_when_the_recogniser_says_so_and_no_word_comes() -> None:
    detector = TurnDetector(LAZY)
    detector.voice_started(10.1, 10)
    detector.heard(11, "when are you open", settled=False, pause=0)
    detector.endpoint(11.3, "end", 0.9)
    assert detector.deadline() == pytest.approx(12.8)
    turn = complete(detector.tick(12.8))
    assert (turn.text, turn.ended_at) == ("when are you open", 11.3)
    assert turn.endpoint_ms >= 0 and "brought no word" in turn.why
    assert detector.open, "the voice goes on, in a turn of its own"


def test_turn_does_not_end_over_voice_while_words_come_or_the_text_is_incomplete() -> None:
    for text, later in (("when are you open", "when are you open on"), ("a table for", "a table for")):
        detector = TurnDetector(LAZY)
        detector.voice_started(10.1, 10)
        detector.heard(11, text, settled=False, pause=0)
        detector.endpoint(11.3, "end", 0.9)
        detector.heard(12, later, settled=False, pause=0)
        assert detector.deadline() == pytest.approx(55)


# -- the semantic model --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "probability", "expected_ms"),
    [
        ("I would like a table", 0.9, 300),
        ("I would like a table", 0.1, 1200),
        ("I would like a table for", 0.9, 1200),
        ("yes", 0.1, 400),
    ],
)
def test_semantic_model_is_one_more_sign(text: str, probability: float, expected_ms: int) -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, text)
    detector.semantic(11.29, 1, probability)
    assert silence_ms(detector) == expected_ms
    assert f"{probability:.2f}" in " ".join(str(entry.what) for entry in detector.log)


def test_verdict_on_an_earlier_pause_or_on_one_that_is_over_is_ignored() -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, "I would like a table")
    detector.semantic(11.29, 0, 0.9)
    assert silence_ms(detector) == 500
    detector.voice_started(11.4, 11.35)
    assert detector.semantic(11.45, 1, 0.9) == []


def test_recognisers_end_outweighs_the_models_doubt() -> None:
    detector = TurnDetector(LAZY)
    spoken(detector, "I would like a table")
    detector.semantic(11.25, 1, 0.1)
    detector.endpoint(11.26, "end", 0.9)
    assert silence_ms(detector) == 300


# -- what was asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "text", "wait_ms"),
    [
        ("number", "five", 1500),
        ("number", "it's five five five twelve", 1500),
        ("number", "555", 1500),
        ("number", "0 3 0 1 2 3 4 5 6 7", 500),
        ("number", "I don't have any", 500),
        ("number", "no", 400),
        ("number", "which number do you mean?", 500),
        (None, "five", 500),
        ("email", "john", 1800),
        ("email", "john at example", 1800),
        ("email", "john dot smith at example dot", 1800),
        ("email", "john dot smith at example dot com", 500),
        ("email", "John.Smith@example.com.", 500),
        ("email", "j o h n", 1800),
        ("email", "what do you need my address for", 1200),
        ("email", "what do you need that for?", 500),
        ("email", "no thank you", 400),
        ("name", "Harold Finch", 500),
        ("name", "Finch F", 1500),
        ("name", "R as in Robert", 1500),
        ("spelling", "F I N C H", 1500),
        ("spelling", "like the bird", 1500),
        (None, "F I N C H", 1200),
    ],
)
def test_patience_with_what_was_asked_for(expected: Expected | None, text: str, wait_ms: int) -> None:
    detector = TurnDetector(LAZY)
    detector.expect(9, expected)
    spoken(detector, text)
    assert silence_ms(detector) == wait_ms
    detector.endpoint(11.2, "end", 0.99)
    assert silence_ms(detector) == (300 if wait_ms <= 500 else wait_ms), "no other sign outweighs patience"


FORM = Form(
    id="message",
    description="Take a message",
    ask=["take a message"],
    slots=[
        Slot(id="who", type="name", ask="Who is calling?"),
        Slot(id="phone", type="phone", ask="Where can we reach you?"),
        Slot(id="people", type="number", ask="What is your number of people?"),
        Slot(id="email", type="text", ask="And where shall I write to?"),
    ],
    confirm="Right?",
    done="Done.",
)

ORDER = Tool(
    "find_order",
    "Finds an order",
    {
        "type": "object",
        "properties": {
            "address": {"type": "string", "format": "email"},
            "order_number": {"type": "string"},
            "guests": {"type": "integer"},
        },
    },
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("All right. Who is calling?", "name"),
        ("Where can we reach you?", "number"),
        ("What is your number of people?", None),
        ("And where shall I write to?", "email"),
        ("What's your phone number? Please say it digit by digit.", "number"),
        ("I have your e-mail address. Is there anything else?", None),
        ("Could you spell that for me?", "spelling"),
        ("What is the address to write to?", "email"),
        ("What is your order number, please?", "number"),
        ("How many guests will come?", None),
        ("We open at noon.", None),
        ("", None),
    ],
)
def test_agents_last_question_tells_what_is_expected(said: str, expected: Expected | None) -> None:
    asking = Asking(Brief(forms=[FORM]), TurnSettings())
    assert asking.expected(said, [ORDER]) == expected


def test_signs_stand_in_the_log_with_the_decisions() -> None:
    told = []
    detector = TurnDetector(LAZY, told.append)
    detector.expect(9, "number")
    spoken(detector, "hello there")
    detector.endpoint(11.25, "end", 0.83)
    assert [entry.what for entry in told if isinstance(entry.what, Sign)] == [
        Sign("asked for: number"),
        Sign("the recogniser says it is over (0.83)"),
    ]
    assert told == list(detector.log)


# -- any order -----------------------------------------------------------------------------------------------

TEXTS = ["", "yes", "and", "a table please", "five five", "john at", "J O", "A table, please."]

INPUTS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.one_of(
            st.tuples(st.just("started"), st.floats(0, 0.3)),
            st.tuples(st.just("stopped"), st.floats(0, 0.3)),
            st.tuples(st.just("heard"), st.sampled_from(TEXTS), st.booleans(), st.integers(0, 1)),
            st.tuples(
                st.just("endpoint"),
                st.sampled_from(["eager", "resumed", "end"]),
                st.one_of(st.none(), st.floats(0, 1)),
            ),
            st.tuples(st.just("semantic"), st.integers(0, 1), st.floats(0, 1)),
            st.tuples(st.just("expect"), st.sampled_from([None, *get_args(Expected)])),
            st.tuples(st.just("floor"), st.booleans()),
            st.tuples(st.just("key"), st.sampled_from("1#")),
            st.tuples(st.sampled_from(["forget", "abandon", "failed", "tick"])),
        ),
    ),
    max_size=60,
)


@given(INPUTS, st.booleans())
def test_no_order_of_signs_ends_a_turn_twice_or_with_a_negative_delay(inputs: list, eager: bool) -> None:
    detector = TurnDetector(TurnSettings(eager=eager, max_turn_ms=5000))
    now = 100.0
    floor = prepared = False

    def check(outputs: list[TurnOutput], *, was_open: bool) -> None:
        nonlocal prepared
        ends = 0
        for output in outputs:
            match output:
                case EagerStart():
                    assert eager and not prepared and not floor and output.text
                    prepared = True
                case EagerCancel():
                    assert prepared
                    prepared = False
                case TurnComplete():
                    ends += 1
                    assert was_open and not floor
                    assert 0 <= output.endpoint_ms <= (now - output.ended_at) * 1000 + 1e-3
                    assert output.stt_ms >= 0 and output.why
                    assert output.started_at <= output.ended_at <= now
                    prepared = False
                case TurnForgotten():
                    ends += 1
                    assert was_open and not prepared
        assert ends <= 1, "one turn ends once"

    def apply(action: tuple) -> list[TurnOutput]:
        nonlocal floor
        match action:
            case ("started", ago):
                return detector.voice_started(now, now - ago)
            case ("stopped", ago):
                return detector.voice_stopped(now, now - ago)
            case ("heard", text, settled, stale):
                return detector.heard(now, text, settled=settled, pause=max(0, detector.pauses - stale))
            case ("endpoint", what, confidence):
                return detector.endpoint(now, what, confidence)
            case ("semantic", stale, probability):
                return detector.semantic(now, detector.pauses - stale, probability)
            case ("expect", expected):
                return detector.expect(now, expected)
            case ("floor", taken):
                floor = taken
                return detector.floor(now, taken)
            case ("key", digit):
                return detector.key(now, digit)
            case ("failed",):
                return detector.stt_failed(now)
            case ("tick",):
                return detector.tick(now)
            case (name,):
                return getattr(detector, name)(now, "test")
        raise AssertionError(action)

    for wait, action in inputs:
        end = now + wait
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
        check(apply(action), was_open=was_open)
        due = detector.deadline()
        assert due is None or due > now, "what is due is done at once"
