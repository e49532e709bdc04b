"""One company per test, on one cluster and one control database per module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.cluster import Cluster
from tests.support.proposing import Company, Ground, company_on, ground
from tests.support.stores import control_store


@pytest.fixture(scope="package")
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as engine:
        yield engine


@pytest.fixture(scope="package")
def common_ground(cluster: Cluster) -> Iterator[Ground]:
    with ground(cluster) as made:
        yield made


@pytest.fixture
def hotel(common_ground: Ground, store: Engine, tmp_path: Path) -> Company:
    """For tests that leave the schema as it is."""
    return company_on(common_ground, store, tmp_path)


@pytest.fixture
def own_hotel(cluster: Cluster, store: Engine, tmp_path: Path) -> Iterator[Company]:
    """For tests that change the schema."""
    with ground(cluster) as made:
        yield company_on(made, store, tmp_path)
