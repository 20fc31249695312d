"""The barge-in decision: tables, and a property over any order of inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.agents.bargein import (
    BargeInDetector,
    BargeInOutput,
    Confirmed,
    ForgetWords,
    Pause,
    Rejected,
    WantPartial,
)
from bridge.agents.settings import BargeInSettings

FAR = float("inf")


def begun(settings: BargeInSettings | None = None, *, remaining_ms: float = FAR) -> BargeInDetector:
    """The caller's voice set in at 10.0 over the agent, told at 10.1."""
    detector = BargeInDetector(settings or BargeInSettings())
    assert detector.voice_started(10.1, 10.0, interruptible=True, remaining_ms=remaining_ms) == [Pause()]
    return detector


def kinds(outputs: list[BargeInOutput]) -> list[type]:
    return [type(output) for output in outputs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("another question", [Confirmed]),
        ("stop", [Confirmed]),
        ("Okay, wait!", [Confirmed]),
        ("no", [Confirmed]),
        ("hold on", [Confirmed]),
        ("Tuesday", [Rejected]),
        ("mhm", [Rejected, ForgetWords]),
        ("Uh-huh.", [Rejected, ForgetWords]),
        ("yeah, right", [Rejected, ForgetWords]),
        ("of course", [Rejected, ForgetWords]),
        ("okay so I think", [Confirmed]),
        ("", [Rejected, ForgetWords]),
    ],
)
def test_settled_text_decides(text: str, expected: list[type]) -> None:
    detector = begun()
    assert detector.voice_stopped(10.24, 10.2) == []
    out = detector.heard(10.5, text, settled=True)
    assert kinds(out) == expected
    assert isinstance(out[0], Confirmed | Rejected)
    assert out[0].paused_at == 10.1 and out[0].pause_ms == pytest.approx(400)
    assert not detector.paused


def test_partial_text_is_asked_for_while_the_caller_speaks_and_confirms() -> None:
    detector = begun()
    assert detector.deadline() == pytest.approx(10.25)
    assert detector.tick(10.25) == [WantPartial()]
    (confirmed,) = detector.heard(10.4, "I have a question", settled=False)
    assert confirmed == Confirmed(10.1, pytest.approx(300), "words: I have a question")


def test_speech_that_goes_on_confirms_without_words() -> None:
    detector = begun()
    detector.tick(10.25)
    assert detector.deadline() == pytest.approx(10.55)
    (confirmed,) = detector.tick(10.55)
    assert isinstance(confirmed, Confirmed) and confirmed.reason == "speech went on"


def test_backchannel_that_goes_on_gets_the_whole_time_and_then_stops_the_agent() -> None:
    detector = begun()
    detector.heard(10.4, "okay", settled=False)
    assert not any(isinstance(o, Confirmed) for o in detector.tick(10.56))
    assert kinds(detector.tick(10.6)) == [Confirmed]


def test_cough_lets_the_agent_go_on() -> None:
    detector = begun()
    detector.tick(10.25)
    assert detector.voice_stopped(10.5, 10.3) == []
    assert detector.tick(10.6) == [Rejected(10.1, pytest.approx(500), "no words in time, the voice had stopped")]
    assert detector.heard(10.9, "", settled=True) == [ForgetWords("no words")]


def test_click_is_rejected_without_waiting_for_text() -> None:
    detector = begun()
    assert kinds(detector.voice_stopped(10.24, 10.06)) == [Rejected]


def test_words_that_come_after_the_agent_went_on_still_stop_it() -> None:
    detector = begun()
    detector.voice_stopped(10.45, 10.25)
    detector.tick(10.6)
    out = detector.heard(10.9, "wait", settled=True)
    assert out == [Pause(), Confirmed(10.9, 0.0, "words: wait")]


def test_answer_over_the_agents_last_words_is_kept() -> None:
    detector = begun(remaining_ms=600)
    detector.voice_stopped(10.45, 10.25)
    assert kinds(detector.heard(10.5, "yes", settled=True)) == [Rejected]


def test_echo_is_rejected_even_while_it_goes_on_and_words_after_it_stop_the_agent() -> None:
    detector = begun()
    detector.tick(10.25)
    out = detector.heard(10.4, "noon every day", settled=False, saying="We open at noon every day")
    assert kinds(out) == [Rejected, ForgetWords]
    assert detector.tick(10.9) == [WantPartial()], "the voice goes on: it may still be the caller's"
    out = detector.heard(11.1, "what about Sunday", settled=False, saying="every day except Mondays")
    assert kinds(out) == [Pause, Confirmed]


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        (BargeInSettings(sensitivity="high"), "Tuesday", Confirmed),
        (BargeInSettings(sensitivity="low"), "another question", Rejected),
        (BargeInSettings(sensitivity="low"), "yet another question", Confirmed),
        (BargeInSettings(min_words=1), "Tuesday", Confirmed),
        (BargeInSettings(stop_words=()), "wait", Rejected),
    ],
)
def test_sensitivity(settings: BargeInSettings, text: str, expected: type) -> None:
    detector = begun(settings)
    detector.voice_stopped(10.24, 10.2)
    (decision,) = detector.heard(10.3, text, settled=True)
    assert isinstance(decision, expected)


def test_protected_speech_is_not_paused_and_a_backchannel_over_it_is_no_turn() -> None:
    for settings, interruptible in ((BargeInSettings(), False), (BargeInSettings(enabled=False), True)):
        detector = BargeInDetector(settings)
        assert detector.voice_started(10.1, 10, interruptible=interruptible, remaining_ms=FAR) == []
        assert kinds(detector.tick(10.7)) == [WantPartial]
        detector.voice_stopped(11, 10.8)
        assert kinds(detector.heard(11.2, "uh huh", settled=True)) == [ForgetWords]
        detector.voice_started(12.1, 12, interruptible=interruptible, remaining_ms=FAR)
        detector.voice_stopped(13, 12.8)
        assert detector.heard(13.2, "stop it please", settled=True) == []


def test_settings_that_decide_too_late_are_refused() -> None:
    with pytest.raises(ValidationError, match="must not exceed decide_ms"):
        BargeInSettings(confirm_speech_ms=600)


INPUTS = st.lists(
    st.tuples(
        st.floats(0, 0.7),
        st.one_of(
            st.tuples(st.just("started"), st.floats(0, 0.2), st.booleans(), st.sampled_from([100.0, FAR])),
            st.tuples(st.just("stopped"), st.floats(0, 0.3)),
            st.tuples(
                st.just("heard"),
                st.sampled_from(["", "mhm", "wait", "Tuesday", "I have a question", "noon every day"]),
                st.booleans(),
            ),
            st.tuples(st.sampled_from(["key", "agent_stopped", "abandon", "tick"])),
        ),
    ),
    max_size=60,
)


@given(INPUTS, st.sampled_from(["low", "normal", "high"]))
def test_every_pause_is_answered_in_time_whatever_happens(inputs: list, sensitivity: str) -> None:
    settings = BargeInSettings(sensitivity=sensitivity)
    detector = BargeInDetector(settings)
    now = 100.0
    paused_at: float | None = None

    def check(outputs: list[BargeInOutput]) -> None:
        nonlocal paused_at
        for output in outputs:
            match output:
                case Pause():
                    assert paused_at is None
                    paused_at = now
                case Confirmed() | Rejected():
                    assert paused_at == output.paused_at, "only a pause is decided on"
                    assert output.pause_ms <= settings.decide_ms + 1e-6
                    paused_at = None
        assert detector.paused == (paused_at is not None)
        assert paused_at is None or now - paused_at < settings.decide_ms / 1000

    for wait, action in inputs:
        end = now + wait
        for _ in range(20):
            due = detector.deadline()
            if due is None or due > end:
                break
            now = max(now, due)
            check(detector.tick(now))
            after = detector.deadline()
            assert after is None or after > now, "a deadline that was kept must move on"
        else:
            raise AssertionError("too many deadlines")
        now = end
        match action:
            case ("started", ago, interruptible, remaining_ms):
                check(detector.voice_started(now, now - ago, interruptible=interruptible, remaining_ms=remaining_ms))
            case ("stopped", ago):
                check(detector.voice_stopped(now, now - ago))
            case ("heard", text, settled):
                check(detector.heard(now, text, settled=settled, saying="We open at noon every day"))
            case (name,):
                check(getattr(detector, name)(now))
