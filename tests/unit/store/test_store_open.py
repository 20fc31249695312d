"""Opening the record: migrations, damaged and locked files, and what a crash left behind."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from bridge.events import Cause
from bridge.store.call_log import CallLog
from bridge.store.database import MIGRATIONS
from bridge.store.errors import StoreDamagedError, StoreError, StoreLockedError, StoreSchemaError
from bridge.store.records import CallFilter
from bridge.store.retention import attach_recovered
from bridge.store.schema import metadata
from bridge.store.store import STOPPED, Store


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_an_empty_directory_gets_a_database_of_the_newest_schema(url):
    store = await Store.open(url)
    await store.aclose()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_opening_again_changes_nothing(url, events):
    for _ in range(2):
        store = await Store.open(url)
        log = CallLog(store)
        log.start()
        for event in events.whole_call():
            log.record(f"call{_}", event)
        assert await log.flush_and_close() == 0
        await store.aclose()
    store = await Store.open(url)
    assert len((await store.list_calls()).calls) == 2
    await store.aclose()


async def test_the_file_is_for_its_user_alone_and_in_wal_mode(url):
    store = await Store.open(url)
    assert file_of(url).stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(file_of(url))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.aclose()


async def test_a_directory_that_is_missing_is_made_for_its_user_alone(tmp_path):
    store = await Store.open(f"sqlite:///{tmp_path}/new dir/100%/offhook.sqlite3")
    await store.aclose()
    assert (tmp_path / "new dir" / "100%").stat().st_mode & 0o077 == 0


async def test_a_second_bridge_on_the_same_file_is_refused_and_told_of_the_first(store, url):
    with pytest.raises(StoreLockedError, match=f"another bridge.*process {os.getpid()}"):
        await Store.open(url)


async def test_a_closed_store_can_be_opened_at_once(url):
    for _ in range(3):
        await (await Store.open(url)).aclose()


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.communicate("")


async def test_a_file_that_another_process_holds_locked_is_refused(url):
    await (await Store.open(url)).aclose()
    refused = pytest.raises(StoreLockedError, match="locked by another process")
    with locked_by_another_process(file_of(url)), refused:
        await Store.open(url, busy_timeout_s=0.05)
    await (await Store.open(url)).aclose()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(url):
    file_of(url).write_bytes(b"this is not a database, it is a letter " * 100)
    before = file_of(url).read_bytes()
    with pytest.raises(StoreDamagedError, match="restore it from a backup"):
        await Store.open(url)
    assert file_of(url).read_bytes() == before


async def test_a_damaged_schema_page_is_refused(url):
    await (await Store.open(url)).aclose()
    content = bytearray(file_of(url).read_bytes())
    content[100:4096] = os.urandom(3996)
    file_of(url).write_bytes(content)
    with pytest.raises(StoreDamagedError):
        await Store.open(url)


async def test_a_record_of_a_newer_version_is_refused_and_left_alone(url):
    await (await Store.open(url)).aclose()
    with closing(sqlite3.connect(file_of(url))) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(StoreSchemaError, match=r"written by a newer Offhook \(schema 9999"):
        await Store.open(url)
    with closing(sqlite3.connect(file_of(url))) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(url):
    with closing(sqlite3.connect(file_of(url))) as connection:
        # In the way of the migration's second table: its first must not stay behind.
        connection.execute("CREATE TABLE turns (x)")
        connection.commit()
    with pytest.raises(StoreError, match="turns already exists"):
        await Store.open(url)
    with closing(sqlite3.connect(file_of(url))) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"turns"}


@pytest.mark.parametrize("place", ["file-in-the-way/offhook.sqlite3", "/proc/offhook/x.sqlite3", "/proc/x.sqlite3"])
async def test_a_place_that_can_not_be_written_is_refused_with_what_to_do(tmp_path, place):
    (tmp_path / "file-in-the-way").write_text("")
    path = tmp_path / place
    with pytest.raises(StoreError, match=r"make .* writable for this user, or point store\.url elsewhere"):
        await Store.open(f"sqlite:///{path}")


async def test_a_directory_in_the_files_place_is_refused(url):
    file_of(url).mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        await Store.open(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://root:hunter2secret@db/x", "use sqlite or postgresql"),
        ("nonsense", "can't be read"),
    ],
)
async def test_a_url_that_can_not_be_used_is_refused(url, message):
    with pytest.raises(StoreError, match=message) as refused:
        await Store.open(url)
    assert "hunter2secret" not in str(refused.value)


async def test_a_failed_open_leaves_no_lock_and_no_thread(url):
    before = threading.active_count()
    file_of(url).write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreDamagedError):
        await Store.open(url)
    # It is told to end when the open has failed, and may take a moment.
    async with asyncio.timeout(30):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)
    file_of(url).unlink()
    await (await Store.open(url)).aclose()


CALLER = """
import asyncio, sys
from bridge import log as logging
from bridge.events import CallAnswered, CallStarted, TurnEnded
from bridge.store.call_log import CallLog
from bridge.store.store import Store

async def main():
    logging.configure()  # to standard error
    store = await Store.open(sys.argv[1], node=sys.argv[2])
    log = CallLog(store, wall_clock=lambda: 1_790_000_042.5)
    log.start()
    log.record("up", CallStarted("inbound", "a", "b", "t", "agent", "sip", "x", 1_790_000_000.0))
    log.record("up", CallAnswered(1_790_000_001.0, 20.0))
    log.record("up", TurnEnded(0, "agent", "Hello", 0.0, 900.0, "Hello", 900.0))
    assert await log.settle()
    print("talking", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def killed_in_a_call(url: str, node: str) -> None:
    bridge = subprocess.Popen([sys.executable, "-c", CALLER, url, node], stdout=subprocess.PIPE, text=True)
    assert bridge.stdout is not None
    assert bridge.stdout.readline() == "talking\n"
    bridge.send_signal(signal.SIGKILL)
    bridge.communicate()


async def test_a_call_that_a_killed_bridge_left_open_is_closed_at_the_next_start(url):
    killed_in_a_call(url, "offhook")
    store = await Store.open(url)
    history = await store.get_call("up")
    assert history is not None
    assert (history.call.cause, history.call.detail) == (Cause.INTERNAL_ERROR, STOPPED)
    assert history.call.ended_at == datetime.fromtimestamp(1_790_000_042.5, UTC), "its last sign of life"
    assert [turn.text for turn in history.turns] == ["Hello"]
    assert [(event.seq, event.name) for event in history.events] == [
        (0, "call_started"),
        (1, "call_answered"),
        (3, "call_ended"),
    ]
    assert (await store.list_calls(CallFilter(live=True))).calls == ()
    await store.aclose()


async def test_a_recording_saved_from_the_crash_is_found_by_its_call(url, tmp_path):
    killed_in_a_call(url, "offhook")
    store = await Store.open(url)
    assert store.abandoned == ("up",)
    assert await attach_recovered(store, tmp_path) == 0
    (tmp_path / "up.wav").write_bytes(b"RIFF")
    assert await attach_recovered(store, tmp_path) == 1
    history = await store.get_call("up")
    assert history is not None
    assert history.call.recording == "up.wav"
    await store.aclose()
    store = await Store.open(url)
    assert store.abandoned == ()
    await store.aclose()


async def test_calls_of_another_node_are_left_open(url):
    killed_in_a_call(url, "other-box")
    store = await Store.open(url, node="this-box")
    history = await store.get_call("up")
    assert history is not None
    assert history.call.ended_at is None
    await store.aclose()


async def test_a_database_of_the_first_schema_is_brought_up_with_its_calls(url):
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO calls (id, node, direction, from_user, to_user, trunk, agent, leg_kind, leg_id,"
                " started_at, ended_at, quality) VALUES ('c1', 'n', 'inbound', 'a', 'b', '', 'x', 'sip', 'y',"
                " '2026-01-01 00:00:00', '2026-01-01 00:01:00', '{\"jitter_ms\": 2.0}')"
            )
        )
    engine.dispose()
    store = await Store.open(url)
    (call,) = (await store.list_calls()).calls
    assert (call.quality, call.codec, call.srtp, call.one_way) == ({"jitter_ms": 2.0}, "", "", "")
    await store.aclose()
