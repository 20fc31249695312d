"""Channels that we create, awaited from before they are asked for: their StasisStart can come before the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError, AriUnavailableError
from bridge.asterisk.ari_events import AriEvent, Channel, ChannelDestroyed, StasisStart


class Entering:
    """One channel that is to enter the application."""

    def __init__(self, channel_id: str, loop: asyncio.AbstractEventLoop) -> None:
        self.channel_id = channel_id
        self._outcome: asyncio.Future[Channel | AriError] = loop.create_future()

    async def wait(self, timeout_s: float) -> Channel:
        """The channel as it entered. Raises AriRefusedError where it ended instead (status 410, with the cause),
        AriUnavailableError where nothing came in time or the client was closed."""
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await asyncio.shield(self._outcome)
        except TimeoutError:
            raise AriUnavailableError(
                f"channel {self.channel_id}: it did not enter the application within {timeout_s:g} s"
            ) from None
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


class EnteringChannels:
    """Those that are awaited now."""

    def __init__(self) -> None:
        self._awaited: dict[str, Entering] = {}
        self._asking: set[asyncio.Task[None]] = set()

    @contextmanager
    def entering(self, channel_id: str) -> Iterator[Entering]:
        entering = Entering(channel_id, asyncio.get_running_loop())
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

    def ask(self, find: Callable[[str], Awaitable[Channel]], app: str) -> None:
        """A StasisStart may have been lost with the socket: look for those that are still awaited, in the background.
        `find` raises AriError."""
        for entering in self.unsettled():
            task = asyncio.create_task(_ask(entering, find, app), name=f"ari asks for {entering.channel_id}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def unsettled(self) -> list[Entering]:
        return [entering for entering in self._awaited.values() if not entering.settled]

    async def aclose(self, error: AriError) -> None:
        """Nothing comes any more."""
        for entering in self.unsettled():
            entering.settle(error)
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)


async def _ask(entering: Entering, find: Callable[[str], Awaitable[Channel]], app: str) -> None:
    try:
        channel = await find(entering.channel_id)
    except AriNotFoundError:
        entering.settle(_ended(entering.channel_id, "it is not there", 0))
    except AriError:
        return
    else:
        if channel.app_name == "Stasis" and channel.app_data.split(",")[0] == app:
            entering.settle(channel)


def _ended(channel_id: str, why: str, cause: int) -> AriError:
    return AriRefusedError(f"channel {channel_id}: it ended before it entered the application: {why} ({cause})", 410)
