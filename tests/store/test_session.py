"""Connections to the control database are good when they are used, and nobody waits for a question nobody asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, text

from orchestrator.store.session import close_idle, connect, single
from tests.support.cluster import Cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name), connections_max=2)
        try:
            yield engine
        finally:
            engine.dispose()


def test_a_connection_the_server_closed_is_replaced_before_anybody_uses_it(store: Engine) -> None:
    with single(store) as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    other = connect(store.url.render_as_string(hide_password=False), connections_max=1)
    try:
        with single(other) as connection:
            assert connection.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": before})
    finally:
        other.dispose()
    with single(store) as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before


def test_each_statement_of_a_single_connection_is_a_transaction_and_the_next_user_gets_a_plain_one(
    store: Engine,
) -> None:
    with single(store) as connection:
        connection.execute(text("CREATE TABLE kept (n int)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))
    with store.connect() as connection:
        connection.execute(text("INSERT INTO kept VALUES (2)"))  # never committed
    with single(store) as connection:
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 1


def test_of_idle_connections_the_one_used_last_stays(store: Engine) -> None:
    with single(store) as first, single(store) as second:
        pids = [one.scalar(text("SELECT pg_backend_pid()")) for one in (first, second)]
    close_idle(store, idle_s=3_600)
    close_idle(store, idle_s=0)
    with single(store) as kept, single(store) as fresh:
        assert kept.scalar(text("SELECT pg_backend_pid()")) == pids[0]  # given back after the other one
        assert fresh.scalar(text("SELECT pg_backend_pid()")) not in pids


def test_a_connection_closed_in_the_moment_it_is_taken_is_replaced(store: Engine) -> None:
    held = store.connect()
    with single(store) as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))

    def meanwhile(*_: object) -> None:
        if not held.closed:
            held.close()  # now this one was used last, and the other may go
            close_idle(store, idle_s=0)

    event.listen(store, "checkout", meanwhile, insert=True)
    with single(store) as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before
    assert held.closed
