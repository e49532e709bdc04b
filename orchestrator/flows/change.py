"""From what differs in a sandbox to a submitted change, and back to a draft on newer data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from orchestrator.core.actors import Actor, ActorKind, system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.changes import (
    Change,
    ChangeBlocked,
    ChangeState,
    EmptyChange,
    next_state,
    review_digest,
)
from orchestrator.core.changeset.carry import RowConflict, carry, keys_needed
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.risks import Risk, Severity
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.differ import DiffResult
from orchestrator.core.promotion.guard import Examined, approvals_needed, may_pass_alone
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Conflict, InvalidInput
from orchestrator.parts.checking import Checked, Checks
from orchestrator.store import changes as store

TITLE_MAX = 200
TEXT_MAX = 20_000


class NothingNewer(Conflict):
    """The change stands on the newest snapshot already."""

    code = "conflict.nothing_newer"


@dataclass(frozen=True)
class Preview:
    """What a submission would hold, with what the rules say about it. Nothing is stored."""

    result: DiffResult
    examined: Examined
    risks: tuple[Risk, ...]


@dataclass(frozen=True)
class Rebased:
    """The draft on the newest snapshot, and the rows that could not be carried over."""

    change: Change
    conflicts: tuple[RowConflict, ...]
    done: int


@dataclass(frozen=True)
class ChangeFlow:
    store: Engine
    audit: AuditLog
    checks: Checks
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    at: Callable[[str], None] = field(default=lambda _: None)

    def diff(self, tenant: Tenant) -> Preview:
        """What the tenant's database holds that its snapshot does not. Raises DiffFailed, DatabaseBusy."""
        generation = self.checks.differences.live(tenant)
        result = self.checks.differences.of(tenant, generation)
        return Preview(result, self.checks.examine(result.changeset, tenant), self._risks(result.changeset))

    def draft(
        self,
        tenant: Tenant,
        *,
        actor: Actor,
        title: str,
        description: str = "",
        tables: Collection[TableName] = (),
        rows: Collection[str] = (),
        code: bool = True,
    ) -> Change:
        """Keep what differs now (only `tables` or `rows` when given), and the branch's published head.

        Raises EmptyChange when neither a row nor the code differs.
        """
        generation = self.checks.differences.live(tenant)
        changeset = self.checks.differences.of(tenant, generation).changeset
        changeset = self._chosen(changeset, tenant, tables, rows)
        head = self.checks.code.head(tenant.name) if code and self.checks.code else None
        if changeset.is_empty and head is None:
            raise EmptyChange(
                f"Nothing in {tenant.name} differs from its snapshot or from production's code.",
                effect="No change was made.",
                next_step="Change something in the sandbox first; code counts once its branch is published.",
            )
        with self.store.begin() as connection:
            made = store.add(
                connection,
                tenant_id=tenant.id,
                tenant_name=tenant.name,
                title=_one_line(title),
                description=description[:TEXT_MAX],
                author=actor,
                generation_id=generation.id,
                changeset=changeset.without_notes(),
                digest=review_digest(changeset.digest(), head),
                code_head=head,
            )
            self._tell(connection, made, "change.drafted", actor, rows=made.counts.total)
        return made

    def _chosen(
        self, changeset: Changeset, tenant: Tenant, tables: Collection[TableName], rows: Collection[str]
    ) -> Changeset:
        """Rows production writes by itself are left out; then only what was asked for."""
        kept = self.checks.examine(changeset, tenant).changeset
        if tables:
            kept = kept.keep([row.id() for row in kept.rows if row.table in tables])
        return kept.keep(rows) if rows else kept

    def submit(self, change_id: str, tenant: Tenant, *, actor: Actor) -> Change:
        """Check a draft and hand it to the reviewers.

        Raises ChangeBlocked, with every finding, when a check stands in the way: the draft then keeps the findings.
        """
        change, changeset = self._load(change_id)
        next_state(change.state, "submit", change.id)
        if changeset.is_empty and change.code_head is None:
            raise EmptyChange("The change holds neither rows nor code.", effect="It stays a draft.")
        checked = self.checks.run(changeset, tenant, change.code_head)
        self.at("checked")
        risks = self._risks(changeset)
        values = self._reviewed(change, changeset, checked, risks)
        if checked.blocking:
            with self.store.begin() as connection:
                kept = store.save(connection, change, checks=dict(checked.documents), risks=values["risks"])
                self._tell(connection, kept, "change.blocked", actor, blocking=checked.blocking)
            raise blocked(change, checked.findings(), checked.blocking)
        expiry = self.checks.proposals.rules().expiry
        now = self.now()
        values |= {
            "state": ChangeState.SUBMITTED,
            "submitted_at": now,
            "expires_at": now + timedelta(days=expiry.submitted_days),
            "reason": "",
        }
        if change.author.kind is ActorKind.SYSTEM:
            # A draft the product saved: whoever proposes it answers for it, and is not the one to approve it.
            values["author"] = store.actor_document(actor)
        with self.store.begin() as connection:
            submitted = store.save(connection, change, **values)
            self._tell(connection, submitted, "change.submitted", actor, digest=submitted.digest)
            alone = {risk.kind.value for risk in risks if risk.severity is not Severity.NOTICE}
            if may_pass_alone(self.checks.proposals.rules(), changeset, risks=alone, has_code=submitted.has_code):
                submitted = self._approved_by_rules(connection, submitted)
        return submitted

    def _approved_by_rules(self, connection: Connection, change: Change) -> Change:
        now = self.now()
        expires = now + timedelta(days=self.checks.proposals.rules().expiry.approved_days)
        rules = system("promotion rules")
        store.approve(connection, change, rules, expires_at=expires)
        approved = store.save(
            connection, change, state=ChangeState.APPROVED, approved_at=now, expires_at=expires, approvals_needed=1
        )
        self._tell(connection, approved, "change.approved", rules, by="auto_approval of the promotion rules")
        return approved

    def check(self, change_id: str, tenant: Tenant, *, actor: Actor) -> Change:
        """Make every check again beside production as it is now; approvals stand while the digest does."""
        change, changeset = self._load(change_id)
        if change.state is not ChangeState.DRAFT:
            next_state(change.state, "check", change.id)
        checked = self.checks.run(changeset, tenant, change.code_head)
        values = self._reviewed(change, changeset, checked, self._risks(changeset))
        with self.store.begin() as connection:
            if values["digest"] != change.digest:
                store.void_approvals(connection, change.id, "the code or a migration is another one")
            saved = store.save(connection, change, **values)
            self._tell(connection, saved, "change.checked", actor, blocking=checked.blocking)
        return saved

    def _reviewed(
        self, change: Change, changeset: Changeset, checked: Checked, risks: tuple[Risk, ...]
    ) -> dict[str, Any]:
        migrations = checked.code.migrations if checked.code else ()
        needed = approvals_needed(
            self.checks.proposals.rules(),
            rows=len(changeset),
            risks={risk.kind.value for risk in risks if risk.severity is not Severity.NOTICE},
            has_code=change.has_code,
            has_migrations=bool(migrations),
        )
        return {
            "checks": dict(checked.documents),
            "risks": [_risk_document(risk) for risk in risks],
            "approvals_needed": needed,
            "digest": review_digest(changeset.digest(), change.code_head, migrations),
        }

    def rebase(self, change_id: str, tenant: Tenant, *, actor: Actor) -> Rebased:
        """Move the change onto the newest snapshot: it becomes a draft again, without the rows that conflict there.

        Raises NothingNewer when there is none.
        """
        change, changeset = self._load(change_id)
        state = next_state(change.state, "rebase", change.id)
        newest = self.checks.differences.newest(tenant.snapshot_profile)
        if newest is None or (newest.id == changeset.base_snapshot_id and change.state is not ChangeState.CONFLICTED):
            raise NothingNewer(
                f"Change {change.id} stands on the newest snapshot.",
                effect="It stays as it is.",
                next_step="Wait for the next snapshot, or have an admin take one: `orchestrator snapshot take`.",
            )
        with self.checks.differences.base(newest) as dsn:
            now = self.checks.at(dsn).read(keys_needed(changeset))
        carried = carry(changeset, now, new_base_id=newest.id)
        head = self.checks.code.head(tenant.name) if change.has_code and self.checks.code else change.code_head
        with self.store.begin() as connection:
            moved = store.save_rows(
                connection,
                change,
                carried.changeset,
                state=state,
                digest=review_digest(carried.changeset.digest(), head),
                code_head=head,
                checks={"rebase": rebase_document(carried.conflicts)},
                approved_at=None,
                submitted_at=None,
                expires_at=None,
                reason="",
            )
            self._tell(
                connection,
                moved,
                "change.rebased",
                actor,
                snapshot=newest.id,
                conflicts=len(carried.conflicts),
                done=len(carried.done),
            )
        return Rebased(moved, carried.conflicts, len(carried.done))

    def choose(self, change_id: str, *, actor: Actor, rows: Collection[str]) -> Change:
        """Keep only these rows of a draft."""
        change, changeset = self._load(change_id)
        next_state(change.state, "edit", change.id)
        kept = changeset.keep(rows)
        with self.store.begin() as connection:
            digest = review_digest(kept.digest(), change.code_head)
            saved = store.save_rows(connection, change, kept, digest=digest, checks={})
            self._tell(connection, saved, "change.edited", actor, rows=len(kept))
        return saved

    def leave_out(self, change_id: str, *, actor: Actor, rows: Collection[str]) -> Change:
        """Let a draft go of these rows; they stay in the tenant's database. Raises InvalidInput for one it lacks."""
        _, changeset = self._load(change_id)
        held = [row.id() for row in changeset.rows]
        unknown = sorted(set(rows) - set(held))
        if unknown or not rows:
            what = f"Change {change_id} holds no row {ascii(unknown[0])[:40]}." if unknown else "No row was chosen."
            raise InvalidInput(what, effect="The draft stays as it is.", next_step="Name rows by their ids.")
        return self.choose(change_id, actor=actor, rows=[row for row in held if row not in set(rows)])

    def describe(self, change_id: str, *, actor: Actor, title: str, description: str) -> Change:
        """Give a draft another title and text."""
        change, _ = self._load(change_id)
        next_state(change.state, "edit", change.id)
        with self.store.begin() as connection:
            saved = store.save(connection, change, title=_one_line(title), description=description[:TEXT_MAX])
            self._tell(connection, saved, "change.edited", actor)
        return saved

    def _load(self, change_id: str) -> tuple[Change, Changeset]:
        with self.store.connect() as connection:
            return store.get(connection, change_id), store.changeset(connection, change_id)

    def _risks(self, changeset: Changeset) -> tuple[Risk, ...]:
        differences = self.checks.differences
        snapshot = differences.snapshot(changeset.base_snapshot_id)
        masked = differences.masked(changeset.base_snapshot_id)
        return self.checks.proposals.risks(changeset, masked, snapshot.taken_at)

    def _tell(self, connection: Connection, change: Change, kind: str, actor: Actor, **data: Any) -> None:
        """Event and audit record in the transaction: where the audit fails, nothing happens."""
        store.event(connection, change, kind, actor, **data)
        self.audit.append(
            AuditEvent(
                actor,
                kind,
                target=change.id,
                tenant=change.tenant_name,
                details={"state": change.state.value, "rows_digest": change.rows_digest, **data},
            )
        )


def blocked(change: Change, findings: list[Mapping[str, Any]], count: int) -> ChangeBlocked:
    """Names the first finding and carries them all."""
    first = str(findings[0]["message"]) if findings else "a check failed"
    place = " ".join(str(findings[0][name]) for name in ("table", "key") if findings and findings[0].get(name))
    return ChangeBlocked(
        f"{count} finding{'s' if count != 1 else ''} in the way: {f'{place}: ' if place else ''}{first}",
        effect=f"Change {change.id} stays {change.state.value}.",
        next_step=f"`orchestrator change show {change.id}` lists them all.",
        change=change.id,
        findings=findings,
    )


def rebase_document(conflicts: Collection[RowConflict]) -> dict[str, Any]:
    return {
        "blocking": 0,
        "told": len(conflicts),
        "findings": [
            {
                "code": "rebase_conflict",
                "message": str(conflict),
                "table": str(conflict.row.table),
                "row": conflict.row.id(),
                "key": ", ".join(str(cell) for cell in conflict.row.key),
                "column": ", ".join(cell.column for cell in conflict.cells),
                "was": _text(conflict, "base"),
                "wanted": _text(conflict, "proposed"),
                "now": _text(conflict, "now"),
                "blocks": False,
            }
            for conflict in list(conflicts)[:200]
        ],
    }


def _text(conflict: RowConflict, side: str) -> str | None:
    cells = [getattr(cell, side) for cell in conflict.cells]
    return None if not cells else ", ".join("NULL" if cell is None else str(cell)[:200] for cell in cells)


def _risk_document(risk: Risk) -> dict[str, Any]:
    return {
        "kind": risk.kind.value,
        "severity": risk.severity.value,
        "sentence": risk.sentence,
        "table": str(risk.table) if risk.table else "",
        "rows": risk.rows,
    }


def _one_line(title: str) -> str:
    text = " ".join(title.split())[:TITLE_MAX]
    return text or "Untitled change"
