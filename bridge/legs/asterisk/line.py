"""What one call needs on Asterisk besides its channel: a mixing bridge and a media channel in it, and their end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.legs.asterisk.failures import leg_error
from bridge.legs.asterisk.media import LegMedia, MediaTransport
from bridge.legs.asterisk.names import Names, bridge_of, media_of
from bridge.legs.base import LegStateError

log = structlog.get_logger(__name__)


class CallLine:
    """The bridge and the media channel of one call.

    `prepare` begins, `ready` waits for it, `join` brings a party's channel in, `close` deletes what there is."""

    def __init__(
        self, ari: Ari, transport: MediaTransport, names: Names, stem: str, clock: Callable[[], float]
    ) -> None:
        """`stem`: what the call's names on Asterisk begin with (`Names.new_leg`). `clock`: monotonic time (s)."""
        self.transport = transport
        self.stem = stem
        self.bridge_id = bridge_of(stem)
        self.media_id = media_of(stem)
        self.media: LegMedia | None = None
        """Runs; None: not yet, or it could not be had."""
        self.took_ms = 0.0
        """Spent on what was asked of Asterisk so far."""
        self._ari = ari
        self._bridge_name = names.bridge
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.over = False
        """Closed, and deleted on Asterisk as far as that could be done."""

    def prepare(self) -> None:
        """Begin to set the media up, while the caller is still called or the phone rings. Idempotent."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._set_up(), name=f"media of {self.bridge_id}")

    async def ready(self) -> LegMedia:
        """The media, when it runs. Raises LegError (MediaUnavailableError)."""
        self.prepare()
        if self._task is not None:
            await asyncio.shield(self._task)
        if self.media is None or self._closed:
            raise LegStateError("the call has ended")
        return self.media

    async def join(self, *channel_ids: str) -> None:
        """Bring channels into the bridge. Raises AriError."""
        await self._ari.add_to_bridge(self.bridge_id, *channel_ids)

    async def part(self, *channel_ids: str) -> None:
        """Take channels out of the bridge. Raises AriError."""
        await self._ari.remove_from_bridge(self.bridge_id, *channel_ids)

    def stop(self) -> None:
        """No audio any more, from now on; `close` is to follow."""
        self._closed = True
        if self.media is not None:
            self.media.close()

    async def close(self) -> None:
        """Delete the media channel and the bridge. Never raises: what can't be deleted now is found later."""
        self.stop()
        if self._task is None:
            self.over = True
            return
        # A request that is under way might be carried out after ours to delete.
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()
        await asyncio.gather(
            self._deleted(self._ari.hangup(self.media_id), self.media_id),
            self._deleted(self._ari.delete_bridge(self.bridge_id), self.bridge_id),
        )
        self.over = True

    # -- inside ---------------------------------------------------------------------------------------------

    async def _set_up(self) -> None:
        begun = self._clock()
        bridged = asyncio.ensure_future(self._ari.create_bridge(self.bridge_id, name=self._bridge_name))
        try:
            media = await self.transport.open(self._ari, self.media_id)
        except BaseException:
            await asyncio.wait({bridged})
            if not bridged.cancelled():
                bridged.exception()
            raise
        if self._closed:
            media.close()
        self.media = media
        try:
            await bridged
            await self._ari.add_to_bridge(self.bridge_id, self.media_id)
        except AriError as error:
            media.close()
            self.media = None
            raise leg_error(error, "no bridge on Asterisk") from error
        self.took_ms += (self._clock() - begun) * 1000

    async def _deleted(self, request: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await request
        except AriNotFoundError:
            pass
        except AriError as error:
            log.warning("left on Asterisk until it is looked through again", what=what, error=str(error))
