"""Words and their times out of a voice's own alignment."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.base import WordTiming
from bridge.providers.tts_words import WordAligner, times_ms


def aligned(text: str, said: str, char_ms: float = 10) -> list[WordTiming]:
    """The words of `text` when the vendor aligned `said`, each character `char_ms` long."""
    aligner = WordAligner(text)
    starts = [place * char_ms for place in range(len(said))]
    words = aligner.characters(list(said), starts, [start + char_ms for start in starts])
    return words + aligner.finish(len(said) * char_ms)


def test_a_word_lasts_from_its_first_character_to_its_last() -> None:
    assert aligned("Hi, you.", "Hi, you. ") == [WordTiming("Hi,", 0, 30), WordTiming("you.", 40, 80)]


def test_spaces_are_put_in_and_left_out_by_the_vendor() -> None:
    words = aligned("a first-time customer", "a first- time  customer")
    assert [word.word for word in words] == ["a", "first-time", "customer"]
    assert words[1] == WordTiming("first-time", 20, 130)
    assert [word.word for word in aligned("one two three", "onetwothree")] == ["one", "two", "three"]


def test_characters_that_are_left_out_cost_no_word() -> None:
    words = aligned("“Yes” — he said. 👋 Bye!", "Yes he said. Bye!")
    assert [word.word for word in words] == ["“Yes”", "—", "he", "said.", "👋", "Bye!"]
    assert words[2].start_ms == 40


def test_characters_that_are_put_in_are_ignored() -> None:
    assert aligned("one two", "[x] one z two")[1] == WordTiming("two", 100, 130)


def test_words_that_were_not_aligned_share_the_rest_of_the_audio() -> None:
    aligner = WordAligner("one two three")
    words = aligner.words(["one"], [0], [300])
    assert words + aligner.finish(1100) == [
        WordTiming("one", 0, 300),
        WordTiming("two", 300, 600),
        WordTiming("three", 600, 1100),
    ]
    assert aligner.finish(1100) == []


def test_without_any_alignment_there_are_no_words() -> None:
    assert WordAligner("one two").finish(500) == []


def test_a_vendors_words_are_taken_apart_and_put_together() -> None:
    aligner = WordAligner("first-time customer")
    words = aligner.words(["first-", "time", "customer"], [0, 60, 100], [60, 100, 180])
    assert words == [WordTiming("first-time", 0, 100), WordTiming("customer", 100, 180)]


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_aligned_every_word_has_one_time_and_they_follow_each_other(text: str, said: str) -> None:
    words = aligned(text, said)
    if words:
        assert [word.word for word in words] == text.split()
    times = [time for word in words for time in (word.start_ms, word.end_ms)]
    assert times == sorted(times)


@given(st.lists(st.sampled_from("ab-1."), min_size=1).map("".join).filter(str.strip), st.lists(st.integers(1, 9)))
def test_it_does_not_matter_how_the_alignment_is_cut(word: str, cuts: list[int]) -> None:
    text = f"{word} and {word}"
    aligner, cut, at = WordAligner(text), [], 0
    for size in [*cuts, len(text)]:
        part = text[at : at + size]
        starts = [(at + place) * 10.0 for place in range(len(part))]
        cut += aligner.characters(part, starts, [start + 10 for start in starts])
        at += len(part)
    assert cut + aligner.finish(at * 10) == aligned(text, text)


def test_times_are_milliseconds_from_the_start() -> None:
    assert times_ms([0, 0.1234567, -0.002], 1000) == [0.0, 123.457, 0.0]


@given(st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.lists(st.one_of(st.floats(), st.text()))))
def test_what_is_no_list_of_times_is_none(values: object) -> None:
    times = times_ms(values)
    assert all(0 <= time <= 3_600_000 for time in times)
    assert times == [] or (isinstance(values, list) and len(times) == len(values))


def test_a_time_beyond_all_speech_takes_the_others_with_it() -> None:
    assert times_ms([1, 10**400]) == times_ms([1, float("nan")]) == times_ms([1, None]) == []
