"""What an agent says by rote though its model speaks by itself: by a voice of our own, or by asking the model to."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bridge.agents.announcing import Announcer
from bridge.agents.base import AgentDone, CallSession
from bridge.agents.errors import EngineError
from bridge.agents.realtime_floor import RealtimeFloor
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_turn import RealtimeTurn
from bridge.agents.record import Record
from bridge.agents.speech import Speech, VoiceOptions
from bridge.providers.base import Tts


@dataclass(frozen=True, slots=True)
class Words:
    text: str
    interruptible: bool = True
    ends: AgentDone | None = None
    """The call ends with this once they were played out."""


@dataclass(frozen=True, slots=True)
class VoiceFailed:
    """The voice of our own failed at this turn."""

    turn: RealtimeTurn
    error: EngineError


class RoteWords:
    """One call's."""

    def __init__(
        self,
        settings: RealtimeSettings,
        session: CallSession,
        floor: RealtimeFloor,
        line: Line,
        owed: OwedReply,
        record: Record,
        *,
        tts: Tts | None,
        start: Callable[[Coroutine[Any, Any, None]], Callable[[], object]],
        failed: Callable[[VoiceFailed], None],
    ) -> None:
        """`start` runs work in the call's task group, and returns what cancels it."""
        self._settings = settings
        self._session = session
        self._floor = floor
        self._line = line
        self._owed = owed
        self._record = record
        self._tts = tts
        self._start = start
        self._failed = failed
        self._asked: dict[str, Words] = {}
        """What the model was asked to say and has not begun to, by mark."""
        self._marks = 0

    @property
    def has_voice(self) -> bool:
        """There is a voice of our own."""
        return self._tts is not None

    def announcer(self) -> Announcer | None:
        """That voice for others than the caller; None: there is none."""
        if self._tts is None:
            return None
        return Announcer(self._tts, self._options, self._record, self._session.clock)

    @property
    def asked(self) -> bool:
        """The model is to say something that it has not begun to."""
        return bool(self._asked)

    def say(self, words: Words) -> RealtimeTurn | None:
        """Say it: by the voice of our own (then its turn is returned), else by the model, once there is one."""
        if self._tts is not None:
            return self._speak(self._tts, words)
        self._marks += 1
        mark = f"say-{self._marks}"
        self._asked[mark] = words
        self._line.say(words.text, mark)
        self._owed.expect(self._session.clock())
        return None

    def begun(self, mark: str) -> Words | None:
        """The model begins to say what has this mark."""
        return self._asked.pop(mark, None) if mark else None

    def ask_again(self) -> None:
        """Another session is there: ask it for what is left to say."""
        for mark, words in self._asked.items():
            self._line.say(words.text, mark)

    def forget(self) -> None:
        self._asked.clear()

    def lose_voice(self) -> None:
        """The voice of our own is of no use any more."""
        self._tts = None

    def _speak(self, tts: Tts, words: Words) -> RealtimeTurn:
        clock = self._session.clock
        speech = Speech(
            self._session.leg.playout,
            tts,
            self._options(),
            clock=clock,
            failed=lambda error: self._record.provider_failed("tts", error),
            switched=self._record.provider_switched,
        )
        turn = RealtimeTurn(speech, interruptible=words.interruptible, ends=words.ends, created_at=clock())
        speech.say(words.text)
        speech.finish()
        turn.stop = self._start(self._synthesise(turn, speech))
        self._floor.add(turn)
        return turn

    def _options(self) -> VoiceOptions:
        settings, limits = self._settings, self._settings.limits
        return VoiceOptions(settings.voice, settings.language, limits.tts_chunk_ms / 1000, limits.look_ahead_ms)

    async def _synthesise(self, turn: RealtimeTurn, speech: Speech) -> None:
        try:
            await speech.run()
        except EngineError as error:
            self._failed(VoiceFailed(turn, error))
