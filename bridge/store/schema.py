"""The tables of the record: calls, turns and events. Portable types only, so SQLite and PostgreSQL hold the same.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite keeps no time zone: it is taken off on the way in, put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Named constraints, so that a later migration can change them on every database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _json() -> JSON:
    return JSON(none_as_null=True)


def _owner() -> Column[Any]:
    return Column("call_id", String(64), ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)


calls = Table(
    "calls",
    metadata,
    Column("id", String(64), primary_key=True),
    # Which bridge process carries the call: after a crash it closes its own open calls and nobody else's.
    Column("node", String(64), nullable=False),
    Column("direction", String(16), nullable=False),
    Column("from_user", Text, nullable=False),
    Column("to_user", Text, nullable=False),
    Column("trunk", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("leg_kind", Text, nullable=False),
    Column("leg_id", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("setup_ms", Double),
    Column("cause", String(32)),
    Column("detail", Text, nullable=False, server_default=""),
    Column("recording", Text),
    Column("quality", _json()),
    # Of the media, what calls are looked for by; the numbers are all in `quality`.
    Column("codec", Text, nullable=False, server_default=""),
    Column("srtp", Text, nullable=False, server_default=""),
    Column("one_way", Text, nullable=False, server_default=""),
    Column("mos", Double),
    Column("mos_remote", Double),
    Index(None, "started_at", "id"),
    Index(None, "ended_at"),
    Index(None, "leg_id"),
)

# `seq` numbers the events of a call, turns included, in the order they happened.
turns = Table(
    "turns",
    metadata,
    _owner(),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("turn_index", Integer, nullable=False),
    Column("speaker", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("started_ms", Double, nullable=False),
    Column("ended_ms", Double, nullable=False),
    Column("heard_text", Text, nullable=False),
    Column("heard_ms", Double, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("endpoint_ms", Double),
    Column("stt_ms", Double),
    Column("llm_ms", Double),
    Column("tts_ms", Double),
    Column("reply_ms", Double),
    Column("tools_ms", Double),
    Column("clause_ms", Double),
    Column("playout_ms", Double),
    Column("ahead_ms", Double),
    Column("stt", Text, nullable=False, server_default=""),
    Column("llm", Text, nullable=False, server_default=""),
    Column("tts", Text, nullable=False, server_default=""),
    Column("why", Text, nullable=False, server_default=""),
)

# By what else a call is found: what its legs are called by others, as event `seq` of the call told.
call_names = Table(
    "call_names",
    metadata,
    _owner(),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Index(None, "name"),
)

# Every event but the turns, which are in their own table.
events = Table(
    "events",
    metadata,
    _owner(),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("name", String(64), nullable=False),
    Column("data", _json(), nullable=False),
)
