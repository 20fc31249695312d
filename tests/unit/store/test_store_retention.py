"""Old calls go with all that belongs to them, new and live ones stay."""

import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.store.call_log import CallLog
from bridge.store.recordings import recording_path
from bridge.store.retention import keep_purging, purge_older
from bridge.store.store import Store

DAY = 86_400.0


@pytest.fixture
async def aged(store, events, tmp_path) -> Store:
    """Calls that ended 40, 31, 29 and 1 days before `t0`, one without a recording, and a live one of 90 days."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    log = CallLog(store)
    log.start()
    for days in (40, 31, 29, 1):
        log.record(f"d{days}", events.started(events.t0 - days * DAY - 60))
        log.record(f"d{days}", events.turn())
        name = None if days == 31 else f"d{days}.wav"
        if name:
            (recordings / name).write_bytes(b"RIFF")
        log.record(f"d{days}", events.ended(events.t0 - days * DAY, recording=name))
    log.record("live", events.started(events.t0 - 90 * DAY))
    assert await log.flush_and_close() == 0
    return store


async def remaining(store: Store) -> set[str]:
    return {call.id for call in (await store.list_calls(limit=100)).calls}


async def test_calls_past_the_days_are_deleted_with_turns_events_and_recordings(aged, url, events, tmp_path):
    recordings = tmp_path / "recordings"
    assert await purge_older(aged, recordings, keep_days=30, now=events.t0) == 2
    assert await remaining(aged) == {"d29", "d1", "live"}
    assert sorted(path.name for path in recordings.iterdir()) == ["d1.wav", "d29.wav"]
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as connection:
        for table in ("turns", "events"):
            owners = {row[0] for row in connection.execute(f"SELECT DISTINCT call_id FROM {table}")}
            assert owners <= {"d29", "d1", "live"}


async def test_zero_days_keep_everything(aged, events, tmp_path):
    assert await purge_older(aged, tmp_path / "recordings", keep_days=0, now=events.t0) == 0
    await keep_purging(aged, tmp_path / "recordings", keep_days=0, clock=lambda: events.t0)
    assert len(await remaining(aged)) == 5


async def test_a_recording_that_can_not_be_deleted_keeps_its_call_for_the_next_time(aged, events, tmp_path):
    def refuse(name: str) -> None:
        raise PermissionError(13, "no", name)

    before = datetime.fromtimestamp(events.t0, UTC)
    assert await aged.purge(before, refuse) == 1, "the one without a recording"
    assert await remaining(aged) == {"d40", "d29", "d1", "live"}
    assert await purge_older(aged, tmp_path / "recordings", keep_days=30, now=events.t0) == 1


async def test_a_recording_that_is_gone_already_is_no_obstacle(aged, events, tmp_path):
    (tmp_path / "recordings" / "d40.wav").unlink()
    assert await purge_older(aged, tmp_path / "recordings", keep_days=30, now=events.t0) == 2


async def test_old_recordings_that_a_crash_left_without_a_call_go_too(aged, events, tmp_path):
    recordings = tmp_path / "recordings"
    for name, days in (("lost-old.wav", 40), ("lost-new.wav", 3), ("d29.wav", 400)):
        (recordings / name).write_bytes(b"RIFF")
        os.utime(recordings / name, (events.t0 - days * DAY, events.t0 - days * DAY))
    await purge_older(aged, recordings, keep_days=30, now=events.t0)
    assert sorted(path.name for path in recordings.iterdir()) == ["d1.wav", "d29.wav", "lost-new.wav"]


async def test_a_recordings_directory_that_is_not_there_is_no_obstacle(aged, events, tmp_path):
    assert await purge_older(aged, tmp_path / "elsewhere", keep_days=30, now=events.t0) == 2


async def test_more_calls_than_one_batch_are_deleted(store, events, tmp_path):
    log = CallLog(store)
    log.start()
    for number in range(450):
        for event in events.whole_call():
            log.record(f"c{number}", event)
    assert await log.flush_and_close() == 0
    assert await purge_older(store, tmp_path, keep_days=1, now=events.t0 + 10 * DAY) == 450
    assert await remaining(store) == set()


async def test_purging_goes_on_until_cancelled(aged, events, tmp_path):
    days = iter(range(100))
    asked = asyncio.Event()

    def clock() -> float:
        day = next(days)
        if day == 3:
            asked.set()
        return events.t0 + day * DAY

    task = asyncio.create_task(keep_purging(aged, tmp_path / "recordings", keep_days=30, clock=clock, every_s=0.001))
    await asyncio.wait_for(asked.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "d29" not in await remaining(aged)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "..\\secret",
        "x\x00y",
        "link",
        "sub",
        "missing.wav",
    ],
)
def test_no_name_leads_out_of_the_recordings_directory(tmp_path, name):
    directory = tmp_path / "recordings"
    directory.mkdir()
    (directory / "sub").mkdir()
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    assert recording_path(directory, name) is None


def test_a_recordings_directory_behind_a_link_is_fine(tmp_path):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "big-disk" / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "recordings").symlink_to(tmp_path / "big-disk")
    assert recording_path(tmp_path / "recordings", "a.wav") == tmp_path / "big-disk" / "a.wav"
