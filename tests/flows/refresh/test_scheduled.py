"""The real scheduler refreshes tenants under load, again and again, until they see the new snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest

from orchestrator.core.refresh import RefreshState
from orchestrator.core.schedule import Schedule
from orchestrator.core.tenants import Tenant
from orchestrator.scheduler.handlers import refresh_handler
from orchestrator.scheduler.service import Scheduler
from orchestrator.scheduler.ticks import Target
from orchestrator.store import jobs, refreshes
from tests.flows.refresh.conftest import STATEMENTS, newest
from tests.support.refreshing import DataPlane, Writers

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WRITE = "INSERT INTO notes (writer, turn) VALUES (%(writer)s, %(turn)s)"
WAIT_S = 150.0


def _guests(plane: DataPlane, tenant: Tenant) -> int:
    """-1 where a swap cut a first login off; the writers, who are connected, must not notice anything."""
    with psycopg.connect(plane.dsn(tenant), autocommit=True) as connection:
        try:
            row = connection.execute("SELECT count(*) FROM guests").fetchone()
        except psycopg.errors.ProtocolViolation:
            return -1
        return int(row[0]) if row else -1


def test_three_tenants_under_load_follow_the_schedule_to_the_new_snapshot(plane: DataPlane) -> None:
    first = newest(plane)
    tenants = [plane.launch(first, snapshot_profile="scheduled") for _ in range(3)]
    plane.take_snapshot(*STATEMENTS, profile="scheduled")
    scheduler = Scheduler(
        plane.store,
        load=lambda: Schedule.model_validate({"refresh": {"every": "2s", "spread": "1s"}}),
        targets=lambda: [
            Target("refresh", one.id, one.name, fresh_since=plane.live(one).created_at) for one in tenants
        ],
        handlers={"refresh": refresh_handler(plane.flow(), plane.tenants.__getitem__)},
        concurrency=2,
        tick_s=0.5,
    )
    with ExitStack() as stack:
        writers = [stack.enter_context(Writers(plane.dsn(one), count=2, statement=WRITE)) for one in tenants]
        scheduler.start()
        try:
            _until(tenants, lambda one: _done(plane, one) >= 2)
            plane.take_snapshot(*STATEMENTS, "INSERT INTO guests VALUES (2000, 'new', 0)", profile="scheduled")
            _until(tenants, lambda one: _guests(plane, one) == 1001)
        finally:
            scheduler.stop(timeout_s=60)
    for tenant, written in zip(tenants, writers, strict=True):
        assert written.failures == [], tenant.name
        assert written.done > 0
        asked = jobs.find(plane.store, tenant_id=tenant.id, kind="refresh")
        assert len({job.key for job in asked}) == len(asked), "every slot asked for one job"
        for container in plane.engine.containers(tenant_id=tenant.id):
            plane.engine.remove(container.name)


def _done(plane: DataPlane, tenant: Tenant) -> int:
    found = refreshes.history(plane.store, tenant_id=tenant.id)
    assert not any(one.state is RefreshState.FAILED for one in found), [one.error for one in found]
    return sum(one.state is RefreshState.DONE for one in found)


def _until(tenants: list[Tenant], is_so: Callable[[Tenant], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not all(is_so(one) for one in tenants):
        assert time.monotonic() < deadline, "the schedule was not followed"
        time.sleep(0.2)
