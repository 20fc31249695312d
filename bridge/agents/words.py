"""What a recognised text tells: whether more is to come, and whether it is the agent's own echo."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from bridge.agents.settings import TurnSettings

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_OPEN_END = re.compile(r"(?:\.\.\.|…|[,;:–—-])\s*$")
_CLOSED_NUMBER = re.compile(r"(?:\d{1,2}[:.]\d{2}|(?<!\d)(?:19|20)\d{2})\W*$")
_CLOSED_ADDRESS = re.compile(r"@\s*[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}\W*$")

ECHO_WORDS = 3
"""From this many words on, a text that repeats the agent is an echo beyond doubt; fewer may be an answer."""

ECHO_SHARE = 0.75
"""Share of a longer text's words that must stand in the agent's own, in one row: recognition of an echo is poor."""

ADDRESS_BEGINNING_WORDS = 3
"""A text no longer than this may be how an e-mail address begins, where one was asked for."""

Phrase = tuple[str, ...]

Expected = Literal["number", "email", "name", "spelling"]
"""What the agent asked for last: a long number digit by digit, an e-mail address, a name, or its letters."""


def words(text: str) -> list[str]:
    """The words of `text`, in lower case, without punctuation; "uh-huh" is two."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def phrase_words(texts: Iterable[str]) -> tuple[Phrase, ...]:
    """Each text as its words; those without any are left out."""
    return tuple(phrase for phrase in (tuple(words(text)) for text in texts) if phrase)


class Phrases:
    """A list of words and phrases to look for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._phrases = set(phrase_words(texts))
        self._longest = max(map(len, self._phrases), default=0)

    def __contains__(self, said: Sequence[str]) -> bool:
        return tuple(said) in self._phrases

    def end(self, said: Sequence[str]) -> bool:
        """Whether `said` ends in one of them."""
        return any(tuple(said[-n:]) in self._phrases for n in range(1, min(self._longest, len(said)) + 1))

    def anywhere(self, said: Sequence[str]) -> bool:
        """Whether one of them stands in `said`."""
        return any(self.end(said[:n]) for n in range(1, len(said) + 1))

    def last_end(self, said: Sequence[str]) -> int:
        """How many words of `said` there are up to the end of the last of them that stands in it; 0: none does."""
        return next((n for n in range(len(said), 0, -1) if self.end(said[:n])), 0)

    def without(self, said: Sequence[str]) -> list[str]:
        """`said` without them, the longest first from the left."""
        rest: list[str] = []
        at = 0
        while at < len(said):
            sizes = range(min(self._longest, len(said) - at), 0, -1)
            size = next((n for n in sizes if tuple(said[at : at + n]) in self._phrases), 0)
            if not size:
                rest.append(said[at])
            at += size or 1
        return rest


class Ending(Enum):
    """How a text ends."""

    COMPLETE = auto()
    INCOMPLETE = auto()
    """A filler, a connector, or a number, an address or a spelling that may go on."""
    ANSWER = auto()
    """It is a plain yes or no."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a text ends, how long a silence ends the turn then (ms), and why that is thought."""

    ending: Ending
    silence_ms: int
    why: str


class Endings:
    """Judges how a text ends, by the word lists of `settings`."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._unfinished = Phrases((*settings.fillers, *settings.connectors))
        self._answers = Phrases(settings.answers)
        self._digits = frozenset(settings.digit_words)
        self._enough_digits = settings.complete_number_digits
        self._at = Phrases(settings.at_words)
        self._dot = Phrases(settings.dot_words)
        self._as_in = Phrases(settings.as_in_words)
        self._big_numbers = frozenset(settings.number_words)

    def judge(self, text: str, expected: Expected | None = None) -> Judgement:
        """How `text` ends, said to an agent that asked for what is `expected`."""
        settings = self._settings
        said = words(text)
        if not said:
            return Judgement(Ending.COMPLETE, settings.end_silence_ms, "no words")
        if said in self._answers:
            return Judgement(Ending.ANSWER, settings.answer_silence_ms, "a plain answer")
        found = self._unfinished_thing(text, said, expected)
        if found is not None:
            kind, why = found
            silence_ms = settings.incomplete_silence_ms
            if kind is not None and kind == expected:
                silence_ms = max(silence_ms, self._patience_ms(kind))
                why = f"{why}, which was asked for"
            return Judgement(Ending.INCOMPLETE, silence_ms, why)
        if _OPEN_END.search(text):
            return self._incomplete(expected, "open punctuation")
        if self._unfinished.end(said) and not text.rstrip().endswith("?"):
            return self._incomplete(expected, f"ends in {said[-1]!r}")
        return Judgement(Ending.COMPLETE, settings.end_silence_ms, "complete")

    def _incomplete(self, expected: Expected | None, why: str) -> Judgement:
        silence_ms = self._settings.incomplete_silence_ms
        return Judgement(
            Ending.INCOMPLETE, max(silence_ms, self._patience_ms(expected)) if expected else silence_ms, why
        )

    def _patience_ms(self, expected: Expected) -> int:
        settings = self._settings
        match expected:
            case "number":
                return settings.number_silence_ms
            case "email":
                return settings.email_silence_ms
            case "name" | "spelling":
                return settings.spelling_silence_ms

    def _unfinished_thing(
        self, text: str, said: Sequence[str], expected: Expected | None
    ) -> tuple[Expected | None, str] | None:
        """An address, a spelling or a number that may go on; its kind as far as it fits what is expected."""
        question = text.rstrip().endswith("?")
        address = self._address(text, said, asked=expected == "email" and not question)
        if address is not None:
            return None if address else ("email", "an e-mail address that may go on")
        letters = 1 if expected in ("name", "spelling", "email") else 2
        spelt = said[-letters:]
        if (len(said) >= letters and all(len(word) == 1 and word.isalpha() for word in spelt)) or self._spells(said):
            return expected if expected in ("name", "email") else "spelling", "spelling"
        if expected == "spelling" and not question:
            return "spelling", "a spelling that may go on"
        if expected == "email" and not question:
            return None, "no e-mail address yet"
        if self._number_goes_on(said, asked=expected == "number") and not (
            expected != "number" and _CLOSED_NUMBER.search(text)
        ):
            return "number", "a row of digits"
        return None

    def _address(self, text: str, said: Sequence[str], *, asked: bool) -> bool | None:
        """Whether `said` ends in a whole e-mail address; None: there is none in it."""
        if "@" in text:
            return _CLOSED_ADDRESS.search(text) is not None
        if not asked:
            return None
        at, dot = self._at.last_end(said), self._dot.last_end(said)
        if not at and not dot:
            return False if len(said) <= ADDRESS_BEGINNING_WORDS else None
        return 0 < at < dot == len(said) - 1 and len(said[-1]) >= 2

    def _spells(self, said: Sequence[str]) -> bool:
        """It ends like "R as in Robert"."""
        return len(said) >= 3 and any(
            len(said[at]) == 1 and said[at + 1 : -1] in self._as_in for at in range(len(said) - 2)
        )

    def _number_goes_on(self, said: Sequence[str], *, asked: bool) -> bool:
        tokens = digits = 0
        for word in reversed(said):
            if word.isdecimal():
                digits += len(word)
            elif word in self._digits:
                digits += 1
            elif asked and word in self._big_numbers:
                digits += 2
            else:
                break
            tokens += 1
        return (tokens >= 2 or digits >= 3 or (asked and digits > 0)) and digits < self._enough_digits


def echoes(heard: Sequence[str], said: Sequence[str]) -> bool:
    """Whether `heard` is (nearly) a row of words out of `said`, what the agent spoke just before."""
    if not heard or not said:
        return False
    longest = 0
    rows = [0] * (len(said) + 1)
    for word in heard:
        rows = [0] + [rows[i] + 1 if word == other else 0 for i, other in enumerate(said)]
        longest = max(longest, *rows)
    needed = len(heard) if len(heard) < ECHO_WORDS + 1 else ECHO_SHARE * len(heard)
    return longest >= needed
