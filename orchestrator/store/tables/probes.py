"""What came of probing tenants' boundaries; the newest of each tenant counts."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

PROBES = Table(
    "probes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("is_sound", Boolean, nullable=False),
    Column("probes", JSONB, nullable=False),
)
Index("ix_probes_tenant_id", PROBES.c.tenant_id, PROBES.c.at.desc())
