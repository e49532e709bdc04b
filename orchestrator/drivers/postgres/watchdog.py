"""The watchdog: what a tenant's role could switch off for itself is enforced by another role."""

from __future__ import annotations

import psycopg

from orchestrator.core.ports.servers import (
    APP_DATABASE,
    WATCHDOG_ROLE,
    EndedSession,
    ServerFailed,
    Servers,
    ServerSpec,
    WatchLimits,
)

# A cancelled statement can catch the cancellation and go on; then its session is ended.
GRACE_S = 10.0
RUNNING = """
    SELECT pid, extract(epoch FROM clock_timestamp() - query_start)::float8
    FROM pg_catalog.pg_stat_activity
    WHERE usename = %s AND backend_type = 'client backend' AND state IN ('active', 'fastpath function call')
      AND query_start IS NOT NULL AND extract(epoch FROM clock_timestamp() - query_start) > %s"""


class PostgresWatchdog:
    """The Watchdog port."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def look(self, spec: ServerSpec, limits: WatchLimits) -> list[EndedSession]:
        """Cancel statements over time, end sessions that resist; over size end every running statement's session."""
        dsn = self.servers.dsn(spec.sockets, user=WATCHDOG_ROLE, database=APP_DATABASE)
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET search_path = ''")
                connection.execute("SET statement_timeout = '10s'")
                is_too_large = limits.size_bytes is not None and _size(connection) > limits.size_bytes
                over_s = 0.0 if is_too_large else limits.statement_timeout_s
                found = connection.execute(RUNNING, (spec.pool_role, over_s)).fetchall()
                return [_end(connection, pid, ran_s, limits, is_too_large) for pid, ran_s in found]
        except psycopg.Error as error:
            raise ServerFailed(f"The watchdog could not look at {spec.name}.", effect=str(error).strip()) from error


def _end(
    connection: psycopg.Connection[tuple[object, ...]], pid: int, ran_s: float, limits: WatchLimits, is_too_large: bool
) -> EndedSession:
    is_resisting = ran_s > limits.statement_timeout_s + GRACE_S
    function = "pg_terminate_backend" if is_too_large or is_resisting else "pg_cancel_backend"
    connection.execute(f"SELECT pg_catalog.{function}(%s)", (pid,))
    why = "too_large" if is_too_large else "too_long"
    return EndedSession(pid, why, ran_s, was_terminated=is_too_large or is_resisting)


def _size(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())").fetchone()
    return int(str(row[0])) if row else 0
