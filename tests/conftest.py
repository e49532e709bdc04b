"""Fixtures every test may use. A missing real part is a failure, never a skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import logs
from orchestrator.core.snapshots import Snapshot
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.volume.trees import LocalVolume
from tests.support.cluster import Cluster, running_cluster
from tests.support.engine import SessionImages, directory_on, mounted_volume, running_engine
from tests.support.snapshot import SnapshotRig, snapshot_rig

JOURNEY_TIMEOUT_S = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever starts a server says so by the fixture; the mark lets the quick part leave them out.

    A journey's first test also brings up the installation: on a busy machine that takes longer than any test may.
    """
    for item in items:
        if item.get_closest_marker("trip") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(JOURNEY_TIMEOUT_S))
        if isinstance(item, pytest.Function) and "cluster" in item.fixturenames:
            item.add_marker("server")


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """As a running installation has them: without it, every crash is drawn with all its local variables, in seconds."""
    logs.configure(as_json=True)


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


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    """The real container engine (started when it is not running), under an installation label of this process.

    Use unique container names; everything left is removed at the end of the session.
    """
    with running_engine() as running:
        yield running


@pytest.fixture(scope="session")
def images() -> SessionImages:
    """The images, each built when first asked for: `images.postgres`, `.pool`, `.sandbox`, `.proxy`, `.egress`."""
    return SessionImages()


@pytest.fixture(scope="session")
def volume() -> LocalVolume:
    """A reflink volume shared by all tests."""
    return mounted_volume()


@pytest.fixture
def volume_dir(volume: LocalVolume) -> Iterator[Path]:
    """A directory of this test on the reflink volume; its path is short enough for sockets."""
    with directory_on(volume) as made:
        yield made


@pytest.fixture(scope="session")
def clinic_rig(
    engine: DockerEngine, images: SessionImages, volume: LocalVolume, cluster: Cluster
) -> Iterator[SnapshotRig]:
    """A small production in a container and the flow that takes snapshots of it. Leave both as you found them."""
    with snapshot_rig(engine, images.postgres, volume, cluster) as rig:
        yield rig


@pytest.fixture(scope="session")
def clinic_snapshot(clinic_rig: SnapshotRig) -> Snapshot:
    """A good snapshot of the small production."""
    return clinic_rig.flow.take(clinic_rig.source)
