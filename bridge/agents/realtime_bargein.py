"""Who stops an agent whose model speaks by itself: our ear, which pauses it and decides, or the model's own."""

from collections.abc import Callable

import structlog

from bridge.agents.bargein import BargeInDetector, BargeInOutput, Confirmed, ForgetWords, Pause, Rejected, WantPartial
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_turn import RealtimeTurn
from bridge.agents.record import Record
from bridge.agents.words import phrase_words
from bridge.audio.voice import VoiceDetector

log = structlog.get_logger(__name__)

ECHO_WINDOW_MS = 2500.0
"""How far back an echo's words may lie in what the agent spoke."""

THEIR_EAR = "the model heard the caller"


class BargeIns:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        settings: RealtimeSettings,
        floor: RealtimeFloor,
        line: Line,
        record: Record,
        *,
        call_id: str,
        may_stop: Callable[[], bool],
        unwanted: Callable[[], None],
        stopped: Callable[[float], None],
    ) -> None:
        """`may_stop`: nothing else forbids it (a transfer under way). `unwanted` is told that what the caller said
        was noise, so that no answer to it is to be heard. `stopped` is told when the agent was."""
        self._settings = settings.barge_in
        self._ours = settings.barge_in_by == "ours"
        self._floor = floor
        self._line = line
        self._record = record
        self._call_id = call_id
        self._may_stop = may_stop
        self._unwanted = unwanted
        self._stopped = stopped
        self._detector = BargeInDetector(settings.barge_in)
        self._protected = phrase_words(settings.barge_in.protected_phrases)
        self._paused_at = 0.0
        """When the caller last spoke over the agent."""
        self._level_db: float | None = None
        """Of the caller's last voice."""
        self.voice: VoiceDetector | None = None
        """What tells us of the caller's voice."""

    @property
    def interrupts(self) -> bool:
        """The model's own ear is to stop it."""
        return not self._ours and self._settings.enabled

    # -- what is heard ----------------------------------------------------------------------------------------

    def voice_started(self, now: float, at: float) -> None:
        """The caller's voice set in at `at`, or is there when the agent takes the floor."""
        turn = self._floor.turn
        if not self._ours or turn is None:
            return
        self._apply(
            now,
            self._detector.voice_started(
                now,
                at,
                interruptible=self._interruptible(turn),
                audible=turn.started_at is not None,
                remaining_ms=turn.speech.remaining_ms,
            ),
        )

    def voice_stopped(self, now: float, at: float) -> None:
        if self.voice is not None:
            self._level_db = self.voice.sound.level_db
        if self._ours:
            self._sense()
            self._apply(now, self._detector.voice_stopped(now, at))

    def said(self, now: float, text: str) -> None:
        """The text of a caller's turn came."""
        if text and self._level_db is not None:
            self._detector.caller_spoke(self._level_db)
        if not self._ours:
            return
        turn, saying = self._floor.turn, ""
        if turn is not None:
            position = turn.speech.heard_ms
            saying = turn.speech.between(position - ECHO_WINDOW_MS, position)
        self._sense()
        self._apply(now, self._detector.heard(now, text, settled=True, saying=saying))

    def key(self, now: float) -> None:
        turn = self._floor.turn
        if turn is not None and self._interruptible(turn):
            self._apply(now, self._detector.key(now))

    def their_ear(self, now: float) -> None:
        """The model's ear heard the caller."""
        turn = self._floor.turn
        if self.interrupts and turn is not None and self._interruptible(turn):
            self.interrupt(now, Confirmed(now, 0.0, THEIR_EAR))

    # -- what the agent does ----------------------------------------------------------------------------------

    def agent_stopped(self, now: float) -> None:
        """It was played out."""
        self._apply(now, self._detector.agent_stopped(now))

    def abandon(self, now: float) -> None:
        """What was heard is not the caller, or there is nothing to stop any more."""
        self._apply(now, self._detector.abandon(now))

    def tick(self, now: float) -> None:
        self._sense()
        self._apply(now, self._detector.tick(now))

    def deadline(self) -> float | None:
        return self._detector.deadline()

    def interrupt(self, now: float, decision: Confirmed) -> None:
        """The caller has the floor."""
        turn = self._floor.turn
        if turn is None:
            return
        if turn.started_at is not None:
            self._record.barge_in(decision)
        self.drop(decision.paused_at, answers_from=decision.paused_at)
        self._detector.abandon(now)
        self._stopped(now)

    def drop(self, at: float, *, answers_from: float | None = None) -> None:
        """Stop the agent's present turn at `at`, and all that waits behind it but what began at `answers_from` or
        later: that answers the interruption."""
        turn = self._floor.turn
        if turn is not None:
            heard_ms = turn.speech.heard_ms
            self._floor.cut(at)
            if turn.model:
                self._line.interrupt(turn.item, heard_ms)
        for behind in self._floor.forget_behind():
            if answers_from is not None and behind.created_at >= answers_from:
                self._floor.add(behind)
            elif behind.model:
                self._line.interrupt(behind.item, 0.0)

    # -- decisions --------------------------------------------------------------------------------------------

    def _sense(self) -> None:
        """Tell the detector how things are while it has something to decide on."""
        if self._detector.deciding and self.voice is not None:
            self._detector.sounding(self.voice.sound)
            turn = self._floor.turn
            if turn is not None:
                self._detector.allow(self._interruptible(turn))

    def _interruptible(self, turn: RealtimeTurn) -> bool:
        return turn.interruptible and self._may_stop() and not turn.speech.still_to_play(self._protected)

    def _apply(self, now: float, outputs: list[BargeInOutput]) -> None:
        for output in outputs:
            log.debug("barge-in", call=self._call_id, decision=output)
            turn = self._floor.turn
            match output:
                case Pause():
                    self._paused_at = now
                    self._floor.outlet.pause("barge-in")
                case WantPartial():
                    pass
                case Rejected():
                    self._floor.outlet.unpause("barge-in")
                    if turn is not None and turn.started_at is not None:
                        self._record.barge_in(output)
                case Confirmed():
                    self.interrupt(now, output)
                case ForgetWords():
                    self._forget_answers()

    def _forget_answers(self) -> None:
        """What the caller said was noise or a backchannel: its answers are not to be heard."""
        for behind in self._floor.forget_behind():
            if behind.created_at >= self._paused_at and behind.model and not behind.mark:
                self._line.interrupt(behind.item, 0.0)
            else:
                self._floor.add(behind)
        self._unwanted()
