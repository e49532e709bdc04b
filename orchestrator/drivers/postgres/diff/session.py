"""Connections the differ reads with: an unprivileged role, read-only, an empty search path, pinned text output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, sql

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.changeset.text_form import PINNED_SETTINGS
from orchestrator.core.ports.differ import DatabaseBusy, DiffFailed
from orchestrator.drivers.postgres.diff.catalog import Relation

LOCK_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 10
_SESSION_SETTINGS = {
    "default_transaction_read_only": "on",
    "client_min_messages": "error",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": "0",  # the snapshot is held while the WAL is summarized
    "synchronize_seqscans": "off",  # both sides read a file from its beginning
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


class SchemaMoved(Exception):
    """The schema changed under the comparison; it has to start anew."""


@contextmanager
def reading(dsn: str, *, timeout_s: float, what: str) -> Iterator[Connection[Any]]:
    """A connection of the role `reader`, outside a transaction. Raises DiffFailed, also for a superuser.

    A superuser's SELECT would run the tenant's functions with every right, so that is refused outright.
    """
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, prepare_threshold=None)
    except psycopg.Error as error:
        raise DiffFailed(
            f"The {what} cannot be reached.", next_step="Check that it runs.", cause=_first(error)
        ) from error
    try:
        if connection.info.parameter_status("is_superuser") != "off":
            raise DiffFailed(
                f"The {what} would be read by a superuser.",
                effect="Nothing was read: tenant code could run with a superuser's rights.",
                next_step="Connect as the role `reader`.",
            )
        encoding = connection.info.parameter_status("server_encoding")
        settings = {
            **PINNED_SETTINGS,
            **_SESSION_SETTINGS,
            # Such a database converts nothing; LATIN1 lets every byte pass for names, cells are read raw anyway.
            "client_encoding": "LATIN1" if encoding == "SQL_ASCII" else "UTF8",
            "statement_timeout": str(int(timeout_s * 1000)),
        }
        pairs = sql.SQL(", ").join(
            sql.SQL("pg_catalog.set_config({}, {}, false)").format(name, value) for name, value in settings.items()
        )
        connection.execute(sql.SQL("SELECT ") + pairs)
        yield connection
    finally:
        connection.close()


@contextmanager
def administering(dsn: str) -> Iterator[Connection[Any]]:
    """The connection that may CHECKPOINT and read WAL summaries. It never names a tenant's table."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, prepare_threshold=None) as connection:
        connection.execute(b"SELECT pg_catalog.set_config('search_path', '', false)")
        yield connection


def begin(connection: Connection[Any]) -> None:
    connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


def lock(connection: Connection[Any], relations: Sequence[Relation]) -> None:
    """Keep these tables as the snapshot saw them until the transaction ends; readers and writers go on.

    Raises SchemaMoved when one of them has been replaced or rewritten since, DatabaseBusy when it is locked.
    """
    for start in range(0, len(relations), 100):
        batch = relations[start : start + 100]
        names = sql.SQL(", ").join(sql.SQL("ONLY ") + identifier(relation.name) for relation in batch)
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        except psycopg.errors.LockNotAvailable as error:
            raise DatabaseBusy(
                "A table of the sandbox is locked against reading.",
                effect="No difference could be taken.",
                next_step="End the session that is changing the schema, then try again.",
            ) from error
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.InvalidSchemaName,
            psycopg.errors.WrongObjectType,
        ) as error:
            raise SchemaMoved from error
    check_names(connection, relations)


def check_names(connection: Connection[Any], relations: Sequence[Relation]) -> None:
    """Every name still leads to the same table and file. Raises SchemaMoved. Looks past the snapshot on purpose."""
    if not relations:
        return
    rows = connection.execute(
        b"SELECT pg_catalog.to_regclass(n)::pg_catalog.oid, pg_catalog.pg_relation_filenode(pg_catalog.to_regclass(n))"
        b" FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[])) WITH ORDINALITY q(n, o) ORDER BY o",
        ([identifier(relation.name).as_string(connection) for relation in relations],),
    ).fetchall()
    if rows != [(relation.oid, relation.file) for relation in relations]:
        raise SchemaMoved


def identifier(name: TableName) -> sql.Identifier:
    return sql.Identifier(name.schema, name.name)


@contextmanager
def database_errors(what: str, *, seconds: float) -> Iterator[None]:
    """Turns psycopg's errors into ours; the cause is kept, no connection string is shown."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedObject) as error:
        raise SchemaMoved from error
    except psycopg.errors.QueryCanceled as error:
        raise DiffFailed(
            f"Reading the {what} took longer than {seconds:.0f} s.",
            effect="The comparison was given up.",
            next_step="Raise the time limit, or try when the database is less busy.",
        ) from error
    except psycopg.Error as error:
        raise DiffFailed(
            f"Reading the {what} failed: {_first(error)}",
            effect="The comparison was given up.",
            next_step="See the database's log.",
        ) from error


def _first(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
