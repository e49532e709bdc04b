"""The roles inside a tenant's database: the tenant's own, the reader's, the watchdog's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from orchestrator.core.ports.servers import (
    APP_DATABASE,
    PREPARED_ROLE,
    READER_ROLE,
    SUPERUSER,
    WATCHDOG_ROLE,
    RoleLimits,
    ServerFailed,
    Servers,
    ServerSpec,
)

INFO_SCHEMA = "orchestrator_snapshot"
# What any role may do by default and a tenant must not: see other databases, read the WAL's summaries.
REVOKED_FUNCTIONS = (
    "pg_available_wal_summaries()",
    "pg_wal_summary_contents(bigint, pg_lsn, pg_lsn)",
    "pg_get_wal_summarizer_state()",
    "pg_logical_emit_message(boolean, text, text, boolean)",
    "pg_logical_emit_message(boolean, text, bytea, boolean)",
    "pg_logical_emit_message(boolean, text, text)",
    "pg_logical_emit_message(boolean, text, bytea)",
)


WARMING_MS = 200
LARGEST_TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname), string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE c.relkind = 'r' AND c.oid >= 16384
    GROUP BY c.oid, c.relpages, n.nspname, c.relname ORDER BY c.relpages DESC LIMIT 8"""


class PostgresRoles:
    """The Roles port."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def hand_over(self, spec: ServerSpec, *, role: str, limits: RoleLimits) -> None:
        """Rename the prepared role to the tenant's and let it log in; idempotent. Raises ServerFailed.

        Nothing here touches an object the tenant owns, so nothing of the tenant's runs.
        """
        name = sql.Identifier(role)
        timeout_ms = sql.Literal(f"{int(limits.statement_timeout_s * 1000)}ms")
        with self._connection(spec, SUPERUSER, "postgres") as connection, connection.transaction():
            # Every start hands over again, and nothing the tenant commits can become durable before this.
            connection.execute("SET LOCAL synchronous_commit = off")
            present = {
                row[0]
                for row in connection.execute(
                    "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN (%s, %s)", (PREPARED_ROLE, role)
                )
            }
            if role not in present:
                if PREPARED_ROLE not in present:
                    raise ServerFailed(f"The database {spec.name} has no role to hand over: it is not a snapshot's.")
                connection.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(PREPARED_ROLE), name))
            connection.execute(
                sql.SQL(
                    "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                    " CONNECTION LIMIT {}"
                ).format(name, sql.Literal(limits.connections))
            )
            connection.execute(sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(name, timeout_ms))

    def snapshot_id(self, spec: ServerSpec) -> str:
        """Read as the reader, in a read-only transaction. Raises ServerFailed."""
        with self._connection(spec, READER_ROLE, APP_DATABASE) as connection:
            connection.read_only = True
            row = connection.execute(
                sql.SQL("SELECT snapshot_id FROM ONLY {}").format(sql.Identifier(INFO_SCHEMA, "info"))
            ).fetchone()
        if row is None:
            raise ServerFailed(f"The database {spec.name} does not say which snapshot it was made from.")
        return str(row[0])

    def warm(self, spec: ServerSpec) -> None:
        """Fetch the first row of the largest tables by primary key: catalogs and index roots are in memory then."""
        with suppress(ServerFailed), self._connection(spec, READER_ROLE, APP_DATABASE) as connection:
            connection.read_only = True
            connection.execute(f"SET statement_timeout = {WARMING_MS}")
            for table, keys in connection.execute(LARGEST_TABLES).fetchall():
                connection.execute(f"SELECT FROM ONLY {table} ORDER BY {keys} LIMIT 1".encode())

    def rights(self, spec: ServerSpec, role: str) -> dict[str, bool]:
        """What the role must not have, and whether it has it. Raises ServerFailed."""
        with self._connection(spec, READER_ROLE, APP_DATABASE) as connection:
            connection.read_only = True
            row = connection.execute(
                "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
                " FROM pg_catalog.pg_roles WHERE rolname = %s",
                (role,),
            ).fetchone()
            if row is None:
                raise ServerFailed(f"The database {spec.name} has no role {role}.")
            member = connection.execute(
                "SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.rolname <> %s"
                " AND pg_catalog.pg_has_role(%s::name, r.oid, 'MEMBER')",
                (role, role),
            ).fetchall()
        held = dict(
            zip(
                ("superuser", "create roles", "create databases", "replication", "bypass row security"),
                row,
                strict=True,
            )
        )
        groups = {str(one[0]) for one in member}
        wanted = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program", "pg_signal_backend")
        known = {name: name in groups for name in (*wanted, "pg_read_all_data", "pg_write_all_data", "pg_monitor")}
        return {name: bool(has) for name, has in held.items()} | known | dict.fromkeys(groups - set(known), True)

    @contextmanager
    def _connection(self, spec: ServerSpec, user: str, database: str) -> Iterator[psycopg.Connection[Any]]:
        try:
            with psycopg.connect(self.servers.dsn(spec.sockets, user=user, database=database)) as connection:
                yield connection
        except psycopg.Error as error:
            raise ServerFailed(f"The database {spec.name} refused a step.", effect=str(error).strip()) from error


def prepare_roles(connection: psycopg.Connection[Any]) -> None:
    """In a builder, before its data comes: the roles every snapshot carries, and nothing for PUBLIC."""
    for statement in (
        f"CREATE ROLE {PREPARED_ROLE} NOLOGIN NOINHERIT",
        f"CREATE ROLE {READER_ROLE} LOGIN NOINHERIT BYPASSRLS CONNECTION LIMIT 10",
        f"GRANT pg_read_all_data TO {READER_ROLE} WITH INHERIT TRUE",
        f"CREATE ROLE {WATCHDOG_ROLE} LOGIN NOINHERIT CONNECTION LIMIT 5",
        f"GRANT pg_monitor TO {WATCHDOG_ROLE} WITH INHERIT TRUE",
        f"GRANT pg_signal_backend TO {WATCHDOG_ROLE} WITH INHERIT TRUE",
        f"ALTER ROLE {READER_ROLE} SET search_path = ''",
        f"ALTER ROLE {READER_ROLE} SET default_transaction_read_only = on",
    ):
        connection.execute(_for_version(statement, connection.info.server_version))


def _for_version(statement: str, version: int) -> str:
    """Before 16 inheritance is the member's attribute, not the grant's."""
    if version >= 160000:
        return statement
    return statement.replace(" WITH INHERIT TRUE", "").replace(" LOGIN NOINHERIT", " LOGIN INHERIT")


def close_to_public(connection: psycopg.Connection[Any]) -> None:
    """In the snapshot's own database: PUBLIC may not connect elsewhere, nor use what is for us alone."""
    for database in ("postgres", "template1", APP_DATABASE):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
    app = sql.Identifier(APP_DATABASE)
    for role in (PREPARED_ROLE, READER_ROLE, WATCHDOG_ROLE):
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(app, sql.Identifier(role)))
    connection.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(app, sql.Identifier(PREPARED_ROLE)))
    for function in REVOKED_FUNCTIONS:
        known = connection.execute("SELECT to_regprocedure(%s)", (f"pg_catalog.{function}",)).fetchone()
        if known and known[0]:
            connection.execute(f"REVOKE ALL ON FUNCTION pg_catalog.{function} FROM PUBLIC")
