"""What was frozen can be deleted with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.drivers.volume import ioctls
from orchestrator.setup.emptying import empty


@pytest.mark.engine
def test_frozen_trees_are_deleted_too(volume_dir: Path) -> None:
    frozen = volume_dir / "snapshots" / "one"
    (frozen / "data").mkdir(parents=True)
    (frozen / "data" / "rows").write_text("x")
    (volume_dir / "link").symlink_to("/etc/passwd")
    for path in (frozen, frozen / "data", frozen / "data" / "rows"):
        ioctls.set_immutable(path, True)
    assert empty(volume_dir) == []
    assert volume_dir.is_dir() and not list(volume_dir.iterdir())


def test_an_installation_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert empty(tmp_path / "nothing") == []
