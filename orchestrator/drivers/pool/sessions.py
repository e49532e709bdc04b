"""Ending the sessions that keep a pool from pausing, on the database behind it."""

from __future__ import annotations

import psycopg

from orchestrator.core.ports.pools import PoolFailed

# The tenant's only: a comparison that reads the same database is not in the pool's way.
_OTHERS = "backend_type = 'client backend' AND usename = %(role)s"
IN_TRANSACTION = f"{_OTHERS} AND xact_start IS NOT NULL"
BETWEEN_TRANSACTIONS = f"{_OTHERS} AND state = 'idle'"
ALL = _OTHERS


def end(dsn: str, *, role: str, which: str) -> int:
    """Terminate the sessions that match `which`; returns how many. Raises PoolFailed."""
    query = f"SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}) AS ended"
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name="orchestrator") as connection:
            connection.execute("SET statement_timeout = '5s'; SET search_path = pg_catalog")
            row = connection.execute(query.encode(), {"role": role}).fetchone()
            return int(row[0]) if row else 0
    except psycopg.Error as error:
        raise PoolFailed(f"Sessions that hold the database could not be ended: {error}") from error
