"""Approvals of single commands, and requests for rules."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

APPROVALS = Table(
    "approvals",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("on_behalf_of", Text, nullable=False, server_default=""),
    Column("argv", JSONB, nullable=False),
    Column("cwd", Text, nullable=False),
    Column("environment", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("place", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("stdin_bytes", Integer, nullable=False, server_default="0"),
    Column("stdin_digest", Text, nullable=False, server_default=""),
    Column("binding", Text, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("rule", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("decided_by_id", Text),
    Column("decided_by", Text),
    Column("decision_reason", Text, nullable=False, server_default=""),
    Column("used_by_command", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("decided_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('command', 'rule')", name="kind"),
    CheckConstraint("state IN ('pending', 'approved', 'denied', 'used')", name="state"),
    CheckConstraint("(state = 'used') = (used_at IS NOT NULL)", name="used"),
    Index("ix_approvals_inbox", "state", "created_at"),
    Index("ix_approvals_binding", "binding", "state"),
    # One open request for the same thing by the same requester.
    Index("uq_approvals_open", "kind", "binding", "actor_id", unique=True, postgresql_where=text("state = 'pending'")),
)
