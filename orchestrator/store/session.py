"""Connections to the control database and the one lock per tenant."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, text

from orchestrator.errors import Conflict

LOCK_POLL_S = 0.1


class TenantBusy(Conflict):
    code = "conflict.tenant_busy"


def connect(dsn: str, *, pool_size: int = 10) -> Engine:
    """An engine on the control database. `dsn` is a SQLAlchemy URL (postgresql+psycopg://…)."""
    return create_engine(dsn, pool_size=pool_size, max_overflow=20, pool_pre_ping=True, pool_timeout=15)


def lock_key(*parts: str) -> int:
    """A stable signed 64-bit key for an advisory lock."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(engine: Engine, *parts: str, patience_s: float = 0.0) -> Iterator[bool]:
    """Try the lock named by `parts` on a connection of its own, for `patience_s`; yields whether it was taken."""
    deadline = time.monotonic() + patience_s
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while True:
            taken = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:k)"), {"k": lock_key(*parts)}))
            if taken or time.monotonic() >= deadline:
                break
            time.sleep(LOCK_POLL_S)
        try:
            yield taken
        finally:
            if taken:
                _unlock(connection, lock_key(*parts))


def _unlock(connection: Connection, key: int) -> None:
    if connection.closed or connection.invalidated:
        return  # the session is gone and the server has released the lock with it
    connection.execute(text("SELECT pg_advisory_unlock(:k)"), {"k": key})


@contextmanager
def tenant_lock(engine: Engine, tenant_id: str, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the tenant's lock for everything that changes it.

    Raises TenantBusy when somebody else holds it for longer than `patience_s`: busy is an answer, not a queue. People
    get a little patience, since reconcile may just be looking after the tenant.
    """
    with advisory_lock(engine, "tenant", tenant_id, patience_s=patience_s) as taken:
        if not taken:
            raise TenantBusy(
                "Another operation on this tenant is under way.",
                effect="Nothing was changed.",
                next_step="Try again when it has finished; `orchestrator status` shows it.",
                tenant_id=tenant_id,
            )
        yield
