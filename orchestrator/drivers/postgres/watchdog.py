"""The watchdog: what a tenant's role could switch off for itself is enforced by another role."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from orchestrator.core.ports.servers import (
    APP_DATABASE,
    WATCHDOG_ROLE,
    EndedSession,
    Looked,
    ServerFailed,
    Servers,
    ServerSpec,
    WatchLimits,
)

# A cancelled statement can catch the cancellation and go on; then its session is ended.
GRACE_S = 10.0
GROWTH_BYTES_PER_S = 1 << 30  # faster than any one database grows
RUNNING = """
    SELECT pid, extract(epoch FROM clock_timestamp() - query_start)::float8
    FROM pg_catalog.pg_stat_activity
    WHERE usename = %s AND backend_type = 'client backend' AND state IN ('active', 'fastpath function call')
      AND query_start IS NOT NULL"""


class PostgresWatchdog:
    """The Watchdog port."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def look(self, spec: ServerSpec, limits: WatchLimits) -> Looked:
        """Cancel statements over time, end sessions that resist; over size end every running statement's session."""
        dsn = self.servers.dsn(spec.sockets, user=WATCHDOG_ROLE, database=APP_DATABASE)
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SET search_path = ''")
                connection.execute("SET statement_timeout = '10s'")
                size_bytes = 0 if limits.size_bytes is None else _size(connection)
                is_too_large = limits.size_bytes is not None and size_bytes > limits.size_bytes
                over_s = 0.0 if is_too_large else limits.statement_timeout_s
                running = connection.execute(RUNNING, (spec.pool_role,)).fetchall()
                ended = [_end(connection, pid, ran_s, limits, is_too_large) for pid, ran_s in running if ran_s > over_s]
                return Looked(tuple(ended), _quiet_s([ran_s for _, ran_s in running], size_bytes, limits))
        except psycopg.Error as error:
            raise ServerFailed(f"The watchdog could not look at {spec.name}.", effect=str(error).strip()) from error


def _quiet_s(ran_s: Sequence[float], size_bytes: int, limits: WatchLimits) -> float:
    """What runs, or begins now, is over its time no sooner, and over the size no sooner than a disk can write."""
    in_time_s = limits.statement_timeout_s - max(ran_s, default=0.0)
    if limits.size_bytes is not None:
        in_time_s = min(in_time_s, (limits.size_bytes - size_bytes) / GROWTH_BYTES_PER_S)
    return max(0.0, in_time_s)


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
