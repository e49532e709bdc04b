"""What is measured comes from the records, in Prometheus' format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from orchestrator.api.metrics import exposition
from orchestrator.config import PROJECT
from orchestrator.core.generations import GenerationState
from orchestrator.core.metrics import FamilyKind
from orchestrator.core.refresh import RefreshKind, RefreshStep
from orchestrator.core.schedule import Schedule
from orchestrator.core.snapshots import Manifest
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.scheduler.targets import remembered
from orchestrator.store import generations, jobs, measures, refreshes, snapshots, tables, tenants
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from tests.support.cluster import Cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    assert tables
    with cluster.database() as name:
        made = connect(cluster.url(name))
        METADATA.create_all(made)
        yield made
        made.dispose()


def _tenant(store: Engine, name: str, state: TenantState = TenantState.RUNNING) -> Tenant:
    made = tenants.add(
        store,
        name,
        profile="standard",
        image="",
        scope=None,
        snapshot_profile="full",
        refresh_policy=RefreshPolicy.SAVE,
        pool_mode=PoolMode.TRANSACTION,
        tenants_max=10,
    )
    tenants.set_state(store, made.id, state)
    return tenants.get(store, made.id)


def _snapshot(store: Engine, taken_at: datetime) -> None:
    manifest = Manifest(
        snapshot_id="s1",
        profile="full",
        source="mirror",
        taken_at=taken_at,
        server_version="18",
        major=18,
        encoding="UTF8",
        collation="C",
        origin_lsn="0/0",
        system_id="1",
        files=1,
        size_bytes=1,
        tables={},
        masked={},
        canaries=0,
        checksummed_blocks=0,
    )
    with store.begin() as connection:
        snapshots.add(connection, "s1", profile="full", source="mirror", image="", now=taken_at)
        snapshots.set_ready(connection, "s1", manifest, now=taken_at)


def _scraped(store: Engine) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(lambda: measures.collect(store, Schedule())).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_ages_durations_gaps_and_failures_are_told_by_tenant(store: Engine) -> None:
    north = _tenant(store, "north")
    taken_at = datetime.now(UTC) - timedelta(hours=3)
    _snapshot(store, taken_at)
    with store.begin() as connection:
        generations.add(connection, "g1", north.id, "s1", now=taken_at)
        generations.set_state(connection, "g1", GenerationState.LIVE, now=taken_at)
    rest = {"tenant_id": north.id, "kind": RefreshKind.REFRESH, "snapshot_id": "s1", "requested_by": "scheduler"}
    done = refreshes.begin(store, generation_id="g2", previous_id="g1", **rest)
    refreshes.take(store, done.id, RefreshStep.SETTLING, timings={"cloning": 0.04, "starting": 0.2}, gap_s=0.016)
    refreshes.finish(store, done.id)
    failed = refreshes.begin(store, generation_id="g3", previous_id="g2", **rest)
    refreshes.take(store, failed.id, RefreshStep.STARTING)
    refreshes.fail(store, failed.id, code="outside_failure.server", message="no")
    jobs.ask(store, "refresh", requested_by="anna", tenant_id=north.id)

    found = _scraped(store)
    of_north = (("tenant", "north"),)
    assert found["orchestrator_refresh_last_gap_seconds", of_north] == 0.016
    assert found["orchestrator_refresh_last_step_seconds", (("step", "cloning"), *of_north)] == 0.04
    assert found["orchestrator_refresh_failures_total", (("step", "starting"),)] == 1
    assert found["orchestrator_refreshes_total", (("kind", "refresh"), ("state", "done"), *of_north)] == 1
    assert 10_700 < found["orchestrator_data_age_seconds", of_north] < 20_000
    assert 10_700 < found["orchestrator_snapshot_age_seconds", (("profile", "full"),)] < 20_000
    assert found["orchestrator_snapshot_last_failed", (("profile", "full"),)] == 0
    assert found["orchestrator_refresh_next_timestamp_seconds", of_north] > datetime.now(UTC).timestamp() - 60
    assert found["orchestrator_jobs", (("kind", "refresh"), ("state", "queued"))] == 1
    assert found["orchestrator_tenants", (("state", "running"),)] == 1


def test_a_failed_snapshot_is_an_alarm(store: Engine) -> None:
    now = datetime.now(UTC)
    _snapshot(store, now - timedelta(hours=5))
    with store.begin() as connection:
        snapshots.add(connection, "s2", profile="full", source="mirror", image="", now=now)
        snapshots.set_failed(connection, "s2", code="outside_failure.snapshot", message="mirror down", now=now)
    found = _scraped(store)
    assert found["orchestrator_snapshot_last_failed", (("profile", "full"),)] == 1
    assert found["orchestrator_snapshot_age_seconds", (("profile", "full"),)] > 17_000


def test_an_empty_installation_has_measures_too(store: Engine) -> None:
    assert _scraped(store) == {}


def test_what_hinders_a_refresh_is_known_beforehand(store: Engine) -> None:
    _tenant(store, "north")
    _tenant(store, "south", TenantState.STOPPED)
    _tenant(store, "west", TenantState.LAUNCHING)
    targets = {(one.kind, one.tenant_name): one for one in remembered(store)}
    assert targets["refresh", "north"].hindrance == "there is no snapshot of the profile full"
    assert targets["refresh", "south"].hindrance == "the tenant is stopped"
    assert ("refresh", "west") not in targets
    assert targets["publish", "south"].fresh_since is not None, "a tenant missed no slot from before it was there"
    assert {kind for kind, name in targets if name is None} == {"snapshot", "prune", "reconcile"}
    _snapshot(store, datetime.now(UTC))
    targets = {(one.kind, one.tenant_name): one for one in remembered(store)}
    assert targets["refresh", "north"].hindrance is None
    assert targets["snapshot", None].fresh_since is not None


def test_every_alarm_is_about_something_measured(store: Engine) -> None:
    rules = yaml.safe_load((PROJECT / "configs/alerts.yaml").read_text())["groups"][0]["rules"]
    measured = {
        family.name + ("_total" if family.kind is FamilyKind.COUNTER else "")
        for family in measures.collect(store, Schedule())
    }
    for rule in rules:
        named = set(re.findall(r"orchestrator_[a-z_]+", rule["expr"]))
        assert named and named <= measured, rule["alert"]
        assert rule["annotations"]["cure"]
