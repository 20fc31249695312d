"""People's names as callers say and spell them: "my name is Anna Miller", "it's Miller, M I double L E R"."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from bridge.providers.brief import WEEKDAYS
from bridge.providers.local.slots_dates import MONTHS
from bridge.providers.local.text_words import TENS, UNITS, Word, word_set

_INTRODUCTIONS = tuple(
    tuple(phrase.split())
    for phrase in (
        *("my name is", "my names", "my last name is", "my surname is", "my first name is", "the name is"),
        *("the name would be", "the names", "last name is", "last name", "surname is", "surname"),
        *("under the name of", "under the name", "in the name of", "by the name of", "name of", "name is", "names"),
        *("put it under", "book it under", "booking under", "it should be under"),
    )
)
_WEAK_INTRODUCTIONS = (("this", "is"), ("i", "am"), ("im",), ("under",), ("call", "me"))
"""Introduce a name only where the recogniser wrote the next word with a capital."""
_INTRODUCING = frozenset(phrase[0] for phrase in (*_INTRODUCTIONS, *_WEAK_INTRODUCTIONS))
_LEAD_INS = word_set("""
    its it is would be that thats thatd for under i am im this just the yes yeah yep sure ok okay well uh um er erm hm
    ah oh so please mr mrs ms miss mister doctor dr of course and put on by name no
""")
_NO_NAME = (
    word_set("""
        a an and the at on for to in of with from by but or if so as is am are was were be been do does did
        have has had can could will would should may might must shall i you he she it we they me him her us
        them my your his our their this that these those here there what when where who why how which not no
        nope yes yeah ok okay please thanks thank hello hi hey bye goodbye sorry pardon excuse wait hold
        moment second minute table book booking reservation reserve people person persons guests adults
        children kids today tonight tomorrow morning noon afternoon evening night oclock am pm time date day
        number phone name nothing something anything never mind cancel stop want need like love make change
        repeat say said tell ask speak talk calling call looking going just really very also too actually
        maybe about around more less all any some none hungry late early open closed good great fine well
        right wrong correct sure thing um uh hmm er erm understand know think mean see come coming dinner
        lunch outside inside terrace window food menu pizza human robot help hang up double yet im its thats
        id ill youre dont cant wont whats wheres hows lets ive doesnt didnt isnt arent still spelled spelt
        spelling trying interested allergic vegetarian vegan afraid glad happy speaking waiting forget done
        end instead different first last next previous
    """)
    | frozenset(WEEKDAYS)
    | frozenset(UNITS)
    | frozenset(TENS)
    | (frozenset(MONTHS) - {"april", "may", "june", "august"})
)
_ALSO_FIRST_NAMES = word_set("will may")
_PARTICLES = word_set("van von der den de la da di del dos el bin")
_LONGEST = 4
_BEFORE_SPELLING = word_set("spelled spelt thats that is its and")
_MARKS = {"hyphen": "-", "dash": "-", "apostrophe": "'"}


@dataclass(frozen=True, slots=True)
class NameHit:
    first: int
    behind: int
    name: str


def name_in(found: Sequence[Word], *, expected: bool) -> NameHit | None:
    """The name said in `found`: behind an introduction anywhere, or, if `expected`, the words alone."""
    for at in range(len(found)):
        if found[at].text not in _INTRODUCING:
            continue
        for introduction in _INTRODUCTIONS:
            if _starts(found, at, introduction):
                hit = _name_at(found, at, at + len(introduction), lenient=True)
                if hit is not None:
                    return hit
        for introduction in _WEAK_INTRODUCTIONS:
            begin = at + len(introduction)
            capital = begin < len(found) and found[begin].raw[:1].isupper() and len(found[begin].raw) > 1
            if capital and _starts(found, at, introduction):
                hit = _name_at(found, at, begin, lenient=False)
                if hit is not None:
                    return hit
    if not expected:
        # Nothing but letters, one by one: what else would be spelled?
        spelled = _spelled(found, 0)
        whole = spelled is not None and spelled[1] == len(found)
        return NameHit(0, len(found), _with_spelling([], spelled[0])) if spelled is not None and whole else None
    begin = 0
    while begin < len(found) and found[begin].text in _LEAD_INS:
        # "It is" may be all of it, but "Will" behind it is a name; a spelled "I" is no lead-in.
        if _spelled(found, begin) is not None:
            break
        begin += 1
    hit = _name_at(found, 0, begin, lenient=False)
    if hit is None or len(found) - hit.behind > 3:
        return None
    return hit


def _starts(found: Sequence[Word], at: int, phrase: tuple[str, ...]) -> bool:
    return len(found) >= at + len(phrase) and all(found[at + i].text == word for i, word in enumerate(phrase))


def _name_at(found: Sequence[Word], first: int, begin: int, *, lenient: bool) -> NameHit | None:
    """The name whose words begin at `begin`. `lenient`: behind "my name is" even an odd word is a name."""
    taken: list[Word] = []
    at = begin
    while at < len(found) and len(taken) < _LONGEST:
        word = found[at]
        if (taken and word.after_break) or _spelled(found, at) is not None or word.text.isdecimal():
            break
        if word.text in _NO_NAME and not (not taken and _may_be_name(found, at, lenient)):
            break
        if ":" in word.text or word.text == "+":
            break
        taken.append(word)
        at += 1
    spelling_at = at
    while spelling_at < len(found) and found[spelling_at].text in (
        "spelled",
        "spelt",
        "thats",
        "that",
        "is",
        "its",
        "and",
    ):
        spelling_at += 1
    spelled = _spelled(found, spelling_at)
    if spelled is not None:
        return NameHit(first, spelled[1], _with_spelling([word.raw for word in taken], spelled[0]))
    if not taken:
        return None
    # "van der Berg" keeps its small letters.
    parts = [word.raw if word.text in _PARTICLES and len(taken) > 1 else _capital(word.raw) for word in taken]
    return NameHit(first, at, " ".join(parts))


def _may_be_name(found: Sequence[Word], at: int, lenient: bool) -> bool:
    """Whether an everyday word is a name here: "my name is Early", "Will Smith"."""
    if not found[at].raw[:1].isupper() or len(found[at].raw) < 2:
        return False
    if lenient:
        return True
    following = found[at + 1] if at + 1 < len(found) else None
    surname = following is not None and following.raw[:1].isupper() and following.text not in _NO_NAME
    return found[at].text in _ALSO_FIRST_NAMES and surname


def _with_spelling(spoken: list[str], spelled: str) -> str:
    """The spelling is right; it replaces the word that sounds like it, "Sara Thomson" + "Thompson" say."""
    name = _capital(spelled.lower())
    if len(spoken) < 2:
        return name
    likest = max(range(len(spoken)), key=lambda i: SequenceMatcher(None, spoken[i].lower(), spelled.lower()).ratio())
    return " ".join(name if i == likest else _capital(word) for i, word in enumerate(spoken))


def _capital(word: str) -> str:
    if not word.islower() and not (word.isupper() and len(word) > 2):
        return word
    return "-".join(part[:1].upper() + part[1:].lower() for part in word.split("-"))


def _spelled(found: Sequence[Word], at: int) -> tuple[str, int] | None:
    """Three or more letters said one by one from word `at`: "M I double L E R", "M as in Mike ..."."""
    letters = ""
    while at < len(found):
        text = found[at].text
        following = found[at + 1].text if at + 1 < len(found) else ""
        if text == "double" and len(following) == 1 and following.isalpha():
            letters, at = letters + following * 2, at + 2
        elif len(text) == 1 and text.isalpha():
            letters, at = letters + text, at + 1
            if following == "as" and at + 2 < len(found) and found[at + 1].text in ("in", "and"):
                at += 3
            elif following in ("for", "like") and at + 1 < len(found) and found[at + 1].text.startswith(text):
                at += 2
        elif text in _MARKS and letters:
            letters, at = letters + _MARKS[text], at + 1
        else:
            break
    return (letters, at) if sum(char.isalpha() for char in letters) >= 3 else None
