"""The agent's side of a conversation: its present turn, the one prepared in advance, and the playout under both."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bridge.agents.agent_turn import AgentTurn, Thinker, Timing
from bridge.agents.base import AgentDone
from bridge.agents.clauses import split
from bridge.agents.errors import EngineError
from bridge.agents.memory import Memory
from bridge.agents.outlet import Outlet
from bridge.agents.record import Record
from bridge.agents.speech import Speech, VoiceOptions
from bridge.audio.playout import Playout
from bridge.providers.base import Message, ProviderError, Tts

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """An engine failed for good, while it worked for `turn` (None: for the caller's side)."""

    error: EngineError
    turn: AgentTurn | None


@dataclass(frozen=True, slots=True)
class CutOff:
    """What an interruption kept from being said, should it turn out to have been noise."""

    heard: str = ""
    """The clauses wholly heard."""
    rest: str = ""
    """The rest, from the clause on that the interruption fell into."""
    ends: AgentDone | None = None


class Tasks:
    """The tasks of one call, in its task group. An engine's failure is an event there, not a crash."""

    def __init__(self, group: asyncio.TaskGroup, failed: Callable[[EngineFailed], None]) -> None:
        self._group = group
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Work, turn: AgentTurn | None = None) -> None:
        """Do `work`, for `turn` if given: it ends with it (`AgentTurn.cancel`)."""
        task = self._group.create_task(self._guard(work, turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if turn is not None:
            turn.tasks.append(task)

    async def _guard(self, work: Work, turn: AgentTurn | None) -> None:
        try:
            await work()
        except EngineError as error:
            self._failed(EngineFailed(error, turn))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


class Floor:
    """Who speaks for the agent: at most one turn at a time, and at most one prepared beside it."""

    def __init__(
        self,
        playout: Playout,
        tts: Tts,
        options: VoiceOptions,
        thinker: Thinker,
        *,
        memory: Memory,
        record: Record,
        tasks: Tasks,
        clock: Callable[[], float],
        remembered: Callable[[], None] | None = None,
    ) -> None:
        """`remembered` is told whenever a turn went into the memory."""
        self._remembered = remembered
        self._playout = playout
        self._tts = tts
        self._options = options
        self._thinker = thinker
        self._memory = memory
        self._record = record
        self._tasks = tasks
        self._clock = clock
        self.outlet = Outlet(playout)
        """Pauses what the turns say, whichever it is."""
        self.turn: AgentTurn | None = None
        """The turn that has the floor: it thinks or speaks."""
        self.prepared: AgentTurn | None = None
        """A reply to a turn of the caller that is not over yet."""

    def speak(
        self,
        texts: Sequence[str],
        *,
        interruptible: bool = True,
        ends: AgentDone | None = None,
        timing: Timing | None = None,
        continues: str | None = None,
    ) -> None:
        """Take the floor with fixed words, each text spoken in one piece."""
        turn = self._new_turn()
        turn.interruptible, turn.ends, turn.continues = interruptible, ends, continues
        for text in texts:
            turn.speech.say(text)
        turn.speech.finish()
        self._take(turn, timing)

    def change_voice(self, options: VoiceOptions) -> None:
        """Speak so from the next turn on."""
        self._options = options

    def take_up(self, cut_off: CutOff) -> None:
        """Say what noise cut off, as if it had not."""
        self.speak(split(cut_off.rest), ends=cut_off.ends, continues=cut_off.heard)

    def prepare(self, text: str) -> None:
        """Begin a reply to `text`, unheard."""
        self.drop_prepared()
        self.prepared = self._think(self._memory.with_user(text))

    def reply(self, timing: Timing | None = None) -> None:
        """Take the floor with a reply to what was said: the prepared one, if there is one."""
        turn, self.prepared = self.prepared, None
        self._take(turn or self._think(self._memory.messages), timing)

    def drop_prepared(self) -> None:
        turn, self.prepared = self.prepared, None
        if turn is not None:
            turn.speech.drop()
            turn.cancel()

    def finished(self, at: float) -> None:
        """The turn was played out: it is remembered and on record, the floor is free."""
        turn, self.turn = self.turn, None
        if turn is not None:
            self._remember(turn, None)
            self._record.agent_ended(turn, at, None)

    def cut(self, at: float) -> CutOff | None:
        """Stop the turn at once; what was heard up to `at` is remembered and on record, the floor is free."""
        turn, self.turn = self.turn, None
        if turn is None:
            return None
        heard_ms = turn.speech.heard_ms
        turn.speech.drop()
        turn.cancel()
        self._remember(turn, heard_ms)
        self._record.agent_ended(turn, at, heard_ms)
        self.outlet.unpause("barge-in")
        heard, rest = turn.speech.divide(heard_ms)
        return CutOff(f"{turn.continues or ''} {heard}".strip(), rest, turn.ends)

    def hush(self) -> None:
        """Leave out what the turn has not said yet; it keeps the floor, and what it does goes on."""
        if self.turn is not None:
            self.turn.speech.skip()
        self.outlet.unpause("barge-in")

    def _remember(self, turn: AgentTurn, heard_ms: float | None) -> None:
        if turn.continues is not None:
            self._memory.take_back()
        self._memory.add(turn.messages(heard_ms))
        if self._remembered is not None:
            self._remembered()

    def _new_turn(self) -> AgentTurn:
        def failed(error: ProviderError) -> None:
            self._record.provider_failed("tts", error)

        turn = AgentTurn(
            Speech(
                self._playout,
                self._tts,
                self._options,
                clock=self._clock,
                failed=failed,
                switched=self._record.provider_switched,
            )
        )
        self._tasks.start(turn.speech.run, turn)
        return turn

    def _think(self, messages: Sequence[Message]) -> AgentTurn:
        turn = self._new_turn()
        summary = self._memory.summary
        self._tasks.start(lambda: self._thinker.think(turn, messages, summary), turn)
        return turn

    def _take(self, turn: AgentTurn, timing: Timing | None) -> None:
        self.turn = turn
        turn.timing = timing or Timing()
        turn.steps.decided_at = self._clock()
        turn.confirmed.set()
        turn.speech.release()
        self.outlet.utterance_begun()
