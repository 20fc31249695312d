"""What a recognised text tells: whether more is to come, and whether it is the agent's own echo."""

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from bridge.agents.settings import TurnSettings

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_OPEN_END = re.compile(r"(?:\.\.\.|…|[,;:–—-])\s*$")
_CLOSED_NUMBER = re.compile(r"(?:\d{1,2}[:.]\d{2}|(?<!\d)(?:19|20)\d{2})\W*$")

ECHO_WORDS = 3
"""From this many words on, a text that repeats the agent is an echo beyond doubt; fewer may be an answer."""

ECHO_SHARE = 0.75
"""Share of a longer text's words that must stand in the agent's own, in one row: recognition of an echo is poor."""

Phrase = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of `text`, in lower case, without punctuation; "uh-huh" is two."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


class Phrases:
    """A list of words and phrases to look for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._phrases = {tuple(words(text)) for text in texts} - {()}
        self._longest = max(map(len, self._phrases), default=0)

    def __contains__(self, said: Sequence[str]) -> bool:
        return tuple(said) in self._phrases

    def end(self, said: Sequence[str]) -> bool:
        """Whether `said` ends in one of them."""
        return any(tuple(said[-n:]) in self._phrases for n in range(1, min(self._longest, len(said)) + 1))

    def anywhere(self, said: Sequence[str]) -> bool:
        """Whether one of them stands in `said`."""
        return any(self.end(said[:n]) for n in range(1, len(said) + 1))

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
    """A filler, a connector, or a number or spelling that may go on."""
    ANSWER = auto()
    """It is a plain yes or no."""


class Endings:
    """Judges how a text ends, by the word lists of `settings`."""

    def __init__(self, settings: TurnSettings) -> None:
        self._unfinished = Phrases((*settings.fillers, *settings.connectors))
        self._answers = Phrases(settings.answers)
        self._digits = frozenset(settings.digit_words)
        self._enough_digits = settings.complete_number_digits

    def of(self, text: str) -> tuple[Ending, str]:
        """How `text` ends, and why that is thought."""
        said = words(text)
        if not said:
            return Ending.COMPLETE, "no words"
        if _OPEN_END.search(text):
            return Ending.INCOMPLETE, "open punctuation"
        if said in self._answers:
            return Ending.ANSWER, "a plain answer"
        if self._unfinished.end(said) and not text.rstrip().endswith("?"):
            return Ending.INCOMPLETE, f"ends in {said[-1]!r}"
        if len(said) >= 2 and all(len(word) == 1 and word.isalpha() for word in said[-2:]):
            return Ending.INCOMPLETE, "spelling"
        if self._number_goes_on(said) and not _CLOSED_NUMBER.search(text):
            return Ending.INCOMPLETE, "a row of digits"
        return Ending.COMPLETE, "complete"

    def _number_goes_on(self, said: Sequence[str]) -> bool:
        tokens = digits = 0
        for word in reversed(said):
            if word.isdecimal():
                digits += len(word)
            elif word in self._digits:
                digits += 1
            else:
                break
            tokens += 1
        return (tokens >= 2 or digits >= 3) and digits < self._enough_digits


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
