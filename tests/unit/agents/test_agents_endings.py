"""When a call ends after the agent's last words, and what comes before that where the agent can't go on."""

from bridge.agents.base import AgentDone
from bridge.agents.endings import LastWords
from bridge.agents.settings import LimitSettings, PhraseSettings
from bridge.events import Cause

LIMITS = LimitSettings(goodbye_tail_ms=500, closing_s=20, transfer_ms=30000)
PHRASES = PhraseSettings(apology="Sorry.", apology_handover="Sorry, one moment.")
FAILED = AgentDone(Cause.ENGINE_FAILED, "stt: gone")


def test_the_call_ends_when_the_far_side_has_played_the_last_words() -> None:
    words = LastWords(LIMITS)
    assert not words.begun
    words.begin(10.0, FAILED)
    assert words.begun and not words.over
    assert not words.spoken(FAILED, 13.0, far_buffer_ms=200.0)
    assert words.over
    assert words.deadline() == 13.7
    assert words.tick(13.6) is None
    assert words.tick(13.7) == FAILED


def test_words_that_are_never_heard_keep_the_call_only_so_long() -> None:
    words = LastWords(LIMITS)
    words.begin(10.0, FAILED)
    assert words.tick(29.9) is None
    assert words.tick(30.0) == FAILED


def test_a_tone_needs_no_pause_after_it() -> None:
    words = LastWords(LIMITS)
    words.begin(10.0, FAILED)
    assert not words.sounded(13.0)
    assert words.tick(13.0) == FAILED


def test_after_an_apology_the_caller_is_put_through_once() -> None:
    words = LastWords(LIMITS)
    assert words.apologise(PHRASES, can_hand_over=True) == "Sorry, one moment."
    words.begin(10.0, FAILED)
    assert words.spoken(FAILED, 12.5, far_buffer_ms=0.0)
    assert words.deadline() == 13.0 + 30.0 + 20.0, "the transfer has its time, and the words after it theirs"
    words.begin(40.0, FAILED)
    assert not words.spoken(FAILED, 41.5, far_buffer_ms=0.0)
    assert words.tick(42.0) == FAILED


def test_without_a_person_to_put_through_to_the_apology_promises_none() -> None:
    words = LastWords(LIMITS)
    assert words.apologise(PHRASES, can_hand_over=False) == "Sorry."
    words.begin(10.0, FAILED)
    assert not words.spoken(FAILED, 12.5, far_buffer_ms=0.0)
