"""The conversation: one call between a caller and an agent of speech recognition, language model and voice.

Everything that happens (voice activity, text, played audio, keys, the leg's events) comes into one inbox and is
handled by one task in order; the turn detector and the barge-in detector decide, `Floor` speaks, `Ear` listens.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from bridge.agents.agent_turn import Thinker, Timing
from bridge.agents.bargein import BargeInDetector, BargeInOutput, Confirmed, ForgetWords, Pause, Rejected, WantPartial
from bridge.agents.base import AgentDone, CallSession
from bridge.agents.ear import Ear
from bridge.agents.errors import EngineError
from bridge.agents.floor import CutOff, EngineFailed, Floor, Tasks
from bridge.agents.memory import Memory
from bridge.agents.record import Record
from bridge.agents.settings import ConversationSettings
from bridge.agents.speech import VoiceOptions
from bridge.agents.tools import Toolbox
from bridge.agents.turns import (
    AskSettled,
    EagerCancel,
    EagerStart,
    TurnComplete,
    TurnDetector,
    TurnForgotten,
    TurnOutput,
)
from bridge.audio.frames import Unsubscribe
from bridge.audio.playout import PlayoutEvent, UtteranceFinished, UtteranceStarted
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed, TransferResult
from bridge.providers.base import Heard, Llm, ProviderError, Stt, SttEvent, SttFailed, Switched, Tts

log = structlog.get_logger(__name__)

MAX_LENGTH_GRACE_S = 5.0
"""What the agent is saying when the call has become too long may end, if it does so by then."""

ECHO_WINDOW_MS = 2500.0
"""How far back an echo's words may lie in what the agent spoke."""

MAX_STT_FAILURES = 3
"""Turns in a row whose text failed; then the caller is better sent away than asked again."""

WARM_S = 5.0
"""Connections that are not open by then are left to the first request."""

MIN_WAIT_S = 0.001

_Event = VoiceEvent | SttEvent | PlayoutEvent | LegEvent | EngineFailed


class ConversationAgent:
    """An `Agent` with its engines, for any number of calls at once. The engines are started and closed by others."""

    def __init__(
        self,
        name: str,
        settings: ConversationSettings,
        *,
        stt: Stt,
        llm: Llm,
        tts: Tts,
        wall_clock: Callable[[], datetime] | None = None,
    ) -> None:
        """`wall_clock` gives the caller's date and time; by default the machine's, in `settings.time_zone`."""
        self.name = name
        self.settings = settings
        self.stt = stt
        self.llm = llm
        self.tts = tts
        zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
        self.wall_clock = wall_clock or (lambda: datetime.now(zone).astimezone(zone))

    async def warm(self) -> None:
        """Have the engines open their connections (see `Agent`)."""
        engines = (self.stt, self.llm, self.tts)
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                results = await asyncio.gather(*(engine.warm() for engine in engines), return_exceptions=True)
                for engine, result in zip(engines, results, strict=True):
                    if isinstance(result, Exception):
                        log.warning("warming failed", provider=engine.name, error=repr(result))

    async def run(self, session: CallSession) -> AgentDone:
        """Converse until the call is to end (see `Agent.run`)."""
        return await Conversation(self, session).run()


class Conversation:
    """One call's conversation; made and run once, in the call's task."""

    def __init__(self, agent: ConversationAgent, session: CallSession) -> None:
        settings = agent.settings
        limits = settings.limits
        # One time for the whole call: the brain replays what was said, and "tomorrow" must stay the same day.
        began_at = agent.wall_clock()
        self._settings = settings
        self._limits = limits
        self._session = session
        self._leg = session.leg
        self._clock = session.clock
        self._stt_name = agent.stt.name
        self._inbox: deque[_Event] = deque()
        self._wake = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._tasks = Tasks(self._group, self._post)
        self._unsubscribes: list[Unsubscribe] = []
        self._turns = TurnDetector(settings.turns)
        self._bargein = BargeInDetector(settings.barge_in)
        self._memory = Memory(limits.memory_messages)
        self._record = Record(session)
        self._toolbox = Toolbox(session, settings.brief, limits)
        self._floor = Floor(
            session.leg.playout,
            agent.tts,
            VoiceOptions(settings.voice, settings.language, limits.tts_chunk_ms / 1000, limits.look_ahead_ms),
            Thinker(
                agent.llm,
                self._toolbox,
                settings,
                clock=session.clock,
                wall_clock=lambda: began_at,
                failed=lambda error: self._record.provider_failed("llm", error),
                switched=self._record.provider_switched,
            ),
            memory=self._memory,
            record=self._record,
            tasks=self._tasks,
            clock=session.clock,
        )
        self._ear = Ear(
            agent.stt,
            sample_rate=session.leg.sample_rate,
            language=settings.language,
            emit=self._post,
            failed=lambda error: self._record.provider_failed("stt", error),
            open_s=limits.stt_open_ms / 1000,
        )
        self._cut_off: CutOff | None = None
        """What a barge-in cut off, until it is known that the caller said something instead."""
        self._held = False
        self._voice_on = False
        self._silent_since = session.clock()
        self._reprompts = 0
        self._stt_failures = 0
        self._max_at = session.answered_at + limits.max_call_s
        self._last_words: AgentDone | None = None
        """The agent speaks its last words, before the call ends with this; the caller is not listened to any more."""
        self._last_words_by = 0.0
        self._tone: int | None = None
        """The playout's generation of the tone that stands for the last words."""
        self._finish_at: float | None = None
        """They were played out: when to hang up."""
        self._done: AgentDone | None = None

    async def run(self) -> AgentDone:
        """Greet, converse, and return why the call is to end."""
        try:
            async with self._group:
                self._wire()
                if self._settings.greeting:
                    self._speak([self._settings.greeting], interruptible=self._settings.greeting_interruptible)
                self._tasks.start(self._ear.open)
                done = await self._serve()
                self._tasks.cancel()
        finally:
            self._close_record()
            for unsubscribe in reversed(self._unsubscribes):
                unsubscribe()
            self._floor.close()
            await self._ear.aclose()
        return done

    def _wire(self) -> None:
        detector = self._session.open_voice(self._leg.sample_rate, self._post)
        self._unsubscribes = [
            detector.close,
            self._leg.listen(detector.push),
            self._leg.listen(self._ear.push),
            self._leg.subscribe(self._post),
            self._leg.playout.subscribe(self._post),
            self._leg.playout.listen(detector.reference),
        ]

    def _post(self, event: _Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    async def _serve(self) -> AgentDone:
        while self._done is None:
            while self._inbox and self._done is None:
                self._handle(self._inbox.popleft())
            self._tick(self._clock())
            if self._inbox or self._done is not None:
                continue
            self._wake.clear()
            due = self._deadline()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(MIN_WAIT_S, due - self._clock())):
                    await self._wake.wait()
        return self._done

    def _deadline(self) -> float | None:
        if self._last_words is not None:
            return self._last_words_by if self._finish_at is None else self._finish_at
        too_long_at = self._max_at if self._clock() < self._max_at else self._max_at + MAX_LENGTH_GRACE_S
        due = [too_long_at, self._turns.deadline(), self._bargein.deadline(), self._silence_at()]
        return min(at for at in due if at is not None)

    def _tick(self, now: float) -> None:
        if self._last_words is not None:
            if now >= (self._last_words_by if self._finish_at is None else self._finish_at):
                self._done = self._last_words
            return
        self._apply_bargein(self._bargein.tick(now))
        self._apply_turns(self._turns.tick(now))
        grace_s = MAX_LENGTH_GRACE_S if self._floor.turn is not None else 0.0
        silence_at = self._silence_at()
        if now >= self._max_at + grace_s:
            self._close(self._settings.phrases.max_length_goodbye, AgentDone(Cause.MAX_LENGTH))
        elif silence_at is not None and now >= silence_at:
            self._break_silence()

    # -- events ---------------------------------------------------------------------------------------------

    def _handle(self, event: _Event) -> None:
        now = self._clock()
        match event:
            case SpeechStarted():
                self._voice_on = True
                if self._listening:
                    self._voice_started(now, event.at)
            case SpeechStopped():
                self._voice_on = False
                if self._listening:
                    self._apply_bargein(self._bargein.voice_stopped(now, event.at))
                    self._apply_turns(self._turns.voice_stopped(now, event.at))
            case Heard():
                self._stt_failures = 0
                if self._listening:
                    self._heard(now, event)
            case Switched():
                self._record.provider_switched(event)
            case SttFailed():
                self._stt_failed(now, event)
            case UtteranceStarted():
                turn = self._floor.turn
                if turn is not None and turn.speech.generation == event.generation:
                    self._record.agent_started(turn, event.at)
            case UtteranceFinished():
                self._utterance_finished(now, event)
            case DtmfReceived():
                if self._listening:
                    self._key(now, event.digit)
            case Held():
                self._hold(now)
            case Resumed():
                self._resume(now)
            case TransferResult():
                self._toolbox.transfer_result(event)
            case LegEnded():
                self._done = AgentDone(event.cause, event.detail)
            case EngineFailed():
                self._engine_failed(event)

    @property
    def _listening(self) -> bool:
        return not self._held and self._last_words is None

    def _voice_started(self, now: float, at: float) -> None:
        self._ear.speech_started()
        turn = self._floor.turn
        if turn is not None:
            remaining_ms = turn.speech.remaining_ms
            self._apply_bargein(
                self._bargein.voice_started(
                    now,
                    at,
                    interruptible=turn.interruptible,
                    audible=turn.started_at is not None,
                    remaining_ms=remaining_ms,
                )
            )
        self._apply_turns(self._turns.voice_started(now, at))

    def _heard(self, now: float, heard: Heard) -> None:
        settled = heard.settled and heard.pause == self._turns.pauses
        turn, saying = self._floor.turn, ""
        if turn is not None:
            position = turn.speech.heard_ms
            saying = turn.speech.between(position - ECHO_WINDOW_MS, position)
        decisions = self._bargein.heard(now, heard.text, settled=settled, saying=saying)
        self._apply_bargein(decisions)
        if not any(isinstance(decision, ForgetWords) for decision in decisions):
            self._apply_turns(self._turns.heard(now, heard.text, settled=heard.settled, pause=heard.pause))

    def _key(self, now: float, digit: str) -> None:
        self._reprompts = 0
        if digit == "#" and not self._turns.open:
            return
        turn = self._floor.turn
        if turn is not None and turn.interruptible:
            self._apply_bargein(self._bargein.key(now))
        self._apply_turns(self._turns.key(now, digit))

    def _hold(self, now: float) -> None:
        if not self._held:
            self._held = True
            self._apply_bargein(self._bargein.abandon(now))
            if self._turns.text and self._floor.turn is None:
                # What the caller said is answered when the line is back.
                self._cut_off = CutOff()
            self._abandon_caller(now, "the line went on hold")
            self._floor.pause("hold")

    def _resume(self, now: float) -> None:
        if self._held:
            self._held = False
            self._silent_since = now
            self._floor.unpause("hold")
            if self._voice_on and self._listening:
                self._voice_started(now, now)
            self._go_on()

    def _stt_failed(self, now: float, event: SttFailed) -> None:
        error = ProviderError(self._stt_name, event.error)
        self._record.provider_failed("stt", error)
        self._stt_failures += 1
        if self._stt_failures >= MAX_STT_FAILURES:
            self._engine_failed(EngineFailed(EngineError("stt", error), None))
        elif event.fatal:
            self._tasks.start(self._ear.reopen)
        elif self._listening:
            self._apply_turns(self._turns.stt_failed(now))

    # -- the caller's turns ---------------------------------------------------------------------------------

    def _apply_turns(self, outputs: list[TurnOutput]) -> None:
        for output in outputs:
            log.debug("turn", call=self._session.call_id, decision=output)
            match output:
                case AskSettled():
                    self._ear.speech_paused()
                case EagerStart():
                    self._floor.prepare(output.text)
                case EagerCancel():
                    self._floor.drop_prepared()
                case TurnComplete():
                    self._caller_done(output)
                case TurnForgotten():
                    self._ear.commit(speaking=self._turns.open)
                    self._record.caller_forgotten()
                    self._go_on()
        if self._turns.started_at is not None:
            self._record.caller_started(self._turns.started_at)

    def _caller_done(self, turn: TurnComplete) -> None:
        self._ear.commit(speaking=self._turns.open)
        self._record.caller_ended(turn.text, turn.started_at, turn.ended_at)
        self._cut_off = None
        self._reprompts = 0
        timing = Timing() if turn.held else Timing(turn.ended_at, turn.endpoint_ms, turn.stt_ms)
        if turn.text:
            self._memory.add_user(turn.text)
            self._reply(timing)
        else:
            self._speak([self._settings.brief.not_understood], timing=timing)

    def _abandon_caller(self, now: float, why: str) -> None:
        """Nobody will answer the caller's open turn: what was said stays on record, and in the memory."""
        turns = self._turns
        if turns.text and turns.started_at is not None and turns.last_voice_at is not None:
            self._memory.add_user(turns.text)
            self._record.caller_ended(turns.text, turns.started_at, turns.last_voice_at)
        self._apply_turns(turns.abandon(now, why))

    # -- the agent's turns ----------------------------------------------------------------------------------

    def _speak(
        self,
        texts: list[str],
        *,
        interruptible: bool = True,
        ends: AgentDone | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._floor.drop_prepared()
        self._floor.speak(texts, interruptible=interruptible, ends=ends, timing=timing)
        self._apply_turns(self._turns.floor(self._clock(), True))

    def _reply(self, timing: Timing | None = None) -> None:
        self._floor.reply(timing)
        self._apply_turns(self._turns.floor(self._clock(), True))

    def _utterance_finished(self, now: float, event: UtteranceFinished) -> None:
        turn = self._floor.turn
        if event.generation == self._tone:
            self._finish_at = now
        elif turn is not None and turn.speech.generation == event.generation:
            self._floor.finished(event.at)
            if turn.ends is not None:
                self._last_words = turn.ends
                tail_ms = self._limits.goodbye_tail_ms + self._leg.playout.far_buffer_ms
                self._finish_at = event.at + tail_ms / 1000
                return
            self._silent_since = event.at
            self._apply_bargein(self._bargein.agent_stopped(now))
            self._apply_turns(self._turns.floor(now, False))

    def _apply_bargein(self, outputs: list[BargeInOutput]) -> None:
        for output in outputs:
            log.debug("barge-in", call=self._session.call_id, decision=output)
            turn = self._floor.turn
            audible = turn is not None and turn.started_at is not None
            match output:
                case Pause():
                    self._floor.pause("barge-in")
                case WantPartial():
                    self._ear.want_partial()
                case Rejected():
                    self._floor.unpause("barge-in")
                    if audible:
                        self._record.barge_in(output)
                case Confirmed():
                    if audible:
                        self._record.barge_in(output)
                    self._interrupt(output.paused_at)
                case ForgetWords():
                    self._apply_turns(self._turns.forget(self._clock(), output.reason))

    def _interrupt(self, at: float) -> None:
        """The caller has the floor."""
        self._cut_off = self._floor.cut(at)
        now = self._clock()
        self._silent_since = now
        self._apply_turns(self._turns.floor(now, False))

    def _go_on(self) -> None:
        """The caller stopped the agent and then said nothing: go on, rather than leave both waiting."""
        cut_off = self._cut_off
        if cut_off is None or self._floor.turn is not None or self._turns.open or not self._listening:
            return
        self._cut_off = None
        if self._memory.awaits_reply:
            self._reply()
        elif cut_off.rest:
            self._floor.take_up(cut_off)
            self._apply_turns(self._turns.floor(self._clock(), True))
        else:
            self._speak([self._settings.brief.not_understood])

    # -- silence and the end --------------------------------------------------------------------------------

    def _silence_at(self) -> float | None:
        if self._floor.turn is not None or self._turns.open or not self._listening:
            return None
        return self._silent_since + self._limits.silence_ms / 1000

    def _break_silence(self) -> None:
        phrases = self._settings.phrases
        if self._reprompts < self._limits.max_reprompts:
            self._reprompts += 1
            self._speak([phrases.still_there])
        else:
            self._speak([phrases.silence_goodbye], ends=AgentDone(Cause.SILENCE))

    def _close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        now = self._clock()
        self._last_words, self._last_words_by = done, now + self._limits.closing_s
        self._apply_bargein(self._bargein.abandon(now))
        self._floor.cut(now)
        self._abandon_caller(now, "the call ends")
        self._speak([text], interruptible=False, ends=done)

    def _engine_failed(self, event: EngineFailed) -> None:
        turn, present = event.turn, self._floor.turn
        if turn is not None and turn is self._floor.prepared:
            # The caller may go on talking; if not, the reply is asked for anew, and fails then.
            self._floor.drop_prepared()
        elif self._last_words is None and (turn is None or turn is present):
            self._close(self._settings.phrases.apology, AgentDone(Cause.ENGINE_FAILED, str(event.error)))
        elif self._last_words is not None and turn is not None and turn is present:
            self._floor.cut(self._clock())
            self._tone = self._floor.sound_tone()
            self._record.note("tone", "the last words could not be spoken")

    def _close_record(self) -> None:
        """The call is over: put on record what is under way."""
        turns = self._turns
        self._floor.cut(self._clock())
        self._floor.drop_prepared()
        if turns.text and turns.started_at is not None and turns.last_voice_at is not None:
            self._record.caller_ended(turns.text, turns.started_at, turns.last_voice_at)
        else:
            self._record.caller_forgotten()
