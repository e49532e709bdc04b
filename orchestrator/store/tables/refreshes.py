"""Refreshes (the journal), postponements, and the slots of the schedule that were decided."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

REFRESHES = Table(
    "refreshes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="running"),
    Column("step", Text, nullable=False, server_default="planned"),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("job_id", Text),
    Column("snapshot_id", Text),
    Column("generation_id", Text, nullable=False),
    Column("previous_id", Text),
    Column("draft_id", Text),
    Column("carried", Text),
    Column("timings", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("gap_s", Float),
    Column("ended_sessions", Integer, nullable=False, server_default="0"),
    Column("error_code", Text),
    Column("error", Text),
    Column("recovered", Boolean, nullable=False, server_default=text("false")),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('refresh', 'undo')", name="kind"),
    CheckConstraint("state IN ('running', 'done', 'failed')", name="state"),
    CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished"),
    Index("ix_refreshes_tenant", "tenant_id", "started_at"),
    Index("ix_refreshes_started", "started_at"),
    # At most one open refresh a tenant, whatever happens to locks.
    Index("uq_refreshes_open", "tenant_id", unique=True, postgresql_where=text("state = 'running'")),
)

POSTPONEMENTS = Table(
    "postponements",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

SLOTS = Table(
    "slots",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("job_id", Text),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("outcome IN ('run', 'skipped', 'postponed')", name="outcome"),
    Index("ix_slots_target", "kind", "target", "due_at"),
    Index("ix_slots_decided", "decided_at"),
)
