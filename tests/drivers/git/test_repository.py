"""The bare repository against real git: hostile packs, merges without a work tree, pushes that never force."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.ports.git import (
    BranchMoved,
    NewFile,
    PackRefused,
    PushRefused,
    RemoteUnreachable,
    UnknownRevision,
)
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
    found = {file.path: (file.mode, file.content) for file in new_files(repository, head, base)}
    assert found == {"key.pem": ("100644", b"secret\n"), "link": ("120000", b"../out")}
    assert "app.py" in {file.path for file in new_files(repository, head)}


def new_files(repository: BareRepository, head: str, *known: str) -> list[NewFile]:
    return list(repository.new_files(head, known=known, content_bytes_max=1_000_000))


def test_a_scan_leaves_out_what_production_brought_and_sees_what_a_merge_adds(
    repository: BareRepository, workspace: Workspace
) -> None:
    base = accept(repository, workspace, branch="main")
    workspace.git("checkout", "--quiet", "-b", "mine")
    workspace.write("mine.py", "mine\n")
    workspace.commit("Mine")
    published = accept(repository, workspace)
    workspace.git("checkout", "--quiet", "main")
    workspace.write("theirs.py", "theirs\n")
    workspace.commit("Theirs")
    production = accept(repository, workspace, branch="main")
    workspace.git("checkout", "--quiet", "mine")
    workspace.git("merge", "--quiet", "--no-commit", "main")
    workspace.write("slipped-in.pem", "secret\n")
    workspace.commit("Merge main")
    head = accept(repository, workspace)
    assert {file.path for file in new_files(repository, head, published, production)} == {"slipped-in.pem"}
    assert {file.path for file in new_files(repository, head, base)} == {"mine.py", "theirs.py", "slipped-in.pem"}


def test_more_than_can_be_looked_at_is_refused_and_never_cut_short(
    repository: BareRepository, workspace: Workspace
) -> None:
    base = accept(repository, workspace)
    for number in range(3):
        workspace.write(f"f{number}", f"{number}" * 1000)
    workspace.commit("Much")
    head = accept(repository, workspace)
    with pytest.raises(PackRefused, match="GiB"):
        list(repository.new_files(head, known=[base], content_bytes_max=2000, bytes_max=2000))
    repository._git = replace(repository._git, bytes_max=100)
    with pytest.raises(PackRefused, match="more than can be checked"):
        new_files(repository, head, base)


def test_the_same_content_comes_once_for_all_its_paths(repository: BareRepository, workspace: Workspace) -> None:
    base = accept(repository, workspace)
    for path in ("a", "b", "z/c"):
        workspace.write(path, "same\n")
    workspace.write("large", "x" * 3000)
    workspace.commit("Same")
    found = repository.new_files(accept(repository, workspace), known=[base], content_bytes_max=2000)
    large, *same = found
    assert (large.path, large.size_bytes, large.content) == ("large", 3000, b"")
    assert sorted(file.path for file in same) == ["a", "b", "z/c"]
    assert {(file.blob, file.content) for file in same} == {(same[0].blob, b"same\n")}


def test_what_was_in_quarantine_and_not_kept_is_gone(repository: BareRepository, workspace: Workspace) -> None:
    head = workspace.git("rev-parse", "HEAD")
    with repository.quarantine() as held:
        held.take_pack(workspace.pack(), head=head, expected=None)
        assert [file.path for file in held.new_files(head, known=(), content_bytes_max=100)] == ["app.py"]
        assert not repository.has(head)
    assert not repository.has(head)
    assert not list((repository._directory / "quarantine").iterdir())
    with repository.quarantine() as held:
        held.take_pack(workspace.pack(), head=head, expected=None)
        held.keep()
    assert repository.has(head)
    assert not list((repository._directory / "quarantine").iterdir())


def test_a_pack_in_quarantine_may_build_on_what_is_kept(repository: BareRepository, workspace: Workspace) -> None:
    base = accept(repository, workspace)
    workspace.write("app.py", "one\ntwo\nthree\nfour\n")
    head = workspace.commit("Second")
    command = ["git", "pack-objects", "--revs", "--stdout", "--quiet", "--thin"]
    wanted = f"{head}\n^{base}\n".encode()
    thin = subprocess.run(command, input=wanted, cwd=workspace.directory, env=ENVIRONMENT, capture_output=True)
    pack = workspace.directory.parent / "thin.pack"
    pack.write_bytes(thin.stdout)
    with repository.quarantine() as held:
        held.take_pack(pack, head=head, expected=base)
        held.keep()
    assert repository.read(head, "app.py") == b"one\ntwo\nthree\nfour\n"


def test_many_packs_become_one_and_what_nothing_refers_to_goes(
    repository: BareRepository, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drivers.git.repository.PACKS_MAX", 3)
    monkeypatch.setattr("orchestrator.drivers.git.repository.UNUSED_KEPT", "now")
    heads = []
    for number in range(5):
        workspace.write("app.py", f"{number}\n")
        workspace.commit(f"Number {number}")
        heads.append(accept(repository, workspace))
    workspace.git("commit", "--quiet", "--amend", "--message", "Refused later")
    lost = workspace.git("rev-parse", "HEAD")
    repository.take_pack(workspace.pack(), head=lost, expected=None)
    assert repository.tidy() and not repository.tidy()
    assert repository.branch("tenant/a") == heads[-1] and all(repository.has(head) for head in heads)
    assert not repository.has(lost)
    assert len(list((repository._directory / "objects" / "pack").glob("*.pack"))) == 1


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
