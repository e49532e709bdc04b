"""What the control database remembers of tenants, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from orchestrator.core.tenants import (
    PoolMode,
    RefreshPolicy,
    StepState,
    Tenant,
    TenantExists,
    TenantMissing,
    TenantsMax,
    TenantState,
)
from orchestrator.store import tenants
from orchestrator.store.session import TenantBusy, tenant_lock
from tests.support.cluster import Cluster
from tests.support.stores import control_store


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as engine:
        yield engine


def launch(store: Engine, name: str, tenants_max: int = 100) -> Tenant:
    return tenants.add(
        store,
        name,
        profile="office",
        image="",
        scope=None,
        snapshot_profile="full",
        refresh_policy=RefreshPolicy.SAVE,
        pool_mode=PoolMode.TRANSACTION,
        tenants_max=tenants_max,
    )


def test_a_name_belongs_to_one_tenant_at_a_time(store: Engine) -> None:
    first = launch(store, "harbour")
    with pytest.raises(TenantExists):
        launch(store, "harbour")
    tenants.set_state(store, first.id, TenantState.REMOVED)
    second = launch(store, "harbour")
    assert second.id != first.id
    assert tenants.named(store, "harbour").id == second.id
    with pytest.raises(TenantMissing):
        tenants.get(store, first.id)
    assert set(tenants.names(store)) == {first.id, second.id}


def test_slots_are_shared_out_once_each_and_reused_after_removal(store: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: launch(store, f"tenant-{number}"), range(8)))
    assert sorted(tenant.number for tenant in made) == list(range(8))
    gone = next(tenant for tenant in made if tenant.number == 3)
    tenants.set_state(store, gone.id, TenantState.REMOVED)
    assert launch(store, "newcomer").number == 3


def test_the_bound_on_tenants_holds(store: Engine) -> None:
    launch(store, "one", tenants_max=1)
    with pytest.raises(TenantsMax):
        launch(store, "two", tenants_max=1)


def test_steps_are_written_before_and_after(store: Engine) -> None:
    tenant = launch(store, "harbour")
    number = tenants.begin_step(store, tenant.id, "launch", "o1", "network")
    assert [step.state for step in tenants.steps(store, tenant.id)] == [StepState.BEGUN]
    tenants.end_step(store, number, StepState.FAILED, spent_s=0.5, error="no address left")
    [step] = tenants.steps(store, tenant.id)
    assert (step.state, step.error, step.spent_s) == (StepState.FAILED, "no address left", 0.5)


def test_a_tenants_lock_is_held_by_one_and_others_wait_only_as_long_as_they_say(store: Engine) -> None:
    def take(patience_s: float) -> bool:
        with tenant_lock(store, "t1", patience_s=patience_s):
            return True

    with ThreadPoolExecutor(1) as pool:
        with tenant_lock(store, "t1"):
            for patience_s in (0.0, 0.2):
                with pytest.raises(TenantBusy):
                    take(patience_s)
            with tenant_lock(store, "t2"):
                patient = pool.submit(take, 60.0)
        assert patient.result(timeout=60)


def test_trouble_is_counted_until_the_state_changes(store: Engine) -> None:
    tenant = launch(store, "harbour")
    assert tenants.note_trouble(store, tenant.id, "engine away", pause_s=5) == 1
    assert tenants.note_trouble(store, tenant.id, "engine away", pause_s=5) == 2
    assert tenants.get(store, tenant.id).reason == "engine away"
    tenants.set_state(store, tenant.id, TenantState.RUNNING)
    assert tenants.trouble(store, tenant.id) == tenants.Trouble(0, None)
