"""Samples come back in order, the newest of each tenant is found, and the leader's record follows the leader."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from orchestrator.store import leaders, samples
from tests.support.cluster import Cluster
from tests.support.stores import control_store


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as made:
        yield made


def test_samples_come_back_the_oldest_first_and_are_forgotten(store: Engine) -> None:
    samples.add_disk(store, free_bytes=100, total_bytes=200)
    samples.add_disk(store, free_bytes=90, total_bytes=200)
    assert [one.free_bytes for one in samples.disk(store, since=timedelta(days=1))] == [100, 90]
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    samples.add_usage(
        store, [samples.UsageSample("t1", now - hour, 5, 10, 1.0), samples.UsageSample("t1", now, 6, 10, 2.0)]
    )
    samples.add_usage(store, [samples.UsageSample("t2", now, 9, 10, 2.0)])
    assert [one.memory_bytes for one in samples.usage(store, "t1", since=timedelta(days=1))] == [5, 6]
    assert [one.tenant_id for one in samples.newest_usage(store, since=timedelta(days=1))] == ["t2", "t1"]
    assert [one.tenant_id for one in samples.newest_usage(store, since=timedelta(days=1), tenant_ids=["t1"])] == ["t1"]
    samples.prune(store, disk_days=0, usage_days=0)
    assert samples.disk(store, since=timedelta(days=1)) == []
    assert samples.newest_usage(store, since=timedelta(days=1)) == []


def test_the_leaders_record_counts_its_ticks_and_begins_anew_with_another(store: Engine) -> None:
    assert leaders.current(store) is None
    leaders.ticked(store, "one:1")
    leaders.ticked(store, "one:1", error="the file is refused")
    found = leaders.current(store)
    assert found is not None and (found.holder, found.ticks, found.error) == ("one:1", 2, "the file is refused")
    leaders.ticked(store, "two:2")
    after = leaders.current(store)
    assert (
        after is not None and (after.holder, after.ticks, after.error) == ("two:2", 1, "") and after.since > found.since
    )
