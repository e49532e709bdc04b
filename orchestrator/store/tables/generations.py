"""Generations: which builds of a tenant's database exist, and which one is live."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Index, Table, Text

from orchestrator.store.metadata import METADATA

GENERATIONS = Table(
    "generations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("snapshot_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("live_at", DateTime(timezone=True)),
    Column("retired_at", DateTime(timezone=True)),
)
# A tenant has one live generation, whatever the code believes.
Index(
    "ux_generations_one_live",
    GENERATIONS.c.tenant_id,
    unique=True,
    postgresql_where=GENERATIONS.c.state == "live",
)
Index("ix_generations_tenant_id", GENERATIONS.c.tenant_id)
Index("ix_generations_snapshot_id", GENERATIONS.c.snapshot_id)
