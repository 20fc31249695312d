"""The sessions of one call's line to its model: the first, one in place of another that broke or ends, what each is
told of what was before."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bridge.agents.realtime_caller import CallerTurns
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_hearing import Hearing
from bridge.agents.realtime_history import History
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_settings import RealtimeLimits
from bridge.agents.realtime_turn import RealtimeTurn, Reply
from bridge.agents.realtime_words import RoteWords
from bridge.providers.base import ProviderError
from bridge.providers.dialogue import GO_ON

RENEW_AHEAD_S = 10.0
"""A session that ends so soon is replaced even while somebody speaks."""


@dataclass(frozen=True, slots=True)
class LineUp:
    """A session is there."""


@dataclass(frozen=True, slots=True)
class LineLost:
    """No provider is left."""

    error: ProviderError


class Sessions:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        line: Line,
        floor: RealtimeFloor,
        rote: RoteWords,
        owed: OwedReply,
        callers: CallerTurns,
        history: History,
        hearing: Hearing,
        limits: RealtimeLimits,
        *,
        nothing_said: Callable[[float, RealtimeTurn], None],
        start: Callable[[Coroutine[Any, Any, None]], object],
        told: Callable[[LineUp | LineLost], None],
    ) -> None:
        """`nothing_said` is told of a reply that broke off before any audio. `start` runs work in the call's task
        group."""
        self._line = line
        self._floor = floor
        self._rote = rote
        self._owed = owed
        self._callers = callers
        self._history = history
        self._unanswered_s = limits.unanswered_ms / 1000
        self._hearing = hearing
        self._nothing_said = nothing_said
        self._start = start
        self._told = told
        self._ends_at: float | None = None
        """When the present one is to end."""
        self.opening = True
        """There is none, but soon."""
        self.going_on = False
        """A reply broke off with its session: the next one takes it up."""

    def open(self) -> None:
        """Bring the first one up."""
        self._start(self._reach(self._line.open))

    def replace(self, now: float, error: ProviderError) -> None:
        """The present one is of no use any more: another one is to go on."""
        self._leave(now)
        self._start(self._reach(lambda: self._line.replace(error)))

    def ending(self, at: float) -> None:
        """The present one is to end then."""
        self._ends_at = at

    def renewal_at(self, now: float, *, quiet: bool) -> float | None:
        """When one that ends is replaced: at once while nobody is in the middle of anything."""
        if self._ends_at is None or self.opening:
            return None
        return now if quiet else self._ends_at - RENEW_AHEAD_S

    def renew(self, now: float) -> None:
        """Replace one that ends."""
        self._ends_at = None
        self._leave(now)
        self._line.keep(True)
        self._start(self._reach(self._line.renew))

    async def _reach(self, opening: Callable[[], Awaitable[None]]) -> None:
        try:
            await opening()
        except ProviderError as error:
            self._told(LineLost(error))
        else:
            self._told(LineUp())

    def _leave(self, now: float) -> None:
        """Another session is to go on where this one is."""
        for turn in self._floor.turns:
            if isinstance(turn.speech, Reply) and not turn.speech.complete:
                self.going_on = True
                turn.speech.break_off()
                # It may still be playing when the next session is told what was said.
                turn.place = self._history.place()
                self._history.spoken(turn, None)
                if turn.speech.audio_ms == 0:
                    self._nothing_said(now, turn)
        voice_on = self._hearing.voice_since is not None
        known = not self._callers.awaits_text and not voice_on
        if known or (self._owed.since is None and not voice_on and not self._callers.open):
            # What the caller said is known in words, or was answered: the next one need not hear it.
            self._line.keep(False)
        self._callers.forget_open()
        self.opening = True

    def up(self, now: float, *, ending: bool) -> None:
        """One is there: have it go on where the other left. `ending`: the agent has spoken its last words."""
        self.opening = False
        self._ends_at = None
        if ending:
            return
        if self._rote.asked:
            self._rote.ask_again()
            self._owed.expect(now)
        elif self._callers.without_text():
            # It was given the caller's audio anew, and answers when it has heard it.
            self._owed.forget()
            self._owed.ask_at = now + self._unanswered_s
        elif self.going_on:
            self._line.tell(GO_ON)
            self._owed.expect(now)
        elif self._owed.since is not None:
            self._line.respond()
            self._owed.expect(now, self._owed.timing)
        self.going_on = False

    def lost(self) -> None:
        """None will be there any more."""
        self.opening = False
