"""The caller's turns in a conversation: what the turn detector decides, carried out."""

from collections.abc import Callable

import structlog

from bridge.agents.ear import Ear
from bridge.agents.expecting import Asking
from bridge.agents.floor import Floor
from bridge.agents.memory import Memory
from bridge.agents.record import Record
from bridge.agents.semantic_sign import SemanticSign, SemanticVerdict
from bridge.agents.settings import ConversationSettings
from bridge.agents.tools import Toolbox
from bridge.agents.turn_events import (
    AskSettled,
    EagerCancel,
    EagerStart,
    LogEntry,
    TurnComplete,
    TurnForgotten,
    TurnOutput,
)
from bridge.agents.turns import TurnDetector
from bridge.agents.words import Expected
from bridge.providers.base import Heard, SttEndpoint

log = structlog.get_logger(__name__)


class CallerSide:
    """One call's. Times in s, in the session's clock."""

    def __init__(
        self,
        settings: ConversationSettings,
        ear: Ear,
        semantic: SemanticSign,
        floor: Floor,
        memory: Memory,
        record: Record,
        toolbox: Toolbox,
        *,
        call_id: str,
        over: Callable[[TurnComplete], None],
        forgotten: Callable[[], None],
    ) -> None:
        """`over` is told of each turn that is over and on record, `forgotten` of what turned out to be none."""
        self._settings = settings
        """In the language that is spoken at present."""
        self._ear = ear
        self._semantic = semantic
        self._floor = floor
        self._memory = memory
        self._record = record
        self._toolbox = toolbox
        self._call_id = call_id
        self._told_over = over
        self._told_forgotten = forgotten
        self._turns = TurnDetector(settings.turns, self._log)
        self._asking = Asking(settings.brief, settings.turns)

    def speak(self, settings: ConversationSettings) -> None:
        """The caller speaks another language."""
        self._settings = settings
        self._turns.speak(settings.turns)
        self._asking = Asking(settings.brief, settings.turns)

    # -- the open turn ----------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        return self._turns.open

    @property
    def started_at(self) -> float | None:
        return self._turns.started_at

    @property
    def text(self) -> str:
        return self._turns.text

    def settles(self, heard: Heard) -> bool:
        """Whether a text is all that was said up to the last pause."""
        return heard.settled and heard.pause == self._turns.pauses

    # -- signs ------------------------------------------------------------------------------------------------

    def voice_started(self, now: float, at: float) -> None:
        self._apply(self._turns.voice_started(now, at))

    def voice_stopped(self, now: float, at: float) -> None:
        self._apply(self._turns.voice_stopped(now, at))

    def heard(self, now: float, heard: Heard) -> None:
        self._apply(self._turns.heard(now, heard.text, settled=heard.settled, pause=heard.pause))

    def endpoint(self, now: float, sign: SttEndpoint) -> None:
        self._apply(self._turns.endpoint(now, sign.what, sign.confidence))

    def judged(self, now: float, verdict: SemanticVerdict) -> None:
        self._apply(self._turns.semantic(now, verdict.pause, verdict.probability))

    def key(self, now: float, digit: str) -> None:
        self._apply(self._turns.key(now, digit))

    def stt_failed(self, now: float) -> None:
        self._apply(self._turns.stt_failed(now))

    def tick(self, now: float) -> None:
        self._apply(self._turns.tick(now))

    def deadline(self) -> float | None:
        return self._turns.deadline()

    # -- what the agent does ----------------------------------------------------------------------------------

    def floor(self, now: float, taken: bool) -> None:
        """The agent has taken the floor, or given it up."""
        self._apply(self._turns.floor(now, taken))

    def expect(self, now: float, expected: Expected | None) -> None:
        self._apply(self._turns.expect(now, expected))

    def asked(self, now: float, said: str) -> None:
        """The agent has said this: have patience with the answer that it asked for, or the one before it."""
        phrases, brief = self._settings.phrases, self._settings.brief
        if said not in (phrases.still_there, phrases.max_length_warning, brief.not_understood):
            self.expect(now, self._asking.expected(said, self._toolbox.tools))

    def forget(self, now: float, why: str) -> None:
        """What was heard is not the caller, or not meant for the agent."""
        self._apply(self._turns.forget(now, why))

    def abandon(self, now: float, why: str) -> None:
        """Nobody will answer the caller's open turn: what was said stays on record, and in the memory."""
        if self._put_on_record(why):
            self._memory.add_user(self._turns.text)
        self._apply(self._turns.abandon(now, why))

    def close(self) -> None:
        """The call is over: put on record what is under way."""
        if not self._put_on_record("the call was over"):
            self._record.caller_forgotten()

    # -- decisions --------------------------------------------------------------------------------------------

    def _apply(self, outputs: list[TurnOutput]) -> None:
        for output in outputs:
            match output:
                case AskSettled():
                    self._ear.speech_paused()
                    self._semantic.ask(output.pause)
                case EagerStart():
                    if not self._toolbox.collecting:
                        self._floor.prepare(output.text)
                case EagerCancel():
                    self._floor.drop_prepared()
                case TurnComplete():
                    self._commit()
                    self._record.caller_ended(output.text, output.started_at, output.ended_at, output.why)
                    self._told_over(output)
                case TurnForgotten():
                    self._commit()
                    self._record.caller_forgotten()
                    self._told_forgotten()
        if self._turns.started_at is not None:
            self._record.caller_started(self._turns.started_at)

    def _commit(self) -> None:
        """The caller's turn is over, for all who listen."""
        self._ear.commit(speaking=self._turns.open)
        self._semantic.commit(speaking=self._turns.open)

    def _put_on_record(self, why: str) -> bool:
        """The open turn, if there is text of it."""
        turns = self._turns
        if not turns.text or turns.started_at is None or turns.last_voice_at is None:
            return False
        self._record.caller_ended(turns.text, turns.started_at, turns.last_voice_at, why)
        return True

    def _log(self, entry: LogEntry) -> None:
        log.debug("turn", call=self._call_id, decision=entry.what)
