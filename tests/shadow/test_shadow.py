"""Library mode on SQLite and PostgreSQL, in memory and in a scratch server: one tenant, nothing but what was seen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orchestrator.shadow import (
    CommitConflict,
    InvalidRows,
    InvalidShadow,
    ProvisionalKey,
    RowKind,
    RowModel,
    RowModels,
    ScratchServer,
    ShadowDB,
)
from orchestrator.shadow.database import ShadowSpent
from tests.support.cluster import Cluster

pytestmark = pytest.mark.server

SQLITE = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name VARCHAR(20) NOT NULL, email TEXT UNIQUE,
  boss INTEGER REFERENCES customers (id));
CREATE TABLE orders (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, customer INTEGER NOT NULL REFERENCES customers (id),
  total NUMERIC(10,2), extra BLOB, CHECK (total < 100000));
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT);
CREATE TABLE lines (orders INTEGER REFERENCES orders (id) ON DELETE CASCADE, n INTEGER, tenant TEXT,
  PRIMARY KEY (orders, n));
CREATE TABLE loose (tenant TEXT, a TEXT);
"""
POSTGRES = """
CREATE TYPE grade AS ENUM ('low', 'high');
CREATE TABLE customers (id serial PRIMARY KEY, tenant text NOT NULL, name varchar(20) NOT NULL, email text UNIQUE,
  boss int REFERENCES customers (id), grade grade DEFAULT 'low', since timestamptz DEFAULT now());
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text NOT NULL,
  customer int NOT NULL REFERENCES customers (id), total numeric(10,2), extra jsonb, CHECK (total < 100000));
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE lines (orders int REFERENCES orders (id) ON DELETE CASCADE, n int, tenant text, PRIMARY KEY (orders, n));
CREATE TABLE loose (tenant text, a text);
"""
ROWS = """
INSERT INTO customers (id, tenant, name, email) VALUES (1, 'north', 'Ada', 'ada@x'), (2, 'north', 'Bob', NULL),
  (3, 'south', 'Cyd', 'cyd@x');
INSERT INTO countries VALUES ('de', 'Germany');
INSERT INTO loose VALUES ('north', 'x');
"""
SQLITE_ORDERS = (
    "INSERT INTO orders VALUES (1, 'north', 1, 10.5, x'00ff'), (2, 'north', 2, 99, NULL), (3, 'south', 3, 7, NULL);"
)
POSTGRES_ORDERS = """
INSERT INTO orders OVERRIDING SYSTEM VALUE VALUES (1, 'north', 1, 10.50, '{"a": 1.00000000000000000001}'),
  (2, 'north', 2, 99, NULL), (3, 'south', 3, 7, NULL);
SELECT setval('customers_id_seq', 100), setval('orders_id_seq', 200);
"""
LINES = "INSERT INTO lines VALUES (1, 1, 'north'), (3, 1, 'south');"


@dataclass
class House:
    """A production and the sort of sandbox to use for it."""

    engine: Engine
    sandbox: Any
    scratch: ScratchServer | None = None

    def shadow(self, **options: Any) -> ShadowDB:
        wanted: dict[str, Any] = {
            "tables": ["lines", "orders", "customers"],
            "tenant_id": "north",
            "tenant_column": "tenant",
            "sandbox": self.sandbox,
            "scratch": self.scratch,
            **options,
        }
        return ShadowDB(self.engine, **wanted)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    def run(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement))

    def everything(self) -> list[Any]:
        return [
            self.rows(f"SELECT * FROM {name} ORDER BY 1, 2") for name in ("customers", "orders", "lines", "countries")
        ]


@pytest.fixture(scope="module")
def scratch() -> Iterator[ScratchServer]:
    with ScratchServer() as server:
        yield server


@pytest.fixture(params=["sqlite-memory", "postgres-memory", "postgres-scratch"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "sqlite-memory":
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'production.db'}")

        @sa.event.listens_for(engine, "connect")
        def _(connection: Any, __: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

        raw = engine.raw_connection()
        raw.driver_connection.executescript(SQLITE + ROWS + SQLITE_ORDERS + LINES)  # type: ignore[union-attr]
        raw.close()
        yield House(engine, "memory")
        engine.dispose()
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    with cluster.database() as name:
        engine = sa.create_engine(cluster.url(name))
        with engine.begin() as connection:
            connection.exec_driver_sql(POSTGRES + ROWS + POSTGRES_ORDERS + LINES)
        if request.param == "postgres-memory":
            yield House(engine, "memory")
        else:
            yield House(engine, "postgres", request.getfixturevalue("scratch"))
        engine.dispose()


def test_only_the_tenants_rows_are_copied(house: House) -> None:
    with house.shadow() as sandbox:
        assert sandbox.clone_stats.rows == {"customers": 2, "orders": 2, "lines": 1}
        assert sandbox.clone_stats.total == 5
        assert sandbox.query("SELECT name FROM customers ORDER BY id") == [{"name": "Ada"}, {"name": "Bob"}]
        assert set(sandbox.tables) == {"customers", "orders", "lines"}
        assert sandbox.diff().is_empty


def test_changes_are_seen_checked_and_written_in_one_go(house: House) -> None:
    with house.shadow() as sandbox:
        assert sandbox.execute("UPDATE orders SET total = :t WHERE id = 1", {"t": 12.25}) == 1
        sandbox.execute("DELETE FROM lines WHERE orders = 1")
        changes = sandbox.diff()
        deleted, updated = changes.rows
        assert (deleted.table, deleted.kind, deleted.key) == ("lines", RowKind.DELETE, {"orders": 1, "n": 1})
        assert (updated.table, updated.changed_columns) == ("orders", ("total",))
        assert updated.old is not None and Decimal(str(updated.old["total"])) == Decimal("10.5")
        assert updated.new is not None and Decimal(str(updated.new["total"])) == Decimal("12.25")
        assert updated.validate() == ()
        assert changes.is_valid and changes.validate_all() == ()
        assert str(changes.summary) == "2 rows in 2 tables: 1 changed, 1 deleted."
        result = sandbox.commit_to_production(changes)
        assert (result.inserted, result.updated, result.deleted) == (0, 1, 1)
        with pytest.raises(ShadowSpent):
            sandbox.commit_to_production()
    assert [Decimal(str(row[0])) for row in house.rows("SELECT total FROM orders ORDER BY id")] == [
        Decimal("12.25"),
        Decimal(99),
        Decimal(7),
    ]
    assert house.rows("SELECT orders FROM lines") == [(3,)]


def test_new_parents_and_children_get_productions_keys(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("INSERT INTO customers (tenant, name) VALUES ('north', 'New')")
        (new,) = sandbox.query("SELECT max(id) AS id FROM customers")
        sandbox.execute("INSERT INTO customers (tenant, name, boss) VALUES ('north', 'Sub', :b)", {"b": new["id"]})
        sandbox.execute("INSERT INTO orders (tenant, customer, total) VALUES ('north', :c, 5)", {"c": new["id"]})
        sandbox.execute("UPDATE customers SET boss = :b WHERE id = 2", {"b": new["id"]})
        house.run("INSERT INTO customers (tenant, name) VALUES ('south', 'Meanwhile')")
        changes = sandbox.diff()
        keys = [row.key["id"] for row in changes if row.kind is RowKind.INSERT]
        assert all(isinstance(key, ProvisionalKey) for key in keys)
        result = sandbox.commit_to_production(changes)
        assert len(result.keys) == 3
    ((boss,),) = house.rows("SELECT id FROM customers WHERE name = 'New'")
    assert house.rows("SELECT tenant FROM customers WHERE name = 'Meanwhile'") == [("south",)]
    assert house.rows("SELECT name, boss FROM customers WHERE name IN ('Sub', 'Bob') ORDER BY 1") == [
        ("Bob", boss),
        ("Sub", boss),
    ]
    assert house.rows("SELECT customer FROM orders WHERE total = 5") == [(boss,)]


def test_a_row_that_moved_in_production_stops_everything(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("UPDATE orders SET total = 1 WHERE id = 1")
        sandbox.execute("UPDATE customers SET name = 'Robert' WHERE id = 2")
        house.run("UPDATE orders SET total = 55 WHERE id = 1")
        before = house.everything()
        with pytest.raises(CommitConflict) as refused:
            sandbox.commit_to_production()
        (conflict,) = refused.value.conflicts
        assert [Decimal(str(cell)) for cell in (conflict.cells[0].proposed, conflict.cells[0].now)] == [1, 55]
    assert house.everything() == before


def test_another_cell_of_the_row_may_have_moved(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("UPDATE customers SET name = 'Adele' WHERE id = 1")
        house.run("UPDATE customers SET email = 'new@x' WHERE id = 1")
        sandbox.commit_to_production()
    assert house.rows("SELECT name, email FROM customers WHERE id = 1") == [("Adele", "new@x")]


def test_what_production_already_has_is_not_written_again(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("UPDATE customers SET name = 'Adele' WHERE id = 1")
        house.run("UPDATE customers SET name = 'Adele' WHERE id = 1")
        result = sandbox.commit_to_production()
        assert (result.updated, result.already_done) == (0, 1)


def test_rows_outside_the_tenants_scope_are_refused(house: House) -> None:
    before = house.everything()
    for statement in (
        "UPDATE customers SET tenant = 'south' WHERE id = 1",
        "INSERT INTO customers (tenant, name) VALUES ('south', 'Spy')",
    ):
        with house.shadow() as sandbox:
            sandbox.execute(statement)
            changes = sandbox.diff()
            assert not changes.is_valid
            with pytest.raises(InvalidRows) as refused:
                sandbox.commit_to_production(changes)
            assert refused.value.violations[0].column == "tenant"
    assert house.everything() == before


def test_another_tenants_row_is_met_by_no_statement(house: House) -> None:
    with house.shadow() as sandbox:
        assert sandbox.execute("UPDATE orders SET total = 0 WHERE id = 3") == 0
        assert sandbox.diff().is_empty


def test_reference_tables_are_only_read(house: House) -> None:
    with pytest.raises(InvalidShadow, match="reference_tables"), house.shadow(tables=["countries"]):
        pass
    with house.shadow(reference_tables=["countries"]) as sandbox:
        assert sandbox.query("SELECT name FROM countries") == [{"name": "Germany"}]
        sandbox.execute("UPDATE countries SET name = 'Elsewhere'")
        with pytest.raises(InvalidRows, match="only read"):
            sandbox.commit_to_production()


def test_a_cascade_nobody_saw_is_refused(house: House) -> None:
    with house.shadow(tables=["orders", "customers"]) as sandbox:
        sandbox.execute("DELETE FROM orders WHERE id = 1")
        with pytest.raises(CommitConflict, match="lines"):
            sandbox.commit_to_production()
    assert house.rows("SELECT count(*) FROM lines") == [(2,)]


def test_parent_and_children_may_go_together(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("DELETE FROM lines WHERE orders = 1")
        sandbox.execute("DELETE FROM orders WHERE id = 1")
        sandbox.execute("DELETE FROM customers WHERE id = 1")
        sandbox.execute("INSERT INTO customers (tenant, name, email) VALUES ('north', 'Heir', 'ada@x')")
        sandbox.execute("UPDATE customers SET boss = (SELECT max(id) FROM customers) WHERE id = 2")
        sandbox.commit_to_production()
    assert house.rows("SELECT name FROM customers WHERE email = 'ada@x'") == [("Heir",)]
    assert house.rows("SELECT count(*) FROM customers WHERE id = 1") == [(0,)]


def test_productions_own_constraints_have_the_last_word(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("UPDATE customers SET email = 'cyd@x' WHERE id = 1")
        before = house.everything()
        with pytest.raises(CommitConflict, match="refused"):
            sandbox.commit_to_production()
    assert house.everything() == before


def test_company_models_are_asked_and_every_violation_is_listed(house: House) -> None:
    models = RowModels()

    class Order(RowModel, table="orders", registry=models):
        total: Decimal | float | int = Field(ge=0)

    with house.shadow(models=models) as sandbox:
        sandbox.execute("UPDATE orders SET total = -1 WHERE tenant = 'north'")
        changes = sandbox.diff()
        assert [violation.column for violation in changes.validate_all()] == ["total", "total"]
        with pytest.raises(InvalidRows):
            sandbox.commit_to_production(changes)


def test_keyless_rows_are_shown_and_refused(house: House) -> None:
    with house.shadow(tables=["loose"]) as sandbox:
        sandbox.execute("UPDATE loose SET a = 'y'")
        assert len(sandbox.diff()) == 2
        with pytest.raises(InvalidRows, match="no primary key"):
            sandbox.commit_to_production()


def test_a_changed_key_stays_one_update(house: House) -> None:
    with house.shadow(tables=["lines"]) as sandbox:
        sandbox.execute("INSERT INTO lines VALUES (2, 7, 'north')")
        sandbox.commit_to_production()
    with house.shadow(tables=["countries"], tenant_column=None, tenant_id=None) as sandbox:
        sandbox.execute("UPDATE countries SET code = 'dd' WHERE code = 'de'")
        (row,) = sandbox.diff()
        assert (row.kind, row.key, row.changed_columns) == (RowKind.UPDATE, {"code": "de"}, ("code",))
        sandbox.commit_to_production()
    assert house.rows("SELECT * FROM countries") == [("dd", "Germany")]
    assert (2, 7, "north") in house.rows("SELECT * FROM lines")


def test_a_session_works_on_the_sandbox(house: House) -> None:
    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    with house.shadow(tables=[Customer]) as sandbox:
        with sandbox.session() as session:
            session.get_one(Customer, 1).name = "Adele"
        assert [row.new["name"] for row in sandbox.diff() if row.new] == ["Adele"]
    assert house.rows("SELECT name FROM customers WHERE id = 1") == [("Ada",)]


def test_it_prints_plainly_into_a_file_and_speaks_json(house: House) -> None:
    with house.shadow() as sandbox:
        sandbox.execute("UPDATE customers SET name = 'Adele' WHERE id = 1")
        changes = sandbox.diff()
        out = io.StringIO()
        changes.print(out)
        assert "Ada → Adele" in out.getvalue() and "\x1b" not in out.getvalue()
        assert changes.to_json()["digest"] == changes.digest()
        assert changes.display() is not None
        assert set(changes.by_table()) == {"customers"}


def test_mistakes_are_named(house: House) -> None:
    with pytest.raises(InvalidShadow, match="nowhere"), house.shadow(tables=["nowhere"]):
        pass
    with pytest.raises(InvalidShadow):
        house.shadow(tenant_id=None)
    closed = house.shadow()
    with pytest.raises(InvalidShadow, match="closed"):
        closed.diff()
    with house.shadow() as one, house.shadow() as other:
        with pytest.raises(InvalidShadow, match="another sandbox"):
            one.commit_to_production(other.diff())
