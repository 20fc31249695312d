"""Which language a call is held in: the configured one, or the caller's."""

from collections.abc import Sequence

from bridge.agents.words import words

AGREEING_TURNS = 2
"""Turns in a row in another language after which the agent changes over to it: one may be misheard, or a name."""

LONG_TURN_WORDS = 6
"""A turn of this many words is believed by itself."""

LEAST_WORDS = 2
"""A turn with fewer ("okay", "no", a name) tells nothing about the language, in either direction."""


def primary(language: str) -> str:
    """The language of a BCP 47 code, without its region."""
    return language.replace("_", "-").split("-")[0].lower()


class CallLanguage:
    """Follows what the caller speaks; without I/O."""

    def __init__(self, first: str, *, spoken: Sequence[str] = (), follows: bool = True) -> None:
        """Begins with `first` (BCP 47). `spoken`: the languages the agent has; empty: any. `follows` False: `first`
        stays."""
        self.current = first
        self._spoken = {primary(language): language for language in spoken}
        self._follows = follows
        self._heard = ""
        self._candidate = ""
        self._agreeing = 0

    def heard(self, language: str) -> None:
        """What the recogniser takes the present turn's language for; empty: it does not tell."""
        self._heard = language or self._heard

    def turn_over(self, text: str) -> bool:
        """The caller's turn is over; True: from now on `current` is another language."""
        heard, self._heard = self._heard, ""
        count = _size(text)
        if not self._follows or not heard or count < LEAST_WORDS:
            return False
        language = primary(heard)
        if language == primary(self.current) or (self._spoken and language not in self._spoken):
            self._candidate, self._agreeing = "", 0
            return False
        self._agreeing = self._agreeing + 1 if language == self._candidate else 1
        self._candidate = language
        if self._agreeing < AGREEING_TURNS and count < LONG_TURN_WORDS:
            return False
        self.current = self._spoken.get(language, heard)
        self._candidate, self._agreeing = "", 0
        return True


def _size(text: str) -> int:
    """Words of `text`; in scripts without spaces two characters count as one."""
    said = words(text)
    unspaced = sum(ord(char) >= 0x2E80 for char in text)
    return len(said) if not unspaced else max(len(said), unspaced // 2)
