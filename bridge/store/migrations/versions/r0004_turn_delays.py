"""Every part of a reply's delay, and which providers took part."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PARTS = ("tools_ms", "clause_ms", "playout_ms", "ahead_ms")
PROVIDERS = ("stt", "llm", "tts")


def upgrade() -> None:
    for name in PARTS:
        op.add_column("turns", sa.Column(name, sa.Double))
    for name in PROVIDERS:
        op.add_column("turns", sa.Column(name, sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    for name in (*PROVIDERS, *PARTS):
        op.drop_column("turns", name)
