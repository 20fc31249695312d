"""What becomes of recordings and old calls: saved ones find their call again, old ones are deleted."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from bridge.store.errors import StoreError
from bridge.store.recordings import delete_recording, recording_path
from bridge.store.store import Store

EVERY_S = 3600.0

log = structlog.stdlib.get_logger(__name__)


async def attach_recovered(store: Store, recordings_dir: Path) -> int:
    """Give the calls that a crash cut off (`Store.abandoned`) the recordings that were saved from it: files named
    after the call. Returns how many. Raises StoreError."""
    found = 0
    for call_id in store.abandoned:
        name = f"{call_id}.wav"
        if recording_path(recordings_dir, name) is not None:
            await store.set_recording(call_id, name)
            found += 1
    return found


async def purge_older(store: Store, recordings_dir: Path, *, keep_days: int, now: float) -> int:
    """Delete the calls that ended more than `keep_days` before `now` (Unix time, s), with their recordings,
    and recordings as old that no call has.

    Returns how many calls; 0 days keeps everything. Raises StoreError."""
    if keep_days <= 0:
        return 0
    before = datetime.fromtimestamp(now, UTC) - timedelta(days=keep_days)
    deleted = await store.purge(before, lambda name: delete_recording(recordings_dir, name))
    # What a crash cut off is in no call's record, and still is somebody's voice.
    old = await asyncio.to_thread(_files_before, recordings_dir, before.timestamp())
    for name in await store.unnamed(old):
        log.info("recording of no call deleted", file=name)
        try:
            await asyncio.to_thread(delete_recording, recordings_dir, name)
        except OSError as error:
            log.warning("recording not deleted", file=name, error=str(error))
    return deleted


def _files_before(directory: Path, time: float) -> list[str]:
    """Files of `directory` last written before `time` (Unix time, s)."""
    try:
        return [path.name for path in directory.iterdir() if path.is_file() and path.stat().st_mtime < time]
    except OSError as error:
        log.warning("recordings not listed", directory=str(directory), error=str(error))
        return []


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
