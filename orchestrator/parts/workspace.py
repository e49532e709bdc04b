"""A tenant's workspace: made once on the host, from then on read and written only inside the container."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.places import Places
from orchestrator.core.ports.git import GitFailed, PackRefused, Repository
from orchestrator.core.publishes import MergeConflicts
from orchestrator.core.tenants import Tenant
from orchestrator.parts.inner_git import InnerGit

CANDIDATE = "refs/publish/candidate"
PACK_BYTES_MAX = 512 * 2**20


@dataclass(frozen=True)
class Candidate:
    """A commit made from the workspace that no branch points at yet."""

    commit: str
    parent: str
    is_new: bool


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

    def remove(self, tenant: Tenant) -> None:
        """Delete the work tree and its git directory; what was published stays in the bare repository."""
        for path in (self.places.workspace(tenant.id), self.places.repository(tenant.id)):
            shutil.rmtree(path, ignore_errors=True)

    def save(self, git: InnerGit, *, branch: str, published: str | None, message: str, author: str) -> Candidate:
        """Commit everything in the work tree beside the branch, without moving it.

        An earlier publish that moved the branch outside but died before telling the workspace is finished first.
        """
        head = git.commit_id("HEAD")
        if head is None:
            raise GitFailed("The workspace has no commit to build on.", next_step="Remove and launch the tenant again.")
        if published and head != published and git.commit_id(CANDIDATE) == published:
            behind = git.run("merge-base", "--is-ancestor", head, published, allowed=(0, 1)).exit_code == 0
            if behind:  # anything else is work the workspace did since
                git.run("update-ref", f"refs/heads/{branch}", published, head)
                head = published
        self._refuse_unresolved(git)
        git.run("add", "--all", "--", ".")
        tree = git.object_id("write-tree")
        if tree == git.object_id("rev-parse", "--verify", f"{head}^{{tree}}"):
            return Candidate(head, head, is_new=False)
        identity = _identity(author, branch)
        merging = git.commit_id("MERGE_HEAD")
        parents = ("-p", head, *(("-p", merging) if merging else ()))
        commit = git.object_id("commit-tree", tree, *parents, "-F", "-", stdin=message.encode(), environment=identity)
        git.run("update-ref", CANDIDATE, commit)
        return Candidate(commit, head, is_new=True)

    def _refuse_unresolved(self, git: InnerGit) -> None:
        """`add --all` would take conflict marks for their resolution."""
        paths = self.conflicts(git)
        if not paths:
            return
        wanted = [f":(literal){path}" for path in paths]
        marked = git.run("grep", "--no-index", "-l", "-z", "-e", "^<<<<<<< ", "--", *wanted, allowed=(0, 1))
        left = [path.decode("utf-8", "backslashreplace") for path in marked.stdout.split(b"\0") if path]
        if left:
            raise MergeConflicts(
                "Conflict marks still stand in the workspace.",
                effect="Nothing was published.",
                next_step="Resolve them in the files, then publish again.",
                conflicts=left,
            )

    def settle(self, git: InnerGit, candidate: Candidate, *, branch: str) -> None:
        """Move the branch inside to the candidate, once the outside has taken it."""
        if candidate.is_new:
            git.run("update-ref", f"refs/heads/{branch}", candidate.commit, candidate.parent)
            git.run("update-ref", "--no-deref", "-d", "MERGE_HEAD", allowed=(0, 1, 128))

    def take(self, git: InnerGit, commit: str, *, published: str | None) -> None:
        """Carry a commit's objects out as a pack and have them checked. Raises PackRefused."""
        if self.repository.has(commit) and (published is None or self.repository.is_ancestor(published, commit)):
            return
        git.run("update-ref", CANDIDATE, commit)
        known = [f"^{one}" for one in (published, self.repository.branch(self.production)) if one and _has(git, one)]
        wanted = "".join(f"{line}\n" for line in (commit, *known)).encode()
        with tempfile.NamedTemporaryFile(prefix="pack", dir=self._incoming()) as file:
            written = 0
            # `git bundle` would start a second git, which the kernel does not let it.
            for chunk in git.stream("pack-objects", "--revs", "--stdout", "--thin", "--quiet", stdin=wanted):
                written += len(chunk)
                if written > PACK_BYTES_MAX:
                    raise PackRefused(f"The branch's new objects are larger than {PACK_BYTES_MAX // 2**20} MiB.")
                file.write(chunk)
            file.flush()
            self.repository.take_pack(Path(file.name), head=commit, expected=published)

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
            raise MergeConflicts(
                f"{self.production} and {branch} change the same lines.",
                effect="The conflict marks stand in the workspace; nothing was published.",
                next_step="Resolve them in the files, then publish.",
                conflicts=self.conflicts(git),
            )
        return git.commit_id("HEAD") or commit

    def conflicts(self, git: InnerGit) -> list[str]:
        """Paths with unresolved conflicts in the workspace."""
        paths = git.run("diff", "--name-only", "-z", "--diff-filter=U", "--no-ext-diff").stdout.split(b"\0")
        return [path.decode("utf-8", "backslashreplace") for path in paths if path][:200]

    def _incoming(self) -> Path:
        directory = self.places.var / "git" / "incoming"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory


def _identity(author: str, branch: str) -> dict[str, str]:
    email = f"{branch.replace('/', '.')}@sandbox.invalid"
    return {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", author), ("EMAIL", email))
    }


def _has(git: InnerGit, commit: str) -> bool:
    return git.commit_id(commit) is not None


def _give(path: Path, uid: int) -> None:
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            os.chown(Path(directory) / name, uid, uid, follow_symlinks=False)
        os.chown(directory, uid, uid, follow_symlinks=False)
