"""Copies of a workspace: what must not be copied is refused, and every change is found however it is hidden."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestrator.core.commands import WorkspaceNotCopyable
from orchestrator.core.ports.workspaces import TreeChanges
from orchestrator.drivers.workspace.trees import CopiedTrees

TREES = CopiedTrees()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    (root / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "deep" / "b.txt").write_text("two")
    (root / "inner").symlink_to("deep/b.txt")
    (root / "absolute").symlink_to("/workspace/a.txt")
    return root


def changed(base: Path, change: str) -> TreeChanges:
    """What `mark` and `changes` make of a change done by `change` (a key below) to a copy."""
    tree = base.parent / "tree"
    shutil.copytree(base, tree, symlinks=True)
    before = TREES.mark(tree, inside="/workspace")
    CHANGES[change](tree)
    return TREES.changes(base, tree, before)


def _hidden(tree: Path) -> None:
    """Same size, same times: only the change time tells."""
    facts = (tree / "a.txt").stat()
    (tree / "a.txt").write_text("ONE")
    os.utime(tree / "a.txt", ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _parent_becomes_link(tree: Path) -> None:
    shutil.rmtree(tree / "deep")
    (tree / "deep").symlink_to("/etc")


CHANGES = {
    "nothing": lambda tree: None,
    "read": lambda tree: (tree / "a.txt").read_text(),
    "touched": lambda tree: (tree / "a.txt").touch(),
    "rewritten": lambda tree: (tree / "a.txt").write_text("one"),
    "modified": lambda tree: (tree / "deep" / "b.txt").write_text("three"),
    "hidden": _hidden,
    "added": lambda tree: (tree / "new.txt").write_bytes(b"\x00\xff"),
    "deleted": lambda tree: (tree / "a.txt").unlink(),
    "moved": lambda tree: (tree / "a.txt").rename(tree / "z.txt"),
    "linked": lambda tree: (tree / "out").symlink_to("/etc/passwd"),
    "fifo": lambda tree: os.mkfifo(tree / "pipe"),
    "git": lambda tree: ((tree / ".git").mkdir(), (tree / ".git" / "config").write_text("x")),
    "large": lambda tree: (tree / "large").write_bytes(b"x" * 2_000_000),
    "parent": _parent_becomes_link,
}


@pytest.mark.parametrize("change", ["nothing", "read", "touched", "rewritten"])
def test_what_did_not_change_is_not_told(base: Path, change: str) -> None:
    assert changed(base, change) == TreeChanges((), (), True)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("modified", {"deep/b.txt": "modified"}),
        ("hidden", {"a.txt": "modified"}),
        ("added", {"new.txt": "added"}),
        ("deleted", {"a.txt": "deleted"}),
        ("moved", {"a.txt": "deleted", "z.txt": "added"}),
    ],
)
def test_changes_to_files_are_kept_whole(base: Path, change: str, kinds: dict[str, str]) -> None:
    found = changed(base, change)
    assert {one.path: one.kind for one in found.files} == kinds
    assert found.complete
    for one in found.files:
        expected = None if one.kind == "deleted" else (base.parent / "tree" / one.path).read_bytes()
        assert one.content == expected


@pytest.mark.parametrize("change", ["linked", "fifo", "git", "large", "parent"])
def test_what_cannot_be_applied_is_told_but_not_kept(base: Path, change: str) -> None:
    found = changed(base, change)
    assert found.paths
    assert not found.complete
    assert not [one for one in found.files if one.kind != "deleted"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc", "deep/../../x", "/workspace-evil/x"])
def test_a_link_that_leaves_is_refused(base: Path, target: str) -> None:
    (base / "deep" / "out").symlink_to(target) if target != "deep/../../x" else (base / "out").symlink_to(target)
    with pytest.raises(WorkspaceNotCopyable, match="is a link that leads to"):
        TREES.mark(base, inside="/workspace")


def test_a_special_file_is_refused(base: Path) -> None:
    os.mkfifo(base / "pipe")
    with pytest.raises(WorkspaceNotCopyable, match="pipe is a special file"):
        TREES.mark(base, inside="/workspace")
