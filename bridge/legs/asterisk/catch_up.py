"""A look at a channel whose events may have been lost: while the event socket is cut, and after it was."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.asterisk.ari_events import Channel

LOOK_S = 1.0
"""Between two looks at whether there is reason for one at the channel."""

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class CatchUp:
    """Tells how a channel stands, each time that events of it may have been missed, until `stop`."""

    def __init__(self, ari: Ari, channel_id: str, tell: Callable[[Channel | None], None], spawn: Spawn) -> None:
        """`tell` is given the channel as it is; None: Asterisk no longer has it."""
        self._ari = ari
        self._channel_id = channel_id
        self._tell = tell
        self._spawn = spawn
        self._connects = ari.counters["connects"]
        self._stopped = False
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def stop(self) -> None:
        self._stopped = True
        self._timer.cancel()

    def _tick(self) -> None:
        connects, up = self._ari.counters["connects"], self._ari.state == "up"
        if not up or connects != self._connects:
            # Once more after it is up again: it may have changed since the last look.
            self._connects = connects if up else -1
            self._spawn(self._look(), f"look at {self._channel_id}")
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    async def _look(self) -> None:
        channel: Channel | None = None
        try:
            channel = await self._ari.channel(self._channel_id)
        except AriNotFoundError:
            pass
        except AriError:
            return
        if not self._stopped:
            self._tell(channel)
