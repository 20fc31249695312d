"""A caller for tests of streaming recognisers: speaks into a stream as a call would, and notes what is heard."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self

from standin_ear import quiet, tone

from bridge.providers.base import Heard, Stt, SttEndpoint, SttEvent, SttFailed, SttStream

HANGOVER_MS = 180
"""Of our voice activity: a pause is told so long after the voice."""


class Caller:
    """Audio goes in as fast as the loop turns; voice activity is told where it would be."""

    def __init__(self, stt: Stt, *, sample_rate: int = 8000, language: str = "en") -> None:
        self._stt = stt
        self._rate = sample_rate
        self._language = language
        self.events: list[SttEvent] = []
        self.stream: SttStream

    async def __aenter__(self) -> Self:
        self.stream = await self._stt.open(sample_rate=self._rate, language=self._language, emit=self.events.append)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()

    async def speaks(self, ms: int) -> None:
        """Voice, told 60 ms after its onset."""
        await self._push(tone(60, self._rate))
        self.stream.speech_started()
        await self._push(tone(ms - 60, self._rate))

    async def pauses(self) -> None:
        """Silence until a pause is told."""
        await self.waits(HANGOVER_MS)
        self.stream.speech_paused()

    async def waits(self, ms: int) -> None:
        """Silence."""
        await self._push(quiet(ms, self._rate))

    async def says(self, ms: int) -> None:
        """Voice, then a pause."""
        await self.speaks(ms)
        await self.pauses()

    async def _push(self, pcm: bytes) -> None:
        frame = self._rate // 50 * 2
        for at in range(0, len(pcm), frame):
            self.stream.push(pcm[at : at + frame])
            await asyncio.sleep(0)

    # -- what was heard -------------------------------------------------------------------------------------------

    @property
    def heard(self) -> list[Heard]:
        return [event for event in self.events if isinstance(event, Heard)]

    @property
    def settled(self) -> list[Heard]:
        return [event for event in self.heard if event.settled]

    @property
    def partials(self) -> list[str]:
        return [event.text for event in self.heard if not event.settled]

    @property
    def endpoints(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, SttEndpoint)]

    @property
    def failures(self) -> list[SttFailed]:
        return [event for event in self.events if isinstance(event, SttFailed)]

    async def until(self, condition: Callable[[], Any], within_s: float = 30.0) -> None:
        """Wait, with silence on the line, until something is so. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not condition():
                await self.waits(20)
                await asyncio.sleep(0.002)

    async def until_settled(self, pause: int) -> Heard:
        """The first settled text for a pause."""
        await self.until(lambda: any(event.pause == pause for event in self.settled))
        return next(event for event in self.settled if event.pause == pause)


async def within(seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await work
