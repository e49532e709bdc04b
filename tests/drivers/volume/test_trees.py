"""Trees on the volume: clones are durable, complete and cheap; failures leave nothing half made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.ports.volume import DiskFull, OutsideVolume, VolumeFailed
from orchestrator.drivers.volume import ioctls, mounts, trimming
from orchestrator.drivers.volume.trees import LocalVolume

pytestmark = pytest.mark.engine  # they need root and a loop device, like the engine's tests

BLOCK = 1 << 20


@pytest.fixture
def tree(volume_dir: Path) -> Path:
    """A source with directories, a link and files of several sizes."""
    source = volume_dir / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "big").write_bytes(os.urandom(8 * BLOCK))
    (source / "a" / "b" / "small").write_text("small")
    (source / "empty").touch()
    (source / "link").symlink_to("a/big")
    os.sync()
    return source


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LocalVolume]:
    """A volume of its own that can be filled."""
    mounts.make_image(tmp_path / "disk.img", 400 * BLOCK)
    mounts.mount_image(tmp_path / "disk.img", tmp_path / "disk")
    yield LocalVolume(tmp_path / "disk")
    mounts.unmount(tmp_path / "disk")


def test_the_volume_shares_blocks_and_executes_nothing(volume: LocalVolume) -> None:
    assert volume.is_reflink
    assert mounts.lacking_options(volume.root) == frozenset()


def test_a_clone_is_equal_owned_and_takes_no_space(volume: LocalVolume, volume_dir: Path, tree: Path) -> None:
    target = volume_dir / "deep" / "target"
    volume.clone_tree(tree, target, uid=40_900, gid=40_901)
    assert (target / "a" / "big").read_bytes() == (tree / "a" / "big").read_bytes()
    assert (target / "link").readlink() == Path("a/big")
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (target, *target.rglob("*"))}
    assert owners == {(40_900, 40_901)}
    assert volume.exclusive_bytes(target) < BLOCK
    assert volume.used_bytes(target) >= 8 * BLOCK
    with (target / "a" / "big").open("r+b") as file:
        file.write(os.urandom(2 * BLOCK))
        os.fsync(file.fileno())
    assert 2 * BLOCK <= volume.exclusive_bytes(target) < 8 * BLOCK
    assert not target.with_name("target.partial").exists()


def test_a_frozen_tree_cannot_be_changed_its_clone_can(volume: LocalVolume, volume_dir: Path, tree: Path) -> None:
    volume.freeze_tree(tree)
    with pytest.raises(PermissionError):
        (tree / "a" / "b" / "small").write_text("changed")
    with pytest.raises(PermissionError):
        (tree / "new").touch()
    target = volume_dir / "target"
    volume.clone_tree(tree, target)
    (target / "a" / "b" / "small").write_text("changed")
    assert (tree / "a" / "b" / "small").read_text() == "small"
    volume.remove_tree(tree)
    assert not tree.exists()
    assert (target / "a" / "big").stat().st_size == 8 * BLOCK


def test_an_existing_target_is_kept(volume: LocalVolume, volume_dir: Path, tree: Path) -> None:
    target = volume_dir / "target"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(VolumeFailed, match="exists"):
        volume.clone_tree(tree, target)
    assert (target / "mine").exists()


def test_a_left_over_partial_copy_is_replaced(volume: LocalVolume, volume_dir: Path, tree: Path) -> None:
    left = volume_dir / "target.partial"
    left.mkdir()
    (left / "junk").touch()
    volume.clone_tree(tree, volume_dir / "target")
    assert not left.exists() and not (volume_dir / "target" / "junk").exists()
    left.mkdir()
    volume.remove_tree(volume_dir / "target")
    volume.remove_tree(volume_dir / "target")
    assert not left.exists()


def test_a_missing_source_leaves_nothing(volume: LocalVolume, volume_dir: Path) -> None:
    with pytest.raises(VolumeFailed):
        volume.clone_tree(volume_dir / "absent", volume_dir / "target")
    assert list(volume_dir.iterdir()) == []


@pytest.mark.parametrize("path", ["/etc", "/", "relative"])
def test_paths_outside_the_volume_are_refused(volume: LocalVolume, path: str) -> None:
    for attempt in (volume.remove_tree, volume.freeze_tree, volume.used_bytes):
        with pytest.raises(OutsideVolume):
            attempt(Path(path))


def test_climbing_out_of_the_volume_is_refused(volume: LocalVolume) -> None:
    with pytest.raises(OutsideVolume):
        volume.remove_tree(volume.root / "x" / ".." / ".." / "y")


def test_a_full_disk_is_named_and_the_copy_removed(small: LocalVolume, tmp_path: Path) -> None:
    source = tmp_path / "source"  # on another file system, so its bytes must be copied
    source.mkdir()
    with (source / "big").open("wb") as file:
        for _ in range(450):
            file.write(os.urandom(BLOCK))
    with pytest.raises(DiskFull):
        small.clone_tree(source, small.root / "target")
    assert list(small.root.iterdir()) == []
    assert small.free_bytes() <= small.total_bytes()


def test_what_was_deleted_is_given_back_to_the_disk_below(small: LocalVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "discard" not in mounts.mount_of(small.root).options, "everybody would wait for every removal"
    with (small.root / "big").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(BLOCK))
        os.fsync(file.fileno())
    (small.root / "big").unlink()
    os.sync()
    assert small.give_back() == 0, "so little is not worth the trouble"
    monkeypatch.setattr(trimming, "WORTH_BYTES", BLOCK)
    monkeypatch.setattr(trimming, "PAUSE_S", 0.0)
    given, deadline = 0, time.monotonic() + 60
    while given < 100 * BLOCK:  # the file system frees what was deleted in its own time
        assert time.monotonic() < deadline
        given += small.give_back()


def test_plain_copies_where_blocks_cannot_be_shared(tmp_path: Path) -> None:
    root = Path("/dev/shm") / tmp_path.name  # memory file systems never share blocks
    plain = LocalVolume(root)
    try:
        assert not plain.is_reflink and not plain.has_quota
        source = root / "source"
        source.mkdir()
        (source / "f").write_text("text")
        plain.clone_tree(source, root / "target")
        assert (root / "target" / "f").read_text() == "text"
        assert plain.limit_tree(root / "target", BLOCK) is False
    finally:
        plain.remove_tree(root / "source")
        plain.remove_tree(root / "target")
        root.rmdir()


def test_a_limited_tree_stops_growing_where_the_kernel_keeps_quotas(
    volume: LocalVolume, volume_dir: Path, tree: Path
) -> None:
    target = volume_dir / "target"
    volume.clone_tree(tree, target, size_bytes=16 * BLOCK)
    held = False
    try:
        with (target / "grown").open("wb") as file:
            for _ in range(32):
                file.write(bytes(BLOCK))
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        held = True
    assert held == volume.has_quota
    assert volume.limit_tree(target, None) == volume.has_quota


def test_empty_files_are_bounded_too_where_the_kernel_keeps_quotas(
    volume: LocalVolume, volume_dir: Path, tree: Path
) -> None:
    target = volume_dir / "target"
    volume.clone_tree(tree, target, size_bytes=16 * BLOCK)
    made = 0
    try:
        while made < 10_100:
            (target / f"empty-{made}").touch()
            made += 1
    except OSError:
        pass
    assert (made < 10_000) == volume.has_quota


def test_mounting_twice_is_harmless(small: LocalVolume, tmp_path: Path) -> None:
    mounts.mount_image(tmp_path / "disk.img", small.root)
    found = [mount for mount in mounts.mounts() if mount.point == small.root]
    assert len(found) == 1
    assert ioctls.can_clone(small.root)
