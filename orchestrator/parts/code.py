"""The code half of a change: what the branch proposes, whether it merges, and the merge itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orchestrator.core.ports.code import CodeCheck, CodeMerge
from orchestrator.core.ports.git import BranchMoved, Repository, UnknownRevision
from orchestrator.core.promotion.order import Migration

MIGRATIONS = "migrations"
MIGRATION_BYTES_MAX = 200_000
EMAIL = "promote@orchestrator.invalid"


@dataclass(frozen=True)
class Code:
    """Implements core.ports.code.CodeSide. `production` is the branch only a promote moves."""

    repository: Repository
    production: str

    def head(self, tenant_name: str) -> str | None:
        """The published head when it holds something production lacks."""
        head = self.repository.branch(f"tenant/{tenant_name}")
        at = self.repository.branch(self.production)
        if head is None or at is None or self.repository.is_ancestor(head, at):
            return None
        return head

    def check(self, tenant_name: str, commit: str) -> CodeCheck:  # noqa: ARG002 - part of the contract
        at = self._production_now()
        diff = self.repository.diff(at, commit)
        is_merged = self.repository.is_ancestor(commit, at)
        conflicts = () if is_merged else self.repository.merge_check(at, commit).conflicts
        added = sorted(
            file.path
            for file in diff.files
            if file.path.startswith(f"{MIGRATIONS}/") and file.path.endswith(".sql")
            if file.status != "deleted"
        )
        return CodeCheck(
            head=commit,
            production=at,
            merge_base=diff.merge_base,
            files=tuple(asdict(file) for file in diff.files),
            conflicts=conflicts,
            migrations=tuple(Migration(path, self._text(commit, path)) for path in added),
            is_merged=is_merged,
        )

    def merge(self, tenant_name: str, commit: str, *, expected: str, message: str, author: str) -> CodeMerge:
        at = self._production_now()
        if self.repository.is_ancestor(commit, at):
            return CodeMerge(before=expected, after=at)  # an earlier try arrived, or a person merged it elsewhere
        if at != expected:
            raise self._moved(at, expected)
        check = self.repository.merge_check(at, commit)
        if not check.is_clean:
            raise BranchMoved(
                f"tenant/{tenant_name} no longer merges into {self.production}.",
                effect="Nothing was merged.",
                next_step="Bring the branch up to date, resolve the conflicts and submit again.",
                conflicts=list(check.conflicts),
            )
        merged = self.repository.merge(check, message=message, author=author, email=EMAIL)
        self._put(merged, expected=at)
        return CodeMerge(before=at, after=merged)

    def undo(self, merge: CodeMerge) -> None:
        if merge.before == merge.after:
            return
        at = self._production_now()
        if at != merge.after:
            raise self._moved(at, merge.after)
        message = f"Undo the merge {merge.after[:12]}\n\nIts rows could not be committed."
        restored = self.repository.restore(merge.before, onto=at, message=message, author="orchestrator", email=EMAIL)
        self._put(restored, expected=at)

    def _production_now(self) -> str:
        at = self.repository.fetch(branch=self.production)
        if at is None:
            raise UnknownRevision(f"The company's repository has no branch {self.production}.")
        return at

    def _put(self, commit: str, *, expected: str) -> None:
        self.repository.push(commit, branch=self.production, expected=expected, credential="merge")
        self.repository.move_branch(self.production, expected=expected, to=commit)

    def _text(self, commit: str, path: str) -> str:
        content = self.repository.read(commit, path, bytes_max=MIGRATION_BYTES_MAX + 1)
        return content.decode("utf-8", "replace")

    def _moved(self, at: str, expected: str) -> BranchMoved:
        return BranchMoved(
            f"{self.production} is at {at[:12]}, the review saw it at {expected[:12]}.",
            effect="Nothing was merged.",
            next_step="Look at what changed and check the change again.",
        )
