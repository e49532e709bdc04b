"""Statements past SQLAlchemy: the same rows and errors, and connections nobody can tell from others afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from orchestrator.store.session import connect, single
from orchestrator.store.statement import Statement
from tests.support.cluster import Cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name), connections_max=1)
        try:
            yield engine
        finally:
            engine.dispose()


def test_a_row_has_its_columns_as_attributes_and_constants_are_kept(store: Engine) -> None:
    statement = Statement(select(func.upper(bindparam("given")).label("loud"), func.concat("a", 1).label("constant")))
    for given in ("x", "y"):
        row = statement.one(store, {"given": given})
        assert (row.loud, row.constant) == (given.upper(), "a1")
    assert Statement(text("SELECT 1 AS one WHERE false")).one(store, {}) is None


def test_it_is_a_transaction_by_itself_and_the_next_user_gets_a_plain_connection(store: Engine) -> None:
    with single(store) as connection:
        connection.execute(text("CREATE TABLE kept (n int PRIMARY KEY)"))
    Statement(text("INSERT INTO kept VALUES (1) RETURNING n")).one(store, {})
    with store.connect() as connection:
        connection.execute(text("INSERT INTO kept VALUES (2)"))  # never committed
    with single(store) as connection:
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 1


def test_a_refusal_is_sqlalchemys_and_tells_no_values(store: Engine) -> None:
    with single(store) as connection:
        connection.execute(text("CREATE TABLE once (n text PRIMARY KEY)"))
    statement = Statement(text("INSERT INTO once VALUES (:n) RETURNING n"))
    statement.one(store, {"n": "secret"})
    with pytest.raises(IntegrityError) as refusal:
        statement.one(store, {"n": "secret"})
    assert "[parameters" not in str(refusal.value)
    assert statement.one(store, {"n": "another"}).n == "another"


def test_a_connection_that_broke_is_not_used_again(store: Engine) -> None:
    ending = Statement(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with pytest.raises(OperationalError):
        ending.one(store, {})
    assert Statement(text("SELECT 1 AS one")).one(store, {}).one == 1
    with pytest.raises(DBAPIError):
        Statement(text("SELECT none_such()")).one(store, {})
    with store.begin() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
