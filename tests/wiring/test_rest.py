"""What a burst leaves is given back, and what is in use is not touched."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from orchestrator.store.session import close_idle, connect
from orchestrator.wiring.rest import Rest, frugal
from tests.support.cluster import Cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name))
        try:
            yield engine
        finally:
            engine.dispose()


def others(store: Engine) -> int:
    """Sessions on this database beside the one that asks."""
    with store.connect() as connection:
        count = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
        )
    return int(count or 0)


def test_idle_connections_are_closed_and_one_in_use_is_kept(store: Engine) -> None:
    burst = [store.connect() for _ in range(6)]
    held, *rest = burst
    for one in rest:
        one.close()
    assert others(store) >= 5
    close_idle(store, idle_s=0)
    deadline = time.monotonic() + 60
    while others(store) > 1:
        assert time.monotonic() < deadline, "idle connections stay open"
        time.sleep(0.02)
    assert held.scalar(text("SELECT 1")) == 1
    held.close()


def test_it_works_on_while_a_block_lasts(store: Engine) -> None:
    frugal()
    with Rest(store, every_s=0.01, look_every_s=0.001):
        for _ in range(50):
            with store.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
