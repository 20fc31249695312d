"""What else a call is known by: SIP Call-IDs behind a PBX, names of channels, ids of further legs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "call_names",
        sa.Column("call_id", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
    )
    op.create_index("ix_call_names_name", "call_names", ["name"])


def downgrade() -> None:
    op.drop_table("call_names")
