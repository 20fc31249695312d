"""A caller for tests of recognisers: what he says goes into an ear frame by frame, what is heard is kept."""

import asyncio
from collections.abc import Callable

from standin_ear import quiet, tone

from bridge.audio.frames import frame_bytes
from bridge.providers.base import Heard, Stt, SttEndpoint, SttEvent, SttFailed, SttStream

WITHIN_S = 30.0


class Talk:
    """One call's ear."""

    def __init__(self, sample_rate: int) -> None:
        self.rate = sample_rate
        self.events: list[SttEvent] = []
        self._more = asyncio.Event()
        self.stream: SttStream

    @classmethod
    async def open(cls, stt: Stt, *, sample_rate: int = 8000, language: str = "en-US") -> "Talk":
        talk = cls(sample_rate)
        talk.stream = await stt.open(sample_rate=sample_rate, language=language, emit=talk._heard)
        return talk

    def _heard(self, event: SttEvent) -> None:
        self.events.append(event)
        self._more.set()

    # -- what the caller does -------------------------------------------------------------------------------

    def audio(self, pcm: bytes) -> None:
        size = frame_bytes(self.rate)
        for at in range(0, len(pcm), size):
            self.stream.push(pcm[at : at + size])

    def silence(self, ms: int) -> None:
        self.audio(quiet(ms, self.rate))

    def speak(self, ms: int = 600, *, noticed_ms: int = 100) -> None:
        """Voice that goes on; our voice activity notices it `noticed_ms` after its onset."""
        self.audio(tone(noticed_ms, self.rate))
        self.stream.speech_started()
        self.audio(tone(ms - noticed_ms, self.rate))

    def pause(self, *, noticed_ms: int = 200) -> None:
        """The voice stops, noticed so much later."""
        self.silence(noticed_ms)
        self.stream.speech_paused()

    def say(self, ms: int = 600) -> None:
        """An utterance and the pause after it."""
        self.speak(ms)
        self.pause()

    # -- what was heard -------------------------------------------------------------------------------------

    @property
    def heard(self) -> list[Heard]:
        return [event for event in self.events if isinstance(event, Heard)]

    @property
    def settled(self) -> list[Heard]:
        return [heard for heard in self.heard if heard.settled]

    @property
    def partials(self) -> list[str]:
        return [heard.text for heard in self.heard if not heard.settled]

    @property
    def endpoints(self) -> list[SttEndpoint]:
        return [event for event in self.events if isinstance(event, SttEndpoint)]

    @property
    def failures(self) -> list[SttFailed]:
        return [event for event in self.events if isinstance(event, SttFailed)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def settle(self, pause: int) -> Heard:
        """The settled text of that pause."""
        await self.until(lambda: any(heard.pause == pause for heard in self.settled) or bool(self.failures))
        assert not self.failures, self.failures
        return next(heard for heard in self.settled if heard.pause == pause)

    async def failure(self) -> str:
        """What the stream's end was."""
        await self.until(lambda: any(failed.fatal for failed in self.failures))
        return next(failed.error for failed in self.failures if failed.fatal)
