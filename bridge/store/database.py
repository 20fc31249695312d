"""Opening the record's database: its URL, SQLite's settings, the lock against a second bridge, migrations."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from bridge.store.errors import StoreDamagedError, StoreError, StoreLockedError, StoreSchemaError

MIGRATIONS = Path(__file__).parent / "migrations"

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}

NO_BEGIN = "offhook_no_begin"
"""Execution option: leave out BEGIN, for what SQLite does outside transactions only."""

log = structlog.stdlib.get_logger(__name__)


def parse_url(url: str) -> URL:
    """The database URL with its async driver. Raises StoreError for one that can't be used."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            "the record's URL can't be read: write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    backend = parsed.drivername.partition("+")[0]
    if backend not in _DRIVERS:
        raise StoreError(f"the record can't be kept in {backend!r}: use sqlite or postgresql")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreError("the record needs a file: write sqlite:///PATH with the path of the database")
    return parsed.set(drivername=_DRIVERS[backend])


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL, None for other databases."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def shown(url: URL) -> str:
    """The database as messages name it: a path, or the URL without its password."""
    path = sqlite_path(url)
    return str(path) if path else url.render_as_string(hide_password=True)


def create_engine(url: URL, *, busy_timeout_s: float, connections: int, writes: bool) -> AsyncEngine:
    """An engine with at most `connections` connections. SQLite waits `busy_timeout_s` for another's lock.

    Raises StoreError when the driver is not installed."""
    options: dict[str, Any] = {
        # A statement's parameters hold phone numbers and what was said; errors end up in the log.
        "hide_parameters": True,
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": 5.0,
    }
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": busy_timeout_s}
    else:
        options["pool_pre_ping"] = True
    try:
        engine = create_async_engine(url, **options)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the driver for {url.get_backend_name()} is not installed: pip install {error.name}"
        ) from error
    if url.get_backend_name() == "sqlite":
        _tune_sqlite(engine, writes=writes)
    return engine


def _tune_sqlite(engine: AsyncEngine, *, writes: bool) -> None:
    # The driver's own transaction control leaves DDL and reads outside; with it off, BEGIN is ours alone.
    # A writer takes the lock at once: a lock taken later, by upgrade, fails without waiting for busy_timeout.
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # A booking that was confirmed survives a power cut; the fsync is on the writer's thread.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        if not connection.get_execution_options().get(NO_BEGIN):
            connection.exec_driver_sql(begin)


class FileLock:
    """Keeps a second bridge off the same SQLite file: it would close this one's live calls as crashed."""

    def __init__(self, path: Path) -> None:
        """Take the lock beside database `path`, making its directory if need be. Raises StoreError."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made here for its mode: the record is nobody else's business, and WAL files copy it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            lock = path.with_name(path.name + ".lock")
            self._fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            what = "no space is left for" if error.errno == errno.ENOSPC else "can't write"
            raise StoreError(
                f"{what} the record {path} ({error.strerror}): make {path.parent} writable for this user, "
                "or point store.url elsewhere"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            by = f" (process {holder})" if holder else ""
            raise StoreLockedError(
                f"another bridge{by} keeps its record in {path}: stop it, or give this one another data directory"
            ) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        except OSError:
            # Full disk: the pid is only for the message above, the lock itself holds.
            log.warning("lock file not written", path=str(path))

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def migrate(connection: Connection, where: str) -> None:
    """Bring the schema to the newest revision, inside the connection's transaction. Raises StoreSchemaError."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    head = scripts.get_current_head()
    if current == head:
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreSchemaError(
            f"the record {where} was written by a newer Offhook (schema {current}, this one knows up to {head}): "
            "install that version again, or point store.url at another database"
        )
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreSchemaError(
            f"the record {where} can't be brought from schema {current} to {head}: {error}"
        ) from error
    log.info("record's schema upgraded", database=where, before=current or "none", after=head)


def explain(error: SQLAlchemyError | OSError, where: str) -> StoreError:
    """A database error as a StoreError that says what to do."""
    cause = getattr(error, "orig", None) or error
    text = str(cause)
    lowered = text.lower()
    if "locked" in lowered or "busy" in lowered:
        return StoreLockedError(
            f"the record {where} is locked by another process ({text}): end what has it open (a database shell, "
            "a backup) and start again"
        )
    if "not a database" in lowered or "malformed" in lowered:
        return StoreDamagedError(
            f"the record {where} is damaged or no SQLite database ({text}): restore it from a backup, or move it "
            "away and a new one is made at the next start"
        )
    if "full" in lowered or "disk i/o" in lowered:
        return StoreError(f"the record {where} can't be written ({text}): make space on its disk")
    if "unable to open" in lowered or "readonly" in lowered:
        return StoreError(f"the record {where} can't be opened for writing ({text}): check its directory's rights")
    if isinstance(cause, OSError):
        return StoreError(f"the record's database {where} can't be reached ({text}): check store.url and the server")
    return StoreError(f"the record {where} failed: {type(cause).__name__}: {text}")
