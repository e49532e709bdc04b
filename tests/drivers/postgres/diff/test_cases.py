"""Every way in which rows come to differ, one at a time, against a full reading of both sides."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from orchestrator.core.ports.differ import DiffSides, HowCompared
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from tests.drivers.postgres.diff.histories import SCHEMA
from tests.drivers.postgres.diff.oracle import brute_force, flattened
from tests.support.generations import Server, servers

pytestmark = pytest.mark.server

MANY = 100_000
BIG = f"""
CREATE TABLE many (id int PRIMARY KEY, a int, b text) WITH (fillfactor = 100);
INSERT INTO many SELECT i, 0, 'many' FROM generate_series(1, {MANY + 20_000}) i;
"""
CRASH = "-- crash"
BLOCKS, FULL = HowCompared.BLOCKS, HowCompared.FULL
# What is done, and how the named table must have been compared.
CASES: dict[str, tuple[str, HowCompared | None, tuple[str, ...]]] = {
    "updates": ("numbers", BLOCKS, ("UPDATE numbers SET a = -1, b = NULL WHERE id % 50 = 0",)),
    "deletes": ("numbers", BLOCKS, ("DELETE FROM numbers WHERE id BETWEEN 100 AND 140",)),
    "inserts": ("numbers", BLOCKS, ("INSERT INTO numbers SELECT i, 1, 'new', 0 FROM generate_series(900, 950) i",)),
    "rows that move to another block": ("numbers", BLOCKS, (
        "UPDATE numbers SET b = repeat('x', 3000) WHERE id < 9", "UPDATE numbers SET b = 'row ' || id WHERE id < 5")),
    "a row that went and came back": ("words", BLOCKS, (
        "DELETE FROM words WHERE a = 7", "INSERT INTO words VALUES ('w7', 7, 't1'), ('w7b', 7, 't1')")),
    "large values out of line": ("documents", BLOCKS, (
        "UPDATE documents SET body = repeat('y', 20000) WHERE id = 3", "UPDATE documents SET n = -1 WHERE id = 4")),
    "partitions": ("parts_n", BLOCKS, (
        "UPDATE parts SET region = 's' WHERE region = 'n' AND id < 40", "UPDATE parts SET a = 0 WHERE id = 41")),
    "a partition detached": ("parts", FULL, ("ALTER TABLE parts DETACH PARTITION parts_s",)),
    "a partition attached": ("parts", FULL, (
        "CREATE TABLE e (LIKE parts INCLUDING ALL)", "INSERT INTO e VALUES (1, 'e', 1)",
        "ALTER TABLE parts ATTACH PARTITION e FOR VALUES IN ('e')")),
    "composite keys": ("pairs", BLOCKS, ("UPDATE pairs SET v = '{}' WHERE b = 'b3'", "DELETE FROM pairs WHERE a = 1")),
    "text keys": ("words", BLOCKS, ("UPDATE words SET b = 'ü' WHERE k LIKE 'w1%'",)),
    "keys that change": ("numbers", BLOCKS, (
        "UPDATE numbers SET id = id + 1000 WHERE id > 390", "UPDATE words SET k = upper(k) WHERE a < 4")),
    "enum cells and arrays": ("people", BLOCKS, ("UPDATE people SET m = 'cross', ms = '{calm}' WHERE id < 9",)),
    "an enum label renamed": ("people", FULL, ("ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'",)),
    "VACUUM": ("numbers", BLOCKS, (
        "UPDATE numbers SET a = -1 WHERE id < 90", "DELETE FROM numbers WHERE id > 200", "VACUUM numbers")),
    "VACUUM FREEZE": ("words", None, ("VACUUM FREEZE words", "UPDATE words SET a = 0 WHERE a = 5")),
    "VACUUM FULL": ("numbers", FULL, ("UPDATE numbers SET a = -1 WHERE id < 9", "VACUUM FULL numbers")),
    "TRUNCATE": ("numbers", FULL, ("TRUNCATE numbers", "INSERT INTO numbers VALUES (1, 1, 'row 1', 1.01)")),
    "a column added": ("numbers", FULL, (
        "ALTER TABLE numbers ADD COLUMN extra int DEFAULT 7", "UPDATE numbers SET extra = 8, a = 0 WHERE id = 1")),
    "a column dropped": ("numbers", FULL, ("ALTER TABLE numbers DROP COLUMN c", "DELETE FROM numbers WHERE id = 1")),
    "a column of another type": ("words", FULL, ("ALTER TABLE words ALTER a TYPE text",)),
    "an unlogged table": ("fleeting", FULL, ("UPDATE fleeting SET a = -1 WHERE id < 9",)),
    "a table made unlogged": ("totals", FULL, ("ALTER TABLE totals SET UNLOGGED", "DELETE FROM totals WHERE id = 1")),
    "tables made and dropped": ("numbers", BLOCKS, (
        "CREATE TABLE fresh AS SELECT 1 AS id", "DROP TABLE totals", "DELETE FROM numbers WHERE id = 1")),
    "a table renamed": ("words", BLOCKS, ("ALTER TABLE words RENAME TO terms", "DELETE FROM terms WHERE a = 3")),
    "a table replaced by its copy": ("numbers", FULL, (
        "CREATE TABLE other AS TABLE numbers", "DROP TABLE numbers", "ALTER TABLE other RENAME TO numbers")),
    "a table without a key": ("loose", BLOCKS, ("DELETE FROM loose WHERE a = 3", "INSERT INTO loose VALUES (1, 'q')")),
    "computed columns": ("totals", BLOCKS, ("UPDATE totals SET a = a + 1 WHERE id < 5",)),
    "what was rolled back": ("numbers", None, ("BEGIN; DELETE FROM numbers; ROLLBACK",)),
    "a crash in between": ("numbers", BLOCKS, (
        "UPDATE numbers SET a = -1 WHERE id < 9", CRASH, "UPDATE numbers SET a = -2 WHERE id BETWEEN 5 AND 20")),
    "a hundred thousand changes": ("many", None, (f"UPDATE many SET a = id WHERE id <= {MANY}",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Server, Server, str]]:
    with servers() as base:
        base.start()
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE origin")
        with psycopg.connect(base.dsn("origin"), autocommit=True) as connection:
            connection.execute(SCHEMA.encode())
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            for number in range(len(CASES)):
                connection.execute(f"CREATE DATABASE c{number} TEMPLATE origin STRATEGY file_copy".encode())
        with psycopg.connect(base.dsn(f"c{len(CASES) - 1}"), autocommit=True) as connection:
            connection.execute(BIG.encode())
        base.stop()
        live = base.copy("live")
        origin_lsn = base.checkpoint_lsn()
        base.start()
        live.start()
        yield base, live, origin_lsn


@pytest.mark.parametrize("case", CASES)
def test_the_difference_is_exact(stage: tuple[Server, Server, str], case: str) -> None:
    base, live, origin_lsn = stage
    database = f"c{list(CASES).index(case)}"
    table, how, statements = CASES[case]
    for statement in statements:
        if statement == CRASH:
            live.stop(crash=True)
            live.start()
            continue
        with psycopg.connect(live.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())
    sides = DiffSides(
        database, live.dsn(database, "reader"), base.dsn(database, "reader"), live.dsn(database), origin_lsn
    )
    result = PostgresDiffer().compare(sides)
    assert flattened(result.changeset) == brute_force(base.dsn(database), live.dsn(database))
    found = {cost.table.name: cost.how for cost in result.costs}
    assert how is None or found[table] is how, found
