"""The replies of a speech-to-speech model: begun, coming, over, played out."""

from bridge.agents.bargein import Confirmed
from bridge.agents.endings import LastWords
from bridge.agents.patience import Patience
from bridge.agents.realtime_bargein import THEIR_EAR, BargeIns
from bridge.agents.realtime_closing import Closing
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_hearing import Hearing
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_turn import RealtimeTurn, Reply
from bridge.agents.realtime_words import RoteWords
from bridge.agents.record import Record
from bridge.agents.tools import Toolbox
from bridge.audio.playout import Playout, UtteranceFinished
from bridge.providers.realtime import AgentAudio, AgentText, ReplyEnded, ReplyStarted


class Replies:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        playout: Playout,
        line: Line,
        floor: RealtimeFloor,
        rote: RoteWords,
        owed: OwedReply,
        hearing: Hearing,
        bargein: BargeIns,
        patience: Patience,
        toolbox: Toolbox,
        last_words: LastWords,
        closing: Closing,
        record: Record,
    ) -> None:
        self._playout = playout
        self._line = line
        self._floor = floor
        self._rote = rote
        self._owed = owed
        self._hearing = hearing
        self._bargein = bargein
        self._patience = patience
        self._toolbox = toolbox
        self._last_words = last_words
        self._closing = closing
        self._record = record

    def started(self, now: float, event: ReplyStarted) -> bool:
        """The model begins a reply. False: nobody is to hear it."""
        words = self._rote.begun(event.mark)
        unwanted = not event.mark and (self._owed.unwanted or self._toolbox.listening)
        if words is None and (unwanted or self._last_words.begun):
            # Its own ear's answer to a noise, to digits that a tool takes, or to what it is not to hear any more.
            self._owed.unwanted = False
            self._line.interrupt(event.item, 0.0)
            return False
        asked_at, timing = self._owed.begun(now)
        turn = RealtimeTurn(Reply(self._playout), event.item, event.mark, timing=timing, last_at=now)
        turn.asked_at, turn.created_at, turn.by = asked_at, now, self._line.name
        if words is not None:
            turn.interruptible, turn.ends = words.interruptible, words.ends
        if self._hearing.voice_since is None:
            self._line.keep(False)
        self._floor.add(turn)
        if self._floor.turn is turn:
            self._hearing.agent_began(now)
        return True

    def audio(self, now: float, event: AgentAudio) -> None:
        turn = self._floor.find(event.item)
        if turn is not None and isinstance(turn.speech, Reply):
            turn.first_at = now if turn.first_at is None else turn.first_at
            turn.last_at = now
            turn.speech.add_audio(event.pcm)

    def text(self, now: float, event: AgentText) -> None:
        turn = self._floor.find(event.item)
        if turn is not None and isinstance(turn.speech, Reply):
            turn.last_at = now
            turn.speech.add_text(event.text)

    def ended(self, now: float, event: ReplyEnded) -> None:
        """The model has said all of it, or broke it off."""
        if not event.item:
            self._owed.forget()
            self._patience.silent_since(now)
            return
        turn = self._floor.find(event.item)
        if turn is None or not isinstance(turn.speech, Reply):
            return
        if event.completed or event.error:
            turn.speech.finish()
            if event.error:
                self._record.note("reply-incomplete", event.error)
            if turn.speech.audio_ms == 0:
                self.nothing_said(now, turn)
        elif turn is self._floor.turn:
            self._bargein.interrupt(now, Confirmed(now, 0.0, THEIR_EAR))
        else:
            self._floor.forget(event.item)

    def nothing_said(self, now: float, turn: RealtimeTurn) -> None:
        """A reply without audio: the playout will not tell of its end."""
        if turn is self._floor.turn:
            self._floor.cut(now)
            self._floor.go_on()
            self._patience.silent_since(now)
        else:
            self._floor.forget(turn.item)
        if turn.ends is not None:
            self._closing.finish(turn.ends, now)

    def played(self, now: float, event: UtteranceFinished) -> None:
        """The playout has sent all of an utterance."""
        turn = self._floor.finished(event.generation, event.at)
        if turn is None:
            return
        if turn.ends is not None:
            self._closing.finish(turn.ends, event.at)
            return
        self._patience.silent_since(event.at)
        self._bargein.agent_stopped(now)
        if not self._floor.free:
            self._hearing.agent_began(now)
