"""Short utterances that words alone decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.local.brain_acts import acts


@pytest.mark.parametrize(
    ("act", "texts"),
    [
        (
            "yes",
            [
                "Yes.",
                "yeah",
                "Yes, that's right.",
                "um yeah sure please",
                "that's correct thank you",
                "okay",
                "sounds good",
            ],
        ),
        ("no", ["No.", "nope", "No, thank you.", "no that's wrong", "not really"]),
        (
            "done",
            ["that's all, thank you", "no thanks, that's all", "nothing else", "No that's it thanks", "I'm good"],
        ),
        (
            "bye",
            [
                "bye",
                "Thank you, goodbye!",
                "ok thanks bye",
                "have a nice day",
                "no that's all thank you very much bye",
            ],
        ),
        ("repeat", ["sorry?", "Pardon?", "can you say that again please", "what did you say", "I didn't catch that"]),
        ("cancel", ["never mind", "oh no, forget it", "cancel that please", "I changed my mind"]),
        ("wait", ["hold on a second please", "one moment", "wait", "let me check"]),
        ("hello", ["Hello?", "hi, good evening", "hello, are you there"]),
        ("thanks", ["thanks", "great, thank you", "okay thank you very much"]),
        ("wrong_number", ["sorry, wrong number", "oh I must have dialed wrong"]),
        ("question", ["what are your hours", "do you have parking", "Parking?", "oh, and can I bring a dog"]),
    ],
)
def test_acts(act: str, texts: list[str]) -> None:
    for text in texts:
        assert getattr(acts(text), act), text


@pytest.mark.parametrize(
    ("act", "texts"),
    [
        ("yes", ["yes but make it eight", "no", "what are your hours", ""]),
        ("no", ["no, make it five people", "nobody", ""]),
        ("repeat", ["what time do you open", "what"[:-1]]),
        ("cancel", ["I'd like to cancel my reservation for tonight"]),
        ("wrong_number", ["my number is five five five", "the number is wrong"]),
        ("bye", ["can I buy a voucher"]),
    ],
)
def test_what_is_no_such_act(act: str, texts: list[str]) -> None:
    for text in texts:
        assert not getattr(acts(text), act), text


def test_a_beginning_counts_for_itself() -> None:
    assert acts("yes, but make it eight").leading_yes
    assert acts("no, make it five people").leading_no
    assert not acts("north entrance").leading_no


@given(
    st.lists(
        st.sampled_from(["no", "yes", "okay", "um", "thanks", "that's", "all", "it", "sorry", "x"]), max_size=400
    )
)
def test_long_babble_is_read_in_no_time(words: list[str]) -> None:
    acts(" ".join(words))
