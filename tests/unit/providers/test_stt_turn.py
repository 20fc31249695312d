"""A turn's text and its pauses, whatever recogniser speaks: time is told, nothing is opened."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.base import Heard, SttEvent, SttFailed
from bridge.providers.stt_turn import LONGEST_TEXT, MOST_SEGMENTS, Said, Settled, SttTurn, is_position


class Turn:
    """A turn with what it told."""

    def __init__(self, settle_s: float = 2.0) -> None:
        self.events: list[SttEvent] = []
        self.turn = SttTurn(self.events.append, settle_s=settle_s)

    def said(self, key: int, text: str, now: float = 0.0, language: str = "") -> None:
        self.turn.heard_from(now)
        self.turn.apply(Said(key, text, language), now)


def test_segments_stand_in_the_order_in_which_they_began() -> None:
    it = Turn()
    it.said(1, "I")
    it.said(2, "like")
    it.said(1, "I would")
    assert it.events[-1] == Heard("I would like", settled=False, pause=0)


def test_an_answered_pause_tells_how_long_it_took() -> None:
    it = Turn()
    it.said(1, "yes", language="en")
    assert it.turn.speech_paused(10.0) == 1
    it.turn.apply(Settled(1), 10.25)
    assert it.events[-1] == Heard("yes", settled=True, pause=1, took_ms=250.0, language="en")


def test_the_answer_to_an_earlier_pause_does_not_settle_a_later_one() -> None:
    it = Turn()
    it.turn.speech_paused(1.0)
    it.turn.speech_started()
    it.turn.speech_paused(2.0)
    it.turn.apply(Settled(1), 2.1)
    assert not it.events
    it.turn.apply(Settled(2), 2.2)
    assert it.events == [Heard("", settled=True, pause=2, took_ms=200.00000000000018)]


def test_a_correction_after_the_answer_is_settled_too_until_voice_begins() -> None:
    it = Turn()
    it.said(1, "for four")
    it.turn.speech_paused(1.0)
    it.turn.apply(Settled(1), 1.1)
    it.said(1, "For four.", 1.2)
    assert it.events[-1] == Heard("For four.", settled=True, pause=1)
    it.turn.speech_started()
    it.said(2, "people", 1.5)
    assert it.events[-1] == Heard("For four. people", settled=False, pause=0)


def test_the_same_text_is_told_once() -> None:
    it = Turn()
    it.said(1, "yes")
    it.said(1, "yes")
    it.said(2, "")
    assert len(it.events) == 1


def test_what_comes_for_a_segment_of_a_turn_that_is_over_is_dropped() -> None:
    it = Turn()
    it.said(1, "old")
    it.turn.commit()
    it.turn.discard(2)
    it.said(1, "old words")
    it.said(2, "older words")
    it.said(3, "new")
    assert it.events[-1] == Heard("new", settled=False, pause=0)
    assert len(it.events) == 2


def test_a_pause_that_was_committed_is_not_settled_any_more() -> None:
    it = Turn()
    it.turn.speech_paused(1.0)
    it.turn.commit()
    it.turn.apply(Settled(1), 1.1)
    assert it.turn.deadline is None
    assert not it.events


def test_a_recogniser_that_said_nothing_since_the_pause_has_failed_at_the_deadline() -> None:
    it = Turn(settle_s=2.0)
    it.said(1, "before", 0.9)
    it.turn.speech_paused(1.0)
    assert it.turn.deadline == 3.0
    assert not it.turn.expire(2.9)
    assert it.turn.expire(3.0)
    (failure,) = [event for event in it.events if isinstance(event, SttFailed)]
    assert failure.fatal
    it.said(1, "too late", 4.0)
    assert it.events[-1] is failure


def test_what_a_living_recogniser_has_said_must_do_at_the_deadline() -> None:
    it = Turn(settle_s=2.0)
    it.turn.speech_paused(1.0)
    it.said(1, "half a", 1.5)
    assert not it.turn.expire(3.0)
    assert it.events[-1] == Heard("half a", settled=True, pause=1, took_ms=2000.0)


def test_audio_that_waits_to_be_sent_puts_the_deadline_off() -> None:
    it = Turn(settle_s=2.0)
    it.turn.speech_paused(1.0, backlog_s=1.5)
    assert it.turn.deadline == 4.5


ACTS = st.one_of(
    st.tuples(st.just("said"), st.integers(0, 8), st.sampled_from(["", "a", "b c", "d"])),
    st.tuples(st.just("settled"), st.integers(0, 5), st.just("")),
    st.tuples(st.sampled_from(["start", "pause", "commit", "expire"]), st.just(0), st.just("")),
)


@given(st.lists(ACTS, max_size=60))
def test_whatever_happens_settled_texts_answer_the_last_pause_and_no_old_word_comes_back(
    acts: list[tuple[str, int, str]],
) -> None:
    it = Turn(settle_s=0.5)
    now = 0.0
    turn = 0
    known: dict[int, int] = {}
    for what, number, text in acts:
        now += 0.1
        told = len(it.events)
        match what:
            case "said":
                if text:
                    known.setdefault(number, turn)
                it.said(number, f"{text}@{known.get(number, turn)}" if text else "", now)
            case "settled":
                it.turn.apply(Settled(number), now)
            case "start":
                it.turn.speech_started()
            case "pause":
                it.turn.speech_paused(now)
            case "commit":
                it.turn.commit()
                turn += 1
            case "expire":
                it.turn.expire(now)
        for event in it.events[told:]:
            if isinstance(event, Heard):
                assert event.pause == (it.turn.pauses if event.settled else 0)
                assert all(f"@{old}" not in event.text.split() for old in range(turn))
                assert all(word.endswith(f"@{turn}") for word in event.text.split() if "@" in word)


def test_text_without_end_is_a_failure() -> None:
    many, long = Turn(), Turn()
    for key in range(MOST_SEGMENTS + 2):
        many.said(key, "and")
    long.said(1, "x" * (LONGEST_TEXT + 1))
    for it in (many, long):
        assert isinstance(it.events[-1], SttFailed) and it.events[-1].fatal
        assert it.turn.failed


def test_infinity_is_no_position() -> None:
    assert is_position(0) and is_position(3600.5)
    assert not any(map(is_position, (None, "1", -1, float("inf"), float("nan"), 10**400)))
