"""Another major version than the one we bring: an image named in the configuration, through every trip of its data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from orchestrator.core.generations import Generation, GenerationState
from orchestrator.core.ports.servers import OtherVersion
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from orchestrator.drivers.postgres.image import UnfitImage, try_image
from orchestrator.drivers.postgres.server import PostgresServers
from orchestrator.drivers.postgres.tools import Binaries
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.parts.differences import Differences
from tests.support.cluster import Cluster
from tests.support.engine import OLDER_MAJOR, SessionImages
from tests.support.snapshot import LIMITS, SnapshotRig, as_tenant, snapshot_rig, tenant

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def rig(engine: DockerEngine, images: SessionImages, volume: LocalVolume, cluster: Cluster) -> Iterator[SnapshotRig]:
    with snapshot_rig(engine, images.older_postgres, volume, cluster) as made:
        yield made


def test_its_version_is_found_out_and_what_is_no_postgresql_is_refused(
    engine: DockerEngine, images: SessionImages
) -> None:
    assert try_image(engine, images.older_postgres, name=f"{engine.instance}-try") == OLDER_MAJOR
    with pytest.raises(UnfitImage, match="cannot run tenants' databases") as refused:
        try_image(engine, images.base, name=f"{engine.instance}-try")
    assert "images.postgres" in refused.value.next_step


def test_snapshot_database_and_difference(rig: SnapshotRig, images: SessionImages) -> None:
    """Without WAL summaries everything is compared in full, which is told once; the rows are exact all the same."""
    snapshot = rig.flow.take(rig.source)
    assert snapshot.manifest is not None and snapshot.manifest.major == OLDER_MAJOR
    owner = tenant("older", 43)
    spec = rig.flow.generations.create(owner, snapshot, "golder", LIMITS)
    try:
        with as_tenant(rig, spec) as connection:
            connection.execute("UPDATE clinic.sites SET name = 'Changed' WHERE id = 'north'")
        now = datetime.now(UTC)
        live = Generation("golder", owner.id, snapshot.id, GenerationState.LIVE, now, now, None)
        differences = Differences(rig.control, rig.servers, rig.flow.generations, PostgresDiffer())
        found = differences.of(owner, live)
        assert [(str(one.table), one.kind) for one in found.changeset.rows] == [("clinic.sites", "update")]
        assert [note for note in found.changeset.notes if "in full" in note] == [
            f"All {len(found.costs)} tables were compared in full: this PostgreSQL writes no WAL summaries."
        ]
    finally:
        rig.flow.generations.remove(owner, "golder")
        rig.flow.generations.remove_base(snapshot.id)


def test_files_of_another_version_are_refused_and_left_alone(
    rig: SnapshotRig, engine: DockerEngine, images: SessionImages
) -> None:
    newer = PostgresServers(engine, Binaries(images.postgres))
    rig.servers.stop(rig.mirror.name)
    with pytest.raises(OtherVersion, match=f"made by PostgreSQL {OLDER_MAJOR}") as refused:
        newer.start(rig.mirror, timeout_s=60)
    assert f"PostgreSQL {OLDER_MAJOR}" in refused.value.next_step
    rig.servers.start(rig.mirror, timeout_s=60)
    with rig.production() as connection:
        assert connection.execute("SELECT count(*) FROM clinic.patients").fetchone() == (3000,)
