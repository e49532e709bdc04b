"""What a user who is not root is given by the engine: the volume, deleting it, and our own commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.core.ports.volume import VolumeFailed
from orchestrator.drivers.volume import ioctls, mounts
from orchestrator.setup import deputy
from orchestrator.setup.images import RememberImagesStep
from orchestrator.setup.steps import run_all
from orchestrator.setup.volume import remove_volume, require_volume
from tests.support.engine import SessionImages

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]  # the first may have to build the image


@pytest.fixture
def places(images: SessionImages, tmp_path: Path) -> Iterator[Places]:
    """An installation that knows the control plane's image."""
    made = Places(tmp_path / "var")
    run_all([RememberImagesStep(made, ImageSet(control=images.control))], lambda _: None)
    yield made
    remove_volume(made.var)


def test_a_container_makes_mounts_and_deletes_the_volume(places: Places) -> None:
    run, image = deputy.as_root(places), places.var / "disk.img"
    mounts.make_image(image, 400 << 20, run=run)
    with pytest.raises(VolumeFailed, match="not mounted"):
        require_volume(places.var)
    mounts.mount_image(image, places.disk, run=run)
    require_volume(places.var)
    assert mounts.lacking_options(places.disk) == frozenset() and ioctls.can_clone(places.disk)
    mounts.unmount(places.disk, run=run)
    assert not mounts.is_mounted(places.disk)
    frozen = places.var / "kept"
    frozen.write_text("x")
    ioctls.set_immutable(frozen, True)
    run(["python", "-m", "orchestrator.setup.emptying", str(places.var)])
    assert not list(places.var.iterdir())


def test_a_command_of_ours_reads_the_hosts_configuration_in_a_container(
    places: Places, images: SessionImages, tmp_path: Path
) -> None:
    shutil.copytree(config.PROJECT / "configs", tmp_path / "configs")
    shutil.copytree(config.PROJECT / "cron", tmp_path / "cron")
    settings = config.load(tmp_path / "configs", environment={"ORCHESTRATOR_VAR": str(places.var)})
    acting = deputy.of(settings, user="somebody")
    shown = subprocess.run(
        acting.command(["config", "show"], is_terminal=False),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert shown.returncode == 0, shown.stderr
    assert str(places.var) in shown.stdout
    refused = subprocess.run(
        acting.command(["tenant", "list"], is_terminal=False),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert refused.returncode == 7 and "orchestrator up" in refused.stderr, refused.stderr
