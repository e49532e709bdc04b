"""Rounds over many tenants cost little: what was found in order is not asked again before it can have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from orchestrator.core.generations import DatabaseLimits, GenerationState
from orchestrator.core.ports.engine import Container
from orchestrator.core.ports.servers import Looked, ServerSpec, WatchLimits
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.flows import reconcile
from orchestrator.flows.reconcile import ReconcileFlow
from orchestrator.flows.watch import WatchFlow
from orchestrator.store import generations, refreshes, tenants
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.stores import control_store

LIMITS = DatabaseLimits(
    memory_bytes=1 << 28,
    cpus=1.0,
    pids=64,
    connections=10,
    temp_file_bytes=1 << 28,
    statement_timeout_s=60.0,
    size_bytes=1 << 30,
)


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as engine:
        yield engine


def container(tenant: Tenant, number: int) -> Container:
    return Container(
        id=f"c{number}",
        name=f"orc-{tenant.id}-{number}",
        role="disposable",
        tenant_id=tenant.id,
        generation_id="",
        running=True,
        exit_code=None,
        started_at=None,
        spec_digest="",
        pid=1,
        image="",
        networks=(),
    )


class Round:
    """Reconcile over one stopped tenant, with an engine that lists what the test says."""

    def __init__(self, store: Engine) -> None:
        self.recovered: list[str] = []
        self.running: list[Container] = []
        proxy = SimpleNamespace(published=list, withdraw=lambda _: None)
        tenancy = SimpleNamespace(
            sandbox=SimpleNamespace(instance="orc"),
            pools=SimpleNamespace(live_id=lambda _: None),
            egress=SimpleNamespace(name=lambda one: f"orc-{one.id}-egress"),
            route=SimpleNamespace(proxy=proxy),
        )
        self.flow = ReconcileFlow(
            store=store,
            engine=cast(Any, SimpleNamespace(containers=lambda: self.running, remove=lambda _: None)),
            tenancy=cast(Any, tenancy),
            installation=list,
            recover=self._recover,
            finish_launch=lambda _: None,
            finish_removal=lambda _: None,
        )

    def _recover(self, tenant: Tenant) -> list[str]:
        self.recovered.append(tenant.name)
        return []

    def asked(self) -> bool:
        """Whether a round asked the tenant's database and pool."""
        before = len(self.recovered)
        self.flow.run()
        return len(self.recovered) > before


def test_a_sound_tenant_is_asked_again_when_something_happened(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = interfaces.tenant(store, "harbour")
    tenants.set_state(store, tenant.id, TenantState.STOPPED)
    made = Round(store)
    assert made.asked()
    assert not made.asked(), "nothing has happened since"
    made.running = [container(tenant, 1)]
    assert made.asked(), "other containers run than before"
    assert not made.asked()
    refreshes.begin(
        store,
        tenant_id=tenant.id,
        kind=RefreshKind.REFRESH,
        generation_id="gnew",
        previous_id=None,
        snapshot_id=None,
        requested_by="tests",
    )
    assert made.asked() and made.asked(), "a refresh is open"
    monkeypatch.setattr(reconcile, "LOOK_AGAIN_S", 0.0)
    refreshes.finish(store, refreshes.unfinished(store)[0].id)
    assert made.asked(), "it has been a while"


class Counting:
    """A watchdog that finds nothing, and says for how long nothing can be wrong."""

    def __init__(self) -> None:
        self.looks = 0
        self.quiet_s = 3600.0

    def look(self, spec: ServerSpec, limits: WatchLimits) -> Looked:
        del spec, limits
        self.looks += 1
        return Looked((), self.quiet_s)


def test_a_database_is_watched_when_something_may_be_over_its_limit(store: Engine) -> None:
    tenant = interfaces.tenant(store, "harbour")
    now = datetime.now(UTC)
    with store.begin() as connection:
        generations.add(connection, "gone", tenant.id, "sone", now=now)
        generations.set_state(connection, "gone", GenerationState.LIVE, now=now)
    watchdog, limits = Counting(), [LIMITS]
    parts = SimpleNamespace(volume=SimpleNamespace(has_quota=True), spec=lambda *_: None)
    flow = WatchFlow(
        store=store,
        audit=cast(Any, None),
        generations=cast(Any, parts),
        watchdog=watchdog,
        limits=lambda _: limits[0],
    )
    flow.run()
    flow.run()
    assert watchdog.looks == 1, "nothing can have come over its limit yet"
    limits[0] = replace(LIMITS, statement_timeout_s=1.0)
    watchdog.quiet_s = 0.0
    flow.run()
    flow.run()
    assert watchdog.looks == 3, "a stricter limit counts at once, and what is close to it is watched in every round"
    watchdog.quiet_s = 3600.0
    flow.run()
    with store.begin() as connection:
        generations.add(connection, "gtwo", tenant.id, "sone", now=now)
        generations.swap_states(connection, new="gtwo", old="gone", now=now)
    flow.run()
    assert watchdog.looks == 5, "another generation is another database"
