"""Commands can be stopped by any process; results tell links, sizes and what cannot be applied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("commands", sa.Column("cancel_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("command_changes", sa.Column("link", sa.Text(), nullable=True))
    op.add_column("command_changes", sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("command_changes", sa.Column("problem", sa.Text(), server_default="", nullable=False))
