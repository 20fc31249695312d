"""What the caller of a speech-to-speech model does: voice by our ear and by the model's, keys, a line on hold."""

from bridge.agents.agent_turn import Timing
from bridge.agents.endings import LastWords
from bridge.agents.patience import Patience
from bridge.agents.realtime_bargein import BargeIns
from bridge.agents.realtime_caller import CallerTurns
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_history import History
from bridge.agents.realtime_keys import Keys
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_tools import ToolRuns
from bridge.agents.tools import Toolbox
from bridge.providers.base import Message
from bridge.providers.realtime import CallerSaid, CallerSpeaks


class Hearing:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        settings: RealtimeSettings,
        line: Line,
        floor: RealtimeFloor,
        owed: OwedReply,
        callers: CallerTurns,
        history: History,
        bargein: BargeIns,
        patience: Patience,
        toolbox: Toolbox,
        tools: ToolRuns,
        last_words: LastWords,
        *,
        answered_at: float,
    ) -> None:
        self._waits = settings.realtime_limits
        self._line = line
        self._floor = floor
        self._owed = owed
        self._callers = callers
        self._history = history
        self._bargein = bargein
        self._patience = patience
        self._toolbox = toolbox
        self._tools = tools
        self._last_words = last_words
        self._voice_ended_at = answered_at
        self.keys = Keys(settings.turns.dtmf_pause_ms)
        self.voice_since: float | None = None
        """The caller's voice is on, since then."""
        self.held = False
        """The line is on hold."""

    @property
    def listening(self) -> bool:
        """What the caller does counts."""
        return not self.held and not self._last_words.begun

    # -- by our ear -------------------------------------------------------------------------------------------

    def voice_started(self, now: float, at: float) -> None:
        """The caller's voice set in at `at`."""
        self.voice_since = at
        if self.listening:
            self._voice_is_on(now, at)

    def _voice_is_on(self, now: float, at: float) -> None:
        self._owed.ask_at = None
        self._line.keep(True)
        self._toolbox.voice(True)
        self._bargein.voice_started(now, at)

    def voice_stopped(self, now: float, at: float) -> None:
        """It was last heard at `at`."""
        began, self.voice_since = self.voice_since, None
        self._voice_ended_at = at
        if not self.listening or began is None:
            return
        self._toolbox.voice(False)
        self._bargein.voice_stopped(now, at)
        long = (at - began) * 1000 >= self._waits.unanswered_voice_ms
        if long and self._floor.free and self._owed.since is None and not self._tools:
            self._owed.ask_at = now + self._waits.unanswered_ms / 1000

    def agent_began(self, now: float) -> None:
        """The agent takes the floor, perhaps from a caller who goes on talking: its ear took a pause for the end."""
        if self.voice_since is not None and self.listening:
            self._bargein.voice_started(now, self.voice_since)

    # -- by the model's ear -----------------------------------------------------------------------------------

    def speaks(self, now: float, event: CallerSpeaks) -> None:
        if not self.listening:
            return
        began_at = min(now, self._voice_ended_at) if self.voice_since is None else self.voice_since
        if not event.ended:
            self._owed.forget()
            self._callers.began(event.item, now if self.voice_since is None else began_at)
            self._line.keep(True)
            self._bargein.their_ear(now)
            return
        ended_at = now if self.voice_since is not None else min(now, self._voice_ended_at)
        self._callers.ended(event.item, ended_at, now)
        self._patience.caller_spoke()
        self._patience.silent_since(now)
        self._floor.spoke = not self._floor.free
        self._owed.unwanted = self._toolbox.listening
        if not self._owed.unwanted:
            self._owed.expect(now, Timing(ended_at, (now - ended_at) * 1000))

    def said(self, now: float, event: CallerSaid) -> None:
        self._callers.said(event.item, event.text, now)
        self._toolbox.spoken(event.text)
        if self.listening:
            self._bargein.said(now, event.text)

    # -- keys -------------------------------------------------------------------------------------------------

    def key(self, now: float, digit: str) -> None:
        if not self.listening:
            return
        self._patience.caller_spoke()
        if self._toolbox.key(digit):
            return
        self._bargein.key(now)
        if self.keys.press(now, digit):
            self._tell_keys(now)

    def tick(self, now: float) -> None:
        """Call it at `keys.deadline()`."""
        until = self.keys.deadline()
        if until is not None and now >= until:
            self._tell_keys(now)

    def _tell_keys(self, now: float) -> None:
        keys = self.keys.take()
        self._callers.pressed(keys, self.keys.began_at, self.keys.ended_at)
        text = f"(The caller pressed these keys: {' '.join(keys)})"
        self._history.add(Message("user", text))
        self._line.tell(text)
        self._floor.spoke = False
        self._owed.expect(now, Timing(self.keys.ended_at))

    # -- hold -------------------------------------------------------------------------------------------------

    def hold(self, now: float) -> None:
        if not self.held:
            self.held = True
            self._bargein.abandon(now)
            self._owed.ask_at = None
            self._line.hear(False)
            self._floor.outlet.pause("hold")

    def resume(self, now: float) -> None:
        if self.held:
            self.held = False
            self._patience.silent_since(now)
            if self._owed.since is not None:
                self._owed.since = now
            self._line.hear(not self._last_words.begun)
            self._floor.outlet.unpause("hold")
            if self.voice_since is not None and self.listening:
                self._voice_is_on(now, self.voice_since)
