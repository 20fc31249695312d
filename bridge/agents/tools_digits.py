"""Taking digits from the caller, by keys or spoken, as a decision without clock or sockets."""

import re
from dataclasses import dataclass
from typing import Literal

from bridge.agents.tool_settings import CollectDigitsSettings
from bridge.agents.tools_result import ToolResult

MOST_DIGITS = 40

SPOKEN_GRACE_S = 3.0
"""From the end of the caller's voice to its text, at the longest."""

_ENGLISH = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
    "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18",
    "nineteen": "19", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70",
    "eighty": "80", "ninety": "90",
}  # fmt: skip


def _table(words: str, digits: str = "0123456789") -> dict[str, str]:
    return dict(zip(words.split(), digits, strict=True))


_WORDS: dict[str, dict[str, str]] = {
    "en": _ENGLISH,
    "de": _table("null eins zwei drei vier fünf sechs sieben acht neun zwo", "01234567892"),
    "es": _table("cero uno dos tres cuatro cinco seis siete ocho nueve"),
    "fr": _table("zéro un deux trois quatre cinq six sept huit neuf"),
    "it": _table("zero uno due tre quattro cinque sei sette otto nove"),
    "pt": _table("zero um dois três quatro cinco seis sete oito nove meia", "01234567896"),
    "nl": _table("nul een twee drie vier vijf zes zeven acht negen één", "01234567891"),
}
_REPEATS = {"double": 2, "triple": 3, "doppel": 2, "doble": 2, "dubbel": 2}
_TENS = re.compile(r"[2-9]0\Z")
_UNIT = re.compile(r"[1-9]\Z")


def spoken_digits(text: str, language: str, *, one: bool = True) -> str:
    """The digits in `text`, in their order: numerals, and digit words of `language` (BCP 47; `auto`: of any known
    language, the first that has the word). Without any: empty. Unless a single one (`one`) is looked for, a single
    digit word among others is none: "one moment"."""
    base = language.split("-")[0].lower()
    tables = [_WORDS[base]] if base in _WORDS else list(_WORDS.values())
    digits = ""
    repeat = 1
    tens = False
    words = re.findall(r"\d+|[^\W\d_]+", text.lower())
    for word in words:
        if word in _REPEATS:
            repeat = _REPEATS[word]
            continue
        found = word if word.isascii() and word.isdigit() else next((t[word] for t in tables if word in t), "")
        if tens and _UNIT.match(found) and not word.isdigit():
            # "twenty one" is 21, not 201.
            digits = digits[:-1] + found
        else:
            digits += found[:1] * (repeat - 1) + found
        tens = bool(_TENS.match(found)) and not word.isdigit()
        repeat = 1
    spelled = [word for word in words if any(word in table for table in tables)]
    numerals = any(word.isdigit() for word in words)
    if not numerals and ((len(spelled) == 1 < len(words) and not one) or set(spelled) <= {"oh", "o"}):
        return ""
    return digits


@dataclass(frozen=True, slots=True)
class Listening:
    """A tool waits for the caller's digits (True), or does no more: until then the floor is the caller's."""

    on: bool


class DigitCollector:
    """One entry. `result` is None while it goes on. Times are clock times in seconds."""

    def __init__(
        self, settings: CollectDigitsSettings, now: float, *, least: int, most: int, language: str = "en"
    ) -> None:
        self._settings = settings
        self._least = least
        self._most = most
        self._language = language
        self._digits = ""
        self._by: Literal["keys", "speech"] = "keys"
        self._ends_at = now + settings.max_s
        self._due: float | None = None
        """The next digit is waited for until then; None: while the question is being asked."""
        self._voice = False
        self.result: ToolResult | None = None

    def asked(self, now: float) -> None:
        """The caller has heard the question."""
        if self._due is None:
            self._due = now + self._settings.first_s

    def key(self, now: float, key: str) -> None:
        """A key was pressed: one of 0-9 * # A-D."""
        settings = self._settings
        if self._by == "speech":
            self._digits, self._by = "", "keys"
        self._due = now + settings.between_s
        if key == settings.terminator:
            self._finish("the caller ended the entry")
        elif key == settings.clear:
            self._digits = ""
        elif key.isdigit():
            self._digits += key
            if len(self._digits) >= self._most:
                self._finish("")

    def voice(self, now: float, on: bool) -> None:
        """The caller's voice began or stopped: while he speaks no time runs out but that for the whole."""
        self._voice = on
        if not on and self._due is not None:
            self._due = max(self._due, now + SPOKEN_GRACE_S)

    def spoken(self, now: float, text: str) -> None:
        """What the caller said in one turn; with nothing understood it is empty."""
        self._voice = False
        if not text.strip():
            return
        digits = ""
        if self._settings.spoken:
            digits = spoken_digits(text, self._language, one=self._least == 1)
        if not digits:
            self.result = ToolResult(False, f"the caller entered no digits but said: {text.strip()}")
            return
        if self._by == "keys":
            self._digits, self._by = "", "speech"
        self._digits += digits
        self._due = now + self._settings.between_s
        if len(self._digits) > self._most:
            self.result = ToolResult(False, f"too many digits, at most {self._most} are taken; {self._so_far()}")
        elif len(self._digits) == self._most:
            self._finish("")

    def deadline(self) -> float:
        """When to call `tick`."""
        if self._due is None or self._voice:
            return self._ends_at
        return min(self._due, self._ends_at)

    def tick(self, now: float) -> None:
        """Time has come."""
        if self.result is None and now >= self.deadline():
            self._finish("no more came")

    def _finish(self, why: str) -> None:
        if len(self._digits) >= self._least:
            self.result = ToolResult(True, value={"digits": self._digits, "by": self._by})
        elif self._digits:
            self.result = ToolResult(False, f"too few digits, {self._least} are needed; {self._so_far()}")
        else:
            self.result = ToolResult(False, f"no digits: {why}")

    def _so_far(self) -> str:
        """Told so that the model can read them back."""
        return f"the caller {'entered' if self._by == 'keys' else 'said'}: {' '.join(self._digits)}"
