"""Sessions, of the console and of tenants' hosts, and the one-time codes between them. Only digests are kept."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, LargeBinary, Table, Text, func

from orchestrator.store.metadata import METADATA

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("hostname", Text, nullable=False),
    Column("parent_id", Text, ForeignKey("sessions.id", ondelete="CASCADE")),
    Column("address", Text, nullable=False, server_default=""),
    Column("agent", Text, nullable=False, server_default=""),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
Index("ix_sessions_user_id", SESSIONS.c.user_id)
Index("ix_sessions_parent_id", SESSIONS.c.parent_id)
Index("ix_sessions_expires_at", SESSIONS.c.expires_at)

ENTRY_CODES = Table(
    "entry_codes",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("hostname", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("hostname <> ''", name="hostname"),
)
