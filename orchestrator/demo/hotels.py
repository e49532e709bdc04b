"""Harbour Hotels: a production database anybody can have in seconds, the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

DATABASE = "hotels"
SCHEMA = "hotel"
READER = "mirror_reader"
PROMOTER = "promoter"
MIGRATOR = "migrator"
PROPERTIES = ("harbour", "riverside", "hillside")
PARTS = (
    ("1_schema.sql", "tables"),
    ("2_rows.sql", "rows"),
    ("3_rules.sql", "keys, indexes, triggers and views"),
    ("4_roles.sql", "roles"),
)


def is_present(dsn: str) -> bool:
    """Whether the server behind `dsn` (any database of it, as superuser) already has the demo."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
    return row is not None


def generate(
    dsn: str,
    *,
    reader_password: str,
    promoter_password: str,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Create the database `hotels` on the server behind `dsn` (superuser, any database of it).

    It is built under another name and renamed at the end, so a half-made one is never taken for the demo.
    """
    building = f"{DATABASE}_building"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(building)))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(building)))
    folder = Path(__file__).parent / "hotel"
    with psycopg.connect(dsn, dbname=building) as connection:
        connection.execute("SET LOCAL synchronous_commit = off; SET LOCAL TimeZone = 'UTC'")
        connection.execute("SET LOCAL maintenance_work_mem = '64MB'")
        for name in (READER, PROMOTER, MIGRATOR):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        for file, what in PARTS:
            progress(f"Harbour Hotels: {what}")
            connection.execute((folder / file).read_bytes())
        for name, password in ((READER, reader_password), (PROMOTER, promoter_password)):
            _admit(connection, building, name, password)
    with psycopg.connect(dsn, dbname=building, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(building), sql.Identifier(DATABASE))
        )


def _admit(connection: psycopg.Connection[tuple[object, ...]], database: str, name: str, password: str) -> None:
    """The password leaves this process only as its SCRAM verifier: statements may be logged."""
    role = sql.Identifier(name)
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), role))
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(verifier)))
