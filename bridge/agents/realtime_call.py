"""One call between a caller and a speech-to-speech model: everything that happens on it, in order, and time.

As in the conversation, everything that happens comes into one inbox and is handled by one task in order. `Line` is
the way to the model and `Sessions` keeps it up, `Hearing` is the caller's side, `Replies` the model's,
`RealtimeFloor` speaks, `Closing` ends.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_context import filled, known_facts, template_facts
from bridge.agents.call_ending import CallEnding, SpeakLast
from bridge.agents.endings import HandedOver, LastWords
from bridge.agents.hold_music import HoldMusic
from bridge.agents.inbox import Inbox, listen_in
from bridge.agents.patience import Due, Patience, Situation
from bridge.agents.realtime_bargein import BargeIns
from bridge.agents.realtime_caller import CallerTurns
from bridge.agents.realtime_closing import Closing
from bridge.agents.realtime_floor import RealtimeFloor, stalls_at
from bridge.agents.realtime_hearing import Hearing
from bridge.agents.realtime_history import History
from bridge.agents.realtime_line import Line
from bridge.agents.realtime_owed import OwedReply
from bridge.agents.realtime_replies import Replies
from bridge.agents.realtime_sessions import LineLost, LineUp, Sessions
from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.realtime_tools import ToolDone, ToolRuns
from bridge.agents.realtime_turn import RealtimeTurn
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

DRAIN_S = 20.0
"""What is said before a tool is called may last this long."""


@dataclass(frozen=True, slots=True)
class _FromLine:
    number: int
    event: RealtimeEvent


_Event = (
    VoiceEvent
    | PlayoutEvent
    | LegEvent
    | Listening
    | _FromLine
    | LineUp
    | LineLost
    | ToolDone
    | VoiceFailed
    | HandedOver
)


class RealtimeCall:
    """Made and run once, in the call's task."""

    def __init__(
        self,
        settings: RealtimeSettings,
        session: CallSession,
        *,
        members: Sequence[Member[Realtime]],
        tts: Tts | None,
        tools: AgentTools,
        hears_in: str,
        began_at: datetime,
    ) -> None:
        """`settings` in the language that the agent speaks; the caller is heard in `hears_in`. `began_at` is the
        caller's date and time."""
        limits, waits = settings.limits, settings.realtime_limits
        self._settings = settings
        self._hears_in = hears_in
        self._waits = waits
        self._session = session
        self._leg = session.leg
        self._clock = session.clock
        self._began_at = began_at
        self._inbox: Inbox[_Event] = Inbox(session.clock)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribes: list[Unsubscribe] = []
        self._record = Record(session)
        self._history = History(limits.memory_messages, limits.memory_tokens)
        self._callers = CallerTurns(self._record, self._history, text_s=waits.text_ms / 1000)
        self._floor = RealtimeFloor(session.leg.playout, self._record, self._history.spoken)
        self._owed = OwedReply(waits.first_ms)
        # It is known whether anybody is about to speak (`_idle`): no pause is needed to be sure.
        self._patience = Patience(limits, session.answered_at, warning_pause_s=0.0)
        self._patience.silent_since(session.clock())
        self._last_words = LastWords(limits)
        self._toolbox = Toolbox(
            session,
            settings.brief,
            limits,
            tools,
            language=settings.language,
            post=self._inbox.post,
            has_voice=tts is not None,
        )
        self._music = HoldMusic(session.leg, self._floor.outlet, limits.tool_music_ms, self._record.note)
        self._line = Line(members, self._setup, waits, emit=self._told, switched=self._record.provider_switched)
        self._bargein = BargeIns(
            settings,
            self._floor,
            self._line,
            self._record,
            call_id=session.call_id,
            may_stop=lambda: not self._toolbox.transferring,
            unwanted=self._owed.refuse,
            stopped=self._patience.silent_since,
        )
        self._rote = RoteWords(
            settings,
            session,
            self._floor,
            self._line,
            self._owed,
            self._record,
            tts=tts,
            start=self._start,
            failed=self._inbox.post,
        )
        self._tools = ToolRuns(
            self._toolbox,
            filler_ms=limits.tool_filler_ms,
            music_after_s=self._music.after_s,
            start=self._start,
            announce=self._announce,
            drained=self._drained,
            done=self._inbox.post,
        )
        self._hearing = Hearing(
            settings,
            self._line,
            self._floor,
            self._owed,
            self._callers,
            self._history,
            self._bargein,
            self._patience,
            self._toolbox,
            self._tools,
            self._last_words,
            answered_at=session.answered_at,
        )
        self._closing = Closing(
            session,
            self._line,
            self._floor,
            self._rote,
            self._owed,
            self._bargein,
            self._tools,
            self._last_words,
            self._record,
            self._call_ending,
        )
        self._replies = Replies(
            session.leg.playout,
            self._line,
            self._floor,
            self._rote,
            self._owed,
            self._hearing,
            self._bargein,
            self._patience,
            self._toolbox,
            self._last_words,
            self._closing,
            self._record,
        )
        self._sessions = Sessions(
            self._line,
            self._floor,
            self._rote,
            self._owed,
            self._callers,
            self._history,
            self._hearing,
            waits,
            nothing_said=self._replies.nothing_said,
            start=self._start,
            told=self._inbox.post,
        )
        self._quiet = asyncio.Event()
        self._done: AgentDone | None = None

    async def run(self) -> AgentDone:
        """Greet, converse, and return why the call is to end."""
        try:
            async with self._group:
                self._wire()
                if greeting := self._greeting():
                    self._greet(greeting)
                self._sessions.open()
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
        prompt = settings.instructions or render_prompt(settings.brief, self._began_at, settings.language)
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

    def _call_ending(self, speak: SpeakLast) -> CallEnding:
        return CallEnding(
            self._session,
            self._last_words,
            self._toolbox,
            self._floor.outlet,
            self._record,
            phrases=lambda: self._settings.phrases,
            speak=speak,
            start=lambda work: self._start(work()),
            told=self._inbox.post,
        )

    def _told(self, event: RealtimeEvent) -> None:
        self._inbox.post(_FromLine(self._line.number, event))

    def _start(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Do it in the call's task group; what is returned cancels it."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    # -- time -------------------------------------------------------------------------------------------------

    def _deadline(self) -> float | None:
        due = [self._owed_until(), self._callers.deadline()]
        if self._last_words.begun:
            due.append(self._last_words.deadline())
        else:
            now = self._clock()
            due.append(self._patience.deadline(now, self._situation))
            due += [self._bargein.deadline(), self._owed.ask_at, self._tools.filler_at]
            due += [self._stalled_at(), self._hearing.keys.deadline(), self._renewal_at(now), self._music_at()]
        return min(at for at in due if at is not None)

    def _tick(self, now: float) -> None:
        self._callers.tick(now)
        owed_until = self._owed_until()
        if self._last_words.begun:
            self._done = self._last_words.tick(now)
            if self._done is None and owed_until is not None and now >= owed_until:
                self._closing.lose_words("the model did not speak the last words")
            return
        self._bargein.tick(now)
        stalled_at = self._stalled_at()
        if owed_until is not None and now >= owed_until:
            self._break(now, ProviderTimeoutError(self._line.name, f"no reply within {self._waits.first_ms} ms"))
        elif stalled_at is not None and now >= stalled_at:
            self._break(now, ProviderTimeoutError(self._line.name, "the reply broke off in the middle"))
        if self._owed.ask_at is not None and now >= self._owed.ask_at:
            self._line.respond()
            self._owed.expect(now)
        self._hearing.tick(now)
        renewal_at = self._renewal_at(now)
        if renewal_at is not None and now >= renewal_at:
            self._sessions.renew(now)
        if self._tools.filler_at is not None and now >= self._tools.filler_at:
            self._tools.filler_at = None
            if self._tools and self._idle:
                self._rote.say(Words(self._settings.phrases.filler))
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
                self._rote.say(Words(phrases.still_there))
            case Due.SILENCE_GOODBYE:
                self._rote.say(Words(phrases.silence_goodbye, ends=AgentDone(Cause.SILENCE)))
            case Due.WARNING:
                self._rote.say(Words(phrases.max_length_warning))
            case Due.TOO_LONG:
                self._closing.close(phrases.max_length_goodbye, AgentDone(Cause.MAX_LENGTH))

    @property
    def _situation(self) -> Situation:
        waiting = self._sessions.opening or bool(self._hearing.keys) or self._owed.ask_at is not None
        listening = self._hearing.listening and self._idle and not self._tools
        return Situation(listening, not self._floor.free, None, False, excused=waiting)

    @property
    def _idle(self) -> bool:
        """Nobody speaks, or is about to."""
        return self._may_wait and self._hearing.voice_since is None and not self._callers.open

    @property
    def _may_wait(self) -> bool:
        """The agent does not speak, and is not about to."""
        return self._floor.free and self._owed.since is None and not self._rote.asked

    def _music_at(self) -> float | None:
        wanted = self._music.possible and not self._music.playing and self._may_wait
        return self._tools.music_at if wanted else None

    def _owed_until(self) -> float | None:
        return None if self._sessions.opening or self._hearing.held else self._owed.until()

    def _stalled_at(self) -> float | None:
        turn = self._floor.turn
        if turn is None or self._hearing.held or self._sessions.opening:
            return None
        return stalls_at(turn, self._clock(), self._waits.between_ms / 1000)

    def _renewal_at(self, now: float) -> float | None:
        return self._sessions.renewal_at(now, quiet=self._idle and not self._tools)

    # -- events -----------------------------------------------------------------------------------------------

    def _handle(self, event: _Event) -> None:
        now = self._clock()
        match event:
            case _FromLine():
                if event.number == self._line.number:
                    self._from_line(now, event.event)
            case SpeechStarted():
                self._hearing.voice_started(now, event.at)
            case SpeechStopped():
                self._hearing.voice_stopped(now, event.at)
            case UtteranceStarted():
                self._floor.started(event.generation, event.at)
            case UtteranceFinished():
                if event.generation == self._last_words.tone:
                    self._closing.tone_finished(now)
                else:
                    self._replies.played(now, event)
            case DtmfReceived():
                self._hearing.key(now, event.digit)
            case Held():
                self._hearing.hold(now)
            case Resumed():
                self._hearing.resume(now)
            case TransferResult():
                self._toolbox.transfer_result(event)
            case LegEnded():
                self._done = AgentDone(event.cause, event.detail)
            case ToolDone():
                self._tool_done(now, event)
            case LineUp():
                self._sessions.up(now, ending=self._last_words.begun)
            case LineLost():
                self._sessions.lost()
                self._closing.line_lost(event.error)
            case VoiceFailed():
                self._voice_failed(event.turn)
            case HandedOver():
                self._done = self._closing.handed_over()

    def _from_line(self, now: float, event: RealtimeEvent) -> None:
        match event:
            case AgentAudio():
                self._replies.audio(now, event)
            case AgentText():
                self._replies.text(now, event)
            case ReplyStarted():
                if self._replies.started(now, event):
                    self._sessions.going_on = False
            case ReplyEnded():
                self._replies.ended(now, event)
            case CallerSpeaks():
                self._hearing.speaks(now, event)
            case CallerSaid():
                self._hearing.said(now, event)
            case ToolAsked():
                if not self._last_words.begun:
                    self._owed.forget()
                    self._tools.run(now, event.call, self._line.number)
            case ToolCancelled():
                self._tools.cancel(event.call_id)
            case SessionEnding():
                self._sessions.ending(now + event.left_s)
            case RealtimeFailed():
                if event.fatal:
                    self._break(now, event.error)
                else:
                    self._record.note("realtime", str(event.error))

    def _break(self, now: float, error: ProviderError) -> None:
        """The session is of no use any more: another one is to go on."""
        if self._sessions.opening:
            return
        if self._last_words.begun:
            self._closing.line_broke(error)
        else:
            self._sessions.replace(now, error)

    # -- words of our own -------------------------------------------------------------------------------------

    def _greeting(self) -> str:
        settings, session = self._settings, self._session
        facts = template_facts(session.call_id, session.leg.info, settings.context)
        return filled(settings.greeting, settings.greeting_plain, facts)

    def _greet(self, greeting: str) -> None:
        turn = self._rote.say(Words(greeting, self._settings.greeting_interruptible))
        if turn is not None:
            # The session that is being opened meanwhile has to know of it.
            turn.place = self._history.place()
            turn.place.append(Message("assistant", greeting))

    def _announce(self, text: str) -> None:
        """The caller hears what a tool will do, where the model itself said nothing."""
        if self._floor.free and not self._floor.spoke:
            self._rote.say(Words(text))

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
            if self._line.up or self._sessions.opening:
                self._rote.say(Words(turn.speech.said(), turn.interruptible, turn.ends))
            elif turn.ends is not None:
                if not self._last_words.begun:
                    self._last_words.begin(self._clock(), turn.ends)
                self._closing.lose_words("the voice failed")
            self._floor.go_on()

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
            self._owed.expect(now)

    def _hang_up(self, now: float) -> None:
        """The model wants the call to end once it has spoken."""
        done = AgentDone(Cause.AGENT_HUNG_UP)
        last = self._floor.last
        if last is not None:
            last.ends = done
        elif self._floor.spoke:
            self._closing.finish(done, now)
        else:
            self._rote.say(Words(self._settings.brief.goodbye, ends=done))

    def _close_record(self) -> None:
        """The call is over: put on record what is under way."""
        now = self._clock()
        self._floor.cut(now)
        self._floor.forget_behind()
        self._callers.close(now)
