"""What other programs are to be told; written in the transaction of what it is about."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("tenant_id", Text),
    Column("actor", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("data", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("settled_at", DateTime(timezone=True)),  # its deliveries are jobs, or nobody wanted it
    Index("ix_outbox_waiting", "number", postgresql_where=text("settled_at IS NULL")),
)
