"""The bare repository against real git: hostile packs, merges without a work tree, pushes that never force."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.core.ports.git import BranchMoved, PackRefused, PushRefused, RemoteUnreachable, UnknownRevision
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Agent",
    "GIT_AUTHOR_EMAIL": "agent@example.test",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.test",
}


class Workspace:
    """A tenant's clone as it would stand inside a container."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.directory, env=ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def pack(self) -> Path:
        target = self.directory.parent / f"{self.directory.name}.pack"
        command = ["git", "pack-objects", "--revs", "--stdout", "--quiet"]
        done = subprocess.run(
            command, input=b"HEAD\n", cwd=self.directory, env=ENVIRONMENT, check=True, capture_output=True
        )
        target.write_bytes(done.stdout)
        return target


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w")
    made.write("app.py", "one\ntwo\nthree\n")
    made.commit("First")
    return made


@pytest.fixture
def company(tmp_path: Path) -> Path:
    path = tmp_path / "company.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    return path


@pytest.fixture
def repository(tmp_path: Path, company: Path) -> BareRepository:
    made = BareRepository(tmp_path / "bare.git", Remote(str(company)))
    made.ensure()
    made.ensure()
    return made


def accept(repository: BareRepository, workspace: Workspace, *, branch: str = "tenant/a") -> str:
    head, expected = workspace.git("rev-parse", "HEAD"), repository.branch(branch)
    repository.take_pack(workspace.pack(), head=head, expected=expected)
    if expected != head:
        repository.move_branch(branch, expected=expected, to=head)
    return head


def test_a_pack_moves_the_branch_and_arrives_twice_without_harm(
    repository: BareRepository, workspace: Workspace
) -> None:
    first = accept(repository, workspace)
    assert repository.branch("tenant/a") == first == accept(repository, workspace)
    assert repository.commit(first).subject == "First"
    assert repository.read(first, "app.py") == b"one\ntwo\nthree\n"
    assert repository.branches("tenant/") == {"tenant/a": first}


def test_a_rewritten_history_is_refused(repository: BareRepository, workspace: Workspace) -> None:
    first = accept(repository, workspace)
    workspace.git("commit", "--quiet", "--amend", "--message", "Rewritten")
    with pytest.raises(PackRefused, match="rewritten"):
        accept(repository, workspace)
    assert repository.branch("tenant/a") == first


def test_a_damaged_pack_is_refused(repository: BareRepository, workspace: Workspace) -> None:
    pack = workspace.pack()
    pack.write_bytes(pack.read_bytes()[:-40])
    with pytest.raises(PackRefused):
        repository.take_pack(pack, head=workspace.git("rev-parse", "HEAD"), expected=None)
    assert repository.branch("tenant/a") is None


def test_a_tree_that_writes_into_dot_git_is_refused_by_the_checks(
    repository: BareRepository, workspace: Workspace
) -> None:
    blob = workspace.git("hash-object", "-w", "app.py")
    made = subprocess.run(
        ["git", "mktree"],
        input=f"100644 blob {blob}\t.GIT\n",
        cwd=workspace.directory,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    commit = workspace.git("commit-tree", made, "-m", "hostile")
    workspace.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(PackRefused):
        accept(repository, workspace)


def test_an_oversized_pack_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    small = BareRepository(tmp_path / "small.git", pack_bytes_max=10)
    small.ensure()
    with pytest.raises(PackRefused, match="larger"):
        accept(small, workspace)


def test_a_branch_moves_only_from_where_it_was_seen(repository: BareRepository, workspace: Workspace) -> None:
    first = accept(repository, workspace)
    with pytest.raises(BranchMoved):
        repository.move_branch("tenant/a", expected=None, to=first)
    with pytest.raises(BranchMoved):
        repository.move_branch("tenant/a", expected="1" * 40, to=first)


def test_a_diff_counts_lines_and_survives_hostile_names(repository: BareRepository, workspace: Workspace) -> None:
    base = accept(repository, workspace)
    workspace.write("app.py", "one\nTWO\nthree\nfour\n")
    hostile = "a\tb\n:100644 x"
    workspace.write(hostile, "x\n")
    (workspace.directory / "picture").write_bytes(bytes(range(256)))
    workspace.commit("Second")
    head = accept(repository, workspace)
    files = {change.path: change for change in repository.diff(base, head).files}
    assert set(files) == {"app.py", hostile, "picture"}
    assert (files["app.py"].lines_added, files["app.py"].lines_removed) == (2, 1)
    assert files["picture"].lines_added is None
    assert files["picture"].size_bytes == 256
    assert "+TWO" in repository.patch(base, head, path="app.py")
    assert repository.patch(base, head, path="*") == ""


def test_a_scan_sees_what_a_later_commit_took_away_again(repository: BareRepository, workspace: Workspace) -> None:
    base = accept(repository, workspace)
    workspace.write("key.pem", "secret\n")
    workspace.commit("Add")
    (workspace.directory / "key.pem").unlink()
    (workspace.directory / "link").symlink_to("../out")
    workspace.commit("Remove")
    head = accept(repository, workspace)
    found = {file.path: (file.mode, file.content) for file in repository.new_files(head, since=base)}
    assert found == {"key.pem": ("100644", b"secret\n"), "link": ("120000", b"../out")}
    assert "app.py" in {file.path for file in repository.new_files(head, since=None)}


def test_a_rename_keeps_both_names(repository: BareRepository, workspace: Workspace) -> None:
    base = accept(repository, workspace)
    workspace.git("mv", "app.py", "main.py")
    workspace.commit("Rename")
    (change,) = repository.diff(base, accept(repository, workspace)).files
    assert (change.status, change.old_path, change.path) == ("renamed", "app.py", "main.py")


def test_merges_need_no_work_tree_and_name_their_conflicts(
    repository: BareRepository, workspace: Workspace, tmp_path: Path
) -> None:
    base = accept(repository, workspace, branch="main")
    workspace.write("other.py", "new\n")
    workspace.commit("Add other")
    theirs = accept(repository, workspace)
    clean = repository.merge_check(base, theirs)
    assert clean.is_clean
    merged = repository.merge(clean, message="Merge tenant/a\n\nReviewed-by: R", author="R", email="r@example.test")
    assert repository.commit(merged).parents == (base, theirs)

    workspace.git("checkout", "--quiet", "-b", "rival", base)
    workspace.write("app.py", "one\nRIVAL\nthree\n")
    workspace.commit("Rival")
    rival = accept(repository, workspace, branch="tenant/b")
    workspace.git("checkout", "--quiet", "-b", "mine", base)
    workspace.write("app.py", "one\nMINE\nthree\n")
    workspace.commit("Mine")
    mine = accept(repository, workspace, branch="tenant/c")
    check = repository.merge_check(mine, rival)
    assert check.conflicts == ("app.py",)
    with pytest.raises(BranchMoved):
        repository.merge(check, message="no", author="R", email="r@example.test")


def test_a_push_compares_and_never_forces(
    repository: BareRepository, workspace: Workspace, company: Path, tmp_path: Path
) -> None:
    first = accept(repository, workspace)
    repository.push(first, branch="main", expected=None, credential="merge")
    repository.push(first, branch="main", expected=None, credential="merge")
    assert repository.remote_branch("main") == first == repository.fetch(branch="main")
    workspace.write("app.py", "changed\n")
    workspace.commit("Second")
    second = accept(repository, workspace)
    with pytest.raises(PushRefused):
        repository.push(second, branch="main", expected="1" * 40, credential="merge")
    repository.push(second, branch="main", expected=first, credential="merge")
    with pytest.raises(PushRefused):
        repository.push(first, branch="main", expected=second, credential="merge")
    assert repository.remote_branch("main") == second


def test_a_remote_that_is_gone_is_said_plainly(tmp_path: Path, workspace: Workspace) -> None:
    lonely = BareRepository(tmp_path / "l.git", Remote(str(tmp_path / "nowhere.git")))
    lonely.ensure()
    with pytest.raises(RemoteUnreachable):
        lonely.remote_branch("main")
    head = accept(lonely, workspace)
    with pytest.raises(RemoteUnreachable):
        lonely.push(head, branch="tenant/a", expected=None, credential="publish")


def test_a_fresh_workspace_stands_on_its_branch(
    repository: BareRepository, workspace: Workspace, tmp_path: Path
) -> None:
    head = accept(repository, workspace, branch="main")
    tree, git = tmp_path / "made" / "tree", tmp_path / "made" / "git"
    repository.create_workspace(tree, git, branch="tenant/a", start=head, production="main")
    assert (tree / "app.py").read_text() == "one\ntwo\nthree\n"
    assert sorted(path.name for path in tree.iterdir()) == ["app.py"]
    inside = ["git", f"--git-dir={git}", f"--work-tree={tree}"]
    said = subprocess.run([*inside, "status", "--porcelain", "-b"], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "## tenant/a"
    assert not list((git / "hooks").glob("*")) if (git / "hooks").exists() else True
    assert not list(tmp_path.glob("made/*.partial"))


def test_a_pack_holds_what_a_workspace_lacks(repository: BareRepository, workspace: Workspace, tmp_path: Path) -> None:
    base = accept(repository, workspace, branch="main")
    tree, git = tmp_path / "m" / "tree", tmp_path / "m" / "git"
    repository.create_workspace(tree, git, branch="tenant/a", start=base, production="main")
    workspace.write("app.py", "changed\n")
    workspace.commit("Second")
    head = accept(repository, workspace, branch="main")
    pack = repository.pack(head, without=base)
    subprocess.run(["git", f"--git-dir={git}", "index-pack", "--stdin", "--fix-thin"], input=pack, check=True)
    shown = subprocess.run(["git", f"--git-dir={git}", "show", f"{head}:app.py"], check=True, capture_output=True)
    assert shown.stdout == b"changed\n"


@pytest.mark.parametrize("revision", ["nothing", "--output=/tmp/x", "main:app.py", ""])
def test_an_unknown_revision_is_named_and_never_an_option(repository: BareRepository, revision: str) -> None:
    with pytest.raises(UnknownRevision):
        repository.commit(revision)
