"""The barge-in decision: tables, and a property over any order of inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.agents.bargein import (
    BargeInDetector,
    BargeInEntry,
    BargeInOutput,
    Confirmed,
    ForgetWords,
    Pause,
    Rejected,
    WantPartial,
)
from bridge.agents.settings import BargeInSettings
from bridge.audio.voice import VoiceSound

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


def sounding(at: float, *, level_db: float = -20.0, certainty: float = 0.98) -> VoiceSound:
    return VoiceSound(at, level_db, certainty)


def test_length_does_not_count_when_the_voice_is_already_over() -> None:
    detector = begun()
    detector.tick(10.25)
    detector.sounding(sounding(10.5))
    assert detector.tick(10.55) == [], "a mhm of 500 ms, whose end our voice activity tells 180 ms late"
    assert detector.deadline() == pytest.approx(10.57)
    assert detector.tick(10.57) == []
    (rejected,) = detector.tick(10.6)
    assert isinstance(rejected, Rejected) and rejected.reason == "no words in time, the voice is over or in a gap"
    detector.voice_stopped(10.68, 10.5)
    assert detector.heard(11, "mhm", settled=True) == [ForgetWords("backchannel: mhm")]


def test_speech_that_had_a_gap_when_it_was_looked_at_is_looked_at_again() -> None:
    detector = begun()
    detector.tick(10.25)
    detector.sounding(sounding(10.5))
    detector.tick(10.55)
    detector.sounding(sounding(10.57))
    (confirmed,) = detector.tick(10.57)
    assert isinstance(confirmed, Confirmed) and confirmed.reason == "speech went on"


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (sounding(10.6, level_db=-35.0), "no words in time, the voice is 12 dB below the caller's"),
        (sounding(10.6, certainty=0.6), "no words in time, it is hardly speech (0.60)"),
    ],
)
def test_television_and_music_do_not_stop_the_agent_by_their_length(sound: VoiceSound, reason: str) -> None:
    detector = begun()
    detector.sounding(sound)
    decisions = [o for at in (10.25, 10.55, 10.57, 10.59, 10.6) for o in detector.tick(at)]
    assert [o.reason for o in decisions if isinstance(o, Rejected)] == [reason]
    for tenths in range(107, 140):
        assert not any(isinstance(o, Confirmed) for o in detector.tick(tenths / 10))
    assert kinds(detector.heard(14, "are you listening to me", settled=False)) == [Pause, Confirmed]


def test_the_callers_own_level_is_what_others_are_measured_by() -> None:
    for own_db, stops in ((-20.0, False), (-32.0, True)):
        detector = BargeInDetector(BargeInSettings())
        detector.caller_spoke(own_db)
        detector.voice_started(10.1, 10.0, interruptible=True, remaining_ms=FAR)
        detector.sounding(sounding(10.6, level_db=-33.0))
        decisions = [o for at in (10.25, 10.55, 10.6) for o in detector.tick(at)]
        assert any(isinstance(o, Confirmed) for o in decisions) is stops


def test_speech_that_was_let_go_on_in_a_gap_stops_the_agent_when_it_goes_on_for_long() -> None:
    detector = begun()
    detector.tick(10.25)
    detector.sounding(sounding(10.4))
    detector.tick(10.55)
    assert kinds(detector.tick(10.6)) == [Rejected]
    detector.sounding(sounding(11.0))
    assert kinds(detector.tick(11.0)) == [WantPartial, Pause, Confirmed]


@pytest.mark.parametrize(
    ("text", "saying", "forgotten"),
    [
        ("okay good", "", "backchannel after all: okay good"),
        ("noon every day", "we open at noon every day", "echo after all: noon every day"),
        ("okay but when", "", None),
        ("Tuesday", "", None),
        ("", "", None),
    ],
)
def test_length_that_proves_a_backchannel_or_an_echo_is_taken_back(
    text: str, saying: str, forgotten: str | None
) -> None:
    detector = begun()
    detector.tick(10.25)
    assert kinds(detector.tick(10.55)) == [Confirmed]
    detector.voice_stopped(10.8, 10.6)
    out = detector.heard(11.1, text, settled=True, saying=saying)
    assert out == ([ForgetWords(forgotten)] if forgotten else [])
    assert detector.heard(11.2, "okay good", settled=True) == []


def test_yes_that_answers_the_agents_last_words_is_not_taken_back() -> None:
    detector = begun(remaining_ms=600)
    detector.tick(10.25)
    assert kinds(detector.tick(10.55)) == [Confirmed]
    detector.voice_stopped(10.8, 10.6)
    assert detector.heard(11.1, "yes okay", settled=True) == []


def test_words_over_a_protected_phrase_stop_the_agent_only_once_it_is_over() -> None:
    detector = BargeInDetector(BargeInSettings())
    assert detector.voice_started(10.1, 10, interruptible=False, remaining_ms=FAR) == []
    detector.allow(False)
    assert kinds(detector.heard(10.6, "I have a question", settled=False)) == [WantPartial]
    detector.allow(True)
    assert kinds(detector.heard(10.9, "I have a question please", settled=False)) == [Pause, Confirmed]


def test_every_decision_is_logged_and_told() -> None:
    told: list[BargeInEntry] = []
    detector = BargeInDetector(BargeInSettings(), told.append)
    detector.voice_started(10.1, 10.0, interruptible=True, remaining_ms=FAR)
    detector.voice_stopped(10.24, 10.2)
    detector.heard(10.5, "mhm", settled=True)
    assert told == list(detector.log)
    assert [type(entry.what) for entry in told] == [Pause, Rejected, ForgetWords]
    assert [entry.what.reason for entry in told if not isinstance(entry.what, WantPartial)] == [
        "the voice set in",
        "backchannel: mhm",
        "backchannel: mhm",
    ]


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
            st.tuples(st.just("sounding"), st.floats(0, 0.3), st.floats(-50, 0), st.floats(0, 1)),
            st.tuples(st.just("allow"), st.booleans()),
            st.tuples(st.just("caller_spoke"), st.floats(-60, 0)),
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
            case ("sounding", ago, level_db, certainty):
                detector.sounding(VoiceSound(now - ago, level_db, certainty))
            case ("allow", interruptible):
                detector.allow(interruptible)
            case ("caller_spoke", level_db):
                detector.caller_spoke(level_db)
            case (name,):
                check(getattr(detector, name)(now))
