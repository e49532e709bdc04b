"""Publishes: one row each, kept for the history."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

PUBLISHES = Table(
    "publishes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("base_commit", Text),
    Column("commit", Text),
    Column("files_count", Integer, nullable=False, server_default="0"),
    Column("findings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("error", Text, nullable=False, server_default=""),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", DateTime(timezone=True)),
    Column("pushed_at", DateTime(timezone=True)),
    CheckConstraint(
        "state IN ('running', 'unchanged', 'published', 'refused', 'pending', 'failed')",
        name="state",
    ),
    Index("ix_publishes_tenant", "tenant_id", "started_at"),
)
