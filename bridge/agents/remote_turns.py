"""The record of a call that a remote bot talks on: who spoke when, by voice activity and playout. No words."""

from bridge.agents.base import CallSession
from bridge.agents.record import TurnLedger, TurnSlot
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent
from bridge.events import BargeIn, TurnDelays, TurnEnded

PAUSE_S = 1.0
"""A caller who is silent for longer begins a new turn."""


class RemoteTurns:
    """One call's. Times in s, in the session's clock."""

    def __init__(self, session: CallSession) -> None:
        self._session = session
        self._ledger = TurnLedger(session.emit)
        self._caller: TurnSlot | None = None
        self._voice_on = False
        self._last_voice = 0.0
        self._reply_to: float | None = None
        """When the caller's speech ended that the bot has not answered yet."""
        self._agent: TurnSlot | None = None
        self._reply_ms: float | None = None

    def voice(self, event: VoiceEvent) -> None:
        """A handler of the voice detector."""
        match event:
            case SpeechStarted():
                self._voice_on = True
                if self._caller is None:
                    self._caller = self._ledger.open(event.at)
            case SpeechStopped():
                self._voice_on = False
                self._last_voice = event.at
                self._reply_to = event.at

    def tick(self, now: float) -> None:
        if self._caller is not None and not self._voice_on and now - self._last_voice >= PAUSE_S:
            self._end_caller()

    def agent_started(self, at: float) -> None:
        if self._caller is not None and not self._voice_on:
            self._end_caller()
        self._agent = self._ledger.open(at)
        self._reply_ms = None if self._reply_to is None else (at - self._reply_to) * 1000
        self._reply_to = None

    def agent_ended(self, at: float, heard_ms: float, *, interrupted: bool) -> None:
        slot, self._agent = self._agent, None
        if slot is None:
            return
        at_ms = self._session.at_ms
        if interrupted:
            self._session.emit(BargeIn(at_ms(at), True, "the bot cleared its audio", 0.0))
        delays = TurnDelays(reply_ms=self._reply_ms)
        self._ledger.end(
            slot,
            TurnEnded(
                0,
                "agent",
                "",
                at_ms(slot.started_at),
                at_ms(max(at, slot.started_at)),
                heard_text="",
                heard_ms=heard_ms,
                interrupted=interrupted,
                delays=delays,
            ),
        )

    def close(self) -> None:
        """The call is over: what is open ends here."""
        if self._voice_on:
            self._last_voice = self._session.clock()
        self._end_caller()
        if self._agent is not None:
            self.agent_ended(self._session.clock(), 0.0, interrupted=True)

    def _end_caller(self) -> None:
        slot, self._caller = self._caller, None
        if slot is None:
            return
        at_ms, ended = self._session.at_ms, max(self._last_voice, slot.started_at)
        heard_ms = (ended - slot.started_at) * 1000
        self._ledger.end(
            slot, TurnEnded(0, "caller", "", at_ms(slot.started_at), at_ms(ended), heard_text="", heard_ms=heard_ms)
        )
