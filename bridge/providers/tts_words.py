"""From a voice's own alignment (characters or words with times) to the words of the text it was given."""

from collections.abc import Sequence

from bridge.providers.base import WordTiming

LONGEST_MS = 3_600_000.0
"""What is beyond is no time of a word."""


def times_ms(values: object, unit_ms: float = 1.0) -> list[float]:
    """Times of a vendor's alignment, in units of `unit_ms`. Empty where they are no list of times: one that is left
    out would shift all others."""
    times: list[float] = []
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, int | float) or not -LONGEST_MS <= value <= LONGEST_MS:
            return []
        times.append(max(0.0, round(value * unit_ms, 3)))
    return times


class WordAligner:
    """Times for each whitespace-separated word of `text`, as its characters are aligned one after another.

    What the vendor aligned may differ from the text (spaces put in or left out, a character dropped or added): a
    character that does not stand where it should is looked for in the rest of its word, and else ignored. After
    `finish` every word has a time."""

    __slots__ = ("_at", "_end_ms", "_number", "_start_ms", "_words")

    def __init__(self, text: str) -> None:
        self._words = text.split()
        self._number = 0
        """Of the word that is being aligned."""
        self._at = 0
        """Characters of it that have been aligned."""
        self._start_ms = 0.0
        self._end_ms = 0.0
        """Of the last character that was aligned."""

    def characters(
        self, characters: Sequence[str], starts_ms: Sequence[float], ends_ms: Sequence[float]
    ) -> list[WordTiming]:
        """The next characters, with times from the start of the text. Returns the words that are complete by them."""
        complete = []
        for said, start_ms, end_ms in zip(characters, starts_ms, ends_ms, strict=False):
            for char in said:
                if char.isspace() or self._number >= len(self._words):
                    continue
                complete += self._take(char, start_ms, end_ms)
        return complete

    def words(self, words: Sequence[str], starts_ms: Sequence[float], ends_ms: Sequence[float]) -> list[WordTiming]:
        """The same, of words as the vendor has cut them."""
        complete = []
        for word, start_ms, end_ms in zip(words, starts_ms, ends_ms, strict=False):
            each_ms = (end_ms - start_ms) / max(1, len(word))
            edges = [start_ms + place * each_ms for place in range(len(word) + 1)]
            complete += self.characters(word, edges, edges[1:])
        return complete

    def finish(self, length_ms: float) -> list[WordTiming]:
        """The audio is over after `length_ms`: the words that were not aligned share what is left of it. Empty where
        nothing was aligned at all: then the listener's own estimate is as good."""
        rest = self._words[self._number :]
        if not rest or (self._number == 0 and self._at == 0):
            return []
        begins_ms = self._start_ms if self._at else self._end_ms
        per_char_ms = max(0.0, length_ms - begins_ms) / sum(len(word) for word in rest)
        timings = []
        for word in rest:
            timings.append(WordTiming(word, begins_ms, begins_ms + len(word) * per_char_ms))
            begins_ms = timings[-1].end_ms
        self._number, self._at = len(self._words), 0
        return timings

    def _take(self, char: str, start_ms: float, end_ms: float) -> list[WordTiming]:
        word = self._words[self._number]
        place = self._at
        if word[place] != char:
            place = word.find(char, place)
            if place < 0:
                return self._skip_to(char, start_ms, end_ms)
        if not self._at:
            self._start_ms = start_ms
        self._end_ms = end_ms = max(end_ms, self._start_ms)
        self._at = place + 1
        if self._at < len(word):
            return []
        self._number, self._at = self._number + 1, 0
        return [WordTiming(word, self._start_ms, end_ms)]

    def _skip_to(self, char: str, start_ms: float, end_ms: float) -> list[WordTiming]:
        """The rest of the word was not aligned, if `char` begins the next one; a dash alone never is, nor a quote."""
        for number in range(self._number + 1, len(self._words)):
            before, found, _ = self._words[number].partition(char)
            if found and not _sounds(before):
                break
            if _sounds(self._words[number]):
                return []
        else:
            return []
        begins_ms = self._start_ms if self._at else self._end_ms
        skipped = [WordTiming(self._words[self._number], begins_ms, self._end_ms)]
        silent = self._words[self._number + 1 : number]
        skipped += [WordTiming(word, self._end_ms, self._end_ms) for word in silent]
        self._number, self._at = number, 0
        return [*skipped, *self._take(char, start_ms, end_ms)]


def _sounds(text: str) -> bool:
    return any(char.isalnum() for char in text)
