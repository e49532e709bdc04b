"""Killed anywhere, a tenant ends with exactly one live database that answers, and nothing left over."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest

from orchestrator.core.refresh import RefreshState, RefreshStep
from orchestrator.core.tenants import RefreshPolicy, Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.store import refreshes
from orchestrator.store.session import TenantBusy, tenant_lock
from tests.support.killed_refresh import DIED, die_at
from tests.support.refreshing import ACTOR, DataPlane

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

BEFORE_THE_RENAME = ("planned", "saving", "cloning", "starting", "checking", "swapping", "paused")
AFTER_IT = ("renamed", "settling", "carrying", "pruning")
MARK = "UPDATE guests SET visits = 99 WHERE id = 1"


def _mark(plane: DataPlane, tenant: Tenant) -> None:
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as connection:
        connection.execute(MARK)


def _is_marked(plane: DataPlane, tenant: Tenant) -> bool:
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as connection:
        return connection.execute("SELECT visits FROM guests WHERE id = 1").fetchone() == (99,)


def _recover(plane: DataPlane, tenant: Tenant) -> list[str]:
    """What reconcile does: busy means try again; the server may take a moment to notice that a client died."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return plane.recovery().recover(tenant)
        except TenantBusy:
            assert time.monotonic() < deadline, "the dead process's lock was never released"
            time.sleep(0.05)


def _check_nothing_is_left(plane: DataPlane, tenant: Tenant) -> None:
    present = plane.present(tenant)
    assert sorted(present.values()) in (["live"], ["live", "previous"])
    live = plane.live(tenant)
    assert plane.pools.live_id(tenant.id) == live.id
    assert plane.generations.on_disk(tenant.id) == set(present)
    databases = plane.databases(tenant)
    assert [one for one, runs in databases.items() if runs] == [live.id]
    assert set(databases) <= set(present)
    sockets = {path.name for path in plane.places.databases(tenant.id).iterdir()} - {"live"}
    assert sockets <= set(present)
    assert plane.pools.is_serving(tenant, plane.limits)
    assert refreshes.unfinished(plane.store, tenant.id) == []


@pytest.mark.chaos
def test_killed_at_every_boundary_of_a_refresh(plane: DataPlane, tenant: Tenant) -> None:
    tenant = plane.change(tenant, refresh_policy=RefreshPolicy.CARRY)
    plane.drafts.rows = 1
    assert [step for step in BEFORE_THE_RENAME if step != "paused"] + [s for s in AFTER_IT if s != "renamed"] == [
        step.value for step in RefreshStep if step is not RefreshStep.FINISHED
    ], "a new step needs its kill"
    for boundary in (*BEFORE_THE_RENAME, *AFTER_IT):
        _mark(plane, tenant)
        before = plane.live(tenant)
        assert die_at(plane, tenant, boundary) == DIED
        done = _recover(plane, tenant)
        assert done, f"killed at {boundary}: something had to be set right"
        _check_nothing_is_left(plane, tenant)
        newest = refreshes.history(plane.store, tenant_id=tenant.id, limit=1)[0]
        if boundary in BEFORE_THE_RENAME:
            assert (newest.state, plane.live(tenant).id) == (RefreshState.FAILED, before.id), boundary
            assert _is_marked(plane, tenant), f"killed at {boundary}: the live database was touched"
        else:
            assert (newest.state, newest.generation_id) == (RefreshState.DONE, plane.live(tenant).id), boundary
            assert not _is_marked(plane, tenant), boundary
        assert newest.recovered
        assert plane.recovery().recover(tenant) == [], "once set right, it stays right"


@pytest.mark.chaos
def test_killed_at_every_boundary_of_an_undo(plane: DataPlane, tenant: Tenant) -> None:
    for boundary in ("starting", "paused", "renamed", "settling"):
        plane.flow().run(tenant, actor=ACTOR)
        before = plane.live(tenant)
        assert die_at(plane, tenant, boundary, undo=True) == DIED
        _recover(plane, tenant)
        _check_nothing_is_left(plane, tenant)
        stays = boundary in BEFORE_THE_RENAME
        assert (plane.live(tenant).id == before.id) is stays, boundary
        assert sorted(plane.present(tenant).values()) == ["live", "previous"], "it can still be undone"


def test_killed_while_clients_are_held_back_they_are_let_through(plane: DataPlane, tenant: Tenant) -> None:
    _mark(plane, tenant)
    assert die_at(plane, tenant, "paused") == DIED
    assert not plane.pools.is_serving(tenant, plane.limits)
    with pytest.raises(TenantBusy):
        plane.flow().run(tenant, actor=ACTOR)
    _recover(plane, tenant)
    assert _is_marked(plane, tenant)
    _check_nothing_is_left(plane, tenant)


@pytest.mark.parametrize("victim", ["pool", "live"])
def test_a_part_that_dies_in_the_middle_of_the_swap_is_found_again(
    plane: DataPlane, tenant: Tenant, victim: str
) -> None:
    _mark(plane, tenant)
    spec = plane.pools.spec(tenant, plane.limits)
    live = plane.generations.spec(tenant, plane.live(tenant).id, plane.limits)

    def kill(step: str) -> None:
        if step == "paused":
            plane.engine.kill(spec.name if victim == "pool" else live.name)

    with contextlib.suppress(OrchestratorError):
        plane.flow(kill).run(tenant, actor=ACTOR)
    plane.recovery().recover(tenant)
    assert not _is_marked(plane, tenant)
    _check_nothing_is_left(plane, tenant)


def test_everything_of_a_tenant_dead_is_started_again(plane: DataPlane, tenant: Tenant) -> None:
    _mark(plane, tenant)
    for container in plane.engine.containers(tenant_id=tenant.id):
        plane.engine.kill(container.name)
    plane.places.live_link(tenant.id).unlink()
    done = plane.recovery().recover(tenant)
    assert len(done) == 3
    assert _is_marked(plane, tenant)
    _check_nothing_is_left(plane, tenant)


def test_recovery_looks_without_making_anybody_wait(plane: DataPlane, tenant: Tenant) -> None:
    plane.flow().run(tenant, actor=ACTOR)
    with tenant_lock(plane.store, tenant.id):
        assert plane.recovery().recover(tenant) == [], "all is well: no lock is asked for"
        plane.pools.stop(tenant)
        with pytest.raises(TenantBusy):
            plane.recovery().recover(tenant)
    assert plane.recovery().recover(tenant) == ["let clients through the pool again"]
    _check_nothing_is_left(plane, tenant)
