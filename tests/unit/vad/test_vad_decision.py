"""When speech starts and stops, given the detectors' words."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.vad_decision import DecisionSettings, SpeechDecision
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent

SETTINGS = DecisionSettings()


@dataclass
class Line:
    """Feeds a decision on the 20 ms grid; windows are taken as ending with their frame."""

    decision: SpeechDecision
    now: float = 0.0

    def hear(self, frames: int, *, voiced: bool, probability: float | None = None) -> list[VoiceEvent]:
        """Frames of one kind, with the probability of the window that ends with each."""
        told = []
        for _ in range(frames):
            self.now += 0.02
            told.append(self.decision.frame(self.now, voiced))
            if probability is not None:
                told.append(self.decision.window(self.now - 0.032, self.now, probability, self.now))
        return [event for event in told if event is not None]


def test_speech_starts_with_the_third_voiced_frame() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=False, probability=0.01)
    assert line.hear(2, voiced=True, probability=0.95) == []
    (started,) = line.hear(1, voiced=True, probability=0.95)
    assert isinstance(started, SpeechStarted)
    assert abs(started.at - 1.0) < 1e-6, "told at 1.06, but the voice set in at 1.0"


def test_onset_is_traced_back_over_a_short_gap_to_sounds_silero_was_unsure_of() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=False, probability=0.01)
    line.hear(4, voiced=True, probability=0.3)
    line.hear(2, voiced=False, probability=0.3)
    (started,) = line.hear(3, voiced=True, probability=0.9)
    assert abs(started.at - 1.0) < 1e-6


def test_one_sure_window_alone_is_no_speech() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=False, probability=0.01)
    line.now += 0.02
    line.decision.frame(line.now, True)
    assert line.decision.window(line.now - 0.032, line.now, 1.0, line.now) is None
    assert line.hear(10, voiced=True, probability=0.1) == []


def test_a_bang_of_two_frames_is_no_speech_however_probable() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=False, probability=0.01)
    assert line.hear(2, voiced=True, probability=1.0) == []
    assert line.hear(10, voiced=False, probability=1.0) == []


def test_speech_below_the_gate_is_no_start() -> None:
    line = Line(SpeechDecision(SETTINGS))
    assert line.hear(100, voiced=False, probability=1.0) == []


def test_stop_is_told_after_the_hangover_with_the_time_of_the_last_voice() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    assert line.hear(8, voiced=False) == []
    (stopped,) = line.hear(1, voiced=False)
    assert isinstance(stopped, SpeechStopped)
    assert abs(stopped.at - 1.0) < 1e-6
    assert abs(line.now - 1.18) < 1e-6


def test_a_closure_within_a_word_is_no_stop() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    assert line.hear(7, voiced=False, probability=0.4) == []
    assert line.hear(10, voiced=True, probability=0.9) == []


def test_noise_that_goes_on_after_speech_does_not_hold_it() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    told = line.hear(15, voiced=True, probability=0.05)
    assert [type(event) for event in told] == [SpeechStopped]
    assert 1.0 <= told[0].at <= 1.03


def test_one_improbable_window_does_not_shake_speech() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    for _ in range(20):
        assert line.hear(1, voiced=True, probability=0.1) == []
        assert line.hear(2, voiced=True, probability=0.8) == []


def test_while_results_are_late_the_cheap_detectors_hold_speech() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    assert line.hear(100, voiced=True) == []


def test_a_start_that_is_not_accepted_is_not_told() -> None:
    asked = []

    def accept() -> bool:
        asked.append(True)
        return False

    line = Line(SpeechDecision(SETTINGS, accept=accept))
    assert line.hear(50, voiced=True, probability=0.9) == []
    assert 20 <= len(asked) <= 25, "asked anew each time there is enough evidence"


def test_without_silero_a_longer_run_of_voiced_frames_starts_speech() -> None:
    line = Line(SpeechDecision(SETTINGS, silero=False))
    line.hear(50, voiced=False)
    assert line.hear(7, voiced=True) == []
    (started,) = line.hear(1, voiced=True)
    assert isinstance(started, SpeechStarted)
    assert abs(started.at - 1.0) < 1e-6


def test_losing_silero_in_the_middle_of_speech_still_ends_it() -> None:
    line = Line(SpeechDecision(SETTINGS))
    line.hear(50, voiced=True, probability=0.9)
    line.decision.without_silero()
    (stopped,) = line.hear(20, voiced=False)
    assert isinstance(stopped, SpeechStopped)


frame = st.tuples(st.just("frame"), st.booleans(), st.floats(0, 0.1))
window = st.tuples(st.just("window"), st.floats(0, 1), st.floats(0, 0.7))
lose = st.tuples(st.just("lose"), st.none(), st.none())


@given(st.lists(st.one_of(frame, frame, window, lose), max_size=200), st.booleans(), st.data())
def test_events_alternate_and_their_times_never_go_back_nor_ahead(
    inputs: list[tuple[str, float, float]], silero: bool, data: st.DataObject
) -> None:
    decision = SpeechDecision(SETTINGS, silero=silero, accept=lambda: data.draw(st.booleans()))
    now, last, speaking = 100.0, 0.0, False
    for kind, value, delay in inputs:
        event: VoiceEvent | None = None
        if kind == "frame":
            now += delay
            event = decision.frame(now, bool(value))
        elif kind == "window":
            end = now - delay
            event = decision.window(end - 0.032, end, value, now)
        else:
            decision.without_silero()
        if event is None:
            continue
        assert isinstance(event, SpeechStopped if speaking else SpeechStarted)
        speaking = not speaking
        assert last <= event.at <= now
        last = event.at
    assert decision.speaking == speaking


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=100))
def test_silence_always_ends_speech(start: list[tuple[bool, float]]) -> None:
    line = Line(SpeechDecision(SETTINGS))
    for voiced, probability in start:
        line.hear(1, voiced=voiced, probability=probability)
    line.hear(20, voiced=False, probability=1.0)
    assert not line.decision.speaking
