"""A generation belongs to its tenant, holds the snapshot's rows, and gives the tenant nothing beyond them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from orchestrator.core.ports.servers import (
    DataDirectoryLocked,
    EndedSession,
    ServerFailed,
    ServerSpec,
    WatchLimits,
)
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.postgres.watchdog import PostgresWatchdog
from orchestrator.parts.generation import SnapshotDamaged, SnapshotNotReady
from tests.support.snapshot import LIMITS, SnapshotRig, as_tenant, tenant

pytestmark = pytest.mark.engine

FORBIDDEN = (
    "ALTER SYSTEM SET work_mem = '1GB'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/data/x'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "CREATE ROLE friend",
    "CREATE DATABASE other",
    "CREATE TABLESPACE t LOCATION '/data'",
    "CREATE SCHEMA mine",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION clinic.no_rename()",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE c AS 'x'",
    "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p",
    "SELECT pg_create_physical_replication_slot('x')",
    "SELECT pg_switch_wal()",
    "SELECT * FROM pg_available_wal_summaries()",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SET session_replication_role = replica",
    "SET temp_file_limit = -1",
    "SET ROLE postgres",
    "SET ROLE reader",
    "SET SESSION AUTHORIZATION watchdog",
    "LOAD '$libdir/plpgsql'",
    "CHECKPOINT",
    "DROP DATABASE app",
    "ALTER DATABASE app CONNECTION LIMIT 0",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "UPDATE orchestrator_snapshot.info SET snapshot_id = 'x'",
    "DROP TABLE orchestrator_snapshot.info",
)
ALLOWED = (
    "UPDATE clinic.sites SET name = 'Changed' WHERE id = 'north'",
    "DELETE FROM clinic.letters",
    "ALTER TABLE clinic.sites ADD COLUMN extra int",
    "CREATE TABLE public.mine (id int)",
    "CREATE TEMP TABLE scratch (id int)",
    "DROP TRIGGER no_rename ON clinic.patients",
    "CREATE OR REPLACE FUNCTION clinic.no_rename() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "ALTER TYPE clinic.kind ADD VALUE 'third'",
    "REFRESH MATERIALIZED VIEW clinic.directory",
    "TRUNCATE clinic.visits",
)


@pytest.fixture(scope="module")
def owner() -> Tenant:
    return tenant("north-desk", 41)


@pytest.fixture(scope="module")
def generation(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, owner: Tenant) -> Iterator[ServerSpec]:
    yield clinic_rig.flow.generations.create(owner, clinic_snapshot, "gmodule", LIMITS)
    clinic_rig.flow.generations.remove(owner, "gmodule")


def test_the_tenant_finds_every_row_and_owns_what_it_finds(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    with as_tenant(clinic_rig, generation) as connection:
        assert connection.execute("SELECT session_user::text").fetchone() == ("tenant_north_desk",)
        assert connection.execute("SELECT count(*) FROM patients").fetchone() == (3000,), "production's search_path"
        foreign = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'clinic'::regnamespace"
            " AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = session_user)"
        ).fetchall()
        assert foreign == []


def test_the_tenant_may_change_its_own_things(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    with as_tenant(clinic_rig, generation) as connection:
        for statement in ALLOWED:
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())


def test_the_tenant_may_not_leave_its_database(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    with as_tenant(clinic_rig, generation) as connection:
        allowed = []
        for statement in FORBIDDEN:
            try:
                connection.execute(statement.encode())
            except psycopg.Error:
                continue
            allowed.append(statement)
        assert allowed == []
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.execute("BEGIN; CREATE TABLE public.t (i int); PREPARE TRANSACTION 'x'")


@pytest.mark.parametrize(
    "values", [{"database": "postgres"}, {"user": "postgres"}, {"user": "reader"}, {"uid": 29_999}]
)
def test_the_pool_becomes_the_tenant_in_one_database_and_nobody_else_does(
    clinic_rig: SnapshotRig, generation: ServerSpec, values: dict[str, Any]
) -> None:
    with pytest.raises(psycopg.OperationalError):
        as_tenant(clinic_rig, generation, **values).close()


def test_the_reader_reads_and_cannot_write(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    with clinic_rig.reader(generation) as connection:
        assert connection.execute("SELECT count(*) FROM ONLY clinic.patients").fetchone() == (3000,)
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM clinic.patients")


def test_the_connection_limit_holds_and_leaves_room_for_us(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    opened = []
    try:
        for _ in range(LIMITS.connections):
            opened.append(as_tenant(clinic_rig, generation))
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            as_tenant(clinic_rig, generation)
        assert clinic_rig.servers.is_ready(generation)
    finally:
        for connection in opened:
            connection.close()


def test_a_query_that_asks_for_all_memory_ends_and_the_database_comes_back(
    clinic_rig: SnapshotRig, generation: ServerSpec
) -> None:
    greedy = (
        "SELECT count(*) FROM (SELECT DISTINCT md5(n::text) || repeat('x', 200) FROM generate_series(1, 9000000) n) s"
    )
    with as_tenant(clinic_rig, generation) as connection:
        connection.execute("SET work_mem = '2000GB'; SET hash_mem_multiplier = 1000; SET statement_timeout = 0")
        with pytest.raises(psycopg.OperationalError):
            connection.execute(greedy.encode())
    deadline = time.monotonic() + 60
    while not clinic_rig.servers.is_ready(generation):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    observed = clinic_rig.engine.observe(generation.name)
    assert observed is not None and observed.running
    with as_tenant(clinic_rig, generation) as connection:
        assert connection.execute("SELECT count(*) FROM clinic.patients").fetchone() == (3000,)


def test_the_watchdog_ends_what_the_tenant_would_let_run(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    watchdog = PostgresWatchdog(clinic_rig.servers)
    calm = WatchLimits(statement_timeout_s=600, size_bytes=1 << 40)
    with as_tenant(clinic_rig, generation) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("SET statement_timeout = 0")
        sleeping = pool.submit(connection.execute, "SELECT pg_sleep(300)")
        assert watchdog.look(generation, calm).ended == ()
        untimed = watchdog.look(generation, replace(calm, size_bytes=None))
        assert untimed.ended == () and 0 < untimed.quiet_s < 600, "what runs already counts towards its limit"
        ended = _ended_by(watchdog, generation, replace(calm, statement_timeout_s=0.2))
        assert (ended.why, ended.was_terminated) == ("too_long", False)
        assert isinstance(sleeping.exception(timeout=60), psycopg.errors.QueryCanceled)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        sleeping = pool.submit(connection.execute, "SELECT pg_sleep(300)")
        ended = _ended_by(watchdog, generation, replace(calm, size_bytes=1))
        assert (ended.why, ended.was_terminated) == ("too_large", True)
        assert isinstance(sleeping.exception(timeout=60), psycopg.OperationalError)


def test_a_session_that_resists_cancelling_is_ended(
    clinic_rig: SnapshotRig, generation: ServerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drivers.postgres.watchdog.GRACE_S", 0.5)
    stubborn = (
        "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$"
    )
    watchdog = PostgresWatchdog(clinic_rig.servers)
    limits = WatchLimits(statement_timeout_s=0.2, size_bytes=None)
    with as_tenant(clinic_rig, generation) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("SET statement_timeout = 0")
        running = pool.submit(connection.execute, stubborn)
        while not _ended_by(watchdog, generation, limits).was_terminated:
            assert not running.done()
        assert isinstance(running.exception(timeout=60), psycopg.OperationalError)


def test_the_tenant_cannot_touch_the_watchdogs_session(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    dsn = clinic_rig.servers.dsn(generation.sockets, user="watchdog", database="app")
    with psycopg.connect(dsn, autocommit=True) as watchdog, as_tenant(clinic_rig, generation) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT pg_terminate_backend(%s)", (watchdog.info.backend_pid,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watchdog.execute("SELECT * FROM clinic.patients")


def _ended_by(watchdog: PostgresWatchdog, spec: ServerSpec, limits: WatchLimits) -> EndedSession:
    deadline = time.monotonic() + 60
    while not (found := watchdog.look(spec, limits).ended):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def test_two_servers_never_run_on_one_directory(clinic_rig: SnapshotRig, generation: ServerSpec) -> None:
    second = replace(generation, name=f"{generation.name}-second", sockets=generation.sockets.with_name("second"))
    try:
        with pytest.raises(DataDirectoryLocked):
            clinic_rig.servers.start(second)
    finally:
        clinic_rig.servers.remove(second.name)
    assert clinic_rig.servers.is_ready(generation)


def test_a_killed_server_starts_again_with_its_rows(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, owner: Tenant
) -> None:
    generations = clinic_rig.flow.generations
    spec = generations.create(owner, clinic_snapshot, "gkilled", LIMITS)
    try:
        with as_tenant(clinic_rig, spec) as connection:
            connection.execute("INSERT INTO clinic.sites VALUES ('new', 'New clinic')")
            clinic_rig.engine.kill(spec.name)
        generations.start(owner, "gkilled", LIMITS)
        generations.stop(owner, "gkilled")
        generations.start(owner, "gkilled", LIMITS)
        with as_tenant(clinic_rig, spec) as connection:
            assert connection.execute("SELECT count(*) FROM clinic.sites").fetchone() == (3,)
        assert generations.on_disk(owner.id) >= {"gkilled"}
    finally:
        generations.remove(owner, "gkilled")
    assert "gkilled" not in generations.on_disk(owner.id)
    assert not spec.sockets.exists()
    generations.remove(owner, "gkilled")


def test_changing_the_limits_takes_effect_at_the_next_hand_over(
    clinic_rig: SnapshotRig, generation: ServerSpec, owner: Tenant
) -> None:
    clinic_rig.flow.generations.hand_over(owner, generation, replace(LIMITS, statement_timeout_s=1.5))
    with as_tenant(clinic_rig, generation) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
    clinic_rig.flow.generations.hand_over(owner, generation, LIMITS)


def test_a_failed_start_leaves_nothing(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, owner: Tenant) -> None:
    generations = clinic_rig.flow.generations
    with pytest.raises(ServerFailed):
        generations.create(owner, clinic_snapshot, "gfails", replace(LIMITS, connections=-50))
    assert "gfails" not in generations.on_disk(owner.id)
    assert [one.name for one in clinic_rig.engine.containers() if "gfails" in one.name] == []


def test_a_damaged_or_unfinished_snapshot_gives_no_generation(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, owner: Tenant
) -> None:
    assert clinic_snapshot.manifest is not None
    damaged = replace(clinic_snapshot, manifest=replace(clinic_snapshot.manifest, files=1))
    with pytest.raises(SnapshotDamaged):
        clinic_rig.flow.generations.create(owner, damaged, "gdamaged", LIMITS)
    with pytest.raises(SnapshotNotReady):
        clinic_rig.flow.generations.create(owner, replace(clinic_snapshot, manifest=None), "gnone", LIMITS)


def test_a_base_is_shared_read_only_and_goes_when_idle(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    generations = clinic_rig.flow.generations
    with generations.base(clinic_snapshot) as first, generations.base(clinic_snapshot) as second:
        assert first == second
        assert not generations.remove_base(clinic_snapshot.id)
        with psycopg.connect(clinic_rig.servers.dsn(first.sockets, database="app"), autocommit=True) as connection:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("CREATE TABLE t (i int)")
    assert generations.stop_idle_bases(idle_s=3600) == []
    assert generations.stop_idle_bases(idle_s=0) == [clinic_snapshot.id]
    assert not first.data.exists()
    assert clinic_rig.engine.observe(first.name) is None


def test_disposable_databases_run_without_syncing(clinic_rig: SnapshotRig, owner: Tenant) -> None:
    generations = clinic_rig.flow.generations
    assert "fsync" not in generations.spec(owner, "g", LIMITS).settings
    assert generations.spec(owner, "g", replace(LIMITS, durable=False)).settings["fsync"] == "off"
