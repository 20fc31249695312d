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
from bridge.agents.bargein import Confirmed
from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_context import filled, known_facts, template_facts
from bridge.agents.endings import HandedOver, LastWords
from bridge.agents.hold_music import HoldMusic
from bridge.agents.inbox import Inbox, listen_in
from bridge.agents.patience import Due, Patience, Situation
from bridge.agents.realtime_bargein import THEIR_EAR, BargeIns
from bridge.agents.realtime_caller import CallerTurns, History
from bridge.agents.realtime_floor import RealtimeFloor, stalls_at
from bridge.agents.realtime_keys import Keys
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_tools import ToolDone, ToolRuns
from bridge.agents.realtime_turn import RealtimeTurn, Reply
from bridge.agents.realtime_words import RoteWords, VoiceFailed, Words
from bridge.agents.record import Record
from bridge.agents.tools import Listening, Toolbox
from bridge.agents.tools_agent import AgentTools
from bridge.audio.frames import Unsubscribe
from bridge.audio.playout import PlayoutEvent, UtteranceFinished, UtteranceStarted
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed, TransferResult
from bridge.providers.base import Message, ProviderError, ProviderTimeoutError, Tts
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


_Event = (
    VoiceEvent
    | PlayoutEvent
    | LegEvent
    | Listening
    | _FromLine
    | _LineUp
    | _LineLost
    | ToolDone
    | VoiceFailed
    | HandedOver
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
        self._inbox: Inbox[_Event] = Inbox(session.clock)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribes: list[Unsubscribe] = []
        self._record = Record(session)
        self._history = History(self._limits.memory_messages, self._limits.memory_tokens)
        self._callers = CallerTurns(self._record, self._history, text_s=self._waits.text_ms / 1000)
        self._floor = RealtimeFloor(session.leg.playout, self._record, self._remember)
        self._toolbox = Toolbox(
            session,
            settings.brief,
            self._limits,
            agent.tools,
            language=settings.language,
            post=self._inbox.post,
            has_voice=agent.tts is not None,
        )
        self._music = HoldMusic(session.leg, self._floor.outlet, self._limits.tool_music_ms, self._record.note)
        self._line = Line(
            agent.members, self._setup, self._waits, emit=self._told, switched=self._record.provider_switched
        )
        self._bargein = BargeIns(
            settings,
            self._floor,
            self._line,
            self._record,
            call_id=session.call_id,
            may_stop=lambda: not self._toolbox.transferring,
            unwanted=self._answer_unwanted,
            stopped=self._agent_stopped,
        )
        self._rote = RoteWords(
            settings,
            session,
            self._floor,
            self._line,
            self._record,
            tts=agent.tts,
            start=self._start,
            failed=self._inbox.post,
        )
        self._tools = ToolRuns(
            self._toolbox,
            filler_ms=self._limits.tool_filler_ms,
            music_after_s=self._music.after_s,
            start=self._start,
            announce=self._announce,
            drained=self._drained,
            done=self._inbox.post,
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
        self._going_on = False
        """A reply broke off with its session: the next one takes it up."""
        self._keys = Keys(settings.turns.dtmf_pause_ms)
        self._renew_by: float | None = None
        self._reopening = True
        self._quiet = asyncio.Event()
        # It is known whether anybody is about to speak (`_idle`): no pause is needed to be sure.
        self._patience = Patience(self._limits, session.answered_at, warning_pause_s=0.0)
        self._patience.silent_since(session.clock())
        self._last_words = LastWords(self._limits)
        self._done: AgentDone | None = None

    async def run(self) -> AgentDone:
        """Greet, converse, and return why the call is to end."""
        try:
            async with self._group:
                self._wire()
                if greeting := self._greeting():
                    self._greet(greeting)
                self._start(self._reach(self._line.open))
                done = await self._inbox.serve(self._handle, self._tick, self._deadline, lambda: self._done)
                for task in self._tasks:
                    task.cancel()
        finally:
            self._close_record()
            for unsubscribe in reversed(self._unsubscribes):
                unsubscribe()
            self._floor.outlet.close()
            await self._line.aclose()
            await self._music.aclose()
            await self._toolbox.aclose()
        return done

    def _wire(self) -> None:
        self._bargein.voice, self._unsubscribes = listen_in(self._session, self._inbox.post, self._line.push)
        introductions = self._session.introductions
        if introductions is not None and (speak := self._rote.announcer()) is not None:
            introductions.lend_voice(speak)
            self._unsubscribes.append(lambda: introductions.lend_voice(None))

    def _setup(self, member: Member[Realtime]) -> RealtimeSetup:
        settings = self._settings
        now, language = self._began_at, settings.language
        prompt = settings.instructions or render_prompt(settings.brief, now, language)
        known = known_facts(self._leg.info, settings.context)
        return RealtimeSetup(
            instructions="\n\n".join(filter(None, (prompt, known))),
            tools=self._toolbox.tools,
            sample_rate=self._leg.sample_rate,
            voice=member.voice,
            language=self._hears_in,
            call_id=self._session.call_id,
            history=self._history.messages,
            interrupts=self._bargein.interrupts,
        )

    def _told(self, event: RealtimeEvent) -> None:
        self._inbox.post(_FromLine(self._line.number, event))

    def _start(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Do it in the call's task group; what is returned cancels it."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

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
        if self._last_words.begun:
            due.append(self._last_words.deadline())
        else:
            due.append(self._patience.deadline(self._clock(), self._situation))
            due += [self._bargein.deadline(), self._unanswered_at, self._tools.filler_at]
            due += [self._stalled_at(), self._keys.deadline(), self._renewal_at(), self._music_at()]
        return min(at for at in due if at is not None)

    def _tick(self, now: float) -> None:
        self._callers.tick(now)
        awaiting_until = self._awaiting_until()
        if self._last_words.begun:
            self._done = self._last_words.tick(now)
            if self._done is None and awaiting_until is not None and now >= awaiting_until:
                self._lose_words("the model did not speak the last words")
            return
        self._bargein.tick(now)
        stalled_at, keys_until, renewal_at = self._stalled_at(), self._keys.deadline(), self._renewal_at()
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
            self._leave_session()
            self._line.keep(True)
            self._start(self._reach(self._line.renew))
        if self._tools.filler_at is not None and now >= self._tools.filler_at:
            self._tools.filler_at = None
            if self._tools and self._idle:
                self._say(Words(self._settings.phrases.filler))
        self._lose_patience(self._patience.tick(now, self._situation))
        music_at = self._tools.music_at
        self._music.want(music_at is not None and now >= music_at and self._may_wait)
        if self._floor.free and not self._rote.asked:
            self._quiet.set()
        else:
            self._quiet.clear()

    def _lose_patience(self, due: Due | None) -> None:
        phrases = self._settings.phrases
        match due:
            case Due.REPROMPT:
                self._say(Words(phrases.still_there))
            case Due.SILENCE_GOODBYE:
                self._say(Words(phrases.silence_goodbye, ends=AgentDone(Cause.SILENCE)))
            case Due.WARNING:
                self._say(Words(phrases.max_length_warning))
            case Due.TOO_LONG:
                self._close(phrases.max_length_goodbye, AgentDone(Cause.MAX_LENGTH))

    @property
    def _situation(self) -> Situation:
        waiting = self._reopening or bool(self._keys) or self._unanswered_at is not None
        listening = self._listening and self._idle and not self._tools
        return Situation(listening, not self._floor.free, None, False, excused=waiting)

    @property
    def _listening(self) -> bool:
        return not self._held and not self._last_words.begun

    @property
    def _idle(self) -> bool:
        """Nobody speaks, or is about to."""
        return self._may_wait and self._voice_since is None and not self._callers.open

    @property
    def _may_wait(self) -> bool:
        """The agent does not speak, and is not about to."""
        return self._floor.free and self._awaiting is None and not self._rote.asked

    def _music_at(self) -> float | None:
        wanted = self._music.possible and not self._music.playing and self._may_wait
        return self._tools.music_at if wanted else None

    def _awaiting_until(self) -> float | None:
        if self._awaiting is None or self._reopening or self._held:
            return None
        return self._awaiting + self._waits.first_ms / 1000

    def _stalled_at(self) -> float | None:
        turn = self._floor.turn
        if turn is None or self._held or self._reopening:
            return None
        return stalls_at(turn, self._clock(), self._waits.between_ms / 1000)

    def _renewal_at(self) -> float | None:
        if self._renew_by is None or self._reopening:
            return None
        return self._clock() if self._idle and not self._tools else self._renew_by - RENEW_AHEAD_S

    def _expect(self, now: float, timing: Timing | None = None) -> None:
        """The model is to begin a reply."""
        self._awaiting, self._timing = now, timing or Timing()
        self._unanswered_at = None

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
            case ToolDone():
                self._tool_done(now, event)
            case _LineUp():
                self._line_up(now)
            case _LineLost():
                self._line_lost(event.error)
            case VoiceFailed():
                self._voice_failed(event.turn)
            case HandedOver():
                self._handed_over()

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
                if not self._last_words.begun:
                    self._awaiting = None
                    self._tools.run(now, event.call, self._line.number)
            case ToolCancelled():
                self._tools.cancel(event.call_id)
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
        self._bargein.voice_started(now, at)

    def _voice_stopped(self, now: float, began: float, at: float) -> None:
        self._toolbox.voice(False)
        self._bargein.voice_stopped(now, at)
        long = (at - began) * 1000 >= self._waits.unanswered_voice_ms
        if long and self._floor.free and self._awaiting is None and not self._tools:
            self._unanswered_at = now + self._waits.unanswered_ms / 1000

    def _caller_speaks(self, now: float, event: CallerSpeaks) -> None:
        began_at = min(now, self._voice_ended_at) if self._voice_since is None else self._voice_since
        if not event.ended:
            self._awaiting = None
            self._callers.began(event.item, now if self._voice_since is None else began_at)
            self._line.keep(True)
            self._bargein.their_ear(now)
            return
        ended_at = now if self._voice_since is not None else min(now, self._voice_ended_at)
        self._callers.ended(event.item, ended_at, now)
        self._patience.caller_spoke()
        self._patience.silent_since(now)
        self._spoke = not self._floor.free
        self._unwanted = self._toolbox.listening
        if not self._unwanted:
            self._expect(now, Timing(ended_at, (now - ended_at) * 1000))

    def _caller_said(self, now: float, event: CallerSaid) -> None:
        self._callers.said(event.item, event.text, now)
        self._toolbox.spoken(event.text)
        if self._listening:
            self._bargein.said(now, event.text)

    def _key(self, now: float, digit: str) -> None:
        self._patience.caller_spoke()
        if self._toolbox.key(digit):
            return
        self._bargein.key(now)
        if self._keys.press(now, digit):
            self._tell_keys(now)

    def _tell_keys(self, now: float) -> None:
        keys = self._keys.take()
        self._callers.pressed(keys, self._keys.began_at, self._keys.ended_at)
        text = f"(The caller pressed these keys: {' '.join(keys)})"
        self._history.add(Message("user", text))
        self._line.tell(text)
        self._spoke = False
        self._expect(now, Timing(self._keys.ended_at))

    def _hold(self, now: float) -> None:
        if not self._held:
            self._held = True
            self._bargein.abandon(now)
            self._unanswered_at = None
            self._line.hear(False)
            self._floor.outlet.pause("hold")

    def _resume(self, now: float) -> None:
        if self._held:
            self._held = False
            self._patience.silent_since(now)
            if self._awaiting is not None:
                self._awaiting = now
            self._line.hear(not self._last_words.begun)
            self._floor.outlet.unpause("hold")
            if self._voice_since is not None and self._listening:
                self._voice_started(now, now)

    # -- replies ----------------------------------------------------------------------------------------------

    def _reply_started(self, now: float, event: ReplyStarted) -> None:
        words = self._rote.begun(event.mark)
        unwanted = not event.mark and (self._unwanted or self._toolbox.listening)
        if words is None and (unwanted or self._last_words.begun):
            # Its own ear's answer to a noise, to digits that a tool takes, or to what it is not to hear any more.
            self._unwanted = False
            self._line.interrupt(event.item, 0.0)
            return
        turn = RealtimeTurn(Reply(self._leg.playout), event.item, event.mark, timing=self._timing, last_at=now)
        turn.asked_at = now if self._awaiting is None else self._awaiting
        turn.created_at, turn.by = now, self._line.name
        if words is not None:
            turn.interruptible, turn.ends = words.interruptible, words.ends
        self._awaiting, self._timing, self._unanswered_at = None, Timing(), None
        self._going_on = False
        if self._voice_since is None:
            self._line.keep(False)
        self._floor.add(turn)
        if self._floor.turn is turn:
            self._floor_taken(now)

    def _floor_taken(self, now: float) -> None:
        """The agent takes the floor, perhaps from a caller who goes on talking: its ear took a pause for the end."""
        if self._voice_since is not None and self._listening:
            self._bargein.voice_started(now, self._voice_since)

    def _reply_ended(self, now: float, event: ReplyEnded) -> None:
        if not event.item:
            self._awaiting = None
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
                self._nothing_said(now, turn)
        elif turn is self._floor.turn:
            self._bargein.interrupt(now, Confirmed(now, 0.0, THEIR_EAR))
        else:
            self._floor.forget(event.item)

    def _nothing_said(self, now: float, turn: RealtimeTurn) -> None:
        """A reply without audio: the playout will not tell of its end."""
        if turn is self._floor.turn:
            self._floor.cut(now)
            self._floor.go_on()
            self._patience.silent_since(now)
        else:
            self._floor.forget(turn.item)
        if turn.ends is not None:
            self._finish(turn.ends, now)

    def _utterance_finished(self, now: float, event: UtteranceFinished) -> None:
        if event.generation == self._last_words.tone:
            self._last_words_over(self._last_words.sounded(now))
            return
        turn = self._floor.finished(event.generation, event.at)
        if turn is None:
            return
        if turn.ends is not None:
            self._finish(turn.ends, event.at)
            return
        self._patience.silent_since(event.at)
        self._bargein.agent_stopped(now)
        if not self._floor.free:
            self._floor_taken(now)

    def _finish(self, done: AgentDone, at: float) -> None:
        """All was said: hang up once the far side has played it."""
        self._line.hear(False)
        self._floor.forget_behind()
        self._last_words_over(self._last_words.spoken(done, at, self._leg.playout.far_buffer_ms))

    def _last_words_over(self, hand_over: bool) -> None:
        if hand_over:
            self._start(self._hand_over())

    async def _hand_over(self) -> None:
        await self._toolbox.hand_over()
        self._inbox.post(HandedOver())

    def _handed_over(self) -> None:
        """Where it failed, say so and hang up."""
        self._done = self._toolbox.done
        if self._done is None and self._last_words.ends is not None:
            self._last_words.tone = None
            self._close(self._settings.phrases.apology, self._last_words.ends)

    def _remember(self, turn: RealtimeTurn, heard_ms: float | None) -> None:
        said = turn.speech.said()
        heard = said if heard_ms is None else turn.speech.heard(heard_ms)
        place = self._history.place() if turn.place is None else turn.place
        place[:] = [Message("assistant", heard, interrupted=heard != said)] if heard else []

    def _agent_stopped(self, now: float) -> None:
        """The caller has the floor."""
        self._patience.silent_since(now)

    def _answer_unwanted(self) -> None:
        """What the caller said was noise: no answer to it is to be heard."""
        if self._awaiting is not None:
            self._awaiting, self._unwanted = None, True

    # -- words of our own -------------------------------------------------------------------------------------

    def _greeting(self) -> str:
        settings, session = self._settings, self._session
        facts = template_facts(session.call_id, session.leg.info, settings.context)
        return filled(settings.greeting, settings.greeting_plain, facts)

    def _greet(self, greeting: str) -> None:
        turn = self._say(Words(greeting, self._settings.greeting_interruptible))
        if turn is not None:
            # The session that is being opened meanwhile has to know of it.
            turn.place = self._history.place()
            turn.place.append(Message("assistant", greeting))

    def _say(self, words: Words) -> RealtimeTurn | None:
        turn = self._rote.say(words)
        if turn is None:
            self._expect(self._clock())
        return turn

    def _announce(self, text: str) -> None:
        """The caller hears what a tool will do, where the model itself said nothing."""
        if self._floor.free and not self._spoke:
            self._say(Words(text))

    async def _drained(self) -> None:
        """Return when all that was said so far was played."""
        self._quiet.clear()
        self._inbox.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._quiet.wait()

    def _voice_failed(self, turn: RealtimeTurn) -> None:
        """The model says it in its place, if it can."""
        self._rote.lose_voice()
        if turn is self._floor.turn:
            self._floor.cut(self._clock())
            if self._line.up or self._reopening:
                self._say(Words(turn.speech.said(), turn.interruptible, turn.ends))
            elif turn.ends is not None:
                if not self._last_words.begun:
                    self._last_words.begin(self._clock(), turn.ends)
                self._lose_words("the voice failed")
            self._floor.go_on()

    def _close(self, text: str, done: AgentDone) -> None:
        """Speak the last words, whatever else is under way, and end."""
        now = self._clock()
        self._last_words.begin(now, done)
        self._bargein.abandon(now)
        self._line.hear(False)
        self._tools.cancel_all()
        self._bargein.drop(now)
        self._rote.forget()
        self._awaiting = None
        if self._rote.has_voice or self._line.up:
            self._say(Words(text, interruptible=False, ends=done))
        else:
            self._lose_words("the last words could not be spoken")

    def _lose_words(self, why: str) -> None:
        """The last words can't be spoken: a tone stands for them."""
        self._awaiting = None
        self._rote.forget()
        if self._last_words.tone is None:
            self._floor.cut(self._clock())
            self._last_words.tone = self._floor.outlet.sound_tone()
            self._record.note("tone", why)

    # -- the line ---------------------------------------------------------------------------------------------

    def _break(self, error: ProviderError) -> None:
        """The session is of no use any more: another one is to go on."""
        if self._reopening:
            return
        if self._last_words.begun:
            self._record.provider_failed("realtime", error)
            if not self._last_words.over and (self._rote.asked or self._floor.free):
                self._lose_words("the model failed at the last words")
            return
        self._leave_session()
        self._start(self._reach(lambda: self._line.replace(error)))

    def _leave_session(self) -> None:
        """Another session is to go on where this one is."""
        now = self._clock()
        for turn in self._floor.turns:
            if isinstance(turn.speech, Reply) and not turn.speech.complete:
                self._going_on = True
                turn.speech.break_off()
                # It may still be playing when the next session is told what was said.
                turn.place = self._history.place()
                self._remember(turn, None)
                if turn.speech.audio_ms == 0:
                    self._nothing_said(now, turn)
        known = not self._callers.awaits_text and self._voice_since is None
        if known or (self._awaiting is None and self._voice_since is None and not self._callers.open):
            # What the caller said is known in words, or was answered: the next one need not hear it.
            self._line.keep(False)
        self._callers.forget_open()
        self._reopening = True

    def _line_up(self, now: float) -> None:
        self._reopening = False
        self._renew_by = None
        if self._last_words.begun:
            return
        if self._rote.asked:
            self._rote.ask_again()
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
        if not self._last_words.begun:
            can_hand_over = self._toolbox.can_hand_over
            apology = self._last_words.apologise(self._settings.phrases, can_hand_over=can_hand_over)
            self._close(apology, AgentDone(Cause.ENGINE_FAILED, f"realtime: {error}"))

    # -- tools ------------------------------------------------------------------------------------------------

    def _tool_done(self, now: float, event: ToolDone) -> None:
        call, result = event.call, event.result
        if not self._tools.finished(call):
            return
        self._patience.silent_since(now)
        self._history.add(Message("assistant", "", (call,)), Message("tool", result.content, tool_call_id=call.id))
        hang_up, self._toolbox.hang_up_asked = self._toolbox.hang_up_asked, False
        if self._toolbox.done is not None:
            self._done = self._toolbox.done
            return
        ends = hang_up and result.ok
        self._line.tool_result(event.number, call, result.content, go_on=not ends)
        if ends:
            self._hang_up(now)
        elif not self._tools:
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
            self._say(Words(self._settings.brief.goodbye, ends=done))

    def _close_record(self) -> None:
        """The call is over: put on record what is under way."""
        now = self._clock()
        self._floor.cut(now)
        self._floor.forget_behind()
        self._callers.close(now)
