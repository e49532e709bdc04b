"""People who sign in, and the tenants managers belong to."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, Table, Text, func

from orchestrator.store.metadata import METADATA

USERS = Table(
    "users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("is_disabled", Boolean, nullable=False, server_default="false"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("last_seen_at", DateTime(timezone=True)),
    CheckConstraint("role IN ('admin', 'reviewer', 'manager', 'agent')", name="role"),
)
Index("ux_users_name", USERS.c.name, unique=True)

USER_TENANTS = Table(
    "user_tenants",
    METADATA,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
)
Index("ix_user_tenants_tenant_id", USER_TENANTS.c.tenant_id)

# Counted by name, whether or not there is such a user: an answer must not tell which names exist.
SIGN_IN_FAILURES = Table(
    "sign_in_failures",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
)
