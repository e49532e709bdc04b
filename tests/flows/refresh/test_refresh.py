"""A refresh replaces the tenant's data under its running clients; what fails before the rename changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from orchestrator.core.ports.differ import TooManyChanges
from orchestrator.core.ports.drafts import CarriedDraft
from orchestrator.core.ports.pools import PauseTimedOut
from orchestrator.core.ports.servers import ServerFailed
from orchestrator.core.refresh import (
    DiskForecastExceeded,
    DraftConflicts,
    NoSnapshot,
    NothingToUndo,
    RefreshKind,
    RefreshState,
    RefreshStep,
    TenantNotRunning,
)
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.pool.console import Console
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.errors import OrchestratorError
from orchestrator.store import refreshes
from orchestrator.store.session import TenantBusy, tenant_lock
from tests.flows.refresh.conftest import STATEMENTS, newest
from tests.support.cluster import Cluster
from tests.support.engine import SessionImages
from tests.support.refreshing import ACTOR, DataPlane, Writers, data_plane

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WRITE = "INSERT INTO notes (writer, turn) VALUES (%(writer)s, %(turn)s)"


def _ask(plane: DataPlane, tenant: Tenant, query: str) -> object:
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def _run(plane: DataPlane, tenant: Tenant, query: str) -> None:
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as connection:
        connection.execute(query.encode())


def test_a_login_under_way_is_not_cut_off_by_a_swap(plane: DataPlane, tenant: Tenant) -> None:
    """PgBouncer would take the server for a failing one: clients wait for its next try, or are told so."""
    live = plane.live(tenant).id
    spec = plane.pools.spec(tenant, plane.limits)
    database = plane.servers.dsn(plane.places.database_sockets(tenant.id, live), database=spec.database)
    slow = "BEGIN PERFORM pg_sleep(0.1); END"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS '{slow}'".encode())
        connection.execute("CREATE EVENT TRIGGER slow_login ON login EXECUTE FUNCTION slow()")

    def logins() -> int:
        (pools,) = Console(spec).run("SHOW POOLS")
        return sum(int(row["sv_login"]) for row in pools if row["database"] == spec.database)

    plane.pools.swap(tenant, plane.limits, old_id=live, new_id=live)  # which leaves no connection to the server
    with ThreadPoolExecutor(1) as others:
        first = others.submit(_ask, plane, tenant, "SELECT 1")
        deadline = time.monotonic() + 30
        while not logins() and not first.done():
            assert time.monotonic() < deadline, "nobody signs in"
        plane.pools.swap(tenant, plane.limits, old_id=live, new_id=live)
        assert plane.pools.pools.status(spec).waiting == 0, "its login was cut off"
        assert first.result() == 1


def test_writers_never_see_a_failure_while_their_database_is_replaced(plane: DataPlane, tenant: Tenant) -> None:
    flow = plane.flow()
    with Writers(plane.dsn(tenant), count=8, statement=WRITE) as writers:
        for _ in range(4):
            before = writers.done
            deadline = time.monotonic() + 60
            while writers.done < before + 50 and not writers.failures:
                assert time.monotonic() < deadline, "the writers do not get on"
                time.sleep(0.02)
            finished = flow.run(tenant, actor=ACTOR)
            assert finished.state is RefreshState.DONE
    assert writers.failures == []
    assert writers.done == len(writers.waits_s)
    assert plane.live(tenant).id == plane.pools.live_id(tenant.id)
    states = sorted(plane.present(tenant).values())
    assert states == ["live", "previous"], "older generations are removed"
    assert sorted(plane.databases(tenant).values()) == [False, True], "only the live database runs"
    assert plane.generations.on_disk(tenant.id) == set(plane.present(tenant))


def test_it_resets_the_data_and_an_undo_brings_it_back(plane: DataPlane, tenant: Tenant) -> None:
    flow = plane.flow()
    with pytest.raises(NothingToUndo):
        flow.undo(tenant, actor=ACTOR)
    _run(plane, tenant, "DELETE FROM guests WHERE id > 10")
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as client:  # stays connected throughout
        record = flow.run(tenant, actor=ACTOR, reason="by hand")
        assert client.execute("SELECT count(*) FROM guests").fetchone() == (1000,)
        assert set(record.timings) >= {"cloning", "starting", "checking", "swapping", "settling"}
        assert record.gap_s is not None and (record.reason, record.requested_by) == ("by hand", ACTOR.name)
        undone = flow.undo(tenant, actor=ACTOR)
        assert undone.kind is RefreshKind.UNDO
        assert client.execute("SELECT count(*) FROM guests").fetchone() == (10,)
        flow.undo(tenant, actor=ACTOR)
        assert client.execute("SELECT count(*) FROM guests").fetchone() == (1000,)
    kinds = [one.kind.value for one in refreshes.history(plane.store, tenant_id=tenant.id)]
    assert kinds == ["undo", "undo", "refresh"]


def test_a_client_idle_in_a_transaction_is_ended_with_a_clear_error(plane: DataPlane, tenant: Tenant) -> None:
    flow = dataclasses.replace(plane.flow(), pools=dataclasses.replace(plane.pools, patience_s=0.3))
    with psycopg.connect(plane.dsn(tenant)) as holder:
        holder.execute("UPDATE guests SET visits = 1 WHERE id = 1")
        record = flow.run(tenant, actor=ACTOR)
        with pytest.raises(psycopg.OperationalError, match=r"terminating connection|server conn"):
            holder.execute("SELECT 1")
    assert record.ended_sessions >= 1
    assert _ask(plane, tenant, "SELECT visits FROM guests WHERE id = 1") == 0


def test_a_pool_in_session_mode_swaps_and_its_clients_come_back(plane: DataPlane) -> None:
    tenant = plane.launch(newest(plane), pool_mode=PoolMode.SESSION)
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as client:
        client.execute("SET search_path = pg_catalog")
        assert client.execute("SHOW search_path").fetchone() == ("pg_catalog",)
        plane.flow().run(tenant, actor=ACTOR)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert _ask(plane, tenant, "SELECT count(*) FROM guests") == 1000
    for container in plane.engine.containers(tenant_id=tenant.id):
        plane.engine.remove(container.name)


def test_a_broken_candidate_changes_nothing(plane: DataPlane, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    live = plane.live(tenant)

    def fail(*_: object, **__: object) -> None:
        raise ServerFailed("the candidate does not answer")

    monkeypatch.setattr(type(plane.generations), "hand_over", fail)
    with pytest.raises(ServerFailed):
        plane.flow().run(tenant, actor=ACTOR)
    monkeypatch.undo()
    (record,) = refreshes.history(plane.store, tenant_id=tenant.id)
    assert (record.state, record.step, record.error_code) == (
        RefreshState.FAILED,
        RefreshStep.CHECKING,
        ServerFailed.code,
    )
    assert plane.live(tenant) == live
    assert plane.present(tenant) == {live.id: "live"}
    assert plane.databases(tenant) == {live.id: True}
    assert _ask(plane, tenant, "SELECT count(*) FROM guests") == 1000


def test_a_pause_that_does_not_come_about_leaves_clients_served(
    plane: DataPlane, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drivers.pool.sessions.end", lambda *_, **__: 0)
    flow = dataclasses.replace(plane.flow(), pools=dataclasses.replace(plane.pools, patience_s=0.2, grace_s=0.2))
    with psycopg.connect(plane.dsn(tenant)) as holder:
        holder.execute("SELECT 1")
        with pytest.raises(PauseTimedOut):
            flow.run(tenant, actor=ACTOR)
        assert holder.execute("SELECT count(*) FROM guests").fetchone() == (1000,), "nobody was cut"
    assert plane.pools.is_serving(tenant, plane.limits)
    assert _ask(plane, tenant, "SELECT count(*) FROM guests") == 1000
    assert list(plane.present(tenant).values()) == ["live"]


def test_a_saved_draft_is_put_back_or_says_what_hinders_it(plane: DataPlane, tenant: Tenant) -> None:
    flow = plane.flow()
    plane.drafts.carried = CarriedDraft(True, 0, "")
    assert flow.restore(tenant, "c-draft", actor=ACTOR).is_applied
    plane.drafts.carried = CarriedDraft(False, 2, "guests 7 changed in production too")
    with pytest.raises(DraftConflicts, match="guests 7 changed") as caught:
        flow.restore(tenant, "c-draft", actor=ACTOR)
    assert caught.value.fields["conflicts"] == 2
    with tenant_lock(plane.store, tenant.id), pytest.raises(TenantBusy):
        dataclasses.replace(flow, patience_s=0.0).restore(tenant, "c-draft", actor=ACTOR)
    plane.change(tenant, state=TenantState.STOPPED)
    with pytest.raises(TenantNotRunning):
        flow.restore(tenant, "c-draft", actor=ACTOR)


def test_two_at_once_is_an_answer_not_a_queue(plane: DataPlane, tenant: Tenant) -> None:
    with tenant_lock(plane.store, tenant.id):
        with pytest.raises(TenantBusy):
            plane.flow().run(tenant, actor=ACTOR)
    assert refreshes.history(plane.store, tenant_id=tenant.id) == []


def test_what_cannot_be_refreshed_says_why(plane: DataPlane, tenant: Tenant) -> None:
    flow = plane.flow()
    plane.change(tenant, state=TenantState.STOPPED)
    with pytest.raises(TenantNotRunning, match="stopped"):
        flow.run(tenant, actor=ACTOR)
    plane.change(tenant, state=TenantState.RUNNING, snapshot_profile="nobody has this")
    with pytest.raises(NoSnapshot, match="nobody has this"):
        flow.run(tenant, actor=ACTOR)
    plane.change(tenant)


class _FullVolume:
    """The real volume, as it looks when almost nothing is free."""

    def __init__(self, real: object, *, is_reflink: bool = True, free_bytes: int | None = None) -> None:
        self._real, self._is_reflink, self._free_bytes = real, is_reflink, free_bytes

    @property
    def is_reflink(self) -> bool:
        return self._is_reflink

    def free_bytes(self) -> int:
        return self._free_bytes if self._free_bytes is not None else self._real.free_bytes()  # type: ignore[attr-defined,no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_a_full_disk_is_foreseen_before_anything_is_copied(plane: DataPlane, tenant: Tenant) -> None:
    volume = _FullVolume(plane.volume, free_bytes=64 << 20)
    flow = dataclasses.replace(plane.flow(), generations=dataclasses.replace(plane.generations, volume=volume))
    with pytest.raises(DiskForecastExceeded, match="must stay free"):
        flow.run(tenant, actor=ACTOR)
    assert len(plane.generations.on_disk(tenant.id)) == 1
    full_copies = _FullVolume(plane.volume, is_reflink=False, free_bytes=64 << 20)
    flow = dataclasses.replace(plane.flow(), generations=dataclasses.replace(plane.generations, volume=full_copies))
    with pytest.raises(DiskForecastExceeded, match="cannot share blocks"):
        flow.run(tenant, actor=ACTOR)


def test_unproposed_changes_are_saved_before_and_exactly_after_the_swap(plane: DataPlane, tenant: Tenant) -> None:
    old = plane.live(tenant)
    plane.change(tenant, refresh_policy=RefreshPolicy.SAVE)
    plane.drafts.rows = 3
    record = plane.flow().run(tenant, actor=ACTOR)
    assert plane.drafts.saved == [(old.id, None), (old.id, "c-draft")]
    assert (record.draft_id, record.carried) == ("c-draft", "saved as draft c-draft")

    plane.change(tenant, refresh_policy=RefreshPolicy.CARRY)
    plane.drafts.carried = CarriedDraft(False, 2, "2 rows changed in production too")
    record = plane.flow().run(tenant, actor=ACTOR)
    assert record.carried == "saved as draft c-draft; not carried over: 2 rows changed in production too"
    plane.drafts.carried = CarriedDraft(True, 0, "")
    assert plane.flow().run(tenant, actor=ACTOR).carried == "carried over from draft c-draft"

    for failure in (TooManyChanges("There are 2,000,000 of them."), psycopg.OperationalError("secret row")):
        plane.drafts.failure = failure
        record = plane.flow().run(tenant, actor=ACTOR)
        assert record.state is RefreshState.DONE, "a tenant cannot hold its refresh up"
        assert record.carried is not None and "refresh undo" in record.carried and "secret" not in record.carried


def test_a_broken_and_a_slow_tenant_do_not_hold_up_the_others(plane: DataPlane, tenant: Tenant) -> None:
    slow, *others = [plane.launch(newest(plane)) for _ in range(3)]
    broken = dataclasses.replace(tenant, snapshot_profile="none")
    plane.tenants[tenant.id] = broken
    seen: list[str] = []
    are_done = threading.Event()

    def reload(tenant_id: str) -> Tenant:
        if tenant_id == slow.id:
            assert are_done.wait(300), "the others waited for the slow one"
        return plane.tenants[tenant_id]

    def on_done(one: Tenant, _: object) -> None:
        seen.append(one.name)
        if len(seen) == 3:
            are_done.set()

    flow = dataclasses.replace(plane.flow(), reload=reload)
    results = flow.run_all([slow, broken, *others], actor=ACTOR, at_once=2, on_done=on_done)
    assert isinstance(results[broken.name], NoSnapshot)
    assert not any(isinstance(results[one.name], OrchestratorError) for one in (slow, *others))
    assert seen[-1] == slow.name and sorted(seen) == sorted(one.name for one in (slow, broken, *others))
    for one in (slow, *others):
        for container in plane.engine.containers(tenant_id=one.id):
            plane.engine.remove(container.name)


def test_the_console_is_closed_to_the_tenant(plane: DataPlane, tenant: Tenant) -> None:
    own = psycopg.conninfo.conninfo_to_dict(plane.dsn(tenant))
    for user in (own["user"], "console", "pgbouncer"):
        with pytest.raises(psycopg.OperationalError):
            with psycopg.connect(**{**own, "dbname": "pgbouncer", "user": user}, autocommit=True) as connection:
                psycopg.ClientCursor(connection).execute("PAUSE")
    assert plane.pools.is_serving(tenant, plane.limits)


def test_session_state_does_not_leak_between_clients_and_prepared_statements_live_on(
    plane: DataPlane, tenant: Tenant
) -> None:
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as first:
        first.execute("SET search_path = pg_catalog")
        with psycopg.connect(plane.dsn(tenant), autocommit=True) as second:
            assert second.execute("SHOW search_path").fetchone() != ("pg_catalog",)
            for _ in range(8):  # enough for the driver to prepare it
                second.execute("SELECT name FROM guests WHERE id = %s", (7,))
            plane.flow().run(tenant, actor=ACTOR)
            assert second.execute("SELECT name FROM guests WHERE id = %s", (7,)).fetchone() == ("guest 7",)


def test_a_volume_that_cannot_share_blocks_works_and_says_so(
    engine: DockerEngine, images: SessionImages, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="rf", dir="/tmp"))
    directory.chmod(0o755)
    with cluster.database() as name:
        volume = LocalVolume(directory)
        volume._is_reflink = False  # whatever /tmp is on this machine
        made = data_plane(
            engine,
            volume,
            store_url=cluster.url(name),
            directory=directory,
            postgres_image=images.postgres,
            pool_image=images.pool,
        )
        try:
            tenant = made.launch(made.take_snapshot(*STATEMENTS))
            made.flow().run(tenant, actor=ACTOR)
            assert _ask(made, tenant, "SELECT count(*) FROM guests") == 1000
        finally:
            made.clean_up()
            shutil.rmtree(directory, ignore_errors=True)
    assert "refresh.full_copy" in capsys.readouterr().err
