"""When a call changes over to another language."""

import pytest

from bridge.agents.language import CallLanguage

LONG = "ich möchte gerne einen Tisch für vier Personen"


def turn(call: CallLanguage, language: str, text: str) -> bool:
    call.heard(language)
    return call.turn_over(text)


def test_one_long_turn_is_believed() -> None:
    call = CallLanguage("en")
    assert turn(call, "de", LONG) and call.current == "de"


def test_two_agreeing_short_turns_are_believed_and_one_is_not() -> None:
    call = CallLanguage("en")
    assert not turn(call, "de", "guten Tag")
    assert call.current == "en"
    assert turn(call, "de-DE", "ein Tisch bitte")
    assert call.current == "de-DE"


def test_turns_that_do_not_agree_change_nothing() -> None:
    call = CallLanguage("en")
    for language in ("de", "nl", "de", "en", "de", "fr"):
        assert not turn(call, language, "guten Tag")
    assert call.current == "en"


@pytest.mark.parametrize("text", ["okay", "no", "Schmidt"])
def test_a_single_word_tells_nothing(text: str) -> None:
    call = CallLanguage("en")
    assert not turn(call, "de", "guten Tag")
    assert not turn(call, "en", text)
    assert not turn(call, "de", text)
    assert turn(call, "de", "ein Tisch bitte")


def test_another_region_is_no_other_language() -> None:
    call = CallLanguage("en-GB")
    assert not turn(call, "en-US", "I would like a table for four people please")
    assert call.current == "en-GB"


def test_only_languages_that_the_agent_has_are_followed_by_their_own_name() -> None:
    call = CallLanguage("en", spoken=("en", "de-AT"))
    assert not turn(call, "nl", "ik wil graag een tafel voor vier personen")
    assert turn(call, "de", LONG)
    assert call.current == "de-AT"


def test_a_fixed_language_stays() -> None:
    call = CallLanguage("en", follows=False)
    assert not turn(call, "de", LONG)
    assert call.current == "en"


def test_a_recogniser_that_does_not_tell_changes_nothing() -> None:
    call = CallLanguage("en")
    assert not turn(call, "", LONG)
    call.heard("de")
    assert not call.turn_over("")
    assert not call.turn_over(LONG)


def test_the_call_may_come_back_to_the_first_language() -> None:
    call = CallLanguage("en")
    assert turn(call, "de", LONG)
    assert turn(call, "en", "sorry my wife will go on in English now")
    assert call.current == "en"


def test_scripts_without_spaces_have_words_too() -> None:
    assert turn(CallLanguage("en"), "zh", "我想订一张四个人的桌子谢谢")
