"""Bringing the control database's schema up to date."""

from __future__ import annotations

from sqlalchemy import Engine, text

from orchestrator.store import tables
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import lock_key


def migrate(store: Engine) -> None:
    """Bring the schema up to date; one process at a time, again is quick."""
    assert tables  # noqa: S101 - importing it registers them
    with store.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": lock_key("migrations")})
        METADATA.create_all(connection)
