"""The end of a call by its agent's will, whatever the agent is made of: last words or a tone, then hang up or hand
over."""

from collections.abc import Callable, Coroutine

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.endings import HandedOver, LastWords
from bridge.agents.outlet import Outlet
from bridge.agents.record import Record
from bridge.agents.settings import PhraseSettings
from bridge.agents.tools import Toolbox

SpeakLast = Callable[[str, AgentDone], None]
"""Stops whatever is under way and says the last words, after which the call ends so."""


class CallEnding:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        session: CallSession,
        last_words: LastWords,
        toolbox: Toolbox,
        outlet: Outlet,
        record: Record,
        *,
        phrases: Callable[[], PhraseSettings],
        speak: SpeakLast,
        start: Callable[[Callable[[], Coroutine[None, None, None]]], object],
        told: Callable[[HandedOver], None],
    ) -> None:
        """`phrases` are those of the language spoken at present; `start` runs work in the call's task group."""
        self._playout = session.leg.playout
        self._clock = session.clock
        self._last_words = last_words
        self._toolbox = toolbox
        self._outlet = outlet
        self._record = record
        self._phrases = phrases
        self._speak = speak
        self._start = start
        self._told = told

    def close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        self._last_words.begin(self._clock(), done)
        self._speak(text, done)

    def apologise(self, done: AgentDone) -> None:
        """An engine failed for good: say so, and end; or put the caller through, where that is possible."""
        can_hand_over = self._toolbox.can_hand_over
        self.close(self._last_words.apologise(self._phrases(), can_hand_over=can_hand_over), done)

    def sound_tone(self, why: str) -> None:
        """It stands for last words that can't be spoken."""
        self._last_words.tone = self._outlet.sound_tone()
        self._record.note("tone", why)

    def tone_finished(self, now: float) -> None:
        """It was heard."""
        self._over(self._last_words.sounded(now))

    def spoken(self, done: AgentDone, at: float) -> None:
        """The words after which the call ends were sent by `at`."""
        self._over(self._last_words.spoken(done, at, self._playout.far_buffer_ms))

    def _over(self, hand_over: bool) -> None:
        if hand_over:
            self._start(self._hand_over)

    async def _hand_over(self) -> None:
        await self._toolbox.hand_over()
        self._told(HandedOver())

    def handed_over(self) -> AgentDone | None:
        """What the call ends with; where the hand-over failed, say so and hang up."""
        done = self._toolbox.done
        if done is None and self._last_words.ends is not None:
            self._last_words.tone = None
            self.close(self._phrases().apology, self._last_words.ends)
        return done
