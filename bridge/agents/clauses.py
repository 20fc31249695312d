"""A reply's text, as it streams in, cut into what is spoken piece by piece: sentences, and a clause to start with."""

import re

FIRST_CLAUSE_CHARS = 12
"""A first clause shorter than this is not worth cutting off: the voice needs context for its melody, and what it says
meanwhile covers the making of what follows. "Good evening," is 13 characters, 0.6 s of speech, and takes the embedded
voice 60 ms; 90 characters take it 0.4 s."""

FIRST_REST_CHARS = 12
"""A first sentence that goes on for this long after its first clause starts with that clause, without waiting for
more of it: the caller waits less."""

MAX_CLAUSE_CHARS = 240
"""Longer than anyone speaks in one breath; also bounds one job of the voice."""

_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)|[。！？]|\n+")
_CLAUSE = re.compile(r"[,;:](?=\s)|\s[–—-](?=\s)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[a-z]|mr|mrs|ms|dr|prof|st|no|nr|vs|etc|approx|e\.g|i\.e|a\.m|p\.m|jr|sr|ave|tel|ext|min|max)\.\Z",
    re.IGNORECASE,
)
_SPEAKABLE = re.compile(r"[^\W_]")


class ClauseSplitter:
    """Takes text as it comes and gives back clauses ready to be spoken, in order, stripped; whitespace between
    them is all that is lost."""

    def __init__(self) -> None:
        self._buffer = ""
        self._first = True

    def feed(self, text: str) -> list[str]:
        """Add `text`; returns the clauses that are complete now."""
        self._buffer += text
        clauses = []
        while (end := self._boundary()) is not None:
            clauses += self._cut(end)
        return clauses

    def flush(self) -> list[str]:
        """The text is over: returns what is left."""
        clauses = self.feed("\n") if self._buffer.strip() else []
        self._buffer = ""
        return clauses

    def _cut(self, end: int) -> list[str]:
        clause, self._buffer = self._buffer[:end].strip(), self._buffer[end:].lstrip()
        if not _SPEAKABLE.search(clause):
            return []
        self._first = False
        return [clause]

    def _boundary(self) -> int | None:
        """Where the first clause of the buffer ends, None while it is not complete."""
        sentence = self._sentence_end()
        if self._first:
            clause = _CLAUSE.search(self._buffer, FIRST_CLAUSE_CHARS, sentence or len(self._buffer))
            if clause and (sentence or len(self._buffer)) - clause.end() > FIRST_REST_CHARS:
                return clause.end()
        if (sentence or len(self._buffer)) > MAX_CLAUSE_CHARS:
            head = self._buffer[:MAX_CLAUSE_CHARS]
            ends = [match.end() for match in _CLAUSE.finditer(head, MAX_CLAUSE_CHARS // 2)]
            return ends[-1] if ends else head.rfind(" ") + 1 or MAX_CLAUSE_CHARS
        return sentence

    def _sentence_end(self) -> int | None:
        for match in _END.finditer(self._buffer):
            if not _ABBREVIATION.search(self._buffer[: match.end()]):
                return match.end()
        return None


def split(text: str) -> list[str]:
    """The clauses of a whole text."""
    splitter = ClauseSplitter()
    return splitter.feed(text) + splitter.flush()
