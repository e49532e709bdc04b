"""Copies of a workspace: what must not be copied is refused, and every change is found however it is hidden."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.commands import WorkspaceNotCopyable
from orchestrator.core.ports.workspaces import Keeping, TreeChanges
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
    return TREES.changes(base, tree, before, Keeping("/workspace", base.parent / "aside", 3_000_000))


def _hidden(tree: Path) -> None:
    """Same size, same times: only the change time tells."""
    facts = (tree / "a.txt").stat()
    (tree / "a.txt").write_text("ONE")
    os.utime(tree / "a.txt", ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _parent_becomes_link(tree: Path) -> None:
    shutil.rmtree(tree / "deep")
    (tree / "deep").symlink_to("/etc")


def _git(tree: Path) -> None:
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("x")


def _relinked(tree: Path) -> None:
    (tree / "inner").unlink()
    (tree / "inner").symlink_to("a.txt")


def _unlinked(tree: Path) -> None:
    (tree / "inner").unlink()
    (tree / "inner").write_text("a file now")


def _deeper(tree: Path) -> None:
    (tree / "new" / "er").mkdir(parents=True)
    (tree / "new" / "er" / "c.txt").write_text("c")


def _alike(tree: Path) -> None:
    (tree / os.fsdecode(b"n\xffme")).write_text("x")
    (tree / "n\\xffme").write_text("x")


def _file_becomes_directory(tree: Path) -> None:
    (tree / "a.txt").unlink()
    (tree / "a.txt").mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
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
    "git": _git,
    "linked_to_git": lambda tree: (tree / "out").symlink_to(".git/config"),
    "linked_inside": lambda tree: (tree / "here").symlink_to("deep/b.txt"),
    "relinked": _relinked,
    "unlinked": _unlinked,
    "deeper": _deeper,
    "large": lambda tree: (tree / "large").write_bytes(b"x" * 2_000_000),
    "too_large": lambda tree: (tree / "large").write_bytes(b"x" * 3_000_001),
    "bytes": lambda tree: (tree / os.fsdecode(b"n\xffme")).write_text("x"),
    "alike": _alike,
    "parent": _parent_becomes_link,
    "file_became_directory": _file_becomes_directory,
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


@pytest.mark.parametrize(
    ("change", "path", "target", "before"),
    [
        ("linked_inside", "here", "deep/b.txt", ""),
        ("relinked", "inner", "a.txt", "link:deep/b.txt"),
    ],
)
def test_links_that_stay_inside_are_kept(base: Path, change: str, path: str, target: str, before: str) -> None:
    found = changed(base, change)
    assert found.complete
    assert [(one.path, one.link, one.before_digest) for one in found.files] == [(path, target, before)]


def test_a_link_may_become_a_file_and_new_directories_come_with_their_files(base: Path) -> None:
    found = changed(base, "unlinked")
    assert found.complete and [(one.path, one.link) for one in found.files] == [("inner", None)]
    shutil.rmtree(base.parent / "tree")
    found = changed(base, "deeper")
    assert found.complete and [one.path for one in found.files] == ["new/er/c.txt"]


def test_large_files_are_kept_aside_under_their_digest(base: Path) -> None:
    found = changed(base, "large")
    assert found.complete
    (kept,) = found.files
    assert kept.content is None and kept.is_kept_aside and kept.size_bytes == 2_000_000
    assert (base.parent / "aside" / kept.after_digest).read_bytes() == b"x" * 2_000_000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("linked", "leads out of the workspace, to /etc/passwd"),
        ("linked_to_git", "to what belongs to git"),
        ("fifo", "special file"),
        ("git", "belongs to git"),
        ("too_large", "a result may hold 3000000 bytes"),
        ("bytes", "not valid UTF-8"),
        ("parent", "was a directory"),
        ("file_became_directory", "became a directory"),
    ],
)
def test_what_cannot_be_applied_is_told_with_its_reason(base: Path, change: str, why: str) -> None:
    found = changed(base, change)
    assert found.paths
    assert not found.complete
    refused = [one for one in found.files if one.problem]
    assert len(refused) == 1 and why in refused[0].problem
    assert refused[0].content is None and refused[0].link is None and not refused[0].is_kept_aside


def test_two_names_that_look_the_same_are_told_once_and_not_applied(base: Path) -> None:
    found = changed(base, "alike")
    assert len(found.paths) == 2 and len(found.files) == 1 and not found.complete


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc", "deep/../../x", "/workspace-evil/x"])
def test_a_link_that_leaves_is_refused(base: Path, target: str) -> None:
    (base / "deep" / "out").symlink_to(target) if target != "deep/../../x" else (base / "out").symlink_to(target)
    with pytest.raises(WorkspaceNotCopyable, match="is a link that leads to"):
        TREES.mark(base, inside="/workspace")


def test_a_special_file_is_refused(base: Path) -> None:
    os.mkfifo(base / "pipe")
    with pytest.raises(WorkspaceNotCopyable, match="pipe is a special file"):
        TREES.mark(base, inside="/workspace")
