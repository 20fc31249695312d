"""The agent whose model hears and speaks by itself: one call between a caller and a speech-to-speech session.

As in the conversation, everything that happens comes into one inbox and is handled by one task in order. `Line` is
the way to the model, `RealtimeFloor` speaks, `CallerTurns` keeps what the caller said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from bridge.agents.agent_turn import Timing
from bridge.agents.bargein import BargeInDetector, BargeInOutput, Confirmed, ForgetWords, Pause, Rejected, WantPartial
from bridge.agents.base import AgentDone, CallSession
from bridge.agents.errors import EngineError
from bridge.agents.inbox import Inbox
from bridge.agents.realtime_caller import CallerTurns, History
from bridge.agents.realtime_floor import RealtimeFloor, stalls_at
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_turn import RealtimeTurn, Reply
from bridge.agents.record import Record
from bridge.agents.speech import Speech, VoiceOptions
from bridge.agents.tools import Listening, Toolbox, ToolResult
from bridge.agents.tools_agent import AgentTools
from bridge.audio.frames import Unsubscribe
from bridge.audio.playout import PlayoutEvent, UtteranceFinished, UtteranceStarted
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed, TransferResult
from bridge.providers.base import Message, ProviderError, ProviderTimeoutError, ToolCall, Tts
from bridge.providers.brief import render_prompt
from bridge.providers.chain import Member
from bridge.providers.chain_llm import GO_ON
from bridge.providers.realtime import (
    AgentAudio,
    AgentText,
    CallerSaid,
    CallerSpeaks,
    Realtime,
    RealtimeEvent,
    RealtimeFailed,
    RealtimeSetup,
    ReplyEnded,
    ReplyStarted,
    SessionEnding,
    ToolAsked,
    ToolCancelled,
)

log = structlog.get_logger(__name__)

MAX_LENGTH_GRACE_S = 5.0
"""What the agent is saying when the call has become too long may end, if it does so by then."""

ECHO_WINDOW_MS = 2500.0
"""How far back an echo's words may lie in what the agent spoke."""

WARM_S = 5.0
"""A connection that is not open by then is left to the call."""

DRAIN_S = 20.0
"""What is said before a tool is called may last this long."""

RENEW_AHEAD_S = 10.0
"""A session that ends so soon is replaced even while somebody speaks."""


@dataclass(frozen=True, slots=True)
class _FromLine:
    number: int
    event: RealtimeEvent


@dataclass(frozen=True, slots=True)
class _LineUp:
    """A session is there."""


@dataclass(frozen=True, slots=True)
class _LineLost:
    """No provider is left."""

    error: ProviderError


@dataclass(frozen=True, slots=True)
class _ToolDone:
    call: ToolCall
    number: int
    result: ToolResult


@dataclass(frozen=True, slots=True)
class _VoiceFailed:
    """The voice of our own failed at this turn."""

    turn: RealtimeTurn
    error: EngineError


@dataclass(frozen=True, slots=True)
class _HandedOver:
    """We tried to put the caller through."""


@dataclass(frozen=True, slots=True)
class _Words:
    """What the model was asked to say."""

    text: str
    interruptible: bool
    ends: AgentDone | None


_Event = (
    VoiceEvent
    | PlayoutEvent
    | LegEvent
    | Listening
    | _FromLine
    | _LineUp
    | _LineLost
    | _ToolDone
    | _VoiceFailed
    | _HandedOver
)


class RealtimeAgent:
    """An `Agent` with its providers, for any number of calls at once. They are started and closed by others."""

    def __init__(
        self,
        name: str,
        settings: RealtimeSettings,
        *,
        members: Sequence[Member[Realtime]],
        tts: Tts | None = None,
        tools: AgentTools | None = None,
        wall_clock: Callable[[], datetime] | None = None,
    ) -> None:
        """`tts` speaks what is fixed (greeting, apology, goodbyes) in place of the model; without it the model does,
        and an apology for its own failure is a tone. `wall_clock` gives the caller's date and time."""
        self.name = name
        self.settings = settings
        self.members = tuple(members)
        self.tts = tts
        self.tools = tools or AgentTools(settings)
        zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
        self.wall_clock = wall_clock or (lambda: datetime.now(zone).astimezone(zone))

    async def warm(self) -> None:
        """Have the first provider open a connection (see `Agent`)."""
        first = next((member for member in self.members if member.health.usable), self.members[0])
        engines = (first.provider, self.tts)
        with suppress(TimeoutError):
            async with asyncio.timeout(WARM_S):
                await asyncio.gather(*(engine.warm() for engine in engines if engine is not None))

    async def run(self, session: CallSession) -> AgentDone:
        """Talk until the call is to end (see `Agent.run`)."""
        return await _Conversation(self, session).run()


class _Conversation:
    """One call's; made and run once, in the call's task."""

    def __init__(self, agent: RealtimeAgent, session: CallSession) -> None:
        settings = agent.settings.spoken_in(agent.settings.first_language)
        self._settings = settings
        self._hears_in = agent.settings.language
        self._limits = settings.limits
        self._waits = settings.realtime_limits
        self._session = session
        self._leg = session.leg
        self._clock = session.clock
        self._began_at = agent.wall_clock()
        self._tts = agent.tts
        self._inbox: Inbox[_Event] = Inbox(session.clock)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribes: list[Unsubscribe] = []
        self._bargein = BargeInDetector(settings.barge_in)
        self._ours = settings.barge_in_by == "ours"
        self._record = Record(session)
        self._history = History(self._limits.memory_messages)
        self._callers = CallerTurns(self._record, self._history, text_s=self._waits.text_ms / 1000)
        self._floor = RealtimeFloor(session.leg.playout, self._record, self._remember)
        self._toolbox = Toolbox(
            session, settings.brief, self._limits, agent.tools, language=settings.language, post=self._inbox.post
        )
        self._line = Line(
            agent.members, self._setup, self._waits, emit=self._told, switched=self._record.provider_switched
        )
        self._held = False
        self._voice_since: float | None = None
        """The caller's voice is on, since then."""
        self._voice_ended_at = session.answered_at
        self._unanswered_at: float | None = None
        """When the model, which tells nothing about the caller's voice, is asked to answer."""
        self._awaiting: float | None = None
        """The model is to begin a reply, since then."""
        self._timing = Timing()
        self._unwanted = False
        """The reply to come answers a noise."""
        self._spoke = False
        """The agent was heard since the caller's last turn."""
        self._paused_at = 0.0
        """When the caller last spoke over the agent."""
        self._words: dict[str, _Words] = {}
        """What the model was asked to say and has not begun to, by mark."""
        self._marks = 0
        self._going_on = False
        """A reply broke off with its session: the next one takes it up."""
        self._running: dict[str, asyncio.Task[None]] = {}
        """Tools at work, by call."""
        self._filler_at: float | None = None
        self._keys = ""
        self._keys_from = self._keys_at = 0.0
        self._renew_by: float | None = None
        self._reopening = True
        self._quiet = asyncio.Event()
        self._silent_since = session.clock()
        self._reprompts = 0
        self._max_at = session.answered_at + self._limits.max_call_s
        self._warn_at: float | None = None
        if 0 < self._limits.max_call_warning_s < self._limits.max_call_s:
            self._warn_at = self._max_at - self._limits.max_call_warning_s
        self._last_words: AgentDone | None = None
        """The agent speaks its last words, before the call ends with this; the caller is not listened to any more."""
        self._last_words_by = 0.0
        self._tone: int | None = None
        """The playout's generation of the tone that stands for the last words."""
        self._finish_at: float | None = None
        """They were played out: when to hang up."""
        self._hands_over = False
        """After them the caller is put through to a person."""
        self._done: AgentDone | None = None

    async def run(self) -> AgentDone:
        """Greet, converse, and return why the call is to end."""
        try:
            async with self._group:
                self._wire()
                if self._settings.greeting:
                    self._greet()
                self._start(self._reach(self._line.open))
                done = await self._inbox.serve(self._handle, self._tick, self._deadline, lambda: self._done)
                for task in self._tasks:
                    task.cancel()
        finally:
            self._close_record()
            for unsubscribe in reversed(self._unsubscribes):
                unsubscribe()
            self._floor.close()
            await self._line.aclose()
        return done

    def _wire(self) -> None:
        detector = self._session.open_voice(self._leg.sample_rate, self._inbox.post)
        self._unsubscribes = [
            detector.close,
            self._leg.listen(detector.push),
            self._leg.listen(self._line.push),
            self._leg.subscribe(self._inbox.post),
            self._leg.playout.subscribe(self._inbox.post),
            self._leg.playout.listen(detector.reference),
        ]

    def _setup(self, member: Member[Realtime]) -> RealtimeSetup:
        settings = self._settings
        now, language = self._began_at, settings.language
        return RealtimeSetup(
            instructions=settings.instructions or render_prompt(settings.brief, now, language),
            tools=self._toolbox.tools,
            sample_rate=self._leg.sample_rate,
            voice=member.voice,
            language=self._hears_in,
            call_id=self._session.call_id,
            history=self._history.messages,
            interrupts=not self._ours and settings.barge_in.enabled,
        )

    def _told(self, event: RealtimeEvent) -> None:
        self._inbox.post(_FromLine(self._line.number, event))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reach(self, opening: Callable[[], Awaitable[None]]) -> None:
        """Bring the line up, by `opening`."""
        try:
            await opening()
        except ProviderError as error:
            self._inbox.post(_LineLost(error))
        else:
            self._inbox.post(_LineUp())

    # -- time -------------------------------------------------------------------------------------------------

    def _deadline(self) -> float | None:
        due = [self._awaiting_until(), self._callers.deadline()]
        if self._last_words is not None:
            due.append(self._last_words_by if self._finish_at is None else self._finish_at)
        else:
            due.append(self._max_at if self._clock() < self._max_at else self._max_at + MAX_LENGTH_GRACE_S)
            due += [self._bargein.deadline(), self._silence_at(), self._unanswered_at, self._filler_at]
            due += [self._stalled_at(), self._keys_until(), self._warning_at(), self._renewal_at()]
        return min(at for at in due if at is not None)

    def _tick(self, now: float) -> None:
        self._callers.tick(now)
        awaiting_until = self._awaiting_until()
        if self._last_words is not None:
            if now >= (self._last_words_by if self._finish_at is None else self._finish_at):
                self._done = self._last_words
            elif awaiting_until is not None and now >= awaiting_until:
                self._lose_words("the model did not speak the last words")
            return
        self._apply_bargein(self._bargein.tick(now))
        stalled_at, keys_until, renewal_at = self._stalled_at(), self._keys_until(), self._renewal_at()
        if awaiting_until is not None and now >= awaiting_until:
            self._break(ProviderTimeoutError(self._line.name, f"no reply within {self._waits.first_ms} ms"))
        elif stalled_at is not None and now >= stalled_at:
            self._break(ProviderTimeoutError(self._line.name, "the reply broke off in the middle"))
        if self._unanswered_at is not None and now >= self._unanswered_at:
            self._unanswered_at = None
            self._line.respond()
            self._expect(now)
        if keys_until is not None and now >= keys_until:
            self._tell_keys(now)
        if renewal_at is not None and now >= renewal_at:
            self._renew_by = None
            self._reopening = True
            self._line.keep(True)
            self._start(self._reach(self._line.renew))
        if self._filler_at is not None and now >= self._filler_at:
            self._filler_at = None
            if self._running and self._idle:
                self._say(self._settings.phrases.filler)
        self._look_at_the_clock(now)
        if self._floor.free and not self._words:
            self._quiet.set()
        else:
            self._quiet.clear()

    def _look_at_the_clock(self, now: float) -> None:
        grace_s = 0.0 if self._floor.free else MAX_LENGTH_GRACE_S
        silence_at, warning_at = self._silence_at(), self._warning_at()
        if now >= self._max_at + grace_s:
            self._close(self._settings.phrases.max_length_goodbye, AgentDone(Cause.MAX_LENGTH))
        elif warning_at is not None and now >= warning_at:
            self._warn_at = None
            self._say(self._settings.phrases.max_length_warning)
        elif silence_at is not None and now >= silence_at:
            self._break_silence()

    @property
    def _listening(self) -> bool:
        return not self._held and self._last_words is None

    @property
    def _idle(self) -> bool:
        """Nobody speaks, or is about to."""
        quiet = self._floor.free and self._awaiting is None and not self._words
        return quiet and self._voice_since is None and not self._callers.open

    def _awaiting_until(self) -> float | None:
        if self._awaiting is None or self._reopening or self._held:
            return None
        return self._awaiting + self._waits.first_ms / 1000

    def _stalled_at(self) -> float | None:
        turn = self._floor.turn
        if turn is None or self._held or self._reopening:
            return None
        return stalls_at(turn, self._clock(), self._waits.between_ms / 1000)

    def _silence_at(self) -> float | None:
        waits = self._running or self._reopening or self._keys or self._unanswered_at is not None
        if waits or not self._idle or not self._listening:
            return None
        return self._silent_since + self._limits.silence_ms / 1000

    def _warning_at(self) -> float | None:
        return self._warn_at if self._idle and self._listening and not self._running else None

    def _renewal_at(self) -> float | None:
        if self._renew_by is None or self._reopening:
            return None
        return self._clock() if self._idle and not self._running else self._renew_by - RENEW_AHEAD_S

    def _keys_until(self) -> float | None:
        return self._keys_at + self._settings.turns.dtmf_pause_ms / 1000 if self._keys else None

    def _expect(self, now: float, timing: Timing | None = None) -> None:
        """The model is to begin a reply."""
        self._awaiting, self._timing = now, timing or Timing()
        self._unanswered_at, self._unwanted = None, False

    # -- events -----------------------------------------------------------------------------------------------

    def _handle(self, event: _Event) -> None:
        now = self._clock()
        match event:
            case _FromLine():
                if event.number == self._line.number:
                    self._from_line(now, event.event)
            case SpeechStarted():
                self._voice_since = event.at
                if self._listening:
                    self._voice_started(now, event.at)
            case SpeechStopped():
                began, self._voice_since = self._voice_since, None
                self._voice_ended_at = event.at
                if self._listening and began is not None:
                    self._voice_stopped(now, began, event.at)
            case UtteranceStarted():
                self._floor.started(event.generation, event.at)
                self._spoke = True
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
            case _ToolDone():
                self._tool_done(now, event)
            case _LineUp():
                self._line_up(now)
            case _LineLost():
                self._line_lost(event.error)
            case _VoiceFailed():
                self._voice_failed(event)
            case _HandedOver():
                self._done = self._toolbox.done
                if self._done is None and self._last_words is not None:
                    self._tone = None
                    self._close(self._settings.phrases.apology, self._last_words)

    def _from_line(self, now: float, event: RealtimeEvent) -> None:
        match event:
            case AgentAudio():
                turn = self._floor.find(event.item)
                if turn is not None and isinstance(turn.speech, Reply):
                    turn.first_at = now if turn.first_at is None else turn.first_at
                    turn.last_at = now
                    turn.speech.add_audio(event.pcm)
            case AgentText():
                turn = self._floor.find(event.item)
                if turn is not None and isinstance(turn.speech, Reply):
                    turn.last_at = now
                    turn.speech.add_text(event.text)
            case ReplyStarted():
                self._reply_started(now, event)
            case ReplyEnded():
                self._reply_ended(now, event)
            case CallerSpeaks():
                if self._listening:
                    self._caller_speaks(now, event)
            case CallerSaid():
                self._caller_said(now, event)
            case ToolAsked():
                if self._last_words is None:
                    self._run_tool(now, event.call)
            case ToolCancelled():
                task = self._running.pop(event.call_id, None)
                if task is not None:
                    task.cancel()
            case SessionEnding():
                self._renew_by = now + event.left_s
            case RealtimeFailed():
                if event.fatal:
                    self._break(event.error)
                else:
                    self._record.note("realtime", str(event.error))

    # -- the caller -------------------------------------------------------------------------------------------

    def _voice_started(self, now: float, at: float) -> None:
        self._unanswered_at = None
        self._line.keep(True)
        self._toolbox.voice(True)
        if self._ours:
            self._speaks_over(now, at)

    def _speaks_over(self, now: float, at: float) -> None:
        turn = self._floor.turn
        if turn is not None:
            self._apply_bargein(
                self._bargein.voice_started(
                    now,
                    at,
                    interruptible=turn.interruptible and not self._toolbox.transferring,
                    audible=turn.started_at is not None,
                    remaining_ms=turn.speech.remaining_ms,
                )
            )

    def _voice_stopped(self, now: float, began: float, at: float) -> None:
        self._toolbox.voice(False)
        if self._ours:
            self._apply_bargein(self._bargein.voice_stopped(now, at))
        long = (at - began) * 1000 >= self._waits.unanswered_voice_ms
        if long and self._floor.free and self._awaiting is None and not self._running:
            self._unanswered_at = now + self._waits.unanswered_ms / 1000

    def _caller_speaks(self, now: float, event: CallerSpeaks) -> None:
        began_at = min(now, self._voice_ended_at) if self._voice_since is None else self._voice_since
        if not event.ended:
            self._awaiting = None
            self._callers.began(event.item, now if self._voice_since is None else began_at)
            self._line.keep(True)
            turn = self._floor.turn
            stops = turn is not None and turn.interruptible and self._settings.barge_in.enabled
            if not self._ours and stops and not self._toolbox.transferring:
                self._interrupt(Confirmed(now, 0.0, "the model heard the caller"))
            return
        ended_at = now if self._voice_since is not None else min(now, self._voice_ended_at)
        self._callers.ended(event.item, ended_at, now)
        self._reprompts = 0
        self._silent_since = now
        self._spoke = not self._floor.free
        if not self._toolbox.listening:
            self._expect(now, Timing(ended_at, (now - ended_at) * 1000))

    def _caller_said(self, now: float, event: CallerSaid) -> None:
        self._callers.said(event.item, event.text, now)
        self._toolbox.spoken(event.text)
        turn, saying = self._floor.turn, ""
        if turn is not None:
            position = turn.speech.heard_ms
            saying = turn.speech.between(position - ECHO_WINDOW_MS, position)
        if self._ours and self._listening:
            self._apply_bargein(self._bargein.heard(now, event.text, settled=True, saying=saying))

    def _key(self, now: float, digit: str) -> None:
        self._reprompts = 0
        if self._toolbox.key(digit):
            return
        turn = self._floor.turn
        if turn is not None and turn.interruptible:
            self._apply_bargein(self._bargein.key(now))
        if digit == "#":
            if self._keys:
                self._tell_keys(now)
            return
        if not self._keys:
            self._keys_from = now
        self._keys += digit
        self._keys_at = now

    def _tell_keys(self, now: float) -> None:
        keys, self._keys = self._keys, ""
        self._callers.pressed(keys, self._keys_from, self._keys_at)
        text = f"(The caller pressed these keys: {' '.join(keys)})"
        self._history.add(Message("user", text))
        self._line.tell(text)
        self._spoke = False
        self._expect(now, Timing(self._keys_at))

    def _hold(self, now: float) -> None:
        if not self._held:
            self._held = True
            self._apply_bargein(self._bargein.abandon(now))
            self._unanswered_at = None
            self._line.hear(False)
            self._floor.pause("hold")

    def _resume(self, now: float) -> None:
        if self._held:
            self._held = False
            self._silent_since = now
            if self._awaiting is not None:
                self._awaiting = now
            self._line.hear(self._last_words is None)
            self._floor.unpause("hold")
            if self._voice_since is not None and self._listening:
                self._voice_started(now, now)

    # -- replies ----------------------------------------------------------------------------------------------

    def _reply_started(self, now: float, event: ReplyStarted) -> None:
        words = self._words.pop(event.mark, None) if event.mark else None
        unwanted, self._unwanted = self._unwanted, False
        if words is None and (unwanted or self._last_words is not None or self._toolbox.listening):
            # Its own ear's answer to a noise, to what it is not to hear, or to digits that a tool takes.
            self._line.interrupt(event.item, 0.0)
            return
        turn = RealtimeTurn(Reply(self._leg.playout), event.item, event.mark, timing=self._timing, last_at=now)
        turn.asked_at = now if self._awaiting is None else self._awaiting
        turn.created_at = now
        if words is not None:
            turn.interruptible, turn.ends = words.interruptible, words.ends
        self._awaiting, self._timing, self._unanswered_at = None, Timing(), None
        self._going_on = False
        if self._voice_since is None:
            self._line.keep(False)
        self._floor.add(turn)
        if self._floor.turn is turn and self._voice_since is not None and self._listening and self._ours:
            # The caller went on talking: the model's ear took a pause for the end.
            self._speaks_over(now, self._voice_since)

    def _reply_ended(self, now: float, event: ReplyEnded) -> None:
        if not event.item:
            self._awaiting = None
            self._silent_since = now
            return
        turn = self._floor.find(event.item)
        if turn is None or not isinstance(turn.speech, Reply):
            return
        if event.completed or event.error:
            turn.speech.finish()
            if event.error:
                self._record.note("reply-incomplete", event.error)
            if turn.speech.audio_ms == 0:
                self._nothing_said(now, turn)
        elif turn is self._floor.turn:
            self._interrupt(Confirmed(now, 0.0, "the model heard the caller"))
        else:
            self._floor.forget(event.item)

    def _nothing_said(self, now: float, turn: RealtimeTurn) -> None:
        """A reply without audio: the playout will not tell of its end."""
        if turn is self._floor.turn:
            self._floor.cut(now)
            self._floor.go_on()
            self._silent_since = now
        else:
            self._floor.forget(turn.item)
        if turn.ends is not None:
            self._finish(turn.ends, now)

    def _utterance_finished(self, now: float, event: UtteranceFinished) -> None:
        if event.generation == self._tone:
            self._last_words_over(now)
            return
        turn = self._floor.finished(event.generation, event.at)
        if turn is None:
            return
        if turn.ends is not None:
            self._finish(turn.ends, event.at)
            return
        self._silent_since = event.at
        self._apply_bargein(self._bargein.agent_stopped(now))

    def _finish(self, done: AgentDone, at: float) -> None:
        """All was said: hang up once the far side has played it."""
        self._last_words = done
        self._line.hear(False)
        self._floor.forget_behind()
        self._last_words_over(at + (self._limits.goodbye_tail_ms + self._leg.playout.far_buffer_ms) / 1000)

    def _last_words_over(self, at: float) -> None:
        """They were played out by `at`: hang up then, or put the caller through."""
        if self._hands_over:
            self._hands_over = False
            self._last_words_by = at + self._limits.transfer_ms / 1000 + self._limits.closing_s
            self._start(self._hand_over())
        else:
            self._finish_at = at

    async def _hand_over(self) -> None:
        """Put the caller through to a person, since we can't go on; where that fails, say so and hang up."""
        await self._toolbox.hand_over()
        self._inbox.post(_HandedOver())

    def _remember(self, turn: RealtimeTurn, heard_ms: float | None) -> None:
        said = turn.speech.said()
        heard = said if heard_ms is None else turn.speech.heard(heard_ms)
        place = self._history.place() if turn.place is None else turn.place
        place[:] = [Message("assistant", heard, interrupted=heard != said)] if heard else []

    def _apply_bargein(self, outputs: list[BargeInOutput]) -> None:
        for output in outputs:
            log.debug("barge-in", call=self._session.call_id, decision=output)
            turn = self._floor.turn
            audible = turn is not None and turn.started_at is not None
            match output:
                case Pause():
                    self._paused_at = self._clock()
                    self._floor.pause("barge-in")
                case WantPartial():
                    pass
                case Rejected():
                    self._floor.unpause("barge-in")
                    if audible:
                        self._record.barge_in(output)
                case Confirmed():
                    self._interrupt(output)
                case ForgetWords():
                    self._forget_answers()

    def _interrupt(self, decision: Confirmed) -> None:
        """The caller has the floor."""
        now = self._clock()
        turn = self._floor.turn
        if turn is None:
            return
        if turn.started_at is not None:
            self._record.barge_in(decision)
        heard_ms = turn.speech.heard_ms
        self._floor.cut(decision.paused_at)
        if turn.model:
            self._line.interrupt(turn.item, heard_ms)
        for behind in self._floor.forget_behind():
            if behind.created_at >= decision.paused_at:
                # The answer to what the caller interrupted with.
                self._floor.add(behind)
            elif behind.model:
                self._line.interrupt(behind.item, 0.0)
        self._bargein.abandon(now)
        self._silent_since = now

    def _forget_answers(self) -> None:
        """What the caller said was noise or a backchannel: its answers are not to be heard."""
        for behind in self._floor.forget_behind():
            if behind.created_at >= self._paused_at and behind.model and not behind.mark:
                self._line.interrupt(behind.item, 0.0)
            else:
                self._floor.add(behind)
        if self._awaiting is not None:
            self._awaiting, self._unwanted = None, True

    # -- words of our own -------------------------------------------------------------------------------------

    def _greet(self) -> None:
        settings = self._settings
        turn = self._say(settings.greeting, interruptible=settings.greeting_interruptible)
        if turn is not None:
            # The session that is being opened meanwhile has to know of it.
            turn.place = self._history.place()
            turn.place.append(Message("assistant", settings.greeting))

    def _say(self, text: str, *, interruptible: bool = True, ends: AgentDone | None = None) -> RealtimeTurn | None:
        """Say fixed words: by the voice of our own (then its turn is returned), else by the model."""
        if self._tts is not None:
            return self._speak(self._tts, text, interruptible, ends)
        self._marks += 1
        mark = f"say-{self._marks}"
        self._words[mark] = _Words(text, interruptible, ends)
        if self._line.up:
            self._line.say(text, mark)
        self._expect(self._clock())
        return None

    def _speak(self, tts: Tts, text: str, interruptible: bool, ends: AgentDone | None) -> RealtimeTurn:
        settings, limits = self._settings, self._limits
        speech = Speech(
            self._leg.playout,
            tts,
            VoiceOptions(settings.voice, settings.language, limits.tts_chunk_ms / 1000, limits.look_ahead_ms),
            clock=self._clock,
            failed=lambda error: self._record.provider_failed("tts", error),
            switched=self._record.provider_switched,
        )
        turn = RealtimeTurn(speech, interruptible=interruptible, ends=ends, created_at=self._clock())
        speech.say(text)
        speech.finish()
        turn.stop = self._start(self._synthesise(turn, speech)).cancel
        self._floor.add(turn)
        return turn

    async def _synthesise(self, turn: RealtimeTurn, speech: Speech) -> None:
        try:
            await speech.run()
        except EngineError as error:
            self._inbox.post(_VoiceFailed(turn, error))

    def _voice_failed(self, event: _VoiceFailed) -> None:
        """The model says it in its place, if it can."""
        turn, self._tts = event.turn, None
        if turn is self._floor.turn:
            self._floor.cut(self._clock())
            if self._line.up or self._reopening:
                self._say(turn.speech.said(), interruptible=turn.interruptible, ends=turn.ends)
            elif turn.ends is not None:
                self._lose_words("the voice failed")
            self._floor.go_on()

    def _break_silence(self) -> None:
        phrases = self._settings.phrases
        if self._reprompts < self._limits.max_reprompts:
            self._reprompts += 1
            self._say(phrases.still_there)
        else:
            self._say(phrases.silence_goodbye, ends=AgentDone(Cause.SILENCE))

    def _close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        now = self._clock()
        self._last_words, self._last_words_by = done, now + self._limits.closing_s
        self._bargein.abandon(now)
        self._line.hear(False)
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        turn = self._floor.turn
        if turn is not None:
            heard_ms = turn.speech.heard_ms
            self._floor.cut(now)
            if turn.model:
                self._line.interrupt(turn.item, heard_ms)
        for behind in self._floor.forget_behind():
            if behind.model:
                self._line.interrupt(behind.item, 0.0)
        self._words.clear()
        self._awaiting = None
        if self._tts is not None or self._line.up:
            self._say(text, interruptible=False, ends=done)
        else:
            self._lose_words("the last words could not be spoken")

    def _lose_words(self, why: str) -> None:
        """The last words can't be spoken: a tone stands for them."""
        self._awaiting = None
        self._words.clear()
        if self._tone is None:
            self._floor.cut(self._clock())
            self._tone = self._floor.sound_tone()
            self._record.note("tone", why)

    # -- the line ---------------------------------------------------------------------------------------------

    def _break(self, error: ProviderError) -> None:
        """The session is of no use any more: another one is to go on."""
        if self._reopening:
            return
        if self._last_words is not None:
            self._record.provider_failed("realtime", error)
            if self._finish_at is None and (self._words or self._floor.free):
                self._lose_words("the model failed at the last words")
            return
        now = self._clock()
        turn = self._floor.turn
        self._going_on = self._going_on or (turn is not None and turn.model and not _complete(turn))
        for broken in (turn, *self._floor.forget_behind()):
            if broken is not None and isinstance(broken.speech, Reply) and broken is turn:
                broken.speech.finish()
                if broken.speech.audio_ms == 0:
                    self._nothing_said(now, broken)
        if self._awaiting is not None and not self._callers.awaits_text and self._voice_since is None:
            # What the caller said is known in words: the next one need not hear it.
            self._line.keep(False)
        self._callers.forget_open()
        self._reopening = True
        self._start(self._reach(lambda: self._line.replace(error)))

    def _line_up(self, now: float) -> None:
        self._reopening = False
        self._renew_by = None
        if self._last_words is not None:
            return
        if self._words:
            for mark, words in self._words.items():
                self._line.say(words.text, mark)
            self._expect(now)
        elif self._callers.without_text():
            # It was given the caller's audio anew, and answers when it has heard it.
            self._awaiting = None
            self._unanswered_at = now + self._waits.unanswered_ms / 1000
        elif self._going_on:
            self._line.tell(GO_ON)
            self._expect(now)
        elif self._awaiting is not None:
            self._line.respond()
            self._expect(now, self._timing)
        self._going_on = False

    def _line_lost(self, error: ProviderError) -> None:
        self._reopening = False
        self._record.provider_failed("realtime", error)
        if self._last_words is None:
            phrases = self._settings.phrases
            self._hands_over = self._toolbox.can_hand_over
            apology = phrases.apology_handover if self._hands_over else phrases.apology
            self._close(apology, AgentDone(Cause.ENGINE_FAILED, f"realtime: {error}"))

    # -- tools ------------------------------------------------------------------------------------------------

    def _run_tool(self, now: float, call: ToolCall) -> None:
        self._awaiting = None
        self._running[call.id] = self._start(self._carry_out(call, self._line.number))
        if self._toolbox.manner(call).covered and self._filler_at is None:
            self._filler_at = now + self._limits.tool_filler_ms / 1000

    async def _carry_out(self, call: ToolCall, number: int) -> None:
        manner = self._toolbox.manner(call)
        if manner.announce is not None:
            # The caller hears what happens before the line is taken away.
            if self._floor.free and not self._spoke:
                self._say(manner.announce)
            await self._drained()
        result = await self._toolbox.call(call, asked=self._drained)
        self._inbox.post(_ToolDone(call, number, result))

    async def _drained(self) -> None:
        """Return when all that was said so far was played."""
        self._quiet.clear()
        self._inbox.post(Listening(self._toolbox.listening))
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._quiet.wait()

    def _tool_done(self, now: float, event: _ToolDone) -> None:
        call, result = event.call, event.result
        if self._running.pop(call.id, None) is None:
            return
        self._silent_since = now
        if not self._running:
            self._filler_at = None
        self._history.add(Message("assistant", "", (call,)), Message("tool", result.content, tool_call_id=call.id))
        hang_up, self._toolbox.hang_up_asked = self._toolbox.hang_up_asked, False
        if self._toolbox.done is not None:
            self._done = self._toolbox.done
            return
        ends = hang_up and result.ok
        self._line.tool_result(event.number, call, result.content, go_on=not ends)
        if ends:
            self._hang_up(now)
        elif not self._running:
            self._expect(now)

    def _hang_up(self, now: float) -> None:
        """The model wants the call to end once it has spoken."""
        done = AgentDone(Cause.AGENT_HUNG_UP)
        last = self._floor.last
        if last is not None:
            last.ends = done
        elif self._spoke:
            self._finish(done, now)
        else:
            self._say(self._settings.brief.goodbye, ends=done)

    def _close_record(self) -> None:
        """The call is over: put on record what is under way."""
        now = self._clock()
        self._floor.cut(now)
        self._floor.forget_behind()
        self._callers.close(now)


def _complete(turn: RealtimeTurn) -> bool:
    return not isinstance(turn.speech, Reply) or turn.speech.complete
