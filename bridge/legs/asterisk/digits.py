"""Keys that we press on a channel: one sequence after the other."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError

log = structlog.get_logger(__name__)

DIGITS = frozenset("0123456789*#ABCD")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Digits:
    """Of one leg."""

    def __init__(self, ari: Ari, spawn: Spawn) -> None:
        self._ari = ari
        self._spawn = spawn
        self._last: asyncio.Task[None] | None = None

    def send(self, channel_id: str, digits: str, tone_ms: int, gap_ms: int) -> None:
        """When those that were sent before are through. Raises ValueError."""
        if wrong := set(digits.upper()) - DIGITS:
            raise ValueError(f"not DTMF digits: {''.join(sorted(wrong))!r}")
        work = self._send(self._last, channel_id, digits.upper(), tone_ms, gap_ms)
        self._last = self._spawn(work, f"digits on {channel_id}")

    async def _send(
        self, before: "asyncio.Task[None] | None", channel_id: str, digits: str, tone_ms: int, gap_ms: int
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await self._ari.dtmf(channel_id, digits, tone_ms, gap_ms)
        except AriError as error:
            log.warning("digits not sent", channel=channel_id, error=str(error))
