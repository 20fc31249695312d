"""Deletes calls and recordings that are older than the setting allows."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from bridge.store.errors import StoreError
from bridge.store.recordings import delete_recording
from bridge.store.store import Store

EVERY_S = 3600.0

log = structlog.stdlib.get_logger(__name__)


async def purge_older(store: Store, recordings_dir: Path, *, keep_days: int, now: float) -> int:
    """Delete the calls that ended more than `keep_days` before `now` (Unix time, s), with their recordings.

    Returns how many; 0 days keeps everything. Raises StoreError."""
    if keep_days <= 0:
        return 0
    before = datetime.fromtimestamp(now, UTC) - timedelta(days=keep_days)
    return await store.purge(before, lambda name: delete_recording(recordings_dir, name))


async def keep_purging(
    store: Store, recordings_dir: Path, *, keep_days: int, clock: Callable[[], float], every_s: float = EVERY_S
) -> None:
    """Purge now and every `every_s` until cancelled; what fails is logged and tried again the next time.
    `clock` gives Unix time (s). Returns at once when everything is kept."""
    while keep_days > 0:
        try:
            deleted = await purge_older(store, recordings_dir, keep_days=keep_days, now=clock())
            if deleted:
                log.info("old calls deleted", calls=deleted, keep_days=keep_days)
        except StoreError as error:
            log.warning("old calls not deleted", error=str(error))
        await asyncio.sleep(every_s)
