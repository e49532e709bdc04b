"""What the installation looked like at regular moments, and who leads its schedule."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Float, Index, Integer, Table, Text, func

from orchestrator.store.metadata import METADATA

DISK_SAMPLES = Table(
    "disk_samples",
    METADATA,
    Column("at", DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()),
    Column("free_bytes", BigInteger, nullable=False),
    Column("total_bytes", BigInteger, nullable=False),
)

USAGE_SAMPLES = Table(
    "usage_samples",
    METADATA,
    Column("tenant_id", Text, primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True, server_default=func.clock_timestamp()),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("limit_bytes", BigInteger, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
)
Index("ix_usage_samples_at", USAGE_SAMPLES.c.at)

LEADERS = Table(
    "leaders",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ticked_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ticks", Integer, nullable=False, server_default="0"),
    Column("error", Text, nullable=False, server_default=""),
)
