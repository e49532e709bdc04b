"""Changes, what people said about them, and everything that happened to them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

CHANGES = Table(
    "changes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("tenant_name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("author", JSONB, nullable=False),
    Column("base_snapshot_id", Text, nullable=False),
    Column("generation_id", Text),
    Column("rows_digest", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("inserted", Integer, nullable=False, server_default="0"),
    Column("updated", Integer, nullable=False, server_default="0"),
    Column("deleted", Integer, nullable=False, server_default="0"),
    Column("tables", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("changeset", LargeBinary, nullable=False),  # the JSON form, compressed
    Column("code_head", Text),
    Column("checks", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("risks", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("approvals_needed", Integer, nullable=False, server_default="1"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("submitted_at", DateTime(timezone=True)),
    Column("approved_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("promoted_at", DateTime(timezone=True)),
    Column("promotion_id", Text),
    Column("reverted_at", DateTime(timezone=True)),
    Column("reason", Text, nullable=False, server_default=""),
    CheckConstraint(
        "state IN ('draft', 'submitted', 'approved', 'rejected', 'promoted', 'conflicted', 'withdrawn')", name="state"
    ),
    CheckConstraint("state <> 'promoted' OR promotion_id IS NOT NULL", name="promoted_names_promotion"),
    Index("ix_changes_tenant", "tenant_id", "created_at"),
    Index("ix_changes_state", "state", "updated_at"),
)

CHANGE_COMMENTS = Table(
    "change_comments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("change_id", Text, ForeignKey("changes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("author", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("text", Text, nullable=False),
    Column("row", Text, nullable=False, server_default=""),
)

CHANGE_APPROVALS = Table(
    "change_approvals",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("change_id", Text, ForeignKey("changes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("actor", JSONB, nullable=False),
    Column("digest", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("void_reason", Text, nullable=False, server_default=""),
)

CHANGE_EVENTS = Table(
    "change_events",
    METADATA,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("change_id", Text, nullable=False, index=True),
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("data", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)
