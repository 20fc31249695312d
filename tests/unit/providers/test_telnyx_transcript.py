"""Telnyx's transcripts have neither times nor ids: what they are about is told by their order."""

from typing import Any

import pytest

from bridge.providers.base import Heard, SttEndpoint, SttEvent, SttFailed
from bridge.providers.stt_turn import SttTurn
from bridge.providers.telnyx.transcript import FINALIZE, TelnyxDialect


class Ear:
    """A dialect and the turn that it tells, as in a stream, but with audio and time as numbers."""

    def __init__(self, *, finalises: bool = True) -> None:
        self.events: list[SttEvent] = []
        self.sent: list[object] = []
        self.turn = SttTurn(self.events.append, settle_s=2.0)
        self.dialect = TelnyxDialect("telnyx", "KEYsecret", finalises=finalises)
        self.at_s = 0.0

    def _acts(self, acts: Any) -> None:
        for act in acts:
            if isinstance(act, str | bytes):
                self.sent.append(act)
            else:
                self.turn.apply(act, self.at_s)

    def starts(self, after_s: float = 1.0) -> None:
        self.at_s += after_s
        self.turn.speech_started()
        self._acts(self.dialect.started(self.at_s))

    def pauses(self, after_s: float = 1.0) -> None:
        self.at_s += after_s
        self._acts(self.dialect.paused(self.turn.speech_paused(self.at_s), self.at_s))

    def commits(self) -> None:
        speaking = self.turn.speaking
        self.turn.commit()
        self._acts(self.dialect.committed(self.at_s, speaking))
        self.events.clear()

    def overdue(self) -> None:
        self._acts(self.dialect.overdue(self.turn.pauses))

    def hears(self, text: str, *, final: bool = False, **more: Any) -> None:
        message = {"transcript": text, "is_final": final, **more}
        for sign in self.dialect.take(message):
            self.turn.apply(sign, self.at_s)

    @property
    def texts(self) -> list[tuple[str, int]]:
        return [(event.text, event.pause) for event in self.events if isinstance(event, Heard)]


def test_finals_and_the_present_interim_make_the_turns_text() -> None:
    ear = Ear()
    ear.starts()
    ear.hears("I need")
    ear.hears("I need a table", final=True)
    ear.hears("for")
    ear.pauses()
    ear.hears("for four", final=True, speech_final=True)
    said = ["I need", "I need a table", "I need a table for", "I need a table for four"]
    assert ear.texts == [*((text, 0) for text in said), ("I need a table for four", 1)]
    assert ear.sent == [FINALIZE]


def test_an_answer_that_comes_after_the_turns_end_is_dropped() -> None:
    ear = Ear()
    ear.starts()
    ear.pauses()
    ear.commits()
    ear.hears("old words", final=True)
    ear.starts(0.2)
    ear.hears("new")
    assert ear.texts == [("new", 0)]


def test_words_of_a_turn_that_ended_in_speech_are_dropped_up_to_the_final_that_was_asked_for() -> None:
    ear = Ear()
    ear.starts()
    ear.hears("Interrupting")
    ear.commits()
    assert ear.sent == [FINALIZE]
    ear.hears("Interrupting you")
    ear.hears("Interrupting you here", final=True)
    ear.hears("and")
    ear.pauses()
    ear.hears("and now", final=True)
    assert ear.texts == [("and", 0), ("and now", 0), ("and now", 1)]


def test_an_answer_that_never_comes_does_not_swallow_the_next_turn() -> None:
    ear = Ear()
    ear.starts()
    ear.pauses()
    ear.commits()
    ear.starts(0.6)
    ear.hears("new")
    ear.hears("new words", final=True)
    assert ear.texts == [("new", 0), ("new words", 0)]


def test_a_pause_after_the_engines_own_end_is_settled_at_once_and_mended_by_what_follows() -> None:
    ear = Ear()
    ear.starts()
    ear.hears("Hello there", final=True, speech_final=True)
    assert SttEndpoint("end") in ear.events
    ear.pauses()
    assert ear.texts[-1] == ("Hello there", 1)
    ear.hears("friend", final=True, speech_final=True)
    assert ear.texts[-1] == ("Hello there friend", 1)


def test_words_after_the_engines_end_are_waited_for() -> None:
    ear = Ear()
    ear.starts()
    ear.hears("Hello", final=True, speech_final=True)
    ear.hears("there")
    ear.pauses()
    assert ear.texts[-1] == ("Hello there", 0)
    ear.hears("there friend", final=True)
    assert ear.texts[-1] == ("Hello there friend", 1)


def test_an_engine_that_can_not_be_asked_is_taken_at_its_word_when_it_is_overdue() -> None:
    ear = Ear(finalises=False)
    ear.starts()
    ear.hears("Hello")
    ear.pauses()
    ear.overdue()
    assert ear.sent == []
    assert ear.texts == [("Hello", 0), ("Hello", 1)]
    ear.hears("Hello there", final=True)
    assert ear.texts[-1] == ("Hello there", 1)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            {"errors": [{"code": "40001", "title": "Invalid Parameter", "detail": "no"}]},
            "40001: Invalid Parameter: no",
        ),
        ({"errors": ["KEYsecret is wrong"]}, "*** is wrong"),
        ({"type": "error", "error": "gone"}, "gone"),
        ({"error": {"source": 3}}, ""),
    ],
)
def test_errors_end_the_stream(message: dict[str, Any], said: str) -> None:
    ear = Ear()
    ear.turn.apply(next(iter(ear.dialect.take(message))), 0.0)
    assert ear.events == [SttFailed(f"telnyx: {said}", fatal=True)]


@pytest.mark.parametrize("message", [None, [], "x", {}, {"transcript": None}, {"transcript": 3, "is_final": True}])
def test_what_makes_no_sense_is_no_sign(message: Any) -> None:
    assert list(Ear().dialect.take(message)) == []
