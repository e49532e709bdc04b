"""Connections kept out of the pool: warm, never shared by two, never broken, and given back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from orchestrator.store import pinned
from orchestrator.store.session import connect, single
from orchestrator.store.statement import Statement
from tests.support.cluster import Cluster

WHO = Statement(text("SELECT pg_backend_pid() AS pid"))


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name), connections_max=4)
        pinned.keep(engine)
        try:
            yield engine
        finally:
            pinned.keep(engine, at_most=0)
            pinned.give_back(engine, idle_s=0)
            engine.dispose()


def out(store: Engine) -> int:
    """How many connections are out of the pool."""
    assert isinstance(store.pool, QueuePool)
    return store.pool.checkedout()


def test_short_statements_share_one_connection_that_stays_out_of_the_pool(store: Engine) -> None:
    seen = {WHO.one(store, {}).pid for _ in range(3)}
    assert len(seen) == out(store) == 1
    with single(store) as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) not in seen


def test_two_at_once_have_one_each_and_more_than_are_kept_go_back(store: Engine) -> None:
    with WHO.ask(store, {}) as first, WHO.ask(store, {}) as second, WHO.ask(store, {}) as third:
        assert len({first.one().pid, second.one().pid, third.one().pid}) == 3
    assert out(store) == pinned.PINNED_MAX == 2


def test_many_threads_get_the_answers_to_what_they_asked(store: Engine) -> None:
    echo = Statement(text("SELECT CAST(:n AS integer) AS n"))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: echo.one(store, {"n": n}).n, range(400))) == list(range(400))


def test_one_that_its_server_closed_meanwhile_is_replaced(store: Engine) -> None:
    gone = WHO.one(store, {}).pid
    with single(store) as connection:
        assert connection.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": gone})
    assert WHO.one(store, {}).pid != gone


def test_one_that_breaks_while_it_is_given_back_is_closed(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {WHO.one(store, {}).pid for _ in range(2)}
    stopped = seen.pop()
    os.kill(stopped, signal.SIGSTOP)
    try:
        monkeypatch.setattr(pinned, "ANSWER_WAIT_S", 0.1)
        pinned.give_back(store, idle_s=0)
    finally:
        os.kill(stopped, signal.SIGCONT)
    monkeypatch.undo()
    assert out(store) == 0
    assert WHO.one(store, {}).pid != stopped


def test_those_that_idle_are_given_back_and_none_is_kept_when_none_may_be(store: Engine) -> None:
    WHO.one(store, {})
    pinned.give_back(store, idle_s=3_600)
    assert out(store) == 1
    pinned.give_back(store, idle_s=0)
    assert out(store) == 0
    pinned.keep(store, at_most=0)
    WHO.one(store, {})
    assert out(store) == 0


def test_nothing_of_ours_is_prepared_on_a_connection_of_the_pool(store: Engine) -> None:
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'statement_%'")
    before = {WHO.one(store, {}).pid for _ in range(3)}
    for _ in range(2):
        pinned.give_back(store, idle_s=0)
        with store.connect() as connection:
            assert connection.scalar(prepared) == 0
            connection.execute(text("CREATE TEMPORARY TABLE passing (n integer)"))
            connection.rollback()  # after which psycopg drops what is prepared, whoever did it
        assert {WHO.one(store, {}).pid for _ in range(3)} == before
    assert Statement(text(str(prepared).replace("count(*)", "count(*) AS n"))).one(store, {}).n >= 1


def test_a_connection_whose_answer_nobody_took_is_given_up(store: Engine) -> None:
    before = WHO.one(store, {}).pid
    with WHO.ask(store, {}):
        pass
    assert WHO.one(store, {}).pid != before
    assert out(store) == 1


def test_after_a_refusal_statements_are_prepared_anew(store: Engine) -> None:
    with single(store) as connection:
        connection.execute(text("CREATE TABLE counted (n integer)"))
    counted = Statement(text("SELECT sum(n) AS n FROM counted"))
    assert [counted.one(store, {}).n for _ in range(2)] == [None, None]
    with single(store) as connection:
        connection.execute(text("ALTER TABLE counted ALTER n TYPE bigint"))  # and with it the type of the sum
    with pytest.raises(Exception, match="cached plan"):
        counted.one(store, {})
    assert counted.one(store, {}).n is None


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = WHO.one(store, {}).pid
    monkeypatch.setattr(pinned, "ANSWER_WAIT_S", 0.1)
    with pytest.raises(OperationalError, match="did not answer"):
        Statement(text("SELECT pg_sleep(30) IS NULL AS never")).one(store, {})
    monkeypatch.undo()
    assert WHO.one(store, {}).pid != before


def test_values_larger_than_any_buffer_arrive_whole(store: Engine) -> None:
    measured = Statement(text("SELECT length(CAST(:given AS text)) AS characters"))
    assert measured.one(store, {"given": "é" * 5_000_000}).characters == 5_000_000


def test_values_that_cannot_be_sent_leave_the_connection_as_it_was(store: Engine) -> None:
    before = WHO.one(store, {}).pid
    with pytest.raises(Exception, match="NUL"):
        Statement(text("SELECT CAST(:given AS text) AS given")).one(store, {"given": "a\0b"})
    assert WHO.one(store, {}).pid == before
