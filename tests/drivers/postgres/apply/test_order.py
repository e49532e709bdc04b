"""Orders that a naive apply gets wrong: keys, circles, hand-overs, triggers, policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import CredentialTooWeak, ProductionBusy, PromotionConflicted
from orchestrator.core.promotion.order import Scope, WriteLimits
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from orchestrator.drivers.postgres.apply.session import Session
from tests.support.cluster import Cluster
from tests.support.proposals import compare_in_full, order_for, read_all


@dataclass
class Pair:
    cluster: Cluster
    production: str
    sandbox: str

    def both(self, *statements: str) -> None:
        self.run(self.production, *statements)
        self.run(self.sandbox, *statements)

    def run(self, dsn: str, *statements: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.production) as connection:
            return connection.execute(query.encode()).fetchall()

    def changeset(self) -> Changeset:
        return compare_in_full(self.production, self.sandbox)

    @property
    def api(self) -> PostgresProduction:
        return PostgresProduction(self.production)


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[Pair]:
    with cluster.database() as production, cluster.database() as sandbox:
        yield Pair(cluster, cluster.dsn(production), cluster.dsn(sandbox))


def codes(conflict: pytest.ExceptionInfo[PromotionConflicted]) -> list[str]:
    return [finding.code for finding in conflict.value.findings]


def test_a_new_parent_and_child_get_productions_numbers(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, favourite bigint)",
        "CREATE TABLE b (no text DEFAULT 'B-' || nextval('no') PRIMARY KEY, a bigint NOT NULL REFERENCES a)".replace(
            "CREATE TABLE", "CREATE SEQUENCE no; CREATE TABLE", 1
        ),
        "CREATE TABLE c (a bigint, line int, b text REFERENCES b, up_a bigint, up_line int, PRIMARY KEY (a, line), "
        "FOREIGN KEY (a) REFERENCES a, FOREIGN KEY (up_a, up_line) REFERENCES c)",
    )
    pair.run(pair.production, "INSERT INTO a DEFAULT VALUES", "INSERT INTO b (a) VALUES (1)")
    pair.run(
        pair.sandbox,
        "INSERT INTO a DEFAULT VALUES",
        "INSERT INTO b (a) VALUES (1)",
        "INSERT INTO c VALUES (1, 1, 'B-1', NULL, NULL), (1, 2, 'B-1', 1, 1)",
    )
    with pair.cluster.database() as empty:
        pair.run(
            pair.cluster.dsn(empty),
            "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, favourite bigint)",
            "CREATE SEQUENCE no; CREATE TABLE b (no text DEFAULT 'B-' || nextval('no') PRIMARY KEY, "
            "a bigint NOT NULL REFERENCES a)",
            "CREATE TABLE c (a bigint, line int, b text REFERENCES b, up_a bigint, up_line int, PRIMARY KEY (a, line),"
            "FOREIGN KEY (a) REFERENCES a, FOREIGN KEY (up_a, up_line) REFERENCES c)",
        )
        changeset = compare_in_full(pair.cluster.dsn(empty), pair.sandbox)
    done = pair.api.apply(order_for(changeset))
    assert done.assigned == {"public.a.id": {"1": "2"}, "public.b.no": {"B-1": "B-2"}}
    assert pair.ask("SELECT * FROM c ORDER BY line") == [(2, 1, "B-2", None, None), (2, 2, "B-2", 2, 1)]


def test_a_circle_of_not_null_references_is_inserted_and_deleted_at_once(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE a (id int PRIMARY KEY, b int NOT NULL)",
        "CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a)",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b",
        "WITH x AS (INSERT INTO a VALUES (1, 1)) INSERT INTO b VALUES (1, 1)",
    )
    pair.run(
        pair.sandbox,
        "WITH x AS (INSERT INTO a VALUES (2, 2)) INSERT INTO b VALUES (2, 2)",
        "WITH x AS (DELETE FROM a WHERE id = 1) DELETE FROM b WHERE id = 1",
    )
    pair.api.apply(order_for(pair.changeset()))
    assert (pair.ask("SELECT * FROM a"), pair.ask("SELECT * FROM b")) == ([(2, 2)], [(2, 2)])


def test_a_unique_value_goes_from_a_deleted_row_to_a_new_one_and_children_move(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE p (id serial PRIMARY KEY, code text UNIQUE NOT NULL)",
        "CREATE TABLE k (id int PRIMARY KEY, p int NOT NULL REFERENCES p ON DELETE CASCADE)",
        "INSERT INTO p (code) VALUES ('x')",
        "INSERT INTO k VALUES (1, 1), (2, 1)",
    )
    pair.run(
        pair.sandbox,
        "UPDATE p SET code = 'old'",
        "INSERT INTO p (code) VALUES ('x')",
        "UPDATE k SET p = 2",
        "DELETE FROM p WHERE id = 1",
    )
    pair.run(pair.production, "SELECT nextval('p_id_seq')")
    pair.api.apply(order_for(pair.changeset()))
    assert pair.ask("SELECT * FROM p") == [(3, "x")]
    assert pair.ask("SELECT * FROM k ORDER BY id") == [(1, 3), (2, 3)]


def test_values_are_handed_along_a_long_chain(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, place int UNIQUE NOT NULL)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 300) i",
    )
    pair.run(pair.sandbox, "UPDATE t SET place = -place", "UPDATE t SET place = 1 - place")
    pair.api.apply(order_for(pair.changeset()))
    assert pair.ask("SELECT count(*) FROM t WHERE place = id + 1") == [(300,)]


def test_two_rows_swap_a_value_when_one_may_wait_empty(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    swap = ("UPDATE t SET code = NULL WHERE id = 1", "UPDATE t SET code = 'a' WHERE id = 2")
    pair.run(pair.sandbox, *swap, "UPDATE t SET code = 'b' WHERE id = 1")
    done = pair.api.apply(order_for(pair.changeset()))
    assert pair.ask("SELECT code FROM t ORDER BY id") == [("b",), ("a",)]
    pair.api.apply(order_for(done.inverse))
    assert pair.ask("SELECT code FROM t ORDER BY id") == [("a",), ("b",)]


def test_a_swap_nobody_can_order_is_refused_with_rows_and_constraint(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE NOT NULL)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    pair.run(pair.sandbox, "UPDATE t SET n = n + 10", "UPDATE t SET n = 13 - n")
    with pytest.raises(PromotionConflicted) as caught:
        pair.api.apply(order_for(pair.changeset()))
    assert codes(caught) == ["unique_cycle"]
    assert "t_n_key" in caught.value.findings[0].message and "id=1" in caught.value.findings[0].message


def test_a_changed_key_stays_one_update_so_that_references_follow(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE p (code text PRIMARY KEY, name text)",
        "CREATE TABLE k (id int PRIMARY KEY, p text REFERENCES p ON UPDATE CASCADE, note text)",
        "INSERT INTO p VALUES ('a', 'A'), ('b', 'B')",
        "INSERT INTO k VALUES (1, 'a', 'x')",
    )
    shapes = read_all(pair.production)[0]
    p, k = TableName("public", "p"), TableName("public", "k")
    rows = [
        RowChange(p, RowKind.UPDATE, ("a",), {"code": "a", "name": "A"}, {"code": "z", "name": "A"}),
        RowChange(k, RowKind.UPDATE, ("1",), {"id": "1", "p": "a", "note": "x"}, {"id": "1", "p": "z", "note": "y"}),
    ]
    done = pair.api.apply(order_for(Changeset.build("s1", shapes, rows)))
    assert pair.ask("SELECT code FROM p ORDER BY 1") == [("b",), ("z",)]
    assert pair.ask("SELECT * FROM k") == [(1, "z", "y")]
    pair.api.apply(order_for(done.inverse))
    assert pair.ask("SELECT * FROM k") == [(1, "a", "x")]
    pair.run(pair.production, "INSERT INTO k VALUES (2, 'a', 'unseen')")
    with pytest.raises(PromotionConflicted) as caught:
        pair.api.apply(order_for(Changeset.build("s1", shapes, rows)))
    assert codes(caught) == ["unseen_children"]


def test_partitions_composite_keys_and_computed_columns(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE m (a int, b text, day date, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, "
        "PRIMARY KEY (a, b, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2026-07-01')",
        "CREATE TABLE m2 PARTITION OF m DEFAULT",
        "INSERT INTO m VALUES (1, 'x', '2026-02-01', 1), (1, 'y', '2026-02-01', 2), (2, 'x', '2026-08-01', 3)",
    )
    pair.run(
        pair.sandbox,
        "UPDATE m SET n = 10 WHERE b = 'y'",
        "UPDATE m SET day = '2026-09-01' WHERE b = 'x' AND a = 1",
        "DELETE FROM m WHERE a = 2",
        "INSERT INTO m VALUES (3, 'z', '2026-03-01', 5)",
    )
    done = pair.api.apply(order_for(pair.changeset()))
    assert read_all(pair.production)[1] == read_all(pair.sandbox)[1]
    before = pair.ask("SELECT count(*) FROM m1")
    assert before == [(2,)]
    pair.api.apply(order_for(done.inverse))
    assert pair.ask("SELECT a, b, n, twice FROM m ORDER BY a, b") == [(1, "x", 1, 2), (1, "y", 2, 4), (2, "x", 3, 6)]


def test_what_a_trigger_keeps_away_is_noticed(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, n int)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    )
    pair.run(pair.sandbox, "UPDATE t SET n = 2")
    pair.run(pair.production, "CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()")
    with pytest.raises(PromotionConflicted) as caught:
        pair.api.apply(order_for(pair.changeset()))
    assert codes(caught) == ["not_written"]
    assert "no" in caught.value.findings[0].message


def test_a_cascade_nobody_approved_is_noticed_even_when_a_trigger_makes_it(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, n int)",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 1)",
        "INSERT INTO other VALUES (1)",
    )
    pair.run(pair.sandbox, "UPDATE t SET n = 2")
    pair.run(
        pair.production,
        "CREATE FUNCTION wipe() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM other; RETURN NULL; END'",
        "CREATE TRIGGER wipe AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION wipe()",
    )
    with pytest.raises(PromotionConflicted) as caught:
        pair.api.apply(order_for(pair.changeset()))
    assert codes(caught) == ["cascade"]
    assert pair.ask("SELECT count(*) FROM other") == [(1,)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"])
def test_a_child_the_sandbox_never_saw_stops_the_deletion_of_its_parent(pair: Pair, action: str) -> None:
    pair.both(
        "CREATE TABLE p (id int PRIMARY KEY)",
        f"CREATE TABLE k (id int PRIMARY KEY, p int REFERENCES p ON DELETE {action})",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO k VALUES (1, 1)",
    )
    pair.run(pair.sandbox, "DELETE FROM k", "DELETE FROM p WHERE id = 1")
    changeset = pair.changeset()
    pair.run(pair.production, "INSERT INTO k VALUES (2, 1)")
    with pytest.raises(PromotionConflicted) as caught:
        pair.api.apply(order_for(changeset))
    assert codes(caught) == ["unseen_children"]
    assert "id=2" in caught.value.findings[0].message
    assert pair.ask("SELECT * FROM k ORDER BY id") == [(1, 1), (2, 1)]
    pair.run(pair.production, "DELETE FROM k WHERE id = 2")
    pair.api.apply(order_for(changeset))
    assert (pair.ask("SELECT * FROM p"), pair.ask("SELECT * FROM k")) == ([(2,)], [])


def test_rows_of_another_tenant_are_refused_in_production_too(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE p (id int PRIMARY KEY, house text)",
        "CREATE TABLE t (id int PRIMARY KEY, house text, n int, p int REFERENCES p)",
        "INSERT INTO p VALUES (1, 'ours'), (2, 'theirs')",
        "INSERT INTO t VALUES (1, 'ours', 1, 1), (2, 'ours', 1, 1)",
    )
    pair.run(pair.sandbox, "UPDATE t SET n = 2 WHERE id = 1", "UPDATE t SET p = 2 WHERE id = 2")
    changeset = pair.changeset()
    pair.run(pair.production, "UPDATE t SET house = 'theirs' WHERE id = 1")
    scopes = {TableName("public", name): Scope("house", "ours") for name in ("p", "t")}
    found = pair.api.compare(order_for(changeset, unguarded=frozenset(), scopes=scopes)).findings
    assert sorted(finding.code for finding in found) == ["foreign_parent", "foreign_scope"]
    with pytest.raises(PromotionConflicted):
        pair.api.apply(order_for(changeset, unguarded=frozenset(), scopes=scopes))
    assert pair.ask("SELECT n, p FROM t ORDER BY id") == [(1, 1), (1, 1)]


def test_the_tenants_value_stands_in_every_part_of_the_write(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, house text, n int)",
        "INSERT INTO t VALUES (1, 'ours', 1), (2, 'ours', 1)",
    )
    pair.run(
        pair.sandbox,
        "UPDATE t SET n = 2 WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (3, 'ours', 3)",
    )
    sent: list[str] = []
    run = Session._run

    def noting(self: Session, query: Any, parameters: Any) -> None:
        sent.append(query if isinstance(query, str) else query.as_string(self.connection))
        run(self, query, parameters)

    monkeypatch.setattr(Session, "_run", noting)
    scopes = {TableName("public", "t"): Scope("house", "ours")}
    pair.api.apply(order_for(pair.changeset(), unguarded=frozenset(), scopes=scopes))
    (written,) = [text for text in sent if text.startswith("WITH w0 AS")]
    parts = re.split(r"w\d+ AS \(", written)[1:]
    assert [part.split()[0] for part in parts] == ["DELETE", "UPDATE", "INSERT"]
    for part in parts:
        assert re.search(r'(?:x\."house"|o\."c\d"::\S+) = \$\d+::', part), part


def test_a_weak_credential_says_what_it_lacks(pair: Pair) -> None:
    role = "weak_" + pair.production.rpartition("=")[2]
    pair.both("CREATE TABLE t (id serial PRIMARY KEY, n int)", "INSERT INTO t (n) VALUES (1)")
    pair.run(pair.sandbox, "UPDATE t SET n = 2", "INSERT INTO t (n) VALUES (3)")
    pair.run(pair.production, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT, INSERT, UPDATE ON t TO {role}")
    try:
        weak = PostgresProduction(pair.production.replace("user=postgres", f"user={role}"))
        with pytest.raises(CredentialTooWeak):
            weak.apply(order_for(pair.changeset()))
        said = {finding.code for finding in weak.check_credential([TableName("public", "t")])}
        assert said == {"no_delete", "no_sequence"}
        assert {finding.code for finding in pair.api.check_credential([TableName("public", "t")])} == {"superuser"}
    finally:
        pair.run(pair.production, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_two_changes_at_once_wait_for_nobody(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 1)")
    pair.run(pair.sandbox, "UPDATE t SET n = 2")
    order = order_for(pair.changeset(), limits=WriteLimits(transaction_tries=1))

    def second(_: object) -> None:
        with pytest.raises(ProductionBusy):
            pair.api.apply(order)

    pair.api.apply(order, before_commit=second)
    assert pair.ask("SELECT n FROM t") == [(2,)]
