"""What a call's media was: codec, encryption, how it sounded, and whether audio flowed one way only."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("codec", "srtp", "one_way"):
        op.add_column("calls", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in ("mos", "mos_remote"):
        op.add_column("calls", sa.Column(name, sa.Double))


def downgrade() -> None:
    for name in ("mos_remote", "mos", "one_way", "srtp", "codec"):
        op.drop_column("calls", name)
