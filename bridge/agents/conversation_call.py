"""The conversation: one call between a caller and an agent of speech recognition, language model and voice.

Everything that happens (voice activity, text, played audio, keys, the leg's events) comes into one inbox and is
handled by one task in order; the turn detector and the barge-in detector decide, `Floor` speaks, `Ear` listens.
"""

import asyncio
from datetime import datetime

import structlog

from bridge.agents.agent_turn import Thinker, Timing
from bridge.agents.announcing import Announcer
from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_context import filled, known_facts, template_facts
from bridge.agents.call_ending import CallEnding
from bridge.agents.conversation_bargein import BargeIns
from bridge.agents.conversation_caller import CallerSide
from bridge.agents.ear import Ear
from bridge.agents.endings import HandedOver, LastWords
from bridge.agents.errors import EngineError
from bridge.agents.floor import CutOff, EngineFailed, Floor, Tasks
from bridge.agents.hold_music import HoldMusic
from bridge.agents.inbox import Inbox, listen_in
from bridge.agents.language import CallLanguage
from bridge.agents.memory import Memory
from bridge.agents.patience import Due, Patience, Situation
from bridge.agents.record import Record
from bridge.agents.semantic_sign import SemanticSign, SemanticVerdict
from bridge.agents.settings import AUTO, ConversationSettings
from bridge.agents.smart_turn import SmartTurn
from bridge.agents.speech import VoiceOptions
from bridge.agents.summary import Summariser
from bridge.agents.tools import Listening, Toolbox
from bridge.agents.tools_agent import AgentTools
from bridge.agents.turn_events import (
    TurnComplete,
)
from bridge.audio.frames import Unsubscribe
from bridge.audio.playout import PlayoutEvent, UtteranceFinished, UtteranceStarted
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed, TransferResult
from bridge.providers.base import (
    Heard,
    Llm,
    ProviderError,
    Stt,
    SttEndpoint,
    SttEvent,
    SttFailed,
    Switched,
    Tts,
    for_call,
)

log = structlog.get_logger(__name__)

MAX_STT_FAILURES = 3
"""Turns in a row whose text failed; then the caller is better sent away than asked again."""

_Event = VoiceEvent | SttEvent | PlayoutEvent | LegEvent | EngineFailed | Listening | SemanticVerdict | HandedOver


def _voice_options(settings: ConversationSettings) -> VoiceOptions:
    limits = settings.limits
    return VoiceOptions(
        settings.voice,
        settings.language,
        limits.tts_chunk_ms / 1000,
        limits.look_ahead_ms,
        settings.phrases.filler,
        limits.tts_filler_ms / 1000,
    )


class Conversation:
    """One call's conversation; made and run once, in the call's task."""

    def __init__(
        self,
        agent_settings: ConversationSettings,
        session: CallSession,
        *,
        stt: Stt,
        llm: Llm,
        tts: Tts,
        tools: AgentTools,
        semantic: SmartTurn | None,
        began_at: datetime,
    ) -> None:
        """`agent_settings` in no language yet; the engines are the agent's. `began_at` is the caller's date and time,
        one for the whole call: the brain replays what was said, and "tomorrow" must stay the same day."""
        settings = agent_settings.spoken_in(agent_settings.first_language)
        limits = settings.limits
        self._agent_settings = agent_settings
        self._settings = settings
        """In the language that is spoken at present."""
        self._session = session
        self._leg = session.leg
        self._clock = session.clock
        # A chain stays, for one call, with the provider that works.
        self._stt, call_llm, tts = for_call(stt), for_call(llm), for_call(tts)
        self._inbox: Inbox[_Event] = Inbox(session.clock)
        self._group = asyncio.TaskGroup()
        self._tasks = Tasks(self._group, self._inbox.post)
        self._unsubscribes: list[Unsubscribe] = []
        # The deterministic brain replays all that was said; only a language model needs it short.
        self._memory = Memory(limits.memory_messages, limits.memory_tokens if llm.follows_instructions else None)
        self._record = Record(session)
        self._semantic = SemanticSign(semantic, session.leg, self._record, self._inbox.post)
        self._toolbox = Toolbox(
            session, settings.brief, limits, tools, language=agent_settings.language, post=self._inbox.post
        )
        self._language = CallLanguage(
            settings.language,
            spoken=tuple(agent_settings.languages),
            follows=agent_settings.language == AUTO,
        )
        self._thinker = Thinker(
            call_llm,
            self._toolbox,
            settings,
            clock=session.clock,
            wall_clock=lambda: began_at,
            failed=lambda error: self._record.provider_failed("llm", error),
            switched=self._record.provider_switched,
            call_id=session.call_id,
            known=known_facts(session.leg.info, settings.context),
        )
        self._floor = Floor(
            session.leg.playout,
            tts,
            _voice_options(settings),
            self._thinker,
            memory=self._memory,
            record=self._record,
            tasks=self._tasks,
            clock=session.clock,
            remembered=Summariser(
                for_call(llm),
                self._memory,
                settings,
                call_id=session.call_id,
                now=lambda: began_at,
                start=self._tasks.start,
                note=self._record.note,
            ).consider,
        )
        self._music = HoldMusic(session.leg, self._floor.outlet, limits.tool_music_ms, self._record.note)
        self._thinker.music = self._music
        self._announcer = Announcer(tts, lambda: _voice_options(self._settings), self._record, session.clock)
        self._ear = Ear(
            self._stt,
            sample_rate=session.leg.sample_rate,
            language=agent_settings.language,
            emit=self._inbox.post,
            failed=lambda error: self._record.provider_failed("stt", error),
            open_s=limits.stt_open_ms / 1000,
        )
        self._bargein = BargeIns(
            settings.barge_in,
            self._floor,
            self._record,
            call_id=session.call_id,
            want_partial=self._ear.want_partial,
            confirmed=self._interrupt,
            forget=lambda why: self._caller.forget(self._clock(), why),
        )
        self._caller = CallerSide(
            settings,
            self._ear,
            self._semantic,
            self._floor,
            self._memory,
            self._record,
            self._toolbox,
            call_id=session.call_id,
            over=self._caller_done,
            forgotten=self._go_on,
        )
        self._cut_off: CutOff | None = None
        """What a barge-in cut off, until it is known that the caller said something instead."""
        self._held = False
        self._voice_on = False
        self._patience = Patience(limits, session.answered_at)
        self._stt_failures = 0
        self._last_words = LastWords(limits)
        self._ending = CallEnding(
            session,
            self._last_words,
            self._toolbox,
            self._floor.outlet,
            self._record,
            phrases=lambda: self._settings.phrases,
            speak=self._speak_last,
            start=self._tasks.start,
            told=self._inbox.post,
        )
        self._done: AgentDone | None = None

    async def run(self) -> AgentDone:
        """Greet, converse, and return why the call is to end."""
        try:
            async with self._group:
                self._wire()
                if greeting := self._greeting():
                    self._speak([greeting], interruptible=self._settings.greeting_interruptible)
                self._tasks.start(self._ear.open)
                done = await self._inbox.serve(self._handle, self._tick, self._deadline, lambda: self._done)
                self._tasks.cancel()
        finally:
            self._close_record()
            for unsubscribe in reversed(self._unsubscribes):
                unsubscribe()
            self._floor.outlet.close()
            await self._ear.aclose()
            await self._music.aclose()
            await self._toolbox.aclose()
        return done

    def _greeting(self) -> str:
        settings, session = self._settings, self._session
        facts = template_facts(session.call_id, session.leg.info, settings.context)
        return filled(settings.greeting, settings.greeting_plain, facts)

    def _wire(self) -> None:
        self._bargein.voice, self._unsubscribes = listen_in(self._session, self._inbox.post, self._ear.push)
        self._unsubscribes += self._semantic.listen()
        if (introductions := self._session.introductions) is not None:
            introductions.lend_voice(self._announcer)
            self._unsubscribes.append(lambda: introductions.lend_voice(None))

    def _deadline(self) -> float | None:
        if self._last_words.begun:
            return self._last_words.deadline()
        patience_at = self._patience.deadline(self._clock(), self._situation)
        due = (patience_at, self._caller.deadline(), self._bargein.deadline())
        return min(at for at in due if at is not None)

    def _tick(self, now: float) -> None:
        if self._last_words.begun:
            self._done = self._last_words.tick(now)
            return
        self._bargein.tick(now)
        self._caller.tick(now)
        self._lose_patience(self._patience.tick(now, self._situation))

    # -- events ---------------------------------------------------------------------------------------------

    def _handle(self, event: _Event) -> None:
        now = self._clock()
        match event:
            case SpeechStarted():
                self._voice_on = True
                self._toolbox.voice(True)
                if self._listening:
                    self._voice_started(now, event.at)
            case SpeechStopped():
                self._voice_on = False
                self._bargein.measure()
                self._toolbox.voice(False)
                if self._listening:
                    self._bargein.voice_stopped(now, event.at)
                    self._caller.voice_stopped(now, event.at)
            case Heard():
                self._stt_failures = 0
                if self._listening:
                    self._heard(now, event)
            case SttEndpoint():
                if self._listening:
                    self._caller.endpoint(now, event)
            case SemanticVerdict():
                if self._listening:
                    self._caller.judged(now, event)
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
            case HandedOver():
                self._done = self._ending.handed_over()
            case Listening():
                if event.on:
                    self._caller.expect(now, "number")
                if self._floor.turn is not None:
                    self._caller.floor(now, not event.on)

    @property
    def _listening(self) -> bool:
        return not self._held and not self._last_words.begun

    def _voice_started(self, now: float, at: float) -> None:
        self._ear.speech_started()
        self._semantic.speech_started()
        if not self._toolbox.listening:
            self._bargein.voice_started(now, at)
        self._caller.voice_started(now, at)

    def _heard(self, now: float, heard: Heard) -> None:
        if heard.settled and heard.text:
            self._language.heard(heard.language)
        if not self._bargein.heard(now, heard.text, settled=self._caller.settles(heard)):
            self._caller.heard(now, heard)

    def _change_language(self) -> None:
        """The caller speaks another language: think, speak and listen in it from now on."""
        self._settings = settings = self._agent_settings.spoken_in(self._language.current)
        self._caller.speak(settings)
        self._bargein.speak(settings.barge_in)
        self._thinker.speak(settings)
        self._floor.change_voice(_voice_options(settings))
        # A reply prepared already is in the other language.
        self._floor.drop_prepared()
        self._record.note("language", settings.language)

    def _hush(self) -> None:
        """The caller answers a tool's question, heard to its end or not."""
        self._floor.hush()
        self._toolbox.answering()

    def _key(self, now: float, digit: str) -> None:
        if self._toolbox.key(digit):
            self._hush()
            return
        self._patience.caller_spoke()
        if digit == "#" and not self._caller.open:
            return
        self._bargein.key(now)
        self._caller.key(now, digit)

    def _hold(self, now: float) -> None:
        if not self._held:
            self._held = True
            self._bargein.abandon(now)
            if self._caller.text and self._floor.turn is None:
                # What the caller said is answered when the line is back.
                self._cut_off = CutOff()
            self._caller.abandon(now, "the line went on hold")
            self._floor.outlet.pause("hold")

    def _resume(self, now: float) -> None:
        if self._held:
            self._held = False
            self._patience.silent_since(now)
            self._floor.outlet.unpause("hold")
            if self._voice_on and self._listening:
                self._voice_started(now, now)
            self._go_on()

    def _stt_failed(self, now: float, event: SttFailed) -> None:
        error = ProviderError(event.provider or self._stt.name, event.error)
        self._record.provider_failed("stt", error)
        self._stt_failures += 1
        if self._stt_failures >= MAX_STT_FAILURES:
            self._engine_failed(EngineFailed(EngineError("stt", error), None))
        elif event.fatal:
            self._tasks.start(self._ear.reopen)
        elif self._listening:
            self._caller.stt_failed(now)

    # -- the caller's turns ---------------------------------------------------------------------------------

    def _caller_done(self, turn: TurnComplete) -> None:
        self._cut_off = None
        timing = Timing() if turn.held else Timing(turn.ended_at, turn.endpoint_ms, turn.stt_ms, self._stt.name)
        if self._toolbox.spoken(turn.text):
            return
        if turn.text:
            if self._language.turn_over(turn.text):
                self._change_language()
            self._patience.caller_spoke()
            self._bargein.caller_spoke()
            self._memory.add_user(turn.text)
            self._reply(timing)
        elif self._patience.caller_unclear():
            self._say_silence_goodbye()
        else:
            self._speak([self._settings.brief.not_understood], timing=timing)

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
        self._caller.floor(self._clock(), True)

    def _reply(self, timing: Timing | None = None) -> None:
        self._floor.reply(timing)
        self._caller.floor(self._clock(), True)

    def _utterance_finished(self, now: float, event: UtteranceFinished) -> None:
        turn = self._floor.turn
        if event.generation == self._last_words.tone:
            self._ending.tone_finished(now)
        elif turn is not None and turn.speech.generation == event.generation:
            self._floor.finished(event.at)
            self._caller.asked(now, turn.speech.said())
            if turn.ends is not None:
                self._ending.spoken(turn.ends, event.at)
                return
            self._patience.silent_since(event.at)
            self._bargein.agent_stopped(now)
            self._caller.floor(now, False)

    def _interrupt(self, at: float) -> None:
        """The caller has the floor."""
        if self._toolbox.collecting:
            self._hush()
            return
        now, turn = self._clock(), self._floor.turn
        if turn is not None:
            self._caller.asked(now, turn.speech.said())
            self._bargein.stopping()
        self._cut_off = self._floor.cut(at)
        self._patience.silent_since(now)
        self._caller.floor(now, False)

    def _go_on(self) -> None:
        """The caller stopped the agent and then said nothing: go on, rather than leave both waiting."""
        cut_off = self._cut_off
        if cut_off is None or self._floor.turn is not None or self._caller.open or not self._listening:
            return
        self._cut_off = None
        if self._memory.awaits_reply:
            self._reply()
        elif cut_off.rest:
            self._floor.take_up(cut_off)
            self._caller.floor(self._clock(), True)
        else:
            self._speak([self._settings.brief.not_understood])

    # -- silence and the end --------------------------------------------------------------------------------

    @property
    def _situation(self) -> Situation:
        caller = self._caller
        return Situation(self._listening, self._floor.turn is not None, caller.started_at, bool(caller.text))

    def _lose_patience(self, due: Due | None) -> None:
        phrases = self._settings.phrases
        if due is not None:
            log.debug("patience", call=self._session.call_id, due=due.name)
        match due:
            case Due.REPROMPT:
                self._speak([phrases.still_there])
            case Due.SILENCE_GOODBYE:
                self._say_silence_goodbye()
            case Due.WANT_TEXT:
                self._ear.want_partial()
            case Due.WARNING:
                self._speak([phrases.max_length_warning])
            case Due.TOO_LONG:
                self._ending.close(phrases.max_length_goodbye, AgentDone(Cause.MAX_LENGTH))

    def _say_silence_goodbye(self) -> None:
        self._speak([self._settings.phrases.silence_goodbye], ends=AgentDone(Cause.SILENCE))

    def _speak_last(self, text: str, done: AgentDone) -> None:
        """Whatever else is under way."""
        now = self._clock()
        self._bargein.abandon(now)
        self._floor.cut(now)
        self._caller.abandon(now, "the call ends")
        self._speak([text], interruptible=False, ends=done)

    def _engine_failed(self, event: EngineFailed) -> None:
        turn, present = event.turn, self._floor.turn
        if turn is not None and turn is self._floor.prepared:
            # The caller may go on talking; if not, the reply is asked for anew, and fails then.
            self._floor.drop_prepared()
        elif not self._last_words.begun and (turn is None or turn is present):
            self._ending.apologise(AgentDone(Cause.ENGINE_FAILED, str(event.error)))
        elif self._last_words.begun and turn is not None and turn is present:
            self._floor.cut(self._clock())
            self._ending.sound_tone("the last words could not be spoken")

    def _close_record(self) -> None:
        """The call is over: put on record what is under way."""
        self._floor.cut(self._clock())
        self._floor.drop_prepared()
        self._caller.close()
