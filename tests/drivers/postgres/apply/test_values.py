"""Values of every kind arrive as they were approved, or nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from tests.support.cluster import Cluster
from tests.support.proposals import compare_in_full, order_for, read_all

TYPES = {
    "numeric": ("NULL", "'NaN'", "1.10", "'Infinity'", "123456789012345678901234567890.5"),
    "numeric(6,2)": ("1.5", "-0.00", "9999.99"),
    "float8": ("'-0'", "'NaN'", "'Infinity'", "0.1", "1e300"),
    "float4": ("0.1", "'-Infinity'"),
    "timestamptz": ("'infinity'", "'0044-03-15 12:00:00+00 BC'", "'2026-06-01 12:00:00.123456+02'"),
    "timestamp(0)": ("'2026-06-01 12:00:00'",),
    "time": ("'24:00'",),
    "interval": ("'1 mon'", "'30 days'", "'24 hours'", "'-1 day +03:00'"),
    "char(4)": ("'ab'", "''"),
    "varchar(5)": ("'12345'", "''"),
    "text": (r"E'quo''te \\back\\ {brace,\"}'", "''", "'NULL'", "repeat('long', 300000)"),
    "bytea": (r"'\x00ff'", "''"),
    "json": ("""'{"b": 1, "a": 1, "a": 2}'""", "'1.00000000000000000001'"),
    "jsonb": ("""'{"b": 1, "a": [1.10, null]}'""",),
    "text[]": ("""ARRAY['a,b', NULL, '"', '{}', '\\']""", "'{}'", "'[2:3]={x,y}'"),
    "int[]": ("ARRAY[[1,2],[3,4]]",),
    "int4range": ("'[1,5)'", "'empty'"),
    "inet": ("'10.0.0.1/8'", "'::1'"),
    "bit(3)": ("B'101'",),
    "varbit(5)": ("B'1'",),
    "uuid": ("gen_random_uuid()",),
    "money": ("'12.34'",),
    "point": ("'(1,2)'",),
    "mood": ("'odd one'", "'sad'"),
    "positive": ("5",),
    "pair": ("ROW(1, 'x,\"y')",),
}
DDL = "CREATE TYPE mood AS ENUM ('sad', 'odd one'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); "
DDL += "CREATE TYPE pair AS (a int, b text); "


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """A production and a sandbox with one table per type."""
    with cluster.database() as production:
        with psycopg.connect(cluster.dsn(production), autocommit=True) as connection:
            tables = "; ".join(
                f'CREATE TABLE "t {number}" (id int PRIMARY KEY, "v%" {kind})' for number, kind in enumerate(TYPES)
            )
            connection.execute((DDL + tables).encode())
            for number in range(len(TYPES)):
                connection.execute(f'INSERT INTO "t {number}" VALUES (0, NULL), (1, NULL)'.encode())
        with cluster.database(production) as sandbox:
            yield cluster.dsn(production), cluster.dsn(sandbox)


def test_every_type_goes_through_insert_update_delete_and_back(pair: tuple[str, str]) -> None:
    production, sandbox = pair
    with psycopg.connect(sandbox, autocommit=True) as connection:
        for number, values in enumerate(TYPES.values()):
            rows = ", ".join(f"({10 + index}, {value})" for index, value in enumerate(values))
            connection.execute(f'INSERT INTO "t {number}" VALUES {rows}'.encode())
            connection.execute(f'UPDATE "t {number}" SET "v%" = {values[-1]} WHERE id = 1'.encode())
            connection.execute(f'DELETE FROM "t {number}" WHERE id = 0'.encode())
    before = read_all(production)[1]
    changeset = compare_in_full(production, sandbox)
    api = PostgresProduction(production)
    assert api.compare(order_for(changeset)).findings == ()
    applied = api.apply(order_for(changeset))
    assert read_all(production)[1] == read_all(sandbox)[1]
    again = api.compare(order_for(changeset))
    assert (again.findings, again.to_write) == ((), 0), "what is there already is not written again"
    api.apply(order_for(applied.inverse))
    assert read_all(production)[1] == before


def test_another_spelling_of_the_same_value_is_no_conflict(pair: tuple[str, str]) -> None:
    production, sandbox = pair
    number = list(TYPES).index("numeric(6,2)")
    with psycopg.connect(sandbox, autocommit=True) as connection:
        connection.execute(f'UPDATE "t {number}" SET "v%" = 5 WHERE id = 1'.encode())
    with psycopg.connect(production, autocommit=True) as connection:
        connection.execute(f'UPDATE "t {number}" SET "v%" = 5 WHERE id = 1'.encode())
    with psycopg.connect(production, autocommit=True) as connection:
        connection.execute(f'UPDATE "t {number}" SET "v%" = NULL WHERE id = 1'.encode())
    changeset = compare_in_full(production, sandbox)
    (row,) = changeset.rows
    by_hand = replace(row, new={**(row.new or {}), "v%": "5"})
    asked = Changeset.build("s1", changeset.shapes, [by_hand])
    with psycopg.connect(production, autocommit=True) as connection:
        connection.execute(f'UPDATE "t {number}" SET "v%" = 5 WHERE id = 1'.encode())
    done = PostgresProduction(production).apply(order_for(asked))
    assert (done.updated, done.unchanged) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("numeric(6,2)", "1.005"), ("numeric(6,2)", "123456"), ("varchar(5)", "123456"), ("char(4)", "12345")],
)
def test_a_value_that_does_not_fit_is_never_cut_or_rounded(pair: tuple[str, str], kind: str, text: str) -> None:
    production, _ = pair
    name, shape = next(
        (name, shape) for name, shape in read_all(production)[0].items() if name.name == f"t {list(TYPES).index(kind)}"
    )
    row = RowChange(name, RowKind.UPDATE, ("1",), old={"id": "1", "v%": None}, new={"id": "1", "v%": text})
    changeset = Changeset.build("s1", {name: shape}, [row])
    with pytest.raises(PromotionConflicted):
        PostgresProduction(production).apply(order_for(changeset))
    assert read_all(production)[1][name][("1",)]["v%"] is None
