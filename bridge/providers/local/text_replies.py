"""Small readings of a caller's reply that belong to no slot: which of two, the words of a message, loose digits."""

import re

from bridge.providers.local.text_words import UNITS, plain

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_REPORTED = re.compile(
    r"\b(?:message that|saying that|tell (?:him|her|them|\w+|the \w+|your \w+) that)\s+(?P<told>.{4,})", re.I
)
_LEAD_IN = re.compile(r"\A(?:(?:yes|yeah|sure|okay|ok|um|uh|well|so|please|just|the message is)\b[,.]?\s+)+", re.I)
_FIRST = frozenset({"first", "former", "this", "earlier", "sooner"})
_SECOND = frozenset({"second", "latter", "next", "later", "following", "other"})
_DIGITS = {**{word: str(value) for word, value in UNITS.items() if value < 10}, "oh": "0", "o": "0"}
_MORE = re.compile(r"\b(?:something else|another question|other question|one more (?:thing|question)|a question)\Z")


def without_question(text: str) -> str:
    """`text` without the question it ends with, if another sentence is left."""
    sentences = _SENTENCE_END.split(text.strip())
    while len(sentences) > 1 and sentences[-1].endswith("?"):
        sentences.pop()
    return " ".join(sentences)


def by_position(said: str, count: int) -> int | None:
    """Which of `count` options the normalised words pick by order: "the second one", "the later"."""
    found = set(said.split())
    if count != 2 or len(found) > 5:
        return None
    first, second = bool(found & _FIRST), bool(found & _SECOND)
    return None if first == second else int(second)


def by_daypart(said: str) -> str:
    """`am` or `pm` for "the morning", "evening please"; else empty."""
    found = set(said.split())
    if len(found) > 5 or ("morning" in found) == bool(found & {"evening", "afternoon", "night"}):
        return ""
    return "am" if "morning" in found else "pm"


def reported(text: str) -> str:
    """The message inside "please tell the chef that we will be late"; empty if there is none."""
    match = _REPORTED.search(text)
    return _capital(match["told"].strip()) if match else ""


def dictated(text: str) -> str:
    """A message as it was spoken, without the fillers before it."""
    return _capital(_LEAD_IN.sub("", text.strip()) or text.strip())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def only_digits(text: str) -> str:
    """The digits, if `text` is nothing else; empty otherwise."""
    digits = ""
    for word in plain(text).split():
        if word.isdecimal():
            digits += word
        elif word in _DIGITS:
            digits += _DIGITS[word]
        else:
            return ""
    return digits


def wants_more(said: str) -> bool:
    """Normalised words that only announce a question: "I have another question"."""
    return bool(_MORE.search(said)) and len(said.split()) <= 6
