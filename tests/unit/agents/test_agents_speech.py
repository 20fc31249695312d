"""From text to clauses to words heard; what is kept of it."""

import asyncio

import pytest
from agents_engines import WORD_MS, CodeTts
from agents_fake_time import in_fake_time
from agents_loopback import RATE, WordCode
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.clauses import MAX_CLAUSE_CHARS, ClauseSplitter, split
from bridge.agents.memory import Memory
from bridge.agents.record import TurnLedger
from bridge.agents.settings import ConversationSettings, TurnSettings
from bridge.agents.speech import Speech, VoiceOptions
from bridge.agents.tone import reorder_tone
from bridge.agents.words import Ending, Endings, Phrases, echoes, words
from bridge.audio.playout import Playout
from bridge.events import TurnEnded
from bridge.providers.base import Message, ToolCall

# -- clauses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("We open at noon. We close at ten!", ["We open at noon.", "We close at ten!"]),
        ("Is that right? Good.", ["Is that right?", "Good."]),
        ("Ask for Mr. Moretti at 7 p.m. please. Bye.", ["Ask for Mr. Moretti at 7 p.m. please.", "Bye."]),
        ("It costs 12.50 dollars", ["It costs 12.50 dollars"]),
        ("At 7:30. Fine", ["At 7:30.", "Fine"]),
        ("First\nsecond", ["First", "second"]),
        ("... ", []),
        ("", []),
        (
            "I can tell you about the restaurant, book a table for you or take a message.",
            ["I can tell you about the restaurant,", "book a table for you or take a message."],
        ),
        ("Yes, a third of our card is vegetarian.", ["Yes, a third of our card is vegetarian."]),
        ("We are open every day, but on Mondays we close.", ["We are open every day,", "but on Mondays we close."]),
        ("We are open every day, from noon.", ["We are open every day, from noon."]),
        ("Good evening, how can I help you?", ["Good evening,", "how can I help you?"]),
        ("Try e.g.", ["Try e.g."]),
    ],
)
def test_text_is_cut_into_clauses(text: str, clauses: list[str]) -> None:
    assert split(text) == clauses


@given(st.text("aB .,?!\n-é1", max_size=600), st.integers(1, 20))
def test_streaming_loses_no_words_and_no_clause_is_endless(text: str, size: int) -> None:
    splitter = ClauseSplitter()
    clauses = [c for at in range(0, len(text), size) for c in splitter.feed(text[at : at + size])] + splitter.flush()
    assert words("\n".join(clauses)) == words(text) or max(map(len, text.split()), default=0) > MAX_CLAUSE_CHARS // 2
    assert all(clause == clause.strip() and words(clause) for clause in clauses)
    assert all(len(clause) <= MAX_CLAUSE_CHARS for clause in clauses)


def test_clauses_are_the_same_however_the_text_streams_in() -> None:
    text = "We have about 60 Italian wines, beer and cocktails, and you may bring a bottle. It is 15 dollars."
    by_char = ClauseSplitter()
    assert [c for char in text for c in by_char.feed(char)] + by_char.flush() == split(text)


def test_the_first_clause_is_given_out_as_soon_as_it_is_clear_that_the_sentence_goes_on() -> None:
    splitter = ClauseSplitter()
    assert splitter.feed("We are open every day, but on Mon") == []
    assert splitter.feed("days") == ["We are open every day,"]


# -- words -----------------------------------------------------------------------------------------------------


def test_phrases_match_whole_words_the_longest_first() -> None:
    phrases = Phrases(["uh huh", "okay", "of course"])
    assert phrases.without(words("Uh-huh, okay, of course I am, huh")) == ["i", "am", "huh"]
    assert words("OKAY!") in phrases and words("of") not in phrases
    assert phrases.anywhere(words("yes of course not")) and not phrases.anywhere(words("course of"))
    assert phrases.end(words("it is okay")) and not phrases.end(words("okay it is"))


@given(st.text(max_size=80))
def test_any_text_has_an_ending(text: str) -> None:
    judged = Endings(TurnSettings()).judge(text)
    assert isinstance(judged.ending, Ending) and judged.why


@pytest.mark.parametrize(
    ("heard", "said", "is_echo"),
    [
        ("noon every day", "we open at noon every day", True),
        ("open at noon ever day", "we open at noon every day", False),
        ("we open at noon today", "we open at noon every day", True),
        ("noon", "we open at noon", True),
        ("what about noon", "we open at noon", False),
        ("", "we open", False),
        ("anything", "", False),
    ],
)
def test_echo_is_a_row_of_the_agents_words(heard: str, said: str, is_echo: bool) -> None:
    assert echoes(words(heard), words(said)) is is_echo


# -- speech ----------------------------------------------------------------------------------------------------


class Spoken:
    """A speech over a playout that is cranked by hand."""

    def __init__(self, *, aligned: bool = False, look_ahead_ms: float = 3000) -> None:
        self.code = WordCode()
        self.tts = CodeTts(self.code)
        self.tts.latency_s = 0
        self.tts.aligned = aligned
        self.playout = Playout(RATE)
        loop = asyncio.get_running_loop()
        options = VoiceOptions("", "en", 5, look_ahead_ms)
        self.speech = Speech(self.playout, self.tts, options, clock=loop.time, failed=lambda _: None)
        self.task = asyncio.create_task(self.speech.run())

    async def play(self, ms: float) -> None:
        for _ in range(int(ms / 20)):
            await asyncio.sleep(0.02)
            self.playout.take(asyncio.get_running_loop().time())


def test_words_heard_follow_the_alignment_or_the_characters() -> None:
    async def main() -> None:
        for aligned in (True, False):
            spoken = Spoken(aligned=aligned)
            spoken.speech.feed("aaaa bbbb cccc. dddd eeee. ")
            spoken.speech.finish()
            await spoken.play(0)
            spoken.speech.release()
            await spoken.task
            heard = [spoken.speech.heard(n * WORD_MS) for n in range(6)]
            assert heard == [
                "",
                "aaaa",
                "aaaa bbbb",
                "aaaa bbbb cccc.",
                "aaaa bbbb cccc. dddd",
                "aaaa bbbb cccc. dddd eeee.",
            ]
            assert spoken.speech.heard(2.8 * WORD_MS) == "aaaa bbbb cccc."
            assert spoken.speech.divide(4 * WORD_MS) == ("aaaa bbbb cccc.", "dddd eeee.")
            assert spoken.speech.divide(5 * WORD_MS) == ("aaaa bbbb cccc. dddd eeee.", "")
            assert spoken.speech.between(1.5 * WORD_MS, 2.5 * WORD_MS) == "bbbb cccc."

    in_fake_time(main)


def test_nothing_is_played_before_release_and_only_the_first_clause_is_prepared() -> None:
    async def main() -> None:
        spoken = Spoken()
        spoken.speech.feed("One two. Three four. Five six. ")
        spoken.speech.finish()
        await spoken.play(500)
        assert spoken.tts.asked == ["One two."] and spoken.playout.sent_ms == 0
        spoken.speech.release()
        await spoken.task
        await spoken.play(6 * WORD_MS + 40)
        assert spoken.playout.sent_ms == 6 * WORD_MS and not spoken.playout.speaking

    in_fake_time(main)


def test_dropped_speech_stops_and_refuses_the_rest() -> None:
    async def main() -> None:
        spoken = Spoken()
        spoken.tts.chunk_s = 0.1
        spoken.speech.say("one two three four five six")
        spoken.speech.release()
        await spoken.play(300)
        spoken.speech.drop()
        await spoken.task
        assert spoken.tts.open == 0 and spoken.playout.queued_ms <= 5

    in_fake_time(main)


def test_drained_returns_when_all_that_was_given_has_been_played() -> None:
    async def main() -> None:
        spoken = Spoken()
        spoken.tts.latency_s = 0.3
        spoken.speech.feed("one two. three four. ")
        spoken.speech.release()
        drained = asyncio.create_task(spoken.speech.drained())
        await spoken.play(1000)
        assert not drained.done()
        await spoken.play(400)
        assert drained.done() and spoken.playout.speaking
        spoken.speech.finish()
        await spoken.task

    in_fake_time(main)


def test_tone_is_three_seconds_of_audible_sound() -> None:
    for rate in (8000, 16000):
        assert len(reorder_tone(rate)) == 3 * rate * 2


# -- memory and record -----------------------------------------------------------------------------------------


def test_words_that_follow_the_callers_own_continue_them() -> None:
    memory = Memory(10)
    memory.add_user("a table")
    assert memory.with_user("for two")[-1] == Message("user", "a table for two")
    memory.add_user("for two")
    assert memory.messages == (Message("user", "a table for two"),)
    assert memory.awaits_reply
    memory.add([Message("assistant", "Certainly.")])
    memory.add_user("thanks")
    assert [m.role for m in memory.messages] == ["user", "assistant", "user"]


def test_old_messages_are_forgotten_but_no_result_without_its_call() -> None:
    memory = Memory(4)
    call = ToolCall("1", "book", {})
    memory.add_user("yes")
    memory.add(
        [Message("assistant", "", (call,)), Message("tool", "ok", tool_call_id="1"), Message("assistant", "Booked.")]
    )
    memory.add_user("thanks")
    assert [m.role for m in memory.messages] == ["assistant", "tool", "assistant", "user"]
    memory.add([Message("assistant", "Bye.")])
    assert [m.role for m in memory.messages] == ["assistant", "user", "assistant"]


def turn(text: str) -> TurnEnded:
    return TurnEnded(0, "agent", text, 0, 0, text, 0)


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_turns_are_told_in_order_of_their_start_without_gaps(order: list[int], void: set[int]) -> None:
    told: list[TurnEnded] = []
    ledger = TurnLedger(told.append)
    slots = {n: ledger.open(float(n)) for n in (0, 1, 3, 2, 5, 4)}
    for n in order:
        if n in void:
            ledger.void(slots[n])
        else:
            ledger.end(slots[n], turn(str(n)))
    assert [t.text for t in told] == [str(n) for n in range(6) if n not in void]
    assert [t.index for t in told] == list(range(len(told)))


# -- settings --------------------------------------------------------------------------------------------------


def test_fixed_phrases_begin_with_the_greeting_and_are_what_the_voice_is_asked_for() -> None:
    settings = ConversationSettings.model_validate(
        {
            "greeting": "Hello, this is the inn. How can I help?",
            "brief": {"facts": [{"id": "hours", "ask": ["when"], "say": "We open at noon. We close at ten."}]},
        }
    )
    phrases = settings.fixed_phrases()
    assert phrases[:2] == ("Hello, this is the inn. How can I help?", settings.phrases.apology)
    assert {"We open at noon.", "We close at ten.", "Thank you for calling.", "Goodbye!"} <= set(phrases)
    assert len(set(phrases)) == len(phrases) and all(phrases) and not any("{" in phrase for phrase in phrases)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_zone": "Mars/Base"}, "not a time zone"),
        ({"greting": "Hi"}, "greting"),
        ({"turns": {"end_silence_ms": -1}}, "end_silence_ms"),
        ({"limits": {"silence_ms": 10}}, "silence_ms"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConversationSettings.model_validate(settings)
