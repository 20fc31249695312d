"""Which fact, form or other matter of a brief a caller's sentence is about: sentence embeddings and rare words.

The embedding carries the meaning; the words decide between neighbours ("prices" or "set menu") and hold back what
only sounds like the restaurant ("how much is a haircut"): a word that no example has counts against a match.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.providers.brief import Brief
from bridge.providers.local.text_words import plain, word_set, words

Kind = Literal["fact", "form", "handover", "chat", "beyond"]

ACCEPT = 0.46
"""A match at or above this is answered. Chosen on tests/unit/brain/utterances.jsonl: higher loses questions that are
put in an unusual way, lower answers questions about something else."""
CLEAR = 0.58
"""A match as good as this interrupts a form, or makes a second answer to a double question."""
SURE = 0.70
"""A match as good as this overrules what could be taken for a slot's value."""

_WORD_WEIGHT = 0.15
_SECOND_WEIGHT = 0.3
_CLAUSE_PENALTY = 0.02
_SHORTEST_CLAUSE = 3
_MOST_CLAUSES = 4

_STOP = word_set("""
    a an the i you we he she they my your our us me is are am was were be do does did have has had to of for
    in at on with and or it its that this there can could would will shall may please id like want need get
    got what whats when where who how which some any from if so by as im ill ive just hi hello up out about
    not dont tell know say yes no well okay
""")
_CHATS: dict[str, tuple[str, ...]] = {
    "how_are_you": ("how are you", "how is it going", "how do you do", "are you well", "how are you today"),
    "robot": (
        *("are you a robot", "are you a real person", "am I talking to a computer", "is this an automated system"),
        *("are you human", "are you a machine", "is this a recording", "are you an artificial intelligence"),
    ),
    "hearing": ("can you hear me", "do you hear me", "is my line working", "is the connection bad"),
    "abilities": (
        *("what can you do", "how can you help me", "what are my options", "what can I ask you", "what do you do"),
        "how does this work",
    ),
}
_CLAUSE_BREAK = re.compile(
    r"[.?!;]+\s+|,?\s+\band\s+(?:also\s+)?|,\s+(?=(?:do|does|is|are|can|could|what|where|when|how|may)\b)", re.I
)


class Embeds(Protocol):
    """What turns sentences into vectors: `[len(texts), n]` float32, each of length 1. Raises ProviderError."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Score:
    kind: Kind
    id: str
    score: float
    """About 0 to 1.1; see `ACCEPT`, `CLEAR`, `SURE`."""


@dataclass(frozen=True, slots=True)
class Match:
    ranked: tuple[Score, ...] = ()
    """The best few, best first, each target once."""
    also: Score | None = None
    """A second fact or form, in another clause of the sentence."""

    @property
    def best(self) -> Score | None:
        return self.ranked[0] if self.ranked else None

    def about(self, kind: Kind, at_least: float) -> str:
        """The id of the best match if it is of that kind and good enough, else empty."""
        best = self.best
        return best.id if best is not None and best.kind == kind and best.score >= at_least else ""


NO_MATCH = Match()


def parts(text: str) -> list[str]:
    """`text` and, where it has several, its clauses: all of them are embedded."""
    clauses = [clause.strip() for clause in _CLAUSE_BREAK.split(text) if clause]
    clauses = [clause for clause in clauses if len(words(clause)) >= _SHORTEST_CLAUSE]
    if len(clauses) < 2 and not (clauses and plain(clauses[0]) != plain(text)):
        return [text]
    return [text, *clauses[:_MOST_CLAUSES]]


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "s", "ly", "er"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + ("y" if ending == "ies" else "")
    return word


def _content(text: str) -> frozenset[str]:
    return frozenset(_stem(word.text) for word in words(text) if word.text not in _STOP)


class Matcher:
    """A brief's examples, embedded once."""

    def __init__(
        self,
        brief: Brief,
        targets: Sequence[tuple[Kind, str]],
        owners: Sequence[int],
        examples: Sequence[str],
        vectors: NDArray[np.float32],
    ) -> None:
        self.brief = brief
        self._targets = targets
        self._vectors = vectors
        # Examples of one target stand together: `reduceat` takes the best of each in one go.
        self._starts = np.flatnonzero(np.diff(np.asarray(owners), prepend=-1))
        vocabulary: list[set[str]] = [set() for _ in targets]
        for owner, example in zip(owners, examples, strict=True):
            vocabulary[owner] |= _content(example)
        self._owners_of: dict[str, list[int]] = {}
        for owner, content in enumerate(vocabulary):
            for word in content:
                self._owners_of.setdefault(word, []).append(owner)

    @classmethod
    async def prepare(cls, brief: Brief, embeds: Embeds) -> "Matcher":
        """Embed the examples of `brief`: some seconds for a large one. Raises ProviderError."""
        groups: list[tuple[Kind, str, Sequence[str]]] = [
            *(("fact", fact.id, fact.ask) for fact in brief.facts),
            *(("form", form.id, form.ask) for form in brief.forms),
            ("handover", "handover", brief.handover.ask),
            *(("chat", chat, asks) for chat, asks in _CHATS.items()),
            ("beyond", "beyond", brief.beyond),
        ]
        groups = [group for group in groups if group[2]]
        owners = [owner for owner, group in enumerate(groups) for _ in group[2]]
        examples = [example for group in groups for example in group[2]]
        vectors = await embeds.embed(examples)
        return cls(brief, [(kind, name) for kind, name, _ in groups], owners, examples, vectors)

    def match(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> Match:
        """Match what `parts` made of a sentence, with its vectors: `[len(texts), n]`."""
        scores = self._scores(texts, vectors)
        scores[1:] -= _CLAUSE_PENALTY
        best = scores.max(axis=0)
        order = np.argsort(-best)[:5]
        ranked = tuple(Score(self._targets[i][0], self._targets[i][1], float(best[i])) for i in order)
        return Match(ranked, self._second(ranked[0], scores))

    def _scores(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[texts, targets]`."""
        likeness = vectors @ self._vectors.T
        best = np.maximum.reduceat(likeness, self._starts, axis=1)
        # The second best example steadies the first: a chance likeness to one sentence is not enough.
        masked = np.where(likeness == np.repeat(best, self._sizes(), axis=1), -1.0, likeness)
        second = np.maximum(np.maximum.reduceat(masked, self._starts, axis=1), best - 0.5)
        second = np.where(self._sizes() > 1, second, best)
        scores = (best * (1 - _SECOND_WEIGHT) + second * _SECOND_WEIGHT).astype(np.float32)
        for row, text in enumerate(texts):
            scores[row] += _WORD_WEIGHT * (self._shared_words(text) - 0.5)
        return scores

    def _sizes(self) -> NDArray[np.intp]:
        return np.diff(self._starts, append=self._vectors.shape[0])

    def _shared_words(self, text: str) -> NDArray[np.float32]:
        """For each target the share (0 to 1) of the sentence's words, weighted by rarity, that its examples have."""
        shared = np.zeros(len(self._targets), dtype=np.float32)
        total = 0.0
        for word in _content(text):
            owners = self._owners_of.get(word, [])
            weight = math.log(1 + len(self._targets) / (len(owners) or 0.5))
            total += weight
            shared[owners] += weight
        return shared / total if total else shared

    def _second(self, first: Score, scores: NDArray[np.float32]) -> Score | None:
        found: dict[str, Score] = {}
        for row in scores[1:]:
            target = int(np.argmax(row))
            kind, name = self._targets[target]
            score = float(row[target])
            if kind in ("fact", "form") and score >= CLEAR and (name not in found or found[name].score < score):
                found[name] = Score(kind, name, score)
        if first.id not in found:
            return None
        del found[first.id]
        return max(found.values(), key=lambda score: score.score, default=None)
