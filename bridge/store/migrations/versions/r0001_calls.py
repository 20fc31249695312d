"""Calls, turns and events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Spelled out rather than taken from `schema`: what this revision made must not change when the schema does.
    op.create_table(
        "calls",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("from_user", sa.Text, nullable=False),
        sa.Column("to_user", sa.Text, nullable=False),
        sa.Column("trunk", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("leg_kind", sa.Text, nullable=False),
        sa.Column("leg_id", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("setup_ms", sa.Double),
        sa.Column("cause", sa.String(32)),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.Column("recording", sa.Text),
        sa.Column("quality", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_started_at_id", "calls", ["started_at", "id"])
    op.create_index("ix_calls_ended_at", "calls", ["ended_at"])
    op.create_index("ix_calls_leg_id", "calls", ["leg_id"])
    op.create_table(
        "turns",
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("turn_index", sa.Integer, nullable=False),
        sa.Column("speaker", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("started_ms", sa.Double, nullable=False),
        sa.Column("ended_ms", sa.Double, nullable=False),
        sa.Column("heard_text", sa.Text, nullable=False),
        sa.Column("heard_ms", sa.Double, nullable=False),
        sa.Column("interrupted", sa.Boolean, nullable=False),
        sa.Column("endpoint_ms", sa.Double),
        sa.Column("stt_ms", sa.Double),
        sa.Column("llm_ms", sa.Double),
        sa.Column("tts_ms", sa.Double),
        sa.Column("reply_ms", sa.Double),
        sa.PrimaryKeyConstraint("call_id", "seq", name="pk_turns"),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_turns_call_id", ondelete="CASCADE"),
    )
    op.create_table(
        "events",
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("call_id", "seq", name="pk_events"),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name="fk_events_call_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("turns")
    op.drop_table("calls")
