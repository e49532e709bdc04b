"""A person may merge a tenant's branch on the company's own forge: that is noticed here, and the change says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from orchestrator import logs
from orchestrator.core.actors import system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.changes import OPEN, Change, ChangeStateConflict, next_state
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.code import CodeSide
from orchestrator.core.ports.git import Repository
from orchestrator.core.promotions import PromotionKind, PromotionRunning, PromotionState
from orchestrator.errors import OutsideFailure
from orchestrator.parts.proposal import migrations_of
from orchestrator.store import changes, promotions
from orchestrator.store.session import advisory_lock

LOG = logs.get("merged")
FORGE = system("the company's repository")
NOTED = "change.code_merged"
LOOKED_AT = 500  # open changes in one round


@dataclass(frozen=True)
class MergedFlow:
    """`seen` remembers, for this process, where production stood when a change was last looked at."""

    store: Engine
    audit: AuditLog
    code: CodeSide
    repository: Repository
    production: str
    seen: dict[str, str] = field(default_factory=dict)

    def run(self) -> list[str]:
        """Fetch production's branch and look whether it holds what open changes propose; says what was noticed.

        A remote that does not answer is no failure of this: the next round looks again.
        """
        try:
            at = self.repository.fetch(branch=self.production)
        except OutsideFailure as error:
            LOG.warning("merged.remote_away", code=error.code, reason=error.message)
            return []
        if at is None:
            return []
        with self.store.connect() as connection:
            waiting = changes.listed(connection, states=tuple(OPEN), limit=LOOKED_AT)
        open_ids = {change.id for change in waiting}
        for gone in self.seen.keys() - open_ids:
            del self.seen[gone]
        said: list[str] = []
        for change in waiting:
            if change.code_head is None or self.seen.get(change.id) == f"{at} {change.code_head}":
                continue
            if self.code.is_in_production(change.code_head):
                noticed = self._noticed(change, at)
                if noticed is None:
                    continue
                said += noticed
            self.seen[change.id] = f"{at} {change.code_head}"
        return said

    def _noticed(self, change: Change, at: str) -> list[str] | None:
        """Code alone: the change is done. With rows it stays what it is, and says that only they are left.

        None when somebody else is at the change: the next round sees what they made of it.
        """
        with self._alone(change) as taken:
            if not taken:
                return None
            try:
                if change.has_rows or self._migrations(change):
                    return [f"change {change.id}: its code is in {self.production}"] if self._note(change, at) else []
                self._done(change, at)
            except (ChangeStateConflict, PromotionRunning):
                return None
        return [f"change {change.id}: merged into {self.production} elsewhere"]

    @contextmanager
    def _alone(self, change: Change) -> Iterator[bool]:
        """Not beside a promote, which merges first and commits the rows afterwards."""
        with advisory_lock(self.store, "promotion", change.id) as taken:
            yield taken

    def _done(self, change: Change, at: str) -> None:
        now = datetime.now(UTC)
        promotion = promotions.begin(self.store, change, PromotionKind.PROMOTE, actor=FORGE, approvers=())
        said = f"Merged into {self.production} in the company's repository, not by a promote here."
        with self.store.begin() as connection:
            done = promotions.set_state(
                connection,
                promotion.id,
                PromotionState.COMMITTED,
                code_after=at,
                report={"merged_elsewhere": at},
            )
            changes.void_approvals(connection, change.id, "merged elsewhere")
            merged = changes.save(
                connection,
                change,
                state=next_state(change.state, "merge", change.id),
                promoted_at=now,
                promotion_id=done.id,
                expires_at=None,
                reason=said,
            )
            self._tell(connection, merged, "change.merged", at)

    def _note(self, change: Change, at: str) -> bool:
        """Once for each commit; returns whether it was said now."""
        left = "its rows" if change.has_rows else ""
        unrun = self._migrations(change)
        left = " and ".join(filter(None, [left, f"the migrations {', '.join(unrun)}" if unrun else ""]))
        with self.store.begin() as connection:
            told = changes.events(connection, change_id=change.id, limit=changes.LIST_MAX)
            if any(one.kind == NOTED and one.data.get("head") == change.code_head for one in told):
                return False
            text = (
                f"The code of this change is in {self.production} already: somebody merged it in the company's "
                f"repository. What is left of it: {left}."
            )
            changes.comment(connection, change.id, FORGE, text)
            self._tell(connection, change, NOTED, at)
        return True

    def _migrations(self, change: Change) -> list[str]:
        """SQL files of the change, as last checked, that no promote has run."""
        listed = migrations_of(change)
        if not listed:
            return []
        with self.store.connect() as connection:
            ran = promotions.migrations_run(connection)
        return [one.path for one in listed if one.path not in ran]

    def _tell(self, connection: Connection, change: Change, kind: str, at: str) -> None:
        changes.event(connection, change, kind, FORGE, head=change.code_head, production=at)
        details = {"state": change.state.value, "head": change.code_head, "production": at}
        self.audit.append(AuditEvent(FORGE, kind, target=change.id, tenant=change.tenant_name, details=details))
