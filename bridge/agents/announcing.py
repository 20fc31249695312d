"""The agent's voice for others than its caller: a text, spoken into the playout of another leg."""

import asyncio
from collections.abc import Callable

from bridge.agents.base import SpeakError
from bridge.agents.errors import EngineError
from bridge.agents.record import Record
from bridge.agents.speech import Speech, VoiceOptions
from bridge.legs.base import Leg
from bridge.providers.base import Tts

LIFT_S = 0.6
"""From the answer to the first word: the telephone is on its way to the ear."""

TAIL_S = 0.3
"""After the last packet: the far jitter buffer plays it out."""


class Announcer:
    """One call's; a `Speak`."""

    def __init__(
        self, tts: Tts, options: Callable[[], VoiceOptions], record: Record, clock: Callable[[], float]
    ) -> None:
        """`options` tells how the agent sounds at present."""
        self._tts = tts
        self._options = options
        self._record = record
        self._clock = clock

    async def __call__(self, leg: Leg, text: str) -> None:
        """See `Speak`."""
        speech = Speech(
            leg.playout,
            self._tts,
            self._options(),
            clock=self._clock,
            failed=lambda error: self._record.provider_failed("tts", error),
            switched=self._record.provider_switched,
        )
        speech.feed(text)
        speech.finish()
        # The first clause is synthesised meanwhile.
        synthesis = asyncio.ensure_future(speech.run())
        try:
            await asyncio.wait({synthesis}, timeout=LIFT_S)
            speech.release()
            await synthesis
            await speech.drained()
            await asyncio.sleep(TAIL_S + leg.playout.far_buffer_ms / 1000)
        except EngineError as error:
            raise SpeakError(str(error)) from error
        finally:
            synthesis.cancel()
            speech.drop()
            await asyncio.wait({synthesis})
