"""The echo agent: what it hears it sends back in the same tick, after jitter buffer and voice activity detection."""

import asyncio

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.settings import EchoSettings
from bridge.audio.frames import BYTES_PER_SAMPLE
from bridge.audio.voice import SpeechStarted, VoiceEvent
from bridge.events import Cause, Note


class EchoAgent:
    """An `Agent`. The voice detector runs as it does for a conversation: its cost is measured with the rest."""

    def __init__(self, name: str, settings: EchoSettings) -> None:
        self.name = name
        self._settings = settings

    async def warm(self) -> None:
        """There is nothing to open."""

    async def run(self, session: CallSession) -> AgentDone:
        """Send back until the caller hangs up (then it is cancelled) or the call is too long."""
        echo = _Echo(session, self._settings.max_delay_ms)
        try:
            left = session.answered_at + self._settings.max_call_s - session.clock()
            await asyncio.sleep(max(0.0, left))
        finally:
            echo.close()
        return AgentDone(Cause.MAX_LENGTH, f"{self._settings.max_call_s} s")


class _Echo:
    """One call's echo."""

    def __init__(self, session: CallSession, max_delay_ms: float) -> None:
        self._session = session
        self._playout = session.leg.playout
        self._max_queued = int(max_delay_ms * session.leg.playout.sample_rate * BYTES_PER_SAMPLE / 1000)
        """Bytes."""
        self._bursts = 0
        self._dropped = 0
        self._generation = self._playout.begin()
        detector = session.open_voice(session.leg.sample_rate, self._voice)
        # No reference for the detector: all that goes out is the caller's own voice.
        self._unsubscribes = [session.leg.listen(detector.push), session.leg.listen(self._send_back)]
        self._detector = detector

    def _voice(self, event: VoiceEvent) -> None:
        self._bursts += isinstance(event, SpeechStarted)

    def _send_back(self, pcm: bytes, now: float) -> None:
        playout = self._playout
        if playout.queued_bytes + len(pcm) > self._max_queued:
            self._dropped += 1
        else:
            playout.write(self._generation, pcm)

    def close(self) -> None:
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._detector.close()
        self._playout.drop()
        now = self._session.clock()
        detail = f"voice bursts: {self._bursts}, frames dropped: {self._dropped}"
        self._session.emit(Note("echo", detail, self._session.at_ms(now)))
