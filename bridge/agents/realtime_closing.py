"""The last words of a call with a speech-to-speech model: by whom they are spoken, and what if they can't be."""

from collections.abc import Callable

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_ending import CallEnding, SpeakLast
from bridge.agents.endings import LastWords
from bridge.agents.realtime_bargein import BargeIns
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_tools import ToolRuns
from bridge.agents.realtime_words import RoteWords, Words
from bridge.agents.record import Record
from bridge.events import Cause
from bridge.providers.base import ProviderError


class Closing:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        session: CallSession,
        line: Line,
        floor: RealtimeFloor,
        rote: RoteWords,
        owed: OwedReply,
        bargein: BargeIns,
        tools: ToolRuns,
        last_words: LastWords,
        record: Record,
        ending: Callable[[SpeakLast], CallEnding],
    ) -> None:
        """`ending` makes the end of a call whose last words are spoken so."""
        self._clock = session.clock
        self._line = line
        self._floor = floor
        self._rote = rote
        self._owed = owed
        self._bargein = bargein
        self._tools = tools
        self._last_words = last_words
        self._record = record
        self._ending = ending(self._speak)

    def close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        self._ending.close(text, done)

    def _speak(self, text: str, done: AgentDone) -> None:
        now = self._clock()
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

    def lose_words(self, why: str) -> None:
        """The last words can't be spoken: a tone stands for them."""
        self._owed.forget()
        self._rote.forget()
        if self._last_words.tone is None:
            self._floor.cut(self._clock())
            self._ending.sound_tone(why)

    def line_broke(self, error: ProviderError) -> None:
        """The session failed while the last words were to be spoken."""
        self._record.provider_failed("realtime", error)
        if not self._last_words.over and (self._rote.asked or self._floor.free):
            self.lose_words("the model failed at the last words")

    def line_lost(self, error: ProviderError) -> None:
        """No provider is left: say so, and end."""
        self._record.provider_failed("realtime", error)
        if not self._last_words.begun:
            self._ending.apologise(AgentDone(Cause.ENGINE_FAILED, f"realtime: {error}"))

    def finish(self, done: AgentDone, at: float) -> None:
        """All was said by `at`: hang up once the far side has played it."""
        self._line.hear(False)
        self._floor.forget_behind()
        self._ending.spoken(done, at)

    def tone_finished(self, now: float) -> None:
        """The tone that stands for the last words was heard."""
        self._ending.tone_finished(now)

    def handed_over(self) -> AgentDone | None:
        """See `CallEnding`."""
        return self._ending.handed_over()
