"""Channels that we create, awaited from before they are asked for: their StasisStart can come before the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError, AriTimeoutError
from bridge.asterisk.ari_events import AriEvent, Channel, ChannelDestroyed, StasisStart

LOOK_S = 0.25
"""Between two looks at a channel whose events may have gone elsewhere."""

Find = Callable[[str], Awaitable[Channel | None]]
"""The channel of this id if it is in the application, None if it is elsewhere. Raises AriError."""


class Entering:
    """One channel that is to enter the application."""

    def __init__(self, channel_id: str, find: Find, missed: Callable[[], bool]) -> None:
        """`missed`: whether its events may have been lost by now."""
        self.channel_id = channel_id
        self._find = find
        self._missed = missed
        self._outcome: asyncio.Future[Channel | AriError] = asyncio.get_running_loop().create_future()

    async def wait(self, timeout_s: float) -> Channel:
        """The channel as it entered; to be called when its creation was confirmed. Raises AriRefusedError where it
        ended instead (status 410, with the cause), AriTimeoutError where nothing came in time, AriUnavailableError if
        the client was closed."""
        looking = asyncio.create_task(self._look_on(), name=f"ari looks for {self.channel_id}")
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await asyncio.shield(self._outcome)
        except TimeoutError:
            raise AriTimeoutError(
                f"channel {self.channel_id}: it did not enter the application within {timeout_s:g} s"
            ) from None
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        if isinstance(outcome, AriError):
            raise outcome
        return outcome

    def settle(self, outcome: Channel | AriError) -> None:
        """The first counts."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    @property
    def settled(self) -> bool:
        return self._outcome.done()

    async def _look_on(self) -> None:
        while not self.settled:
            await asyncio.sleep(LOOK_S)
            if not self._missed():
                continue
            try:
                channel = await self._find(self.channel_id)
            except AriNotFoundError:
                self.settle(_ended(self.channel_id, "it is not there", 0))
            except AriError:
                continue
            else:
                if channel is not None:
                    self.settle(channel)


class EnteringChannels:
    """Those that are awaited now."""

    def __init__(self, find: Find, connection: Callable[[], object]) -> None:
        """`connection`: by which events come at present, whatever tells it from others; None: by none."""
        self._find = find
        self._connection = connection
        self._awaited: dict[str, Entering] = {}

    @contextmanager
    def entering(self, channel_id: str) -> Iterator[Entering]:
        by = self._connection()
        entering = Entering(channel_id, self._find, lambda: by is None or self._connection() != by)
        self._awaited[channel_id] = entering
        try:
            yield entering
        finally:
            if self._awaited.get(channel_id) is entering:
                del self._awaited[channel_id]

    def take(self, event: AriEvent) -> bool:
        """Whether the event was for one of them alone."""
        if not isinstance(event, StasisStart | ChannelDestroyed):
            return False
        entering = self._awaited.get(event.channel.id)
        if entering is None:
            return False
        if isinstance(event, StasisStart):
            entering.settle(event.channel)
            return True
        entering.settle(_ended(event.channel.id, event.cause_text, event.cause))
        return False

    def close(self, error: AriError) -> None:
        """Nothing comes any more."""
        for entering in self._awaited.values():
            entering.settle(error)


def _ended(channel_id: str, why: str, cause: int) -> AriError:
    return AriRefusedError(f"channel {channel_id}: it ended before it entered the application: {why} ({cause})", 410)
