"""Tenants, and the journal of the steps that launch, stop, start and remove them."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    func,
)

from orchestrator.store.metadata import METADATA

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("profile", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("scope", Text),
    Column("snapshot_profile", Text, nullable=False),
    Column("refresh_policy", Text, nullable=False),
    Column("pool_mode", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_try_at", DateTime(timezone=True)),
    CheckConstraint("number >= 0", name="number"),
)
# A name and a slot belong to one tenant at a time; ids are never reused.
Index("ux_tenants_name", TENANTS.c.name, unique=True, postgresql_where=TENANTS.c.state != "removed")
Index("ux_tenants_number", TENANTS.c.number, unique=True, postgresql_where=TENANTS.c.state != "removed")

STEPS = Table(
    "tenant_steps",
    METADATA,
    Column("number", Integer, Identity(), primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("operation", Text, nullable=False),
    Column("operation_id", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("begun_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True)),
    Column("spent_s", Double),
    Column("error", Text),
)
Index("ix_tenant_steps_tenant_id", STEPS.c.tenant_id, STEPS.c.number)
