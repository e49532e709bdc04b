"""Tenants, and the steps a launch or removal wrote down before taking them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, Table, Text, func, text

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
    Column("scope", Text),
    Column("snapshot_profile", Text, nullable=False),
    Column("refresh_policy", Text, nullable=False),
    Column("pool_mode", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("created_by", Text, nullable=False),
    Column("step", Text, nullable=False, server_default=""),
    Column("error_code", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint(
        "state IN ('launching', 'running', 'stopped', 'failed', 'removing', 'removed')",
        name="state",
    ),
    # A name and a slot are free again once the tenant that had them is gone for good; ids never are.
    Index("uq_tenants_name_open", "name", unique=True, postgresql_where=text("state <> 'removed'")),
    Index("uq_tenants_number_open", "number", unique=True, postgresql_where=text("state <> 'removed'")),
)

TENANT_STEPS = Table(
    "tenant_steps",
    METADATA,
    Column("tenant_id", Text, ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("trip", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("detail", Text, nullable=False, server_default=""),
)
