"""The code half of a change: what the branch proposes, whether it merges, and the merge itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from orchestrator.core.ports.code import CodeCheck, CodeMerge
from orchestrator.core.ports.git import BranchMoved, Commit, Repository, UnknownRevision
from orchestrator.core.promotion.order import Migration

MIGRATIONS = "migrations"
MIGRATION_BYTES_MAX = 200_000
AUTHOR, EMAIL = "orchestrator", "promote@orchestrator.invalid"
# Lines at the end of our commits, by which a later try knows what became of an earlier one.
PROPOSAL, UNDOES, TAKEN_OUT = "Proposal", "Undoes", "Undoes-proposal"
LOOKED_AT = 500


@dataclass(frozen=True)
class Code:
    """Implements core.ports.code.CodeSide. `production` is the branch only a promote moves."""

    repository: Repository
    production: str

    def head(self, tenant_name: str) -> str | None:
        """The published head when it holds something production lacks."""
        head = self.repository.branch(f"tenant/{tenant_name}")
        at = self.repository.branch(self.production)
        if head is None or at is None:
            return None
        return head if not self.repository.is_ancestor(head, at) or self._taken_out(at, head) else None

    def check(self, tenant_name: str, commit: str) -> CodeCheck:  # noqa: ARG002 - part of the contract
        at = self._production_now()
        again = self._taken_out(at, commit)
        is_merged = again is None and self.repository.is_ancestor(commit, at)
        head, conflicts = (commit, ()) if again is None else self._joined(at, again, commit)
        if again is None and not is_merged:
            conflicts = self.repository.merge_check(at, commit).conflicts
        diff = self.repository.diff(at, head)
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
            migrations=tuple(Migration(path, self._text(head, path)) for path in added),
            is_merged=is_merged,
        )

    def merge(
        self,
        tenant_name: str,
        commit: str,
        *,
        expected: str,
        message: str,
        author: str,
        about_to: Callable[[CodeMerge], None],
    ) -> CodeMerge:
        at = self._production_now()
        again = self._taken_out(at, commit)
        if again is None and self.repository.is_ancestor(commit, at):
            return CodeMerge(before=at, after=at)  # a person merged it elsewhere: nothing of ours to take back
        if at != expected:
            raise self._moved(at, expected)
        head, conflicts = (commit, ()) if again is None else self._joined(at, again, commit)
        check = self.repository.merge_check(at, head)
        if conflicts or not check.is_clean:
            raise BranchMoved(
                f"tenant/{tenant_name} no longer merges into {self.production}.",
                effect="Nothing was merged.",
                next_step="Bring the branch up to date, resolve the conflicts and submit again.",
                conflicts=list(conflicts or check.conflicts),
            )
        message = f"{message}\n\n{PROPOSAL}: {commit}"
        merged = CodeMerge(at, self.repository.merge(check, message=message, author=author, email=EMAIL))
        about_to(merged)
        self._put(merged.after, expected=at)
        return merged

    def undo(self, merge: CodeMerge) -> bool:
        if merge.before == merge.after:
            return False
        at = self._production_now()
        if not self.repository.has(merge.after) or not self.repository.is_ancestor(merge.after, at):
            return False
        if at != merge.after:
            if any(_trailer(one, UNDOES) == merge.after for one in self._line(at)):
                return True
            raise self._moved(at, merge.after)
        proposal = _trailer(self.repository.commit(merge.after), PROPOSAL) or ""
        message = (
            f"Undo the merge {merge.after[:12]}\n\nIts rows could not be committed.\n\n"
            f"{UNDOES}: {merge.after}\n{TAKEN_OUT}: {proposal}"
        )
        restored = self.repository.restore(merge.before, onto=at, message=message, author=AUTHOR, email=EMAIL)
        self._put(restored, expected=at)
        return True

    def _taken_out(self, at: str, commit: str) -> str | None:
        """A commit that brings back what an undo took out of production, when that is part of `commit`.

        The branch still descends from it, so that git alone would find nothing to merge any more.
        """
        for seen in self._line(at):
            if self._holds(commit, _trailer(seen, PROPOSAL)):
                return None  # merged again since
            if self._holds(commit, _trailer(seen, TAKEN_OUT)):
                merge = _trailer(seen, UNDOES) or ""
                message = f"Bring back the merge {merge[:12]}"
                return self.repository.restore(merge, onto=seen.id, message=message, author=AUTHOR, email=EMAIL)
        return None

    def _joined(self, at: str, again: str, commit: str) -> tuple[str, tuple[str, ...]]:
        """Production with what was taken out of it brought back and `commit` merged, or the paths that conflict."""
        first = self.repository.merge_check(at, again)
        if not first.is_clean:
            return again, first.conflicts
        back = self.repository.merge(first, message="Bring back", author=AUTHOR, email=EMAIL)
        if self.repository.is_ancestor(commit, back):
            return back, ()
        second = self.repository.merge_check(back, commit)
        if not second.is_clean:
            return back, second.conflicts
        return self.repository.merge(second, message="Bring back", author=AUTHOR, email=EMAIL), ()

    def _line(self, at: str) -> list[Commit]:
        """Production's own commits, the newest first: what tenants wrote hangs off it as second parents."""
        known = {one.id: one for one in self.repository.log(at, limit=LOOKED_AT)}
        line: list[Commit] = []
        while at in known and len(line) < LOOKED_AT:
            line.append(known[at])
            at = known[at].parents[0] if known[at].parents else ""
        return line

    def _holds(self, commit: str, part: str | None) -> bool:
        if not part or not self.repository.has(part):
            return False
        return part == commit or self.repository.is_ancestor(part, commit)

    def is_in_production(self, commit: str) -> bool:
        """Merged, or (squashed, picked) with nothing left that a merge would add; what was taken out again is not."""
        at = self._production_now()
        if not self.repository.has(commit) or self._taken_out(at, commit) is not None:
            return False
        return self.repository.holds(commit, at=at)

    def _production_now(self) -> str:
        at = self.repository.fetch(branch=self.production)
        if at is None:
            raise UnknownRevision(f"The company's repository has no branch {self.production}.")
        return at

    def _put(self, commit: str, *, expected: str) -> None:
        self.repository.push(commit, branch=self.production, expected=expected, credential="merge")
        try:
            self.repository.move_branch(self.production, expected=expected, to=commit)
        except BranchMoved:
            # Somebody fetched it meanwhile: the push decided, this is only our copy of where it stands.
            now = self.repository.branch(self.production)
            if now is None or not self.repository.is_ancestor(commit, now):
                raise

    def _text(self, commit: str, path: str) -> str:
        content = self.repository.read(commit, path, bytes_max=MIGRATION_BYTES_MAX + 1)
        return content.decode("utf-8", "replace")

    def _moved(self, at: str, expected: str) -> BranchMoved:
        return BranchMoved(
            f"{self.production} is at {at[:12]}, the review saw it at {expected[:12]}.",
            effect="Nothing was merged.",
            next_step="Look at what changed and check the change again.",
        )


def _trailer(commit: Commit, name: str) -> str | None:
    """What a line `Name: …` at the end of one of our own messages says."""
    start = f"{name}: "
    return next((line[len(start) :].strip() for line in commit.body.splitlines() if line.startswith(start)), None)
