"""A tenant's workspace: made once on the host, from then on read and written only inside the container."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.core import publishing
from orchestrator.core.places import Places
from orchestrator.core.ports.git import GitFailed, PackRefused, Quarantine, Repository
from orchestrator.core.publishes import MergeConflicts, PublishRefused
from orchestrator.core.publishing import Finding, FindingKind
from orchestrator.core.tenants import Tenant
from orchestrator.parts.inner_git import OBJECT_ID, InnerGit

CANDIDATE = "refs/publish/candidate"
PACK_BYTES_MAX = 512 * 2**20
CONFLICTS_SHOWN = 200
STATUS = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=dirty")
STREAMED = ("-c", "core.bigFileThreshold=1")
FEW = 20  # changed files that are rather kept one by one than in a pack of their own
NESTED = re.compile(r"error: '(.+?)/?' does not have a commit checked out")
CONFIGURATION = b"""[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogAllRefUpdates = true
[gc]
\tauto = 0
"""


@dataclass(frozen=True)
class Candidate:
    """A commit made from the workspace that no branch points at yet.

    `strayed`: HEAD is not on the tenant's branch. `shared` are commits that the workspace and the outside both have.
    """

    commit: str
    parent: str
    is_new: bool
    strayed: bool = False
    ends_merge: bool = False
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What `git status` says of a workspace. Of a directory that is new as a whole `entries` counts only the one."""

    head: str | None
    branch: str
    entries: int = 0
    has_new_directory: bool = False
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkspacePart:
    """`production` is the branch tenants start from and merge into."""

    places: Places
    repository: Repository
    production: str

    def ensure(self, tenant: Tenant, branch: str) -> None:
        """Make the clone if it is not there: on the tenant's published branch, else on production's.

        Raises GitFailed when the company's repository has no production branch.
        """
        tree, git = self.places.workspace(tenant.id), self.places.repository(tenant.id)
        if tree.exists() and git.exists():
            fasten(git, tenant.uid)
            return
        for half in (tree, git):
            shutil.rmtree(half, ignore_errors=True)
        start = self.repository.branch(branch) or self.repository.branch(self.production)
        if start is None:
            raise GitFailed(
                f"The company's repository has no branch {self.production}.",
                effect="A workspace cannot be made.",
                next_step="Set branch.remote and branch.production in configs/orchestrator.yaml.",
            )
        self.repository.create_workspace(tree, git, branch=branch, start=start, production=self.production)
        for path in (tree, git):
            _give(path, tenant.uid)
        fasten(git, tenant.uid)
        if self.repository.branch(branch) is None:  # where it began is known, so that it can fall behind
            self.repository.move_branch(branch, expected=None, to=start)

    def remove(self, tenant: Tenant) -> None:
        """Delete the work tree and its git directory; what was published stays in the bare repository."""
        for path in (self.places.workspace(tenant.id), self.places.repository(tenant.id)):
            shutil.rmtree(path, ignore_errors=True)

    def save(self, git: InnerGit, *, branch: str, published: str | None, message: str, author: str) -> Candidate:
        """Commit everything in the work tree beside the branch, without moving it.

        An earlier publish that moved the branch outside but died before telling the workspace is finished first.
        """
        standing = self.standing(git)
        head, strayed = standing.head, standing.branch != branch
        if head is None:
            raise GitFailed("The workspace has no commit to build on.", next_step="Remove and launch the tenant again.")
        known = self.known(published)
        before, merging, earlier, *have = git.ids(
            f"{head}^{{tree}}",
            "MERGE_HEAD^{commit}",
            f"{CANDIDATE}^{{commit}}",
            *(f"{one}^{{commit}}" for one in known),
        )
        kept = Candidate(head, head, False, strayed, shared=tuple(one for one in known if one in have))
        is_touched = standing.entries > 0 or merging is not None
        if published and head != published and earlier == published:
            behind = git.run("merge-base", "--is-ancestor", head, published, allowed=(0, 1)).exit_code == 0
            if behind:  # anything else is work the workspace did since
                git.run("update-ref", "HEAD", published, head)
                before, is_touched = git.object_id("rev-parse", "--verify", f"{published}^{{tree}}"), True
                kept = replace(kept, commit=published, parent=published)
        if not is_touched:
            return kept
        self._refuse_unresolved(git, standing.unresolved)
        self._add(git, is_much=standing.has_new_directory or standing.entries > FEW)
        tree = git.object_id("write-tree")
        if tree == before and merging is None:
            return kept
        parents = ("-p", kept.commit, *(("-p", merging) if merging else ()))
        identity = _identity(author, branch)
        commit = git.object_id("commit-tree", tree, *parents, "-F", "-", stdin=message.encode(), environment=identity)
        git.run("update-ref", CANDIDATE, commit)
        return replace(kept, commit=commit, is_new=True, ends_merge=merging is not None)

    def standing(self, git: InnerGit) -> Standing:
        """Everything a publish wants to know first, in one question."""
        return read_status(git.run("status", *STATUS).stdout)

    def _add(self, git: InnerGit, *, is_much: bool) -> None:
        """Take the whole work tree into the index. Raises PublishRefused for what git cannot take.

        Many new files go straight into one pack, as large ones do: a quarter of the work, and of the disk.
        """
        ended = git.run(*(STREAMED if is_much else ()), "add", "--all", "--", ".", allowed=(0, 128))
        if ended.exit_code == 0:
            return
        nested = NESTED.search(ended.stderr)
        if nested is None:
            raise git.failed("add", ended)
        path = publishing.shown_name(nested[1])
        raise PublishRefused(
            f"{path}: a nested repository.",
            effect="Nothing was published.",
            next_step="Take its .git directory away, or leave it out by .gitignore; then publish again.",
            findings=(Finding(FindingKind.SUBMODULE, path, None, "a nested repository or submodule"),),
        )

    def _refuse_unresolved(self, git: InnerGit, paths: Sequence[str]) -> None:
        """`add --all` would take conflict marks for their resolution."""
        if not paths:
            return
        wanted = [f":(literal){path}" for path in paths[:CONFLICTS_SHOWN]]
        marked = git.run("grep", "--no-index", "-l", "-z", "-e", "^<<<<<<< ", "--", *wanted, allowed=(0, 1))
        left = [path.decode("utf-8", "backslashreplace") for path in marked.stdout.split(b"\0") if path]
        if left:
            raise MergeConflicts(
                f"Conflict marks still stand in {_named(left)}.",
                effect="Nothing was published.",
                next_step="Resolve them in the files, then publish again.",
                conflicts=left,
            )

    def settle(self, git: InnerGit, candidate: Candidate, *, branch: str) -> None:
        """Move the branch inside to the candidate, once the outside has taken it."""
        if candidate.strayed:
            # The branch holds everything HEAD held; work goes on where it is published from.
            git.run("update-ref", f"refs/heads/{branch}", candidate.commit)
            git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        elif candidate.is_new:
            git.run("update-ref", f"refs/heads/{branch}", candidate.commit, candidate.parent)
        if candidate.ends_merge:
            git.run("merge", "--quit", allowed=(0, 128))

    def take(self, git: InnerGit, held: Quarantine, candidate: Candidate, *, published: str | None) -> None:
        """Carry a commit's objects out as a pack and have them checked. Raises PackRefused."""
        commit = candidate.commit
        if self.repository.has(commit) and (published is None or self.repository.is_ancestor(published, commit)):
            return
        # What both sides have is left out of the pack.
        wanted = "".join(f"{line}\n" for line in (commit, *(f"^{one}" for one in candidate.shared))).encode()
        with tempfile.NamedTemporaryFile(prefix="pack", dir=self._incoming()) as file:
            written = 0
            # `git bundle` would start a second git, which the kernel does not let it.
            for chunk in git.stream("pack-objects", "--revs", "--stdout", "--thin", "--quiet", stdin=wanted):
                written += len(chunk)
                if written > PACK_BYTES_MAX:
                    raise PackRefused(f"The branch's new objects are larger than {PACK_BYTES_MAX // 2**20} MiB.")
                file.write(chunk)
            file.flush()
            held.take_pack(Path(file.name), head=commit, expected=published)

    def known(self, published: str | None) -> list[str]:
        """The commits whose files were looked at before: the branch as published, and production."""
        return list(dict.fromkeys(one for one in (published, self.repository.branch(self.production)) if one))

    def bring(self, git: InnerGit, commit: str) -> None:
        """Give the workspace the objects of production's `commit` and remember where production is."""
        upstream = f"refs/remotes/company/{self.production}"
        had = git.commit_id(upstream)
        known = had if had and self.repository.is_ancestor(had, commit) else None
        if had != commit:
            git.run("index-pack", "--stdin", "--fix-thin", stdin=self.repository.pack(commit, without=known))
            git.run("update-ref", upstream, commit)

    def merge(self, git: InnerGit, commit: str, *, author: str, branch: str) -> str:
        """Merge production's `commit` into the branch inside.

        Raises MergeConflicts, with the marks left in the workspace and the paths named.
        """
        identity = {f"GIT_{who}_NAME": author for who in ("AUTHOR", "COMMITTER")}
        identity |= {
            f"GIT_{who}_EMAIL": f"{branch.replace('/', '.')}@sandbox.invalid" for who in ("AUTHOR", "COMMITTER")
        }
        message = f"Bring {branch} up to date with {self.production}"
        ended = git.run("merge", "--no-edit", "-m", message, commit, environment=identity, allowed=(0, 1, 2, 128))
        if ended.exit_code != 0:
            paths = self.conflicts(git)
            if not paths:
                raise git.failed("merge", ended)
            raise MergeConflicts(
                f"{self.production} and {branch} change the same lines in {_named(paths)}.",
                effect="Both versions stand in these files between conflict marks; nothing of the merge was published.",
                next_step="Edit the files so that they are right and hold no marks, then publish.",
                conflicts=paths,
            )
        return git.commit_id("HEAD") or commit

    def conflicts(self, git: InnerGit) -> list[str]:
        """Paths with unresolved conflicts in the workspace."""
        return list(self.standing(git).unresolved)[:CONFLICTS_SHOWN]

    def _incoming(self) -> Path:
        directory = self.places.var / "git" / "incoming"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory


def read_status(output: bytes) -> Standing:
    """Read `git status --porcelain=v2 --branch -z`. Paths are NUL-separated, so no name can forge a line."""
    head, branch, entries, has_new_directory = None, "", 0, False
    unresolved: list[str] = []
    for line in output.split(b"\0"):
        if line.startswith(b"# branch.oid "):
            found = line.removeprefix(b"# branch.oid ").decode("ascii", "replace")
            head = found if OBJECT_ID.fullmatch(found) else None
        elif line.startswith(b"# branch.head "):
            branch = line.removeprefix(b"# branch.head ").decode("utf-8", "replace")
        elif line and not line.startswith(b"# "):
            entries += 1
            has_new_directory |= line.startswith(b"? ") and line.endswith(b"/")
            if line.startswith(b"u "):
                unresolved.append(line.split(b" ", 10)[-1].decode("utf-8", "backslashreplace"))
    return Standing(head, branch, entries, has_new_directory, tuple(unresolved))


def _named(paths: Sequence[str]) -> str:
    shown = ", ".join(publishing.shown_name(path) for path in paths[:5])
    return f"{shown} and {len(paths) - 5} more files" if len(paths) > 5 else shown


def _identity(author: str, branch: str) -> dict[str, str]:
    email = f"{branch.replace('/', '.')}@sandbox.invalid"
    return {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", author), ("EMAIL", email))
    }


def _give(path: Path, uid: int) -> None:
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            os.chown(Path(directory) / name, uid, uid, follow_symlinks=False)
        os.chown(directory, uid, uid, follow_symlinks=False)


def fasten(git: Path, uid: int) -> None:
    """Configuration, hooks and attributes stay ours: git inside may make files beside them, and never replace them.

    The directory is sticky and not the tenant's, so that only an entry's owner may rename or delete it. What a
    directory that was not fastened yet holds in their places is hostile, and is put aside.
    """
    if os.geteuid() != 0:
        return  # without root everything has one owner; then the allowlist alone keeps `git config` away
    held = os.open(git, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(held).st_uid == 0 and os.fstat(held).st_mode & stat.S_ISVTX:
            return
        os.fchown(held, 0, uid)
        os.fchmod(held, 0o1770)
        for name in ("hooks", "info"):
            _put_aside(held, name)
            os.mkdir(name, 0o755, dir_fd=held)
        _put_aside(held, "config")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        config = os.open("config", flags, 0o644, dir_fd=held)
        try:
            os.fchmod(config, 0o644)
            os.write(config, CONFIGURATION)
        finally:
            os.close(config)
    finally:
        os.close(held)


def _put_aside(held: int, name: str) -> None:
    try:
        os.rename(name, f"{name}.aside-{secrets.token_hex(4)}", src_dir_fd=held, dst_dir_fd=held)
    except FileNotFoundError:
        return
