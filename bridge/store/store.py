"""The record's database: opened and migrated, written in batches, asked for calls, cleared of old ones."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import URL, ColumnElement, Row, Select, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bridge.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    Cause,
    FarPartyChanged,
    LegJoined,
    TurnDelays,
    TurnEnded,
    of_line,
)
from bridge.names import other_names
from bridge.store import database
from bridge.store.encode import clean_json, clean_number, clean_text, event_data, event_name
from bridge.store.errors import CursorError, StoreError
from bridge.store.records import CallFilter, CallHistory, CallPage, CallRecord, EventRecord, Recorded, TurnRecord
from bridge.store.schema import call_names, calls, events, turns

STOPPED = "the bridge stopped"
"""The detail of a call that a crash left open."""

_PURGE_BATCH = 200

MAX_NAME = 256
"""Characters of what others call a call: an index of PostgreSQL takes 2,700 bytes at most."""

log = structlog.stdlib.get_logger(__name__)


class Store:
    """The record. Made by `await Store.open(url)`; every method raises StoreError when the database fails."""

    def __init__(
        self, url: URL, node: str, reader: AsyncEngine, writer: AsyncEngine, lock: database.FileLock | None
    ) -> None:
        self._url = url
        self._node = node
        # Two pools, so that many API requests never keep the writer waiting for a connection.
        self._reader = reader
        self._writer = writer
        self._lock = lock
        self.abandoned: tuple[str, ...] = ()
        """Calls that a crash had left open and `open` closed."""

    @classmethod
    async def open(cls, url: str, *, node: str = "offhook", busy_timeout_s: float = 5.0) -> "Store":
        """Open the database at `url` (`sqlite:///PATH`, `postgresql://...`), migrate it to the newest schema, and
        close the calls that `node`, this bridge's name, left open when it crashed.

        Raises StoreError, whose message says what to do, when it can't be opened."""
        parsed = database.parse_url(url)
        path = database.sqlite_path(parsed)
        lock = database.FileLock(path) if path else None
        engines: list[AsyncEngine] = []
        try:
            for connections, writes in ((4, False), (1, True)):
                engines.append(
                    database.create_engine(
                        parsed, busy_timeout_s=busy_timeout_s, connections=connections, writes=writes
                    )
                )
            store = cls(parsed, node, engines[0], engines[1], lock)
            await store._prepare()
        except BaseException:
            for engine in engines:
                await engine.dispose()
            if lock:
                lock.release()
            raise
        return store

    async def aclose(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()
        if self._lock:
            self._lock.release()

    @property
    def shown(self) -> str:
        """The database as messages name it, without a password."""
        return database.shown(self._url)

    # -- opening ------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        try:
            if self._url.get_backend_name() == "sqlite":
                # Only outside a transaction can SQLite change the journal; the file remembers it.
                async with self._writer.execution_options(**{database.NO_BEGIN: True}).connect() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            async with self._writer.begin() as connection:
                await connection.run_sync(database.migrate, self.shown)
            self.abandoned = await self._close_abandoned()
        except (SQLAlchemyError, OSError) as error:
            raise database.explain(error, self.shown) from error
        except _driver_errors(self._writer) as error:
            raise database.explain(SQLAlchemyError(str(error)), self.shown) from error
        if self.abandoned:
            log.warning("calls left open by a crash were closed", calls=len(self.abandoned))

    async def _close_abandoned(self) -> tuple[str, ...]:
        """Close this node's open calls at their last sign of life, for the time of the crash itself is unknown."""
        async with self._writer.begin() as connection:
            open_calls = (
                await connection.execute(
                    select(calls.c.id, calls.c.started_at, calls.c.answered_at).where(
                        calls.c.ended_at.is_(None), calls.c.node == self._node
                    )
                )
            ).all()
            for call in open_calls:
                seqs = [-1]
                times = [call.started_at] + ([call.answered_at] if call.answered_at else [])
                for table in (turns, events):
                    last = (
                        await connection.execute(
                            select(func.max(table.c.seq), func.max(table.c.at)).where(table.c.call_id == call.id)
                        )
                    ).one()
                    if last[0] is not None:
                        seqs.append(last[0])
                        times.append(last[1])
                ended_at = max(times)
                ended = CallEnded(
                    cause=Cause.INTERNAL_ERROR,
                    detail=STOPPED,
                    ended_at=ended_at.timestamp(),
                    recording=None,
                    quality={},
                )
                await _write(connection, self._node, [Recorded(call.id, max(seqs) + 1, ended_at.timestamp(), ended)])
        return tuple(call.id for call in open_calls)

    # -- writing ------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Recorded]) -> None:
        """Write a batch in one transaction: all of it, or nothing.

        Raises SQLAlchemyError or OSError as they come: `CallLog` tells apart what to retry from what to leave."""
        async with self._writer.begin() as connection:
            await _write(connection, self._node, batch)

    async def set_recording(self, call_id: str, name: str) -> None:
        """Note the recording (a file name) of a call that ended without one: it was found after a crash."""
        try:
            async with self._writer.begin() as connection:
                await connection.execute(
                    update(calls).where(calls.c.id == call_id, calls.c.recording.is_(None)).values(recording=name)
                )
        except (SQLAlchemyError, OSError) as error:
            raise database.explain(error, self.shown) from error

    async def purge(self, before: datetime, delete_recording: Callable[[str], None]) -> int:
        """Delete the calls that ended before `before`, with their turns and events; returns how many.

        `delete_recording` gets each one's recording (a file name), before its row goes, so that no recording is
        forgotten on the disk; it runs in a thread, as a large file takes its time. A call whose recording it can't
        delete (OSError) stays for the next time."""
        deleted = 0
        kept: set[str] = set()
        while True:
            condition = (
                and_(calls.c.ended_at < before, calls.c.id.not_in(kept)) if kept else calls.c.ended_at < before
            )
            query = select(calls.c.id, calls.c.recording).where(condition).order_by(calls.c.ended_at)
            rows = await self._rows(query.limit(_PURGE_BATCH))
            if not rows:
                return deleted
            gone: list[str] = []
            for row in rows:
                try:
                    if row.recording:
                        await asyncio.to_thread(delete_recording, row.recording)
                    gone.append(row.id)
                except OSError as error:
                    kept.add(row.id)
                    log.warning("recording not deleted", call_id=row.id, file=row.recording, error=str(error))
            try:
                async with self._writer.begin() as connection:
                    await connection.execute(delete(calls).where(calls.c.id.in_(gone)))
            except (SQLAlchemyError, OSError) as error:
                raise database.explain(error, self.shown) from error
            deleted += len(gone)

    async def unnamed(self, recordings: Sequence[str]) -> set[str]:
        """Those of the file names `recordings` that no call has."""
        named: set[str] = set()
        for start in range(0, len(recordings), _PURGE_BATCH):
            some = recordings[start : start + _PURGE_BATCH]
            named |= {
                row.recording
                for row in await self._rows(select(calls.c.recording).where(calls.c.recording.in_(some)))
            }
        return set(recordings) - named

    # -- reading ------------------------------------------------------------------------------------------

    async def list_calls(
        self, wanted: CallFilter | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> CallPage:
        """Calls that fit, newest first, at most `limit`; go on with the page's `next_cursor`.

        Raises CursorError for a cursor that is none."""
        query = select(calls)
        for condition in _conditions(wanted or CallFilter()):
            query = query.where(condition)
        if cursor is not None:
            started_at, call_id = _read_cursor(cursor)
            query = query.where(
                or_(calls.c.started_at < started_at, and_(calls.c.started_at == started_at, calls.c.id < call_id))
            )
        query = query.order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(limit + 1)
        rows = await self._rows(query)
        found = tuple(_call(row) for row in rows[:limit])
        return CallPage(found, _cursor(found[-1]) if len(rows) > limit else None)

    async def get_call(self, call_id: str) -> CallHistory | None:
        """One call with its turns and events, None if there is none."""
        async with self._reading() as connection:
            call = (await connection.execute(select(calls).where(calls.c.id == call_id))).one_or_none()
            if call is None:
                return None
            said = (await connection.execute(_of(turns, call_id))).all()
            happened = (await connection.execute(_of(events, call_id))).all()
        return CallHistory(
            _call(call),
            tuple(_turn(row) for row in said),
            tuple(EventRecord(row.seq, row.at, row.name, row.data) for row in happened),
        )

    async def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        async with self._reading() as connection:
            rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return rows

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._reader.connect() as connection:
                yield connection
        except PoolTimeoutError as error:
            raise StoreError("the record is asked more than it can answer: try again in a moment") from error
        except (SQLAlchemyError, OSError) as error:
            raise database.explain(error, self.shown) from error


async def _write(connection: AsyncConnection, node: str, batch: Sequence[Recorded]) -> None:
    started: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    happened: list[dict[str, Any]] = []
    named: list[dict[str, Any]] = []
    for item in batch:
        event = item.event
        if isinstance(event, TurnEnded):
            said.append(_turn_row(item, event))
            continue
        happened.append(
            {
                "call_id": item.call_id,
                "seq": item.seq,
                "at": _utc(item.at),
                "name": event_name(event),
                "data": event_data(event),
            }
        )
        called = {clean_text(name)[:MAX_NAME] for name in _names(event) if name}
        named += [{"call_id": item.call_id, "seq": item.seq, "name": name} for name in sorted(called)]
        if isinstance(event, CallStarted):
            started.append(_call_row(item.call_id, node, event))
        elif isinstance(event, CallAnswered):
            answered.append(
                {
                    "of": item.call_id,
                    "answered_at": _utc(event.answered_at),
                    "setup_ms": clean_number(event.setup_ms),
                }
            )
        elif isinstance(event, CallEnded):
            ended.append(_ended_row(item.call_id, event))
    # Calls first, for the others' foreign keys; within a batch the rest is independent of its order.
    if started:
        await connection.execute(insert(calls), started)
    for rows in (answered, ended):
        if rows:
            names = [name for name in rows[0] if name != "of"]
            statement = update(calls).where(calls.c.id == bindparam("of")).values({n: bindparam(n) for n in names})
            await connection.execute(statement, rows)
    if said:
        await connection.execute(insert(turns), said)
    if happened:
        await connection.execute(insert(events), happened)
    if named:
        await connection.execute(insert(call_names), named)


def _names(event: CallEvent) -> tuple[str, ...]:
    """What others call the call, as the event tells; the id of its first leg stands in `calls`."""
    match event:
        case CallStarted(headers=headers):
            return other_names(headers)
        case LegJoined(leg_id=leg_id, names=names):
            return (leg_id, *names)
        case FarPartyChanged(id=leg_id):
            return (leg_id,)
        case _:
            return ()


def _call_row(call_id: str, node: str, event: CallStarted) -> dict[str, Any]:
    return {
        "id": call_id,
        "node": node,
        "direction": event.direction,
        "from_user": clean_text(event.from_),
        "to_user": clean_text(event.to),
        "trunk": clean_text(event.trunk),
        "agent": clean_text(event.agent),
        "leg_kind": event.leg_kind,
        "leg_id": clean_text(event.leg_id),
        "started_at": _utc(event.started_at),
    }


def _ended_row(call_id: str, event: CallEnded) -> dict[str, Any]:
    return {
        "of": call_id,
        "ended_at": _utc(event.ended_at),
        "cause": event.cause.value,
        "detail": clean_text(event.detail),
        "recording": event.recording,
        "quality": clean_json(event.quality),
        "codec": event.codec,
        "srtp": event.srtp,
        "one_way": event.one_way,
        # Where another box is between the caller and us, bad calls are looked for by the line beyond it.
        "mos": clean_number(of_line(event.quality, "mos")),
        "mos_remote": clean_number(of_line(event.quality, "mos_remote")),
    }


def _turn_row(item: Recorded, event: TurnEnded) -> dict[str, Any]:
    return {
        "call_id": item.call_id,
        "seq": item.seq,
        "at": _utc(item.at),
        "turn_index": event.index,
        "speaker": event.speaker,
        "text": clean_text(event.text),
        "started_ms": clean_number(event.started_ms) or 0.0,
        "ended_ms": clean_number(event.ended_ms) or 0.0,
        "heard_text": clean_text(event.heard_text),
        "heard_ms": clean_number(event.heard_ms) or 0.0,
        "interrupted": event.interrupted,
        "endpoint_ms": clean_number(event.delays.endpoint_ms),
        "stt_ms": clean_number(event.delays.stt_ms),
        "llm_ms": clean_number(event.delays.llm_ms),
        "tts_ms": clean_number(event.delays.tts_ms),
        "reply_ms": clean_number(event.delays.reply_ms),
        "tools_ms": clean_number(event.delays.tools_ms),
        "clause_ms": clean_number(event.delays.clause_ms),
        "playout_ms": clean_number(event.delays.playout_ms),
        "ahead_ms": clean_number(event.delays.ahead_ms),
        "stt": clean_text(event.delays.stt),
        "llm": clean_text(event.delays.llm),
        "tts": clean_text(event.delays.tts),
        "why": clean_text(event.why),
    }


def _conditions(wanted: CallFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(calls.c.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(calls.c.started_at < wanted.until)
    for column, value in (
        (calls.c.agent, wanted.agent),
        (calls.c.cause, wanted.cause),
        (calls.c.direction, wanted.direction),
    ):
        if value is not None:
            found.append(column == value)
    if wanted.leg_id is not None:
        named = select(call_names.c.call_id).where(call_names.c.name == wanted.leg_id[:MAX_NAME])
        found.append(or_(calls.c.leg_id == wanted.leg_id, calls.c.id.in_(named)))
    if wanted.live is not None:
        found.append(calls.c.ended_at.is_(None) if wanted.live else calls.c.ended_at.is_not(None))
    return found


def _of(table: Any, call_id: str) -> Select[Any]:
    return select(table).where(table.c.call_id == call_id).order_by(table.c.seq)


def _call(row: Row[Any]) -> CallRecord:
    return CallRecord(
        id=row.id,
        direction=row.direction,
        from_=row.from_user,
        to=row.to_user,
        trunk=row.trunk,
        agent=row.agent,
        leg_kind=row.leg_kind,
        leg_id=row.leg_id,
        started_at=row.started_at,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
        setup_ms=row.setup_ms,
        cause=row.cause,
        detail=row.detail,
        recording=row.recording,
        quality=row.quality,
        codec=row.codec,
        srtp=row.srtp,
        one_way=row.one_way,
    )


def _turn(row: Row[Any]) -> TurnRecord:
    return TurnRecord(
        seq=row.seq,
        at=row.at,
        index=row.turn_index,
        speaker=row.speaker,
        text=row.text,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        heard_text=row.heard_text,
        heard_ms=row.heard_ms,
        interrupted=row.interrupted,
        delays=TurnDelays(
            row.endpoint_ms,
            row.stt_ms,
            row.llm_ms,
            row.tts_ms,
            row.reply_ms,
            row.llm,
            tools_ms=row.tools_ms,
            clause_ms=row.clause_ms,
            playout_ms=row.playout_ms,
            ahead_ms=row.ahead_ms,
            stt=row.stt,
            tts=row.tts,
        ),
        why=row.why,
    )


def _utc(at: float) -> datetime:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (OverflowError, OSError) as error:
        # OSError would pass for a failing disk, and be tried for ever.
        raise ValueError(f"{at!r} is no time") from error


def _cursor(call: CallRecord) -> str:
    return base64.urlsafe_b64encode(f"{call.started_at.isoformat()} {call.id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        at, _, call_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        started_at = datetime.fromisoformat(at)
    except (ValueError, binascii.Error) as error:
        raise CursorError("the cursor is not one that a list of calls gave out") from error
    if started_at.tzinfo is None or not call_id:
        raise CursorError("the cursor is not one that a list of calls gave out")
    return started_at, call_id


def _driver_errors(engine: AsyncEngine) -> type[Exception]:
    """The driver's own errors, which come unwrapped from a raw connection."""
    errors: type[Exception] = engine.dialect.loaded_dbapi.Error
    return errors
