"""One data plane for all tests of the refresh: one snapshot, and each test's own tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.core.tenants import Tenant
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.store import snapshots
from tests.support.cluster import Cluster
from tests.support.engine import SessionImages, directory_on
from tests.support.refreshing import DataPlane, data_plane

STATEMENTS = (
    "CREATE TABLE guests (id integer PRIMARY KEY, name text NOT NULL, visits integer NOT NULL DEFAULT 0)",
    "INSERT INTO guests SELECT n, 'guest ' || n FROM generate_series(1, 1000) AS n",
    "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY, writer integer, turn integer)",
)


@pytest.fixture(scope="session")
def plane(engine: DockerEngine, images: SessionImages, volume: LocalVolume, cluster: Cluster) -> Iterator[DataPlane]:
    with cluster.database() as name, directory_on(volume) as directory:
        made = data_plane(
            engine,
            volume,
            store_url=cluster.url(name),
            directory=directory,
            postgres_image=images.postgres,
            pool_image=images.pool,
        )
        try:
            made.take_snapshot(*STATEMENTS)
            yield made
        finally:
            made.clean_up()


@pytest.fixture
def tenant(plane: DataPlane) -> Iterator[Tenant]:
    """A running tenant of this test's own."""
    snapshot = newest(plane)
    made = plane.launch(snapshot)
    plane.drafts.rows, plane.drafts.failure = 0, None
    plane.drafts.saved.clear()
    try:
        yield made
    finally:
        for container in plane.engine.containers(tenant_id=made.id):
            plane.engine.remove(container.name)


def newest(plane: DataPlane, profile: str = "full") -> str:
    with plane.store.connect() as connection:
        found = snapshots.newest(connection, profile)
    assert found is not None
    return found.id
