"""What is asked of a source or a builder's catalogs, and how its errors are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from orchestrator.core.masking.plan import ColumnFact
from orchestrator.core.ports.snapshots import SnapshotFailed, SourceRefused, SourceUnreachable
from orchestrator.core.ports.volume import DiskFull

Connected = psycopg.Connection[Any]
NO_SPACE = "No space left on device"
OURS = "orchestrator_snapshot"
QUOTING = ("DETAIL:", "CONTEXT:", "pg_restore: detail:")
# Settings of the database itself that an application may rely on. Others (time limits, secrets some keep in
# settings of their own) are production's affair.
CARRIED_SETTINGS = ("search_path", "timezone", "datestyle", "intervalstyle", "bytea_output",
                    "default_text_search_config", "xmloption")  # fmt: skip
SETTINGS = """
    SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.pg_database d, unnest(s.setconfig) AS setting
    WHERE s.setdatabase = d.oid AND s.setrole = 0 AND d.datname = current_database()
      AND lower(split_part(setting, '=', 1)) = ANY (%s) ORDER BY 1"""
# Ordinary and partitioned tables of the application: no partitions, no extension's own tables.
TABLES = f"""
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', '{OURS}') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e')"""
COLUMNS = f"""
    WITH RECURSIVE base (type, base, mod) AS (
        SELECT oid, oid, -1 FROM pg_catalog.pg_type WHERE typtype <> 'd'
        UNION ALL
        SELECT t.oid, base.base, CASE WHEN t.typtypmod > -1 THEN t.typtypmod ELSE base.mod END
        FROM pg_catalog.pg_type t JOIN base ON t.typbasetype = base.type WHERE t.typtype = 'd'),
    tables AS (SELECT c.oid, n.nspname || '.' || c.relname AS name {TABLES})
    SELECT tables.name, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
           pg_catalog.format_type(base.base, NULL),
           CASE WHEN base.base IN ('varchar'::regtype, 'bpchar'::regtype) AND greatest(a.atttypmod, base.mod) > 4
                THEN greatest(a.atttypmod, base.mod) - 4 END,
           a.attnotnull, a.attgenerated <> ''
    FROM tables JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN base ON base.type = a.atttypid
    ORDER BY tables.name, a.attnum"""
UNREADABLE = f"""
    SELECT n.nspname || '.' || c.relname {TABLES}
      AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))"""
ROW_SECURITY = f"""
    SELECT n.nspname || '.' || c.relname {TABLES} AND c.relrowsecurity
      AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"""
# What a credential that only reads does not need.
EXCESS = f"""
    SELECT 'it is a superuser' FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper
    UNION ALL
    SELECT * FROM (SELECT 'it can write ' || n.nspname || '.' || c.relname {TABLES}
      AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
      AND pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1 LIMIT 5) AS writable"""
# Never carried into a snapshot, each told in its manifest.
LEFT_OUT = """
    SELECT 'event trigger ' || evtname FROM pg_catalog.pg_event_trigger
    UNION ALL SELECT 'publication ' || pubname FROM pg_catalog.pg_publication
    UNION ALL SELECT 'foreign server ' || srvname FROM pg_catalog.pg_foreign_server
    UNION ALL SELECT 'large objects' WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
    UNION ALL SELECT 'rows of the unlogged table ' || oid::regclass::text FROM pg_catalog.pg_class
              WHERE pg_catalog.pg_is_in_recovery() AND relkind = 'r' AND relpersistence = 'u'"""


def columns(connection: Connected) -> tuple[ColumnFact, ...]:
    return tuple(ColumnFact(*row) for row in connection.execute(COLUMNS))


def table_names(connection: Connected) -> list[str]:
    return [row[0] for row in connection.execute(f"SELECT n.nspname || '.' || c.relname {TABLES} ORDER BY 1")]


@contextmanager
def source_connection(dsn: str, password: str | None) -> Iterator[Connected]:
    """Raises SourceRefused or SourceUnreachable, for connecting and for whatever is asked in the block."""
    arguments = {} if password is None else {"password": password}
    try:
        connection = psycopg.connect(dsn, connect_timeout=10, autocommit=True, **arguments)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise _unconnected(error) from error
    except psycopg.ProgrammingError as error:
        raise SourceRefused(
            "production.mirror.dsn is no connection string.",
            effect=f"Nothing was read: {str(error).strip()}",
            next_step="Write host=… port=… user=… dbname=…, as libpq takes it, in configs/orchestrator.yaml.",
        ) from error
    with connection:
        try:
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise SourceRefused(
                "The mirror's credential may not read what a snapshot needs.",
                effect=str(error).strip(),
                next_step="Grant it SELECT on every table and sequence of the application.",
            ) from error
        except psycopg.OperationalError as error:
            raise SourceUnreachable(
                "The connection to the mirror was lost.",
                effect=str(error).strip(),
                next_step="It is tried again later.",
            ) from error


ABSENT = re.compile(r'database "[^"]*" does not exist')
REFUSED = ("password authentication failed", "no pg_hba.conf entry", "no password supplied", "does not exist",
           "fe_sendauth", "permission denied for database", "not permitted to log in",
           "Peer authentication failed")  # fmt: skip


def _unconnected(error: psycopg.OperationalError) -> SnapshotFailed:
    text = str(error).strip()
    if ABSENT.search(text):
        return SourceRefused(
            "The mirror's server has no such database.",
            effect=text[-600:],
            next_step="Correct `dbname` in production.mirror.dsn of configs/orchestrator.yaml.",
        )
    if any(sign in text for sign in REFUSED):
        return SourceRefused(
            "The mirror refuses the read-only credential.",
            effect=text[-600:],
            next_step="Renew it (passwords can expire: VALID UNTIL), put it where production.mirror.password_file says,"
            " and admit the role in the mirror's pg_hba.conf.",
        )
    return SourceUnreachable(
        "The mirror does not answer.",
        effect=text[-600:],
        next_step="The last good snapshot stays in force; check the mirror's address and state.",
    )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """A builder's database errors as SnapshotFailed or DiskFull, without any value of a row."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, psycopg.errors.DiskFull) or NO_SPACE in str(error):
            raise disk_full(what) from None
        raise SnapshotFailed(f"{what} failed.", effect=told(error)) from None


def told(error: psycopg.Error) -> str:
    """What may be told of an error: its details quote rows, and data exceptions (class 22) quote values."""
    diagnosis = error.diag
    names = [name for name in (diagnosis.table_name, diagnosis.column_name, diagnosis.constraint_name) if name]
    text = "" if (error.sqlstate or "").startswith("22") else (diagnosis.message_primary or "the connection was lost")
    return " ".join([f"{type(error).__name__}:", text, *(f"({name})" for name in names)]).strip()


def without_values(output: str) -> str:
    """A program's output without the lines that quote rows."""
    return "\n".join(line for line in output.splitlines() if not line.lstrip().startswith(QUOTING))


def disk_full(what: str) -> DiskFull:
    return DiskFull(
        f"The disk filled up: {what} stopped.",
        effect="The unfinished snapshot is removed; the last good one stays in force.",
        next_step="Free space on the volume (`orchestrator snapshot prune`) or enlarge it.",
    )
