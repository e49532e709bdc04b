"""The bare repository outside every container: checked objects, branches, merges without a work tree.

A tenant's objects arrive only as a pack. Nothing here ever runs inside a tenant's directory, so no hook,
filter, attribute or configuration of a tenant is ever read on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.errors import Conflict, InvalidInput, NotFound, OutsideFailure


class GitFailed(OutsideFailure):
    code = "outside_failure.git"


class RemoteUnreachable(OutsideFailure):
    code = "outside_failure.remote_unreachable"


class PushRefused(Conflict):
    """The remote said no: not a fast-forward, a protected branch, or a key without the right."""

    code = "conflict.push_refused"


class BranchMoved(Conflict):
    """A branch is no longer where the caller saw it."""

    code = "conflict.branch_moved"


class PackRefused(InvalidInput):
    """A pack is damaged, too large, rewrites history or holds objects git's own checks reject."""

    code = "invalid.pack"


class UnknownRevision(NotFound):
    code = "not_found.revision"


@dataclass(frozen=True)
class Commit:
    id: str
    parents: tuple[str, ...]
    author: str
    written_at: datetime
    subject: str
    body: str


@dataclass(frozen=True)
class FileChange:
    """One path of a code diff. `lines_added` is None for a binary file."""

    path: str
    old_path: str | None
    status: str  # added, modified, deleted, renamed, type_changed
    mode: str  # 100644, 100755, 120000 (link), 160000 (submodule), 000000 when deleted
    lines_added: int | None
    lines_removed: int | None
    size_bytes: int


@dataclass(frozen=True)
class NewFile:
    """One version of one path in a range of commits. `content` is empty for what is larger than the limit read.

    Versions with the same `blob` have the same content and come one after the other.
    """

    path: str
    mode: str
    size_bytes: int
    blob: str
    content: bytes


@dataclass(frozen=True)
class CodeDiff:
    """Between the merge base of two commits and the second of them."""

    merge_base: str
    head: str
    files: tuple[FileChange, ...]
    truncated: bool


@dataclass(frozen=True)
class MergeCheck:
    """What `git merge-tree` says: the merged tree, or the conflicting paths."""

    ours: str
    theirs: str
    tree: str | None
    conflicts: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return self.tree is not None


class Quarantine(Protocol):
    """The repository with a tenant's objects beside it, which are not part of it yet."""

    def take_pack(self, pack: Path, *, head: str, expected: str | None) -> None:
        """Check a tenant's pack (fsck, size, history).

        Raises PackRefused when the objects are bad or `head` does not descend from `expected`.
        Running it again with the same head is fine.
        """
        ...

    def new_files(self, head: str, *, known: Sequence[str], content_bytes_max: int) -> Iterator[NewFile]:
        """Every file any commit of `head` brings that is not in `known`, history included: what a scan must see.

        Raises PackRefused when that is more than can be looked at: never leaves anything out.
        """
        ...

    def keep(self) -> None:
        """Make the objects part of the repository; no branch moves."""
        ...


class Repository(Protocol):
    """The installation's one bare repository, a mirror of the company's remote plus every tenant's branch."""

    def ensure(self) -> None:
        """Create it when it is missing."""
        ...

    def branch(self, name: str) -> str | None:
        """The commit id a branch points at here, None when there is none."""
        ...

    def branches(self, prefix: str = "") -> dict[str, str]: ...

    def fetch(self, *, branch: str) -> str | None:
        """Bring `branch` of the remote here and return its commit id, None when the remote has no such branch.

        Raises RemoteUnreachable.
        """
        ...

    def has(self, commit: str) -> bool:
        """Whether the objects of `commit` were taken before."""
        ...

    def quarantine(self) -> AbstractContextManager[Quarantine]:
        """Where a tenant's objects are taken, checked and scanned; what is not kept is deleted at the end."""
        ...

    def tidy(self) -> bool:
        """Put many packs into one and drop what nothing refers to; returns whether there was need."""
        ...

    def pack(self, head: str, *, without: str | None) -> bytes:
        """The objects of `head` that a holder of `without` lacks, as a pack. How code enters a running workspace."""
        ...

    def create_workspace(self, tree: Path, git: Path, *, branch: str, start: str, production: str) -> None:
        """Make a fresh clone on `branch` at commit `start`: files in `tree`, its git directory in `git`.

        Both must not exist; they are filled under other names and renamed, so a half-made one is never seen.
        The only time git of the host touches a work tree: nobody has written to it yet.
        """
        ...

    def commit(self, revision: str) -> Commit: ...

    def log(self, revision: str, *, since: str | None = None, limit: int = 100) -> list[Commit]: ...

    def diff(self, base: str, head: str, *, files_max: int = 2000) -> CodeDiff: ...

    def patch(self, base: str, head: str, *, path: str | None = None, bytes_max: int = 1_000_000) -> str:
        """The unified diff from the merge base, cut at `bytes_max`."""
        ...

    def read(self, revision: str, path: str, *, bytes_max: int = 1_000_000) -> bytes: ...

    def files(self, revision: str, *, under: str = "", limit: int = 5000) -> list[str]: ...

    def tree(self, revision: str) -> str:
        """The id of a commit's files: the same files, the same id."""
        ...

    def is_ancestor(self, ancestor: str, descendant: str) -> bool: ...

    def holds(self, commit: str, *, at: str) -> bool:
        """Whether `at` has what `commit` brings: merged, or with nothing left that a merge would add."""
        ...

    def merge_check(self, ours: str, theirs: str) -> MergeCheck: ...

    def merge(self, check: MergeCheck, *, message: str, author: str, email: str) -> str:
        """Write the merge commit of a clean check and return its id; no branch moves."""
        ...

    def restore(self, state: str, *, onto: str, message: str, author: str, email: str) -> str:
        """Write a commit on top of `onto` whose files are those of `state`, and return its id; no branch moves.

        How a merge is undone: history is never rewritten.
        """
        ...

    def move_branch(self, name: str, *, expected: str | None, to: str | None) -> None:
        """Compare-and-swap here; `to=None` deletes. Raises BranchMoved."""
        ...

    def push(self, commit: str, *, branch: str, expected: str | None, credential: str) -> None:
        """Put `commit` on the remote's `branch` if it is still at `expected`; never by force.

        `credential` names which key is used: `publish` (tenants' branches) or `merge` (the production branch).
        Raises PushRefused or RemoteUnreachable.
        """
        ...

    def remote_branch(self, branch: str) -> str | None:
        """Where the remote's branch is now. Raises RemoteUnreachable."""
        ...
