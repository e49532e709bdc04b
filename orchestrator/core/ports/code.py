"""The code half of a change, as the change and promote flows need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.core.promotion.order import Migration


@dataclass(frozen=True)
class CodeCheck:
    """What a review of code is bound to.

    `head` is the proposed commit, `production` where the production branch stood, `migrations` the SQL files the
    change adds, in path order. `conflicts` names paths that do not merge.
    """

    head: str
    production: str
    merge_base: str
    files: tuple[dict[str, Any], ...] = ()
    conflicts: tuple[str, ...] = ()
    migrations: tuple[Migration, ...] = ()
    is_merged: bool = False  # production already holds the commit (merged by hand elsewhere)

    @property
    def is_clean(self) -> bool:
        return not self.conflicts

    def document(self) -> dict[str, Any]:
        return {
            "head": self.head,
            "production": self.production,
            "merge_base": self.merge_base,
            "files": list(self.files),
            "conflicts": list(self.conflicts),
            "migrations": [{"path": item.path, "text": item.text} for item in self.migrations],
            "is_merged": self.is_merged,
        }


@dataclass(frozen=True)
class CodeMerge:
    """A production branch that moved: `before` → `after`, so that it can be moved back."""

    before: str
    after: str


class CodeSide(Protocol):
    """Git seen from a change. Raises the errors of `core.ports.git`."""

    def head(self, tenant_name: str) -> str | None:
        """The commit the tenant's branch was last published at; None when there is nothing to propose."""
        ...

    def is_in_production(self, commit: str) -> bool:
        """Whether the production branch, as it is now, holds `commit`, whoever brought it there and how."""
        ...

    def check(self, tenant_name: str, commit: str) -> CodeCheck:
        """Compare `commit` with the production branch now, without a work tree."""
        ...

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
        """Merge and move the production branch by compare-and-swap from `expected`. Safe to run again.

        `about_to` is told where the branch goes before it is moved, and not called when production has the commit.
        Raises BranchMoved, PushRefused or RemoteUnreachable; the branch has not moved then, unless the answer of a
        push was lost: `undo` knows.
        """
        ...

    def undo(self, merge: CodeMerge) -> bool:
        """Take the merge back if the branch stands where it left it; False when it never arrived there.

        Safe to run again. Raises BranchMoved when others have built on it since.
        """
        ...
