"""Killed anywhere, a tenant ends with exactly one live database that answers, and nothing left over."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest

from orchestrator.core.refresh import RefreshState, RefreshStep
from orchestrator.core.tenants import RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.errors import OrchestratorError
from orchestrator.store import refreshes
from orchestrator.store.session import TenantBusy, tenant_lock
from tests.support.killed_refresh import DIED, die_at
from tests.support.refreshing import ACTOR, DataPlane

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

BEFORE_THE_RENAME = ("planned", "saving", "cloning", "starting", "checking", "swapping", "paused")
AFTER_IT = ("renamed", "settling", "carrying", "pruning")
PARTS = ("pool", "live", "candidate", "engine")
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


def _kill(plane: DataPlane, tenant: Tenant, part: str) -> None:
    """A part of the tenant dies; the engine goes away for the process that refreshes."""
    if part == "engine":
        assert isinstance(plane.engine, DockerEngine)
        plane.engine.connection = Connection(address="unix:///nonexistent/engine.sock")
        return
    if part == "pool":
        plane.engine.kill(plane.pools.spec(tenant, plane.limits).name)
        return
    states = ("live",) if part == "live" else ("creating", "candidate")
    for generation_id in [one for one, state in plane.present(tenant).items() if state in states]:
        name = plane.generations.spec(tenant, generation_id, plane.limits).name
        if plane.engine.observe(name) is not None:
            plane.engine.kill(name)


def _check_a_dead_part_is_survived(plane: DataPlane, tenant: Tenant, boundary: str, part: str) -> None:
    _mark(plane, tenant)
    working = plane.engine.connection  # type: ignore[attr-defined]

    def kill(step: str) -> None:
        if step == boundary:
            _kill(plane, tenant, part)

    try:
        with contextlib.suppress(OrchestratorError):
            plane.flow(kill).run(tenant, actor=ACTOR)
    finally:
        plane.engine.connection = working  # type: ignore[attr-defined]
    _recover(plane, tenant)
    _check_nothing_is_left(plane, tenant)
    newest = refreshes.history(plane.store, tenant_id=tenant.id, limit=1)[0]
    was_swapped = newest.generation_id == plane.live(tenant).id
    assert (newest.state is RefreshState.DONE) is was_swapped, f"{part} killed at {boundary}"
    assert _is_marked(plane, tenant) is not was_swapped, f"{part} killed at {boundary}"
    assert plane.recovery().recover(tenant) == [], "once set right, it stays right"


def test_a_part_that_dies_at_any_boundary_is_found_again(plane: DataPlane, tenant: Tenant) -> None:
    tenant = plane.change(tenant, refresh_policy=RefreshPolicy.CARRY)
    plane.drafts.rows = 1
    for number, boundary in enumerate((*BEFORE_THE_RENAME, *AFTER_IT)):
        _check_a_dead_part_is_survived(plane, tenant, boundary, PARTS[number % len(PARTS)])
    for boundary in ("swapping", "paused"):
        _check_a_dead_part_is_survived(plane, tenant, boundary, "pool")


@pytest.mark.chaos
@pytest.mark.parametrize("part", PARTS)
def test_every_part_may_die_at_every_boundary(plane: DataPlane, tenant: Tenant, part: str) -> None:
    tenant = plane.change(tenant, refresh_policy=RefreshPolicy.CARRY)
    plane.drafts.rows = 1
    for boundary in (*BEFORE_THE_RENAME, *AFTER_IT):
        _check_a_dead_part_is_survived(plane, tenant, boundary, part)


def test_a_tenant_stopped_in_the_middle_is_set_right_and_stays_stopped(plane: DataPlane, tenant: Tenant) -> None:
    for boundary in ("starting", "paused", "renamed"):
        _mark(plane, tenant)
        before = plane.live(tenant)
        assert die_at(plane, tenant, boundary) == DIED
        tenant = plane.change(tenant, state=TenantState.STOPPED)
        plane.pools.stop(tenant)
        plane.generations.stop(tenant, before.id)
        assert _recover(plane, tenant), boundary
        assert refreshes.unfinished(plane.store, tenant.id) == []
        assert not any(one.running for one in plane.engine.containers(tenant_id=tenant.id)), boundary
        assert plane.generations.on_disk(tenant.id) == set(plane.present(tenant))
        assert sorted(plane.present(tenant).values()) in (["live"], ["live", "previous"])
        assert (plane.live(tenant).id == before.id) is (boundary in BEFORE_THE_RENAME)
        assert plane.recovery().recover(tenant) == [], "a stopped tenant is left alone"
        tenant = plane.change(tenant, state=TenantState.RUNNING)
        _recover(plane, tenant)
        _check_nothing_is_left(plane, tenant)
        assert _is_marked(plane, tenant) is (boundary in BEFORE_THE_RENAME)


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
