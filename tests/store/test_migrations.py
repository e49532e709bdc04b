"""The steps of the schema lead to exactly the tables the code uses, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from orchestrator.store import tables
from orchestrator.store.metadata import METADATA
from orchestrator.store.migrations import STEPS, config_on, migrate
from tests.support.cluster import Cluster

HOW = (
    "The tables and the steps differ. Write the next step: python -m tests.support.migration 'what it does' "
    "(or, before the first release, the one step anew: python -m tests.support.migration --first)"
)
# What autogenerate does not look at as well: conditions of indexes, checks, defaults, identities.
CATALOG = text(
    """
    SELECT 'column', attrelid::regclass::text, attname::text,
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid))
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
       AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'index', indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
      FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(pg_constraint.oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """
)


@contextmanager
def empty(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = create_engine(cluster.url(name))
        try:
            yield engine
        finally:
            engine.dispose()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with empty(cluster) as engine:
        yield engine


def shape(engine: Engine) -> set[tuple[str, ...]]:
    with engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(CATALOG)}
    return {row for row in found if "alembic_version" not in row[1]}


def test_an_empty_database_becomes_exactly_what_the_code_uses(store: Engine, cluster: Cluster) -> None:
    assert tables
    migrate(store)
    with store.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == [], HOW
    with empty(cluster) as made:
        METADATA.create_all(made)
        assert len(shape(made)) > 100
        assert shape(store) ^ shape(made) == set(), HOW


def test_again_changes_nothing(store: Engine) -> None:
    migrate(store)
    with store.begin() as connection:
        connection.execute(text("INSERT INTO users (id, name, role, password_hash) VALUES ('u_1', 'ada', 'admin', '')"))
    before = shape(store)
    migrate(store)
    assert shape(store) == before
    with store.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 1
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_two_at_once_both_find_it_done(store: Engine) -> None:
    second = create_engine(store.url)
    try:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(migrate, engine) for engine in (store, second)]:
                done.result(120)
    finally:
        second.dispose()
    with store.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_a_step_that_fails_leaves_nothing(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE users (mine int)"))
    with pytest.raises(Exception, match="already exists"):
        migrate(store)
    with store.begin() as connection:
        connection.execute(text("DROP TABLE users"))
    migrate(store)


def test_a_step_has_the_number_its_file_begins_with(store: Engine) -> None:
    """A process that finds the last number in force leaves the rest alone."""
    with store.begin() as connection:
        script = ScriptDirectory.from_config(config_on(connection))
    numbers = {step.stem.partition("_")[0] for step in STEPS.glob("[0-9]*.py")}
    assert {one.revision for one in script.walk_revisions()} == numbers
    assert script.get_heads() == [max(numbers)]
