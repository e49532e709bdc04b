"""One statement as the tenant's role: capped in rows, bytes and time; a dry run keeps nothing whatever it tries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from orchestrator.core.ports.queries import Cancelling, QueryFailed, QueryLimits, QueryResult, QueryTarget
from orchestrator.drivers.query.queries import PostgresQueries
from tests.support.cluster import Cluster

LIMITS = QueryLimits(rows=100, bytes=100_000, drained_bytes=4_000_000, time_s=60.0)
ROLE = "query_tenant"


@pytest.fixture
def target(cluster: Cluster) -> Iterator[QueryTarget]:
    with cluster.database() as name:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
            role = f"{ROLE}_{name}"
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"CREATE SCHEMA app AUTHORIZATION {role}")
            connection.execute(f"ALTER ROLE {role} SET search_path = app")
        yield QueryTarget(cluster.sockets, cluster.port, role, name, "", lambda: cluster.dsn(name))
        with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {role} CASCADE")
            connection.execute(f"DROP ROLE {role}")


def run(target: QueryTarget, statement: str, *, dry_run: bool = False, limits: QueryLimits = LIMITS) -> QueryResult:
    return PostgresQueries().run(target, statement, dry_run=dry_run, limits=limits)


def rooms(target: QueryTarget) -> list[str | None]:
    return [row[0] for row in run(target, "select name from rooms order by name").rows]


@pytest.fixture
def with_rooms(target: QueryTarget) -> QueryTarget:
    made = run(target, "create table rooms (name text primary key, floor int check (floor < 90))")
    assert made.kept, made.error
    assert run(target, "insert into rooms values ('a', 1), ('b', null)").row_count == 2
    return target


def test_values_are_text_and_null_is_null(with_rooms: QueryTarget) -> None:
    seen = run(with_rooms, "select name, floor, 1.50::numeric as n from rooms order by name")
    assert seen.columns == ("name", "floor", "n")
    assert seen.rows == (("a", "1", "1.50"), ("b", None, "1.50"))
    assert (seen.tag, seen.row_count, seen.error) == ("SELECT 2", 2, None)


def test_it_is_the_tenants_role_that_runs(target: QueryTarget) -> None:
    assert run(target, "select current_user, session_user").rows == ((target.role, target.role),)
    denied = run(target, "select pg_read_file('/etc/passwd')").error
    assert denied is not None and denied.sqlstate == "42501"


def test_an_error_is_told_with_its_place(with_rooms: QueryTarget) -> None:
    seen = run(with_rooms, "select nothing from rooms")
    assert seen.error is not None
    assert (seen.error.sqlstate, seen.error.position, seen.kept) == ("42703", 8, False)


def test_two_statements_are_refused_by_the_protocol_itself(with_rooms: QueryTarget) -> None:
    seen = run(with_rooms, "select 1; delete from rooms")
    assert seen.error is not None and seen.error.sqlstate == "42601"
    assert rooms(with_rooms) == ["a", "b"]


def test_a_dry_run_shows_real_counts_and_keeps_nothing(with_rooms: QueryTarget) -> None:
    seen = run(with_rooms, "update rooms set floor = 3", dry_run=True)
    assert (seen.row_count, seen.kept, seen.dry_run, seen.error) == (2, False, True, None)
    assert run(with_rooms, "select count(*) from rooms where floor = 3").rows == (("0",),)


def test_a_dry_run_shows_real_errors_deferred_ones_too(with_rooms: QueryTarget) -> None:
    broken = run(with_rooms, "update rooms set floor = 99", dry_run=True).error
    assert broken is not None and broken.sqlstate == "23514"
    run(with_rooms, "create table beds (room text references rooms deferrable initially deferred)")
    deferred = run(with_rooms, "insert into beds values ('z')", dry_run=True).error
    assert deferred is not None and deferred.sqlstate == "23503"


@pytest.mark.parametrize("statement", ["commit", "rollback", "end", "commit and chain"])
def test_a_statement_that_ends_the_transaction_is_told(with_rooms: QueryTarget, statement: str) -> None:
    """The gate refuses these words; were one to get here, it could only end a transaction that did nothing yet."""
    seen = run(with_rooms, statement, dry_run=True)
    assert seen.error is not None or not seen.kept


def test_no_procedure_can_commit_out_of_a_dry_run(with_rooms: QueryTarget) -> None:
    made = run(
        with_rooms,
        "create procedure sneak() language plpgsql as $$ begin insert into rooms values ('x', 1); commit; end $$",
    )
    assert made.kept, made.error
    for statement in (
        "call sneak()",
        "do $$ begin insert into rooms values ('x', 1); commit; end $$",
        "do $$ begin insert into rooms values ('x', 1); execute 'commit'; end $$",
    ):
        seen = run(with_rooms, statement, dry_run=True)
        assert seen.error is not None and not seen.kept
    assert rooms(with_rooms) == ["a", "b"]


def test_rows_over_the_cap_are_counted_not_kept(target: QueryTarget) -> None:
    seen = run(target, "select g from generate_series(1, 5000) g", limits=replace(LIMITS, rows=10))
    assert (len(seen.rows), seen.row_count, seen.truncated, seen.kept) == (10, 5000, True, True)


def test_bytes_over_the_cap_are_not_kept(target: QueryTarget) -> None:
    seen = run(target, "select repeat('x', 1000) from generate_series(1, 1000)", limits=replace(LIMITS, bytes=10_000))
    assert len(seen.rows) == 10
    assert seen.truncated


def test_one_huge_value_is_cut_off_before_it_fills_our_memory(target: QueryTarget) -> None:
    seen = run(target, "select repeat('x', 50000000)")
    assert (seen.stopped_by, seen.kept, seen.rows) == ("bytes", False, ())
    assert seen.error is not None


def test_endless_rows_are_stopped_and_what_they_did_is_undone(with_rooms: QueryTarget) -> None:
    run(with_rooms, "create function touch(n bigint) returns text language sql as 'select repeat(''x'', 1000)'")
    seen = run(with_rooms, "select touch(g) from generate_series(1, 1000000) g")
    assert (seen.stopped_by, seen.kept) == ("bytes", False)


def test_time_is_cut_by_another_role_whatever_the_tenant_sets(target: QueryTarget) -> None:
    run(target, f"do $$ begin execute 'alter role {target.role} set statement_timeout = 0'; end $$")
    seen = run(target, "select pg_sleep(600)", limits=replace(LIMITS, time_s=0.5))
    assert (seen.stopped_by, seen.kept) == ("time", False)
    assert seen.error is not None and seen.error.sqlstate == "57014"


def test_a_statement_that_swallows_cancels_is_terminated(target: QueryTarget) -> None:
    stubborn = """do $$ begin loop begin perform pg_sleep(600);
        exception when query_canceled then null; end; end loop; end $$"""
    seen = run(target, stubborn, limits=replace(LIMITS, time_s=0.5))
    assert (seen.stopped_by, seen.kept) == ("time", False)
    assert seen.error is not None


def test_it_can_be_cancelled_from_another_thread(target: QueryTarget) -> None:
    ready = threading.Event()
    handles: list[Cancelling] = []

    def started(cancel: Cancelling) -> None:
        handles.append(cancel)
        ready.set()

    results: list[QueryResult] = []
    worker = threading.Thread(
        target=lambda: results.append(
            PostgresQueries().run(target, "select pg_sleep(600)", dry_run=False, limits=LIMITS, started=started)
        )
    )
    worker.start()
    assert ready.wait(60)
    handles[0]()
    worker.join(60)
    assert results[0].stopped_by == "cancelled"


def test_a_database_that_is_not_there_is_an_outside_failure(target: QueryTarget) -> None:
    with pytest.raises(QueryFailed, match="cannot be reached"):
        run(replace(target, database="nowhere"), "select 1")
