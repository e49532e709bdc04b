"""Snapshots: every one ever taken, with its manifest or why it failed."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.store.metadata import METADATA

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("profile", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("taken_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("manifest", JSONB),
    CheckConstraint("state <> 'ready' OR (manifest IS NOT NULL AND taken_at IS NOT NULL)", name="ready_is_complete"),
)
Index("ix_snapshots_profile_taken_at", SNAPSHOTS.c.profile, SNAPSHOTS.c.taken_at.desc())
