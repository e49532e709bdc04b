"""Fixtures every test may use. A missing real part is a failure, never a skip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL 18 per test process."""
    with running_cluster() as running:
        yield running


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """The DSN of an empty database of its own."""
    with cluster.database() as name:
        yield cluster.dsn(name)
