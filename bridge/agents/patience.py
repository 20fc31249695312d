"""What silence and length bring in a call: re-prompts, a warning before the end, goodbyes. A state machine without
I/O or clock."""

from dataclasses import dataclass
from enum import Enum, auto

from bridge.agents.settings import LimitSettings

MAX_LENGTH_GRACE_S = 5.0
"""What the agent is saying when the call has become too long may end, if it does so by then."""

WARNING_PAUSE_S = 0.8
"""Silence after the agent's last word that the warning is spoken into: the caller is not about to answer."""

TEXT_WAIT_S = 3.0
"""A voice that went on through the whole time of a silence is asked for its words, which may take so long."""

MAX_UNCLEAR = 3
"""Turns in a row without any text, after which asking again is no use."""


class Due(Enum):
    """What the time has come for."""

    REPROMPT = auto()
    SILENCE_GOODBYE = auto()
    WANT_TEXT = auto()
    """There is voice all the time, and no words of it: is it the caller's?"""
    WARNING = auto()
    TOO_LONG = auto()


@dataclass(frozen=True, slots=True)
class Situation:
    """How things stand in the call."""

    listening: bool
    """Not on hold, and the last words are not being spoken."""
    agent_has_floor: bool
    caller_since: float | None
    """When the caller's open turn started (s)."""
    caller_has_words: bool
    """...and there is text of it, or keys."""
    excused: bool = False
    """Something is to come that the caller need not speak for: the silence is not the caller's."""


class Patience:
    """One call's. Times in seconds, monotonic."""

    def __init__(
        self, settings: LimitSettings, answered_at: float, *, warning_pause_s: float = WARNING_PAUSE_S
    ) -> None:
        self._settings = settings
        self._warning_pause_s = warning_pause_s
        self._silent_since = answered_at
        self._reprompts = 0
        self._unclear = 0
        self._wanted_at = 0.0
        self._wanted_of: float | None = None
        """The start of the caller's turn whose words were asked for then."""
        self._max_at = answered_at + settings.max_call_s
        self._warned = not 0 < settings.max_call_warning_s < settings.max_call_s

    # -- inputs ---------------------------------------------------------------------------------------------

    def silent_since(self, at: float) -> None:
        """The agent's turn is over, or the line is back: the caller's silence counts from here."""
        self._silent_since = at

    def caller_spoke(self) -> None:
        """Words of the caller, or a key."""
        self._reprompts = self._unclear = 0

    def caller_unclear(self) -> bool:
        """A turn of the caller without text; True: asking again is no use any more."""
        self._unclear += 1
        return self._unclear > MAX_UNCLEAR

    def tick(self, now: float, situation: Situation) -> Due | None:
        """What is to be done now; each is told once. Call it at `deadline()`, and after anything has changed."""
        grace_s = MAX_LENGTH_GRACE_S if situation.agent_has_floor else 0.0
        if now >= self._max_at + grace_s:
            return Due.TOO_LONG
        warning_at, silence_at = self._warning_at(situation), self._silence_at(situation)
        if warning_at is not None and now >= warning_at:
            self._warned = True
            return Due.WARNING
        if silence_at is None or now < silence_at:
            return None
        if situation.caller_since is not None and situation.caller_since != self._wanted_of:
            self._wanted_at, self._wanted_of = now, situation.caller_since
            return Due.WANT_TEXT
        self._wanted_of = None
        if self._reprompts < self._settings.max_reprompts:
            self._reprompts += 1
            return Due.REPROMPT
        return Due.SILENCE_GOODBYE

    def deadline(self, now: float, situation: Situation) -> float:
        """When something happens by time alone."""
        too_long_at = self._max_at if now < self._max_at else self._max_at + MAX_LENGTH_GRACE_S
        due = (too_long_at, self._warning_at(situation), self._silence_at(situation))
        return min(at for at in due if at is not None)

    # -- decisions ------------------------------------------------------------------------------------------

    def _silence_at(self, situation: Situation) -> float | None:
        if not situation.listening or situation.agent_has_floor or situation.excused:
            return None
        silence_s = self._settings.silence_ms / 1000
        if situation.caller_since is None:
            return self._silent_since + silence_s
        if situation.caller_has_words:
            return None
        # A voice without words (a television, an engine that hears nothing) is as good as silence in the end.
        if situation.caller_since == self._wanted_of:
            return self._wanted_at + TEXT_WAIT_S
        return max(self._silent_since, situation.caller_since) + silence_s

    def _warning_at(self, situation: Situation) -> float | None:
        """At a pause: neither side is in the middle of anything."""
        if self._warned or not situation.listening or situation.agent_has_floor or situation.caller_since is not None:
            return None
        return max(self._max_at - self._settings.max_call_warning_s, self._silent_since + self._warning_pause_s)
