"""What the differ promises beside exactness: no tenant code with our rights, fallbacks, limits, clear refusals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest

from orchestrator.core.changeset.changeset import Changeset, SchemaChangeKind
from orchestrator.core.changeset.json_form import dump, load
from orchestrator.core.changeset.rows import ProvisionalKey, RowKind
from orchestrator.core.changeset.shape import Generated, KeyKind, TableName, TypeKind
from orchestrator.core.ports.differ import (
    DatabaseBusy,
    DiffFailed,
    DiffLimits,
    DiffSides,
    HowCompared,
    TooManyChanges,
)
from orchestrator.core.rowmodels import validate_all
from orchestrator.drivers.postgres.diff.blocks import ChangedBlocks, coverage_gap, lsn
from orchestrator.drivers.postgres.diff.catalog import for_version
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from tests.drivers.postgres.diff.histories import SCHEMA
from tests.drivers.postgres.diff.oracle import brute_force, flattened
from tests.support.generations import Server, servers

pytestmark = pytest.mark.server

DATABASES = 11
_numbers = itertools.count()


@dataclass(frozen=True)
class Pair:
    """A base database and the tenant's copy of it."""

    base: Server
    live: Server
    database: str
    sides: DiffSides

    def run(self, *statements: str, user: str = "tenant") -> None:
        with psycopg.connect(self.live.dsn(self.database, user), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def diff(self, limits: DiffLimits | None = None) -> Changeset:
        return PostgresDiffer().compare(self.sides, limits).changeset

    def expected(self) -> object:
        return brute_force(self.base.dsn(self.database), self.live.dsn(self.database))


@pytest.fixture(scope="module")
def generation() -> Iterator[tuple[Server, Server, str]]:
    with servers() as base:
        base.start()
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            connection.execute("CREATE ROLE tenant LOGIN")
            connection.execute("CREATE DATABASE origin")
        with psycopg.connect(base.dsn("origin"), autocommit=True) as connection:
            connection.execute("ALTER SCHEMA public OWNER TO tenant; SET ROLE tenant")
            connection.execute(SCHEMA.encode())
            connection.execute("RESET ROLE")
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            for number in range(DATABASES):
                connection.execute(f"CREATE DATABASE d{number} TEMPLATE origin STRATEGY file_copy".encode())
            connection.execute("CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        with psycopg.connect(base.dsn("raw"), autocommit=True) as connection:
            connection.execute("ALTER SCHEMA public OWNER TO tenant; SET ROLE tenant")
            connection.execute("CREATE TABLE texts (id int PRIMARY KEY, body text)")
            connection.execute(rb"INSERT INTO texts VALUES (1, E'caf\351'), (2, E'\377\\'), (3, 'plain')")
        base.stop()
        live = base.copy("live")
        origin_lsn = base.checkpoint_lsn()
        base.start()
        live.start()
        yield base, live, origin_lsn


def _pair(generation: tuple[Server, Server, str], database: str) -> Pair:
    base, live, origin_lsn = generation
    return Pair(
        base,
        live,
        database,
        DiffSides(
            database,
            live_reader=live.dsn(database, "reader"),
            base_reader=base.dsn(database, "reader"),
            live_admin=live.dsn(database),
            origin_lsn=origin_lsn,
        ),
    )


@pytest.fixture
def untouched(generation: tuple[Server, Server, str]) -> Pair:
    """A database nobody changes."""
    return _pair(generation, "origin")


@pytest.fixture
def pair(generation: tuple[Server, Server, str]) -> Pair:
    """A database of its own, untouched so far."""
    return _pair(generation, f"d{next(_numbers)}")


def test_an_untouched_sandbox_differs_in_nothing(untouched: Pair) -> None:
    result = PostgresDiffer().compare(untouched.sides)
    assert result.changeset.is_empty
    assert not result.changeset.schema_changes
    assert {cost.how for cost in result.costs if cost.table.name != "fleeting"} == {HowCompared.UNCHANGED}


def test_only_the_changed_blocks_are_read(pair: Pair) -> None:
    pair.run("UPDATE numbers SET a = 1000 WHERE id = 7")
    result = PostgresDiffer().compare(pair.sides)
    (row,) = result.changeset.rows
    assert (row.kind, row.key, row.changed_columns) == (RowKind.UPDATE, ("7",), ("a",))
    (cost,) = [cost for cost in result.costs if cost.table.name == "numbers"]
    assert cost.how is HowCompared.BLOCKS and cost.rows_read < 800
    assert load(dump(result.changeset)) == result.changeset


def test_full_and_block_comparison_agree_on_the_digest(pair: Pair) -> None:
    pair.run("UPDATE people SET a = a + 1 WHERE id < 40", "DELETE FROM orders WHERE id > 190", "TRUNCATE loose")
    full = PostgresDiffer().compare(replace(pair.sides, live_admin=None))
    assert full.target_lsn is None
    assert {cost.how for cost in full.costs} == {HowCompared.FULL}
    assert full.changeset.digest() == pair.diff().digest()


def test_a_superuser_is_refused_as_reader(untouched: Pair) -> None:
    for sides in (
        replace(untouched.sides, live_reader=untouched.live.dsn(untouched.database)),
        replace(untouched.sides, base_reader=untouched.base.dsn(untouched.database)),
    ):
        with pytest.raises(DiffFailed, match="superuser"):
            PostgresDiffer().compare(sides)


def test_no_code_of_the_tenant_runs_while_it_is_read(pair: Pair) -> None:
    """Views, rules on names, casts, operators, policies, generated columns: all lead to functions of the tenant."""
    pair.run(
        "CREATE FUNCTION boom() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'boom ran'; END$$",
        "CREATE FUNCTION boom_mood(mood) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'cast ran'; END$$",
        "CREATE CAST (mood AS text) WITH FUNCTION boom_mood(mood) AS IMPLICIT",
        "CREATE FUNCTION same(mood, mood) RETURNS bool LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'op ran'; END$$",
        "CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = same)",
        "CREATE FUNCTION to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT boom()::regclass'",
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY p ON people USING (boom() = 1)",
        "ALTER TABLE words RENAME TO hidden; CREATE VIEW words AS SELECT 'w' || boom() AS k, 1 AS a, 'x' AS b",
        "UPDATE totals SET a = 5 WHERE id = 3",
    )
    result = pair.diff()
    assert [row.table.name for row in result.rows] == ["totals"]
    assert [change.kind for change in result.schema_changes] == [SchemaChangeKind.TABLE_RENAMED]


def test_new_rows_get_provisional_keys_and_their_references_too(pair: Pair) -> None:
    pair.run(
        "INSERT INTO people (a, b, m) VALUES (1, 'parent', 'calm')",
        "INSERT INTO orders (person, a, b) SELECT max(id), 1, 'child' FROM people",
        "UPDATE orders SET person = (SELECT max(id) FROM people) WHERE id = 5",
    )
    result = pair.diff()
    people, orders = TableName("public", "people"), TableName("public", "orders")
    (parent,) = result.rows_of(people)
    assert parent.new is not None and isinstance(parent.new["id"], ProvisionalKey)
    moved, child = result.rows_of(orders)
    assert child.new is not None and child.new["person"] == parent.new["id"]
    assert moved.key == ("5",) and moved.new is not None and moved.new["person"] == parent.new["id"]
    assert isinstance(child.key[0], ProvisionalKey)


def test_strange_values_arrive_as_they_are(pair: Pair) -> None:
    pair.run(
        "UPDATE numbers SET c = 'NaN' WHERE id = 1",
        'UPDATE "Odd ""Name" SET a = \'-0\' WHERE id = 6',
        'UPDATE "Odd ""Name" SET "Weird col" = E\'\\t\\n\\\\N\', b = NULL WHERE id = 1',
    )
    numbers, odd = TableName("public", "numbers"), TableName("public", 'Odd "Name')
    result = pair.diff()
    assert [row.new["c"] for row in result.rows_of(numbers) if row.new] == ["NaN"]
    assert [row.new["a"] for row in result.rows_of(odd) if row.new] == ["NaN", "-0"]
    assert next(row.new["Weird col"] for row in result.rows_of(odd) if row.new) == "\t\n\\N"
    assert validate_all(result) == ()


def test_huge_cells_come_whole_and_over_the_limit_is_refused(pair: Pair) -> None:
    pair.run("UPDATE documents SET body = repeat('x', 30000000) WHERE id = 1")
    (row,) = pair.diff().rows
    assert row.new is not None and len(str(row.new["body"])) == 30_000_000
    with pytest.raises(TooManyChanges) as refused:
        pair.diff(DiffLimits(bytes_max=10_000_000))
    assert refused.value.fields["table"] == "public.documents"


def test_too_many_rows_are_refused_by_name(pair: Pair) -> None:
    pair.run("UPDATE numbers SET a = -5")
    with pytest.raises(TooManyChanges, match="numbers differs in more rows"):
        pair.diff(DiffLimits(rows_max=100))


def test_text_that_is_not_utf8_survives(generation: tuple[Server, Server, str]) -> None:
    pair = _pair(generation, "raw")
    with psycopg.connect(pair.live.dsn("raw"), autocommit=True) as connection:
        connection.execute(rb"UPDATE texts SET body = body || E'\200' WHERE id < 3")
    result = pair.diff()
    bodies = [(row.old["body"], row.new["body"]) for row in result.rows if row.old and row.new]
    assert bodies == [("caf\udce9", "caf\udce9\udc80"), ("\udcff\\", "\udcff\\\udc80")]
    assert load(dump(result)).digest() == result.digest()


def test_keyless_rows_are_shown_with_their_counts(pair: Pair) -> None:
    pair.run("INSERT INTO loose VALUES (1, 'same'), (1, 'same')", "DELETE FROM loose WHERE a = 2 AND b = 'same'")
    result = pair.diff()
    assert result.counts() == {RowKind.INSERT: 2, RowKind.DELETE: 10}
    assert {row.key for row in result.rows} == {()}
    assert not result.tables[0].has_key
    assert any("no primary key" in note for note in result.notes)


def test_schema_changes_are_named(pair: Pair) -> None:
    pair.run(
        "ALTER TABLE numbers DROP COLUMN c, ADD COLUMN d text",
        "ALTER TABLE words RENAME COLUMN b TO c",
        "ALTER TABLE documents RENAME TO papers",
        "ALTER TABLE totals DROP CONSTRAINT totals_pkey",
        "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
        "ALTER TABLE parts DETACH PARTITION parts_n",
        "ALTER TABLE fleeting ALTER a SET NOT NULL",
        "DROP TABLE loose",
        "UPDATE words SET c = 'still compared' WHERE a = 1",
        "UPDATE papers SET n = 0 WHERE id = 1",
    )
    result = pair.diff()
    found = {(change.table.name, change.kind) for change in result.schema_changes}
    kinds = SchemaChangeKind
    assert found == {
        ("numbers", kinds.COLUMN_DROPPED),
        ("numbers", kinds.COLUMN_ADDED),
        ("words", kinds.COLUMN_RENAMED),
        ("documents", kinds.TABLE_RENAMED),
        ("totals", kinds.KEY_CHANGED),
        ("people", kinds.TYPE_CHANGED),
        ("parts", kinds.PARTITIONS_CHANGED),
        ("parts_n", kinds.TABLE_CREATED),
        ("fleeting", kinds.COLUMN_CHANGED),
        ("loose", kinds.TABLE_DROPPED),
    }
    assert flattened(result) == pair.expected()
    assert [row.changed_columns for row in result.rows_of(TableName("public", "words"))] == [("b",)]


def test_writers_meanwhile_never_tear_the_difference(pair: Pair) -> None:
    """Each transaction writes one value into two tables; every difference must hold whole transactions only."""
    stop = threading.Event()
    committed = [0]

    def write() -> None:
        with psycopg.connect(pair.live.dsn(pair.database, "tenant")) as connection:
            for value in itertools.count(1_000_000):  # no value a row begins with
                if stop.is_set():
                    return
                with connection.transaction():
                    connection.execute("UPDATE numbers SET a = %s WHERE id IN (3, 390)", [value])
                    connection.execute("UPDATE totals SET a = %s WHERE id = 50", [value])
                committed[0] = value

    writer = threading.Thread(target=write)
    writer.start()
    try:
        differ = PostgresDiffer()
        for _ in range(12):
            while committed[0] == 0:
                stop.wait(0.01)
            before = committed[0]
            rows = differ.compare(pair.sides).changeset.rows
            seen = {int(str(row.new["a"])) for row in rows if row.new}
            assert len(rows) == 3 and len(seen) == 1
            assert before <= seen.pop()
    finally:
        stop.set()
        writer.join()


def test_a_schema_that_is_locked_is_a_named_refusal(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.drivers.postgres.diff.session._SESSION_SETTINGS", {"lock_timeout": "50ms"})
    pair.run("UPDATE numbers SET a = 1")
    with psycopg.connect(pair.live.dsn(pair.database, "tenant")) as connection:
        connection.execute("LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE")
        with pytest.raises((DatabaseBusy, DiffFailed)):
            pair.diff()


def test_an_unreachable_side_is_a_clear_failure(untouched: Pair) -> None:
    with pytest.raises(DiffFailed, match="base snapshot cannot be reached"):
        PostgresDiffer().compare(replace(untouched.sides, base_reader="host=/nonexistent dbname=x user=reader"))


def test_shapes_tell_what_promote_needs(untouched: Pair) -> None:
    shapes = PostgresDiffer().shapes(untouched.base.dsn(untouched.database, "reader"))
    people = shapes[TableName("public", "people")]
    assert people.primary_key == ("id",)
    assert people.column("id").generated is Generated.SEQUENCE
    assert people.column("id").sequence == TableName("public", "people_id_seq")
    assert (people.column("b").base, people.column("b").typmod) == ("varchar", 44)
    assert (people.column("b").domain, people.column("b").cast) == ("public.short", '"public"."short"')
    assert people.column("m").kind is TypeKind.ENUM and people.column("m").labels == ("calm", "glad", "cross")
    assert people.column("p").kind is TypeKind.COMPOSITE
    assert people.column("ms").kind is TypeKind.ARRAY
    orders = shapes[TableName("public", "orders")]
    assert orders.column("id").generated is Generated.IDENTITY_DEFAULT
    (reference,) = orders.foreign_keys
    assert (reference.columns, reference.references.name, reference.referenced_columns) == (
        ("person",),
        "people",
        ("id",),
    )
    assert shapes[TableName("public", "pairs")].primary_key == ("b", "a")
    assert shapes[TableName("public", "parts")].partitioned
    assert shapes[TableName("public", "totals")].column("g").is_computed
    assert [key.kind for key in shapes[TableName("public", "words")].unique_keys] == [KeyKind.PRIMARY]
    assert TableName("public", "parts_n") not in shapes


@pytest.mark.parametrize(
    ("summaries", "gap"),
    [
        ([(1, 0, 10), (1, 10, 30)], ""),
        ([(1, 0, 12), (1, 10, 30)], ""),
        ([], "no WAL summaries"),
        ([(1, 6, 30)], "begins after"),
        ([(1, 0, 10), (1, 11, 30)], "gap"),
        ([(1, 0, 19)], "too early"),
        ([(1, 0, 10), (2, 10, 30)], "timelines"),
    ],
)
def test_summaries_must_cover_the_whole_way(summaries: list[tuple[int, int, int]], gap: str) -> None:
    assert gap in coverage_gap(summaries, 5, 20)
    assert bool(coverage_gap(summaries, 5, 20)) == bool(gap)


def test_a_limit_block_means_everything_behind_it() -> None:
    changed = ChangedBlocks({1, 2, 5, 9, 40}, limit=9)
    assert changed.ranges() == [(1, 3), (5, 6), (9, None)]
    assert changed.count(20) == 3 + 11
    assert lsn("16/B374D848") == 0x16B374D848


def test_no_server_is_asked_for_a_column_it_does_not_have() -> None:
    query = "SELECT {nulls_not_distinct}, {enforced}"
    assert for_version(query, 140023) == "SELECT false, true"
    assert for_version(query, 150000) == "SELECT i.indnullsnotdistinct, true"
    assert for_version(query, 180004) == "SELECT i.indnullsnotdistinct, k.conenforced"
