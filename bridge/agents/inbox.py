"""An agent's inbox: everything that happens on a call, handled by one task in order, and the time between."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from bridge.agents.base import AgentDone, CallSession
from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import PlayoutEvent
from bridge.audio.voice import VoiceDetector, VoiceEvent
from bridge.events import LegEvent

E = TypeVar("E")

MIN_WAIT_S = 0.001


class Inbox(Generic[E]):
    """`post` from anywhere on the event loop's thread; `serve` in the call's task."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: deque[E] = deque()
        self._wake = asyncio.Event()

    def post(self, event: E) -> None:
        self._events.append(event)
        self._wake.set()

    def wake(self) -> None:
        """Something changed that `tick` looks at."""
        self._wake.set()

    async def serve(
        self,
        handle: Callable[[E], None],
        tick: Callable[[float], None],
        deadline: Callable[[], float | None],
        done: Callable[[], AgentDone | None],
    ) -> AgentDone:
        """Handle events until there is a result. `tick` is called after them with the time (s), and at `deadline`."""
        while True:
            while self._events and done() is None:
                handle(self._events.popleft())
            if done() is None:
                tick(self._clock())
            if (result := done()) is not None:
                return result
            if self._events:
                continue
            self._wake.clear()
            due = deadline()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(MIN_WAIT_S, due - self._clock())):
                    await self._wake.wait()


def listen_in(
    session: CallSession, post: Callable[[VoiceEvent | LegEvent | PlayoutEvent], None], ear: FrameSink
) -> tuple[VoiceDetector, list[Unsubscribe]]:
    """Have all that happens on a call's line told to `post`, and the caller's frames given to `ear`.

    Returns the voice detector, and what ends it all, to be called from the last to the first."""
    leg = session.leg
    detector = session.open_voice(leg.sample_rate, post)
    return detector, [
        detector.close,
        leg.listen(detector.push),
        leg.listen(ear),
        leg.subscribe(post),
        leg.playout.subscribe(post),
        leg.playout.listen(detector.reference),
    ]
