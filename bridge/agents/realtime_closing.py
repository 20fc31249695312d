"""How a call with a speech-to-speech model ends by the agent's will: last words, or a tone for them, a hand-over."""

from collections.abc import Callable, Coroutine
from typing import Any

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.endings import HandedOver, LastWords
from bridge.agents.realtime_bargein import BargeIns
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_tools import ToolRuns
from bridge.agents.realtime_words import RoteWords, Words
from bridge.agents.record import Record
from bridge.agents.settings import PhraseSettings
from bridge.agents.tools import Toolbox
from bridge.events import Cause
from bridge.providers.base import ProviderError


class Closing:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        phrases: PhraseSettings,
        session: CallSession,
        line: Line,
        floor: RealtimeFloor,
        rote: RoteWords,
        owed: OwedReply,
        bargein: BargeIns,
        toolbox: Toolbox,
        tools: ToolRuns,
        last_words: LastWords,
        record: Record,
        *,
        start: Callable[[Coroutine[Any, Any, None]], object],
        told: Callable[[HandedOver], None],
    ) -> None:
        """`start` runs work in the call's task group."""
        self._phrases = phrases
        self._playout = session.leg.playout
        self._clock = session.clock
        self._line = line
        self._floor = floor
        self._rote = rote
        self._owed = owed
        self._bargein = bargein
        self._toolbox = toolbox
        self._tools = tools
        self._last_words = last_words
        self._record = record
        self._start = start
        self._told = told

    def close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        now = self._clock()
        self._last_words.begin(now, done)
        self._bargein.abandon(now)
        self._line.hear(False)
        self._tools.cancel_all()
        self._bargein.drop(now)
        self._rote.forget()
        self._owed.forget()
        if self._rote.has_voice or self._line.up:
            self._rote.say(Words(text, interruptible=False, ends=done))
        else:
            self.lose_words("the last words could not be spoken")

    def apologise(self, error: ProviderError) -> None:
        """No provider is left: say so, and end."""
        if not self._last_words.begun:
            can_hand_over = self._toolbox.can_hand_over
            apology = self._last_words.apologise(self._phrases, can_hand_over=can_hand_over)
            self.close(apology, AgentDone(Cause.ENGINE_FAILED, f"realtime: {error}"))

    def lose_words(self, why: str) -> None:
        """The last words can't be spoken: a tone stands for them."""
        self._owed.forget()
        self._rote.forget()
        if self._last_words.tone is None:
            self._floor.cut(self._clock())
            self._last_words.tone = self._floor.outlet.sound_tone()
            self._record.note("tone", why)

    def line_broke(self, error: ProviderError) -> None:
        """The session failed while the last words were to be spoken."""
        self._record.provider_failed("realtime", error)
        if not self._last_words.over and (self._rote.asked or self._floor.free):
            self.lose_words("the model failed at the last words")

    def tone_finished(self, now: float) -> None:
        """The tone that stands for them was heard."""
        self._over(self._last_words.sounded(now))

    def finish(self, done: AgentDone, at: float) -> None:
        """All was said: hang up once the far side has played it."""
        self._line.hear(False)
        self._floor.forget_behind()
        self._over(self._last_words.spoken(done, at, self._playout.far_buffer_ms))

    def _over(self, hand_over: bool) -> None:
        if hand_over:
            self._start(self._hand_over())

    async def _hand_over(self) -> None:
        await self._toolbox.hand_over()
        self._told(HandedOver())

    def handed_over(self) -> AgentDone | None:
        """What the call ends with; where the hand-over failed, say so and hang up."""
        done = self._toolbox.done
        if done is None and self._last_words.ends is not None:
            self._last_words.tone = None
            self.close(self._phrases.apology, self._last_words.ends)
        return done
