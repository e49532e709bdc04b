"""Values survive the way through SQLite, and one value is one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.core.changeset.shape import Column
from orchestrator.shadow import ShadowDB
from orchestrator.shadow.cells import postgres_to_sqlite, sqlite_cell, sqlite_raw, sqlite_to_postgres
from tests.support.cluster import Cluster

RAW: list[Any] = [
    None,
    0,
    1,
    -5,
    2**62,
    1.0,
    1.5,
    1e300,
    float("inf"),
    "",
    "1",
    "1.0",
    "t",
    "\0text:1",
    b"",
    b"1",
    "é\udcff",
]


@pytest.mark.parametrize("base", ["int8", "text", "numeric", "float8", "bool", "bytea", "date"])
def test_every_sqlite_value_has_a_cell_of_its_own_and_comes_back(base: str) -> None:
    column = Column("v", base, base=base)
    cells = [sqlite_cell(column, raw) for raw in RAW]
    assert len(set(cells)) == len(RAW)
    for raw, cell in zip(RAW, cells, strict=True):
        back = sqlite_raw(column, cell)
        assert back == raw and type(back) is type(raw)


@pytest.mark.parametrize(
    ("base", "typmod", "cell"),
    [
        ("numeric", -1, "0.1"),
        ("numeric", (10 << 16 | 2) + 4, "12.50"),
        ("numeric", -1, "12345678901234567890.123456789"),
        ("numeric", -1, "NaN"),
        ("float8", -1, "NaN"),
        ("float8", -1, "-Infinity"),
        ("float8", -1, "1e+300"),
        ("int8", -1, "-9223372036854775808"),
        ("bool", -1, "t"),
        ("bytea", -1, "\\x00ff"),
        ("text", -1, "1.0"),
    ],
)
def test_a_postgres_value_comes_back_from_sqlite(base: str, typmod: int, cell: str) -> None:
    column = Column("v", base, base=base, typmod=typmod)
    assert sqlite_to_postgres(column, postgres_to_sqlite(column, cell)) == cell


STRANGE = r"""
CREATE TABLE strange (id int PRIMARY KEY, n numeric, d numeric(30,10), f float8, t timestamptz, i interval,
  j json, b bytea, a text[], r int4range, c char(4), x text, m money, big bigint, u uuid, ip inet);
INSERT INTO strange VALUES
  (1, 1.50, 12345678901234567890.0123456789, 'NaN', 'infinity', '1 mon', '{"x":1, "x":2}', '\x00', '[2:3]={1,2}',
   '[1,5)', 'ab', E'tab\t\\N', '$1.00', 9223372036854775807, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8'),
  (2, 'NaN', NULL, '-0', '0044-03-15 00:00:00 BC', '24 hours', 'null', '', '{NULL,"NULL"}', 'empty', '', '',
   '-$5', 0, NULL, NULL);
"""


OTHERS = "SELECT ROW(id, n, d, f, t, i, j, b, a, r, c, m, big, u, ip)::text FROM strange ORDER BY id"


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_strange_values_do_not_differ_and_are_left_alone(cluster: Cluster, kind: Any) -> None:
    with cluster.database() as name:
        engine = sa.create_engine(cluster.url(name))
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(STRANGE)
                before = connection.exec_driver_sql(OTHERS).fetchall()
            with ShadowDB(engine, tables=["strange"], sandbox=kind) as sandbox:
                assert sandbox.diff().is_empty
                sandbox.execute("UPDATE strange SET x = 'touched' WHERE id = 1")
                (row,) = sandbox.diff()
                assert row.changed_columns == ("x",)
                sandbox.commit_to_production()
            with engine.connect() as connection:
                after = connection.exec_driver_sql(OTHERS).fetchall()
            assert after == before
        finally:
            engine.dispose()


def test_sqlite_storage_classes_and_raw_bytes_are_kept_apart(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'p.db'}")
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE v (id INTEGER PRIMARY KEY, a, t TEXT COLLATE NOCASE)")
            connection.exec_driver_sql(
                "INSERT INTO v VALUES (1, 1, 'Abc'), (2, 1.0, 'x'), (3, '1', CAST(x'ff41' AS TEXT)), (4, x'31', NULL)"
            )
        with ShadowDB(engine, tables=["v"]) as sandbox:
            assert sandbox.diff().is_empty
            sandbox.execute("UPDATE v SET a = 1 WHERE id = 2")
            sandbox.execute("UPDATE v SET t = 'aBC' WHERE id = 1")
            sandbox.execute("UPDATE v SET a = 5 WHERE id = 3")
            assert len(sandbox.diff()) == 3
            sandbox.commit_to_production()
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT typeof(a), a, hex(t) FROM v ORDER BY id").fetchall()
        assert found == [("integer", 1, "614243"), ("integer", 1, "78"), ("integer", 5, "FF41"), ("blob", b"1", "")]
    finally:
        engine.dispose()
