"""Who stops the agent of a conversation: what the caller's voice, words and keys do to the turn that is speaking."""

from collections.abc import Callable
from math import inf

import structlog

from bridge.agents.agent_turn import AgentTurn
from bridge.agents.bargein import (
    BargeInDetector,
    BargeInEntry,
    BargeInOutput,
    Confirmed,
    ForgetWords,
    Pause,
    Rejected,
    WantPartial,
)
from bridge.agents.floor import Floor
from bridge.agents.record import Record
from bridge.agents.settings import BargeInSettings
from bridge.agents.words import phrase_words
from bridge.audio.voice import VoiceDetector

log = structlog.get_logger(__name__)

ECHO_WINDOW_MS = 2500.0
"""How far back an echo's words may lie in what the agent spoke."""


class BargeIns:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        settings: BargeInSettings,
        floor: Floor,
        record: Record,
        *,
        call_id: str,
        want_partial: Callable[[], None],
        confirmed: Callable[[float], None],
        forget: Callable[[str], None],
    ) -> None:
        """`want_partial` asks the recogniser for the text so far. `confirmed` is told since when (s) the caller has
        the floor, `forget` why what the caller said is to be ignored."""
        self._floor = floor
        self._record = record
        self._call_id = call_id
        self._want_partial = want_partial
        self._confirmed = confirmed
        self._forget = forget
        self._detector = BargeInDetector(settings, self._log)
        self._protected = phrase_words(settings.protected_phrases)
        self._saying = ""
        """What the agent was speaking when it was last stopped."""
        self._level_db = -inf
        """Of the caller's last voice (dBFS)."""
        self.voice: VoiceDetector | None = None
        """What tells us of the caller's voice."""

    def speak(self, settings: BargeInSettings) -> None:
        """Judge by these from now on: the caller speaks another language."""
        self._detector.speak(settings)

    # -- what is heard ----------------------------------------------------------------------------------------

    def voice_started(self, now: float, at: float) -> None:
        """The caller's voice set in at `at`."""
        turn = self._floor.turn
        if turn is not None:
            remaining_ms = turn.speech.remaining_ms
            self._apply(
                self._detector.voice_started(
                    now,
                    at,
                    interruptible=self._interruptible(turn),
                    audible=turn.started_at is not None,
                    remaining_ms=remaining_ms,
                )
            )

    def measure(self) -> None:
        """The caller's voice ended, listened to or not: keep its level."""
        self._level_db = self.voice.sound.level_db if self.voice is not None else -inf

    def voice_stopped(self, now: float, at: float) -> None:
        """The caller's voice was last heard at `at`."""
        self._apply(self._detector.voice_stopped(now, at))

    def heard(self, now: float, text: str, *, settled: bool) -> bool:
        """Text of the caller's turn came. True: it was to be ignored, and is forgotten."""
        self._sense()
        saying = self._saying if self._floor.turn is None else self._spoken_now()
        decisions = self._detector.heard(now, text, settled=settled, saying=saying)
        self._apply(decisions)
        return any(isinstance(decision, ForgetWords) for decision in decisions)

    def key(self, now: float) -> None:
        turn = self._floor.turn
        if turn is not None and self._interruptible(turn):
            self._apply(self._detector.key(now))

    def caller_spoke(self) -> None:
        """The last voice was the caller's: there were words in it."""
        self._detector.caller_spoke(self._level_db)

    # -- what the agent does ----------------------------------------------------------------------------------

    def stopping(self) -> None:
        """The agent's turn is about to be cut: an echo of it may still be heard."""
        self._saying = self._spoken_now()

    def agent_stopped(self, now: float) -> None:
        """It was played out."""
        self._apply(self._detector.agent_stopped(now))

    def abandon(self, now: float) -> None:
        """What was heard is not the caller, or there is nothing to stop any more."""
        self._apply(self._detector.abandon(now))

    def tick(self, now: float) -> None:
        self._sense()
        self._apply(self._detector.tick(now))

    def deadline(self) -> float | None:
        return self._detector.deadline()

    # -- decisions --------------------------------------------------------------------------------------------

    def _sense(self) -> None:
        """Tell the detector how things are while it has something to decide on."""
        if self._detector.deciding and self.voice is not None:
            self._detector.sounding(self.voice.sound)
            turn = self._floor.turn
            if turn is not None:
                self._detector.allow(self._interruptible(turn))

    def _interruptible(self, turn: AgentTurn) -> bool:
        return turn.interruptible and not turn.speech.still_to_play(self._protected)

    def _spoken_now(self) -> str:
        """What the agent spoke in the last seconds, in its present turn."""
        turn = self._floor.turn
        if turn is None:
            return ""
        position = turn.speech.heard_ms
        return turn.speech.between(position - ECHO_WINDOW_MS, position)

    def _apply(self, outputs: list[BargeInOutput]) -> None:
        for output in outputs:
            turn = self._floor.turn
            audible = turn is not None and turn.started_at is not None
            match output:
                case Pause():
                    self._floor.outlet.pause("barge-in")
                case WantPartial():
                    self._want_partial()
                case Rejected():
                    self._floor.outlet.unpause("barge-in")
                    if audible:
                        self._record.barge_in(output)
                case Confirmed():
                    if audible:
                        self._record.barge_in(output)
                    self._confirmed(output.paused_at)
                case ForgetWords():
                    self._forget(output.reason)

    def _log(self, entry: BargeInEntry) -> None:
        log.debug("barge-in", call=self._call_id, decision=entry.what)
