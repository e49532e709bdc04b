"""Runs the steps on the connection `migrate` brings, inside its transaction and its lock."""

from __future__ import annotations

from alembic import context

from orchestrator.store import tables
from orchestrator.store.metadata import METADATA

assert tables  # noqa: S101 - importing it registers them
context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
