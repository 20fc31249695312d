"""What was said last, what it asked, and how much of it the caller heard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.providers.local.forms import Choice
from bridge.providers.local.text_words import plain

_NEARLY_HEARD_WORDS = 2
"""A reply counts as heard to its end when at most so many of its last words were cut off."""

_RECOGNISED_BY_WORDS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reply asks for."""

    kind: Literal["nothing", "slot", "confirm", "change", "choose", "anything_else", "offer"] = "nothing"
    slot: str = ""
    choices: tuple[Choice, ...] = ()
    offer: str = ""
    """What a yes would start: a form's id, or `transfer`."""


NOTHING = Asked()
ANYTHING_ELSE = Asked("anything_else")


@dataclass(frozen=True, slots=True)
class Plan:
    """One reply."""

    say: tuple[str, ...] = ()
    """Sentences, or short groups of them, in order. What is asked stands in the last."""
    asked: Asked = NOTHING
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Tools to call, with their arguments, once it is said."""

    @property
    def text(self) -> str:
        return " ".join(self.say)


class Floor:
    """The exchange of turns. Whoever plans a reply does it here, so that it is known what the caller answers to."""

    def __init__(self) -> None:
        self.last = Plan()
        self.asked = NOTHING
        """What is open, heard or not."""
        self.heard = False
        """Whether the caller heard `asked`."""
        self.misses = 0
        """Turns in a row that were not understood or not known."""

    @property
    def question(self) -> Asked:
        """What the caller's next words may answer."""
        return self.asked if self.heard else NOTHING

    def reply(self, *say: str, asked: Asked = NOTHING, calls: tuple[tuple[str, dict[str, Any]], ...] = ()) -> Plan:
        """Plan a reply that asks for `asked`."""
        self.last = Plan(tuple(text.strip() for text in say if text.strip()), asked, calls)
        self.asked = asked
        self.heard = False
        return self.last

    def remark(self, *say: str) -> Plan:
        """Plan a reply that leaves open what was asked before, heard or not."""
        self.last = Plan(say, self.asked)
        return self.last

    def again(self, otherwise: str) -> Plan:
        """Plan to say the last thing again."""
        say = self.last.say or (otherwise,)
        return self.reply(*say, asked=self.last.asked)

    def agent_said(self, content: str, *, interrupted: bool) -> None:
        """What of the last reply was heard, by the conversation's memory."""
        planned, said = plain(self.last.text).split(), plain(content).split()
        if not said:
            return
        heard_words = _heard_words(planned, said)
        if heard_words is None:
            # Not planned here: the greeting, a reminder, a reply of another model. It leaves open what was heard.
            self.last = Plan((content,), self.question)
        elif not interrupted or len(planned) - heard_words <= _NEARLY_HEARD_WORDS:
            self.heard = True


def _heard_words(planned: Sequence[str], said: Sequence[str]) -> int | None:
    """How many words of `planned` are in `said`, which may begin with a filler; None if it is another text."""
    known = min(_RECOGNISED_BY_WORDS, len(planned), len(said))
    if known == 0:
        return None
    for offset in range(len(said) - known + 1):
        if list(said[offset : offset + known]) == list(planned[:known]):
            same = 0
            while same < min(len(planned), len(said) - offset) and planned[same] == said[offset + same]:
                same += 1
            return same
    return None
