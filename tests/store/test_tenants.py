"""Names and slots are given once; a removed tenant frees both but never its id."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from orchestrator.core.names import RESERVED, InvalidTenantName
from orchestrator.core.tenants import TenantState
from orchestrator.store import tenants
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import TenantBusy, connect, tenant_lock
from orchestrator.store.tenants import TenantExists, TenantNotFound, TooManyTenants, WrongTenantState
from tests.support.cluster import Cluster

HOSTILE = ["", "A", "a b", "a/b", "../etc", "a.b", "-a", "a-", "a--b", "é", "a\u202eb", "a" * 41, "1a", "a\n", "xn--a"]


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name))
        METADATA.create_all(engine)
        yield engine
        engine.dispose()


def add(store: Engine, name: str, **rest: int) -> tenants.Tenant:
    return tenants.add(store, name, profile="office", image="i", scope=None, created_by="ada", **rest)


@pytest.mark.parametrize("name", [*HOSTILE, *sorted(RESERVED)[:5]])
def test_hostile_names_are_refused(store: Engine, name: str) -> None:
    with pytest.raises(InvalidTenantName):
        add(store, name)
    assert tenants.every(store) == []


def test_a_name_is_given_once_until_its_tenant_is_removed(store: Engine) -> None:
    first = add(store, "harbour")
    with pytest.raises(TenantExists, match="remove harbour"):
        add(store, "harbour")
    tenants.set_state(store, first.id, TenantState.REMOVED, expected=[TenantState.LAUNCHING])
    second = add(store, "harbour")
    assert second.id != first.id
    assert second.number == first.number
    assert tenants.get(store, "harbour") == second
    assert tenants.get(store, first.id).state is TenantState.REMOVED


def test_many_at_once_get_slots_of_their_own(store: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add(store, f"tenant-{number}"), range(12)))
    assert sorted(one.number for one in made) == list(range(1, 13))
    assert len({one.uid for one in made} | {one.pool_uid for one in made} | {one.database_uid for one in made}) == 36


def test_the_limit_of_the_installation_holds(store: Engine) -> None:
    add(store, "a", tenants_max=1)
    with pytest.raises(TooManyTenants):
        add(store, "b", tenants_max=1)


def test_a_state_is_left_only_from_where_it_was_expected(store: Engine) -> None:
    one = add(store, "harbour")
    with pytest.raises(WrongTenantState, match="launching"):
        tenants.set_state(store, one.id, TenantState.STOPPED, expected=[TenantState.RUNNING])
    with pytest.raises(TenantNotFound):
        tenants.get(store, "nobody")


def test_steps_are_kept_in_order(store: Engine) -> None:
    one = add(store, "harbour")
    for step in ("network", "database", "pool"):
        tenants.write_step(store, one.id, "launch", step)
    assert [step.step for step in tenants.steps(store, one.id)] == ["network", "database", "pool"]
    assert tenants.standing(store, "harbour").step == "launch.pool"


def test_a_tenant_is_changed_by_one_at_a_time(store: Engine) -> None:
    with tenant_lock(store, "t1"):
        with pytest.raises(TenantBusy), tenant_lock(store, "t1"):
            pass
        with tenant_lock(store, "t2"):
            pass
    with tenant_lock(store, "t1"):
        pass
