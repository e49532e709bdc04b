"""Promotes and reverts: the journal that stays true when the control plane dies at any step."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
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

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("change_id", Text, ForeignKey("changes.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("actor", JSONB, nullable=False),
    Column("approvers", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("transaction_id", Text),
    Column("code_before", Text),
    Column("code_after", Text),
    Column("migrations", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("inserted", Integer, nullable=False, server_default="0"),
    Column("updated", Integer, nullable=False, server_default="0"),
    Column("deleted", Integer, nullable=False, server_default="0"),
    Column("unchanged", Integer, nullable=False, server_default="0"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("inverse", LargeBinary),  # as the change's own changeset
    Column("error_code", Text),
    Column("error", Text),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", DateTime(timezone=True)),
    Column("duration_s", Float),
    CheckConstraint("kind IN ('promote', 'revert')", name="kind"),
    CheckConstraint("state IN ('running', 'committed', 'failed', 'unknown')", name="state"),
    # A second promote of one change cannot even begin while one is open or once one has succeeded.
    Index(
        "uq_promotions_open",
        "change_id",
        "kind",
        unique=True,
        postgresql_where=text("state IN ('running', 'unknown', 'committed')"),
    ),
)
