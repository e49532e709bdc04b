"""Masks as PostgreSQL computes them: deterministic, keyed, of the right type, and the clear value gone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from orchestrator.core.masking import statements
from orchestrator.core.masking.plan import ColumnFact, PlannedColumn
from orchestrator.core.masking.rules import Method, Rule
from orchestrator.drivers.postgres.snapshot_facts import columns
from tests.support.cluster import Cluster

KEY = b"a masking key"


PEOPLE = """
    CREATE SCHEMA app; CREATE DOMAIN app.mail AS varchar(20);
    CREATE TABLE app.people (id int PRIMARY KEY, name text, email app.mail, short char(4), code uuid,
        born date, seen timestamptz, left_at timestamptz, pay numeric(8, 2), doc jsonb, raw json, tags text[],
        photo bytea, "odd ""name" text);
    INSERT INTO app.people VALUES
        (1, 'Anna Bell', 'anna@clear.example', 'ABCD', '00000000-0000-0000-0000-000000000001', '1980-05-05',
         '2026-01-01 10:00+00', '2026-01-03 10:00+00', 1000, '{"keep": 1, "secret": "hidden words"}',
         '{"a": 1}', '{x,y}', 'PHOTO', 'O''Neill \\ 42'),
        (2, 'Anna Bell', 'anna@clear.example', 'ABCD', NULL, NULL, NULL, NULL, NULL, '[1]', NULL, NULL, NULL, NULL)"""


@pytest.fixture(scope="module")
def people(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """One table and the masking functions, for all tests of this file."""
    with cluster.database() as name, psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        connection.execute(
            "SELECT set_config('mask.inner', %s, false), set_config('mask.outer', %s, false)", statements.pads(KEY)
        )
        for function in statements.functions():
            connection.execute(function)
        connection.execute(PEOPLE)
        yield connection


@pytest.fixture
def connection(people: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """What a test changes is rolled back."""
    with people.transaction(force_rollback=True):
        yield people


def masked(connection: psycopg.Connection[Any], column: str, rule: Rule, *, row: int = 1) -> Any:
    fact = next(found for found in columns(connection) if found.name == column)
    expression = statements.expression(PlannedColumn(fact, rule))
    found = connection.execute(f"SELECT {expression} FROM app.people WHERE id = {row}").fetchone()
    assert found is not None
    return found[0]


def test_a_hash_is_the_hmac_of_method_and_value(connection: psycopg.Connection[Any]) -> None:
    expected = hmac.new(KEY, b"hash\x1fAnna Bell", hashlib.sha256).hexdigest()
    assert masked(connection, "name", Rule(Method.HASH)) == expected


def test_the_catalog_tells_domains_and_lengths(connection: psycopg.Connection[Any]) -> None:
    found = {fact.name: fact for fact in columns(connection)}
    assert found["email"] == ColumnFact("app.people", "email", "app.mail", "character varying", 20, False, False)
    assert found["short"].length_max == 4


def test_equal_values_get_equal_masks_and_by_tells_rows_apart(connection: psycopg.Connection[Any]) -> None:
    assert masked(connection, "name", Rule(Method.FULL_NAME)) == masked(
        connection, "name", Rule(Method.FULL_NAME), row=2
    )
    by_id = Rule(Method.FULL_NAME, by="id")
    assert masked(connection, "name", by_id) != masked(connection, "name", by_id, row=2)


@pytest.mark.parametrize("method", [Method.HASH, Method.EMAIL, Method.PHONE, Method.REDACT, Method.FULL_NAME])
@pytest.mark.parametrize("column", ["email", "short"])
def test_masks_fit_columns_of_limited_length(connection: psycopg.Connection[Any], column: str, method: Method) -> None:
    fact = next(found for found in columns(connection) if found.name == column)
    connection.execute(statements.update("app.people", (PlannedColumn(fact, Rule(method)),), is_partitioned=False))


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        ("name", Rule(Method.NULL)),
        ("name", Rule(Method.CONSTANT, value="it's \\ gone")),
        ("tags", Rule(Method.EMPTY)),
        ("doc", Rule(Method.EMPTY)),
        ("raw", Rule(Method.EMPTY)),
        ("photo", Rule(Method.EMPTY)),
        ("photo", Rule(Method.HASH)),
        ("code", Rule(Method.HASH)),
        ("born", Rule(Method.SHIFT_DATE)),
        ("seen", Rule(Method.SHIFT_DATE)),
        ("pay", Rule(Method.NOISE)),
        ("doc", Rule(Method.JSON, keys=("keep",))),
        ("raw", Rule(Method.JSON)),
        ('odd "name', Rule(Method.REDACT)),
        ('odd "name', Rule(Method.LAST_NAME)),
    ],
)
def test_every_method_writes_a_value_of_its_columns_type_and_keeps_null(
    connection: psycopg.Connection[Any], column: str, rule: Rule
) -> None:
    fact = next(found for found in columns(connection) if found.name == column)
    before = connection.execute(f"SELECT {statements.quoted(column)} FROM app.people ORDER BY id").fetchall()
    connection.execute(statements.update("app.people", (PlannedColumn(fact, rule),), is_partitioned=False))
    after = connection.execute(f"SELECT {statements.quoted(column)} FROM app.people ORDER BY id").fetchall()
    assert after[0] != before[0]
    assert (after[1][0] is None) == (before[1][0] is None or rule.method is Method.NULL)


def test_dates_shifted_by_one_column_move_together(connection: psycopg.Connection[Any]) -> None:
    rule = Rule(Method.SHIFT_DATE, by="id", days=100)
    assert (masked(connection, "left_at", rule) - masked(connection, "seen", rule)).days == 2


def test_only_named_json_keys_stay(connection: psycopg.Connection[Any]) -> None:
    assert masked(connection, "doc", Rule(Method.JSON, keys=("keep",))) == {"keep": 1}
    assert masked(connection, "doc", Rule(Method.JSON), row=2) == []


def test_redacted_text_keeps_its_shape(connection: psycopg.Connection[Any]) -> None:
    assert masked(connection, 'odd "name', Rule(Method.REDACT)) == "x'xxxxx \\ 00"


def test_samples_are_taken_of_text_that_will_change(connection: psycopg.Connection[Any]) -> None:
    facts = {found.name: found for found in columns(connection)}

    def sampled(column: str, rule: Rule) -> list[Any] | None:
        query = statements.canary_query(PlannedColumn(facts[column], rule), is_partitioned=False)
        return None if query is None else [bytes(row[0]) for row in connection.execute(query)]

    assert sampled("name", Rule(Method.HASH)) == [b"Anna Bell"]
    assert sampled("name", Rule(Method.CONSTANT, value="Anna Bell")) == []
    assert sampled("doc", Rule(Method.JSON, keys=("keep",))) == [b"hidden words"]
    assert sampled("short", Rule(Method.NULL)) == []
    assert sampled("name", Rule(Method.HASH, is_canary=False)) is None
    assert sampled("born", Rule(Method.NULL)) is None
