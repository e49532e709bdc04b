"""Tables that refer to each other in a circle: copied, changed, and written back as far as each engine allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, ForeignKey, TableName, TableShape
from orchestrator.shadow import CommitConflict, ScratchServer, ShadowDB
from orchestrator.shadow.ordering import children_first, parents_first
from tests.support.cluster import Cluster

pytestmark = pytest.mark.server

SQLITE = """
CREATE TABLE teams (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT, name TEXT,
  lead INTEGER NOT NULL REFERENCES people (id));
CREATE TABLE people (id INTEGER PRIMARY KEY, tenant TEXT, name TEXT, team INTEGER NOT NULL REFERENCES teams (id),
  buddy INTEGER REFERENCES people (id));
"""
# Not one of these may be NULL, and none can be deferred.
POSTGRES = """
CREATE TABLE teams (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text, name text, lead bigint NOT NULL);
CREATE TABLE people (id serial PRIMARY KEY, tenant text, name text, team bigint NOT NULL REFERENCES teams,
  buddy int REFERENCES people);
ALTER TABLE teams ADD FOREIGN KEY (lead) REFERENCES people;
"""
ROWS = """
WITH t AS (INSERT INTO teams OVERRIDING SYSTEM VALUE VALUES (1, 'north', 'Red', 1), (2, 'south', 'Blue', 2))
INSERT INTO people VALUES (1, 'north', 'Ada', 1), (2, 'south', 'Cyd', 2);
SELECT setval('people_id_seq', 70), setval('teams_id_seq', 50);
"""
SQLITE_ROWS = """
BEGIN; PRAGMA defer_foreign_keys = ON;
INSERT INTO teams VALUES (1, 'north', 'Red', 1), (2, 'south', 'Blue', 2);
INSERT INTO people VALUES (1, 'north', 'Ada', 1, NULL), (2, 'south', 'Cyd', 2, NULL); COMMIT;
"""
SCOPE: dict[str, Any] = {"tables": ["teams", "people"], "tenant_id": "north", "tenant_column": "tenant"}
NEW = [
    "INSERT INTO teams (id, tenant, name, lead) {override} VALUES (900, 'north', 'Green', 901)",
    "INSERT INTO people (id, tenant, name, team, buddy) VALUES (901, 'north', 'Eve', 900, 901)",
]
GONE = ["DELETE FROM teams WHERE name = 'Red'", "DELETE FROM people WHERE name = 'Ada'"]


@pytest.fixture(scope="module")
def scratch() -> Iterator[ScratchServer]:
    with ScratchServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres-memory", "postgres-scratch"])
def circle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, dict[str, Any]]]:
    if request.param == "sqlite":
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'production.db'}")

        @sa.event.listens_for(engine, "connect")
        def _(connection: Any, __: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

        raw = engine.raw_connection()
        raw.driver_connection.executescript(SQLITE + SQLITE_ROWS)  # type: ignore[union-attr]
        raw.close()
        yield engine, {**SCOPE, "sandbox": "memory"}
        engine.dispose()
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    with cluster.database() as name:
        engine = sa.create_engine(cluster.url(name))
        with engine.begin() as connection:
            connection.exec_driver_sql(POSTGRES + ROWS)
        if request.param == "postgres-memory":
            yield engine, {**SCOPE, "sandbox": "memory"}
        else:
            yield engine, {**SCOPE, "sandbox": "postgres", "scratch": request.getfixturevalue("scratch")}
        engine.dispose()


def do(sandbox: ShadowDB, first: str, second: str) -> None:
    """Both at once: one statement on PostgreSQL, deferred references on SQLite."""
    with sandbox.engine.begin() as connection:
        if sandbox.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            for statement in (first, second):
                connection.exec_driver_sql(statement.format(override=""))
        else:
            text = f"WITH one AS ({first} RETURNING 1) {second}"
            connection.exec_driver_sql(text.format(override="OVERRIDING SYSTEM VALUE"))


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_a_new_circle_gets_productions_keys(circle: tuple[Engine, dict[str, Any]]) -> None:
    engine, options = circle
    with ShadowDB(engine, **options) as sandbox:
        assert sandbox.clone_stats.total == 2
        do(sandbox, *NEW)
        result = sandbox.commit_to_production()
        assert result.inserted == 2 and len(result.keys) == 2
    joined = "SELECT t.id, p.id, p.buddy FROM teams t JOIN people p ON p.team = t.id AND t.lead = p.id "
    ((team, person, buddy),) = rows(engine, joined + "WHERE t.name = 'Green'")
    assert person == buddy and (team, person) != (900, 901)
    assert (team, person) == (
        (3, 3) if options["sandbox"] == "memory" and engine.dialect.name == "sqlite" else (51, 71)
    )


def test_a_circle_goes_as_one(circle: tuple[Engine, dict[str, Any]]) -> None:
    engine, options = circle
    with ShadowDB(engine, **options) as sandbox:
        do(sandbox, *GONE)
        assert sandbox.commit_to_production().deleted == 2
    assert rows(engine, "SELECT name FROM teams") == [("Blue",)]
    assert rows(engine, "SELECT name FROM people") == [("Cyd",)]


def test_a_circle_that_moved_in_production_stays(circle: tuple[Engine, dict[str, Any]]) -> None:
    engine, options = circle
    with ShadowDB(engine, **options) as sandbox:
        do(sandbox, *GONE)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE people SET name = 'Adele' WHERE id = 1"))
        with pytest.raises(CommitConflict):
            sandbox.commit_to_production()
    assert rows(engine, "SELECT name FROM teams ORDER BY id") == [("Red",), ("Blue",)]


def shape(name: str, *references: tuple[str, str]) -> TableShape:
    table = TableName("public", name)
    columns = (Column("id", "int", base="int4"), *(Column(column, "int", base="int4") for column, _ in references))
    keys = tuple(ForeignKey(column, (column,), TableName("public", to), ("id",)) for column, to in references)
    return TableShape(table, columns, ("id",), (), keys)


def new(of: TableShape, key: str, **cells: str | None) -> RowChange:
    return RowChange(of.table, RowKind.INSERT, (key,), None, {"id": key, **cells})


def test_rows_are_ordered_by_what_they_refer_to_and_circles_kept_together() -> None:
    a, b = shape("a", ("b", "b"), ("up", "a")), shape("b", ("a", "a"))
    shapes = {one.table: one for one in (a, b)}
    chain = [new(a, str(at), b=None, up=str(at + 1)) for at in range(3_000)] + [new(a, "3000", b=None, up=None)]
    order = parents_first(chain, shapes)
    assert [group[0].key[0] for group in order] == [str(at) for at in range(3_000, -1, -1)]
    circle = [new(a, "1", b="2", up=None), new(b, "2", a="3"), new(a, "3", b="2", up=None), new(b, "9", a="1")]
    groups = [[(row.table.name, row.key[0]) for row in group] for group in parents_first(circle, shapes)]
    assert groups == [[("b", "2"), ("a", "3")], [("a", "1")], [("b", "9")]]
    gone = [RowChange(row.table, RowKind.DELETE, row.key, row.new, None) for row in circle]
    assert [len(group) for group in children_first(gone, shapes)] == [1, 1, 2]
