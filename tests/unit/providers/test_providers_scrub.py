"""Keys never stand in an error's text."""

import pytest

from bridge.providers.scrub import LONGEST, scrubbed


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-0123456789abcdef",
        "sk-ant-api03-abcdefgh",
        "gsk_0123456789abcdef",
        "sk-te**********cdef",
        "AIzaSyA0123456789abcdef",
        "KEY0123456789ABCDEF_abcdef",
        "Bearer abc.def",
        "Token 0123456789abcdef0123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_key_is_hidden(key: str) -> None:
    assert scrubbed(f"refused: {key} (401)") == "refused: *** (401)"


def test_a_secret_of_any_look_is_hidden() -> None:
    assert scrubbed("no such key: correct horse", "correct horse") == "no such key: ***"
    assert scrubbed("wss://user:pass@host/x?token=abc&a=1") == "wss://***@host/x?***&a=1"


@pytest.mark.parametrize("text", ["key_not_found", "token limit exceeded", "none of these", "basic authentication"])
def test_ordinary_words_stay(text: str) -> None:
    assert scrubbed(text, "none", "") == text


def test_a_long_text_is_cut_and_put_on_one_line() -> None:
    assert scrubbed("a\n  b" + "c" * 1000) == "a b" + "c" * (LONGEST - 3)
