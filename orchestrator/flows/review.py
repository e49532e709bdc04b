"""What people decide about a submitted change: comment, approve, reject, ask for changes, withdraw, let lapse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from orchestrator.core.actors import Actor, system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.changes import (
    Change,
    ChangeBlocked,
    ChangeState,
    Comment,
    check_approver,
    check_digest,
    next_state,
    standing_approvals,
)
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.promotion.rules import PromotionRules
from orchestrator.errors import Denied, InvalidInput
from orchestrator.store import changes as store

COMMENT_MAX = 10_000
EXPIRY_BATCH = 500


class EmptyComment(InvalidInput):
    code = "invalid.comment"


class NotYours(Denied):
    """Only the author, or a reviewer, may do this."""

    code = "denied.not_author"


@dataclass(frozen=True)
class ReviewFlow:
    store: Engine
    audit: AuditLog
    rules: Callable[[], PromotionRules]
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def comment(self, change_id: str, *, actor: Actor, text: str, row: str = "") -> Comment:
        """Say something about a change or one of its rows."""
        text = text.strip()[:COMMENT_MAX]
        if not text:
            raise EmptyComment("A comment needs words.", next_step="Write something, then send it.")
        with self.store.begin() as connection:
            change = store.get(connection, change_id)
            said = store.comment(connection, change_id, actor, text, row=row)
            self._tell(connection, change, "change.commented", actor, comment=said.id)
        return said

    def approve(self, change_id: str, *, actor: Actor, digest: str | None = None, note: str = "") -> Change:
        """One person's consent to exactly this digest; approved when enough people have given it.

        Raises ApprovalRefused, DigestMismatch, ChangeBlocked or ChangeStateConflict.
        """
        with self.store.begin() as connection:
            change = store.get(connection, change_id, for_update=True)
            next_state(change.state, "approve", change.id)
            check_digest(change, digest)
            given = store.approvals(connection, change_id)
            check_approver(change, actor, [item for item in given if item.digest == change.digest])
            if change.blocking:
                raise ChangeBlocked(
                    f"{change.blocking} findings stand in the way of change {change.id}.",
                    effect="It was not approved.",
                    next_step="Look at the checks; rebase it or ask for changes.",
                )
            now = self.now()
            expires = now + timedelta(days=self.rules().expiry.approved_days)
            approval = store.approve(connection, change, actor, expires_at=expires)
            if note.strip():
                store.comment(connection, change_id, actor, note.strip()[:COMMENT_MAX])
            standing = standing_approvals(change, [*given, approval], now)
            if len(standing) >= change.approvals_needed:
                change = store.save(
                    connection,
                    change,
                    state=ChangeState.APPROVED,
                    approved_at=now,
                    expires_at=min(item.expires_at for item in standing),
                )
            self._tell(
                connection,
                change,
                "change.approved",
                actor,
                digest=change.digest,
                approvals=len(standing),
                needed=change.approvals_needed,
            )
        return change

    def reject(self, change_id: str, *, actor: Actor, reason: str, digest: str | None = None) -> Change:
        """Say no for good. Agents never decide."""
        return self._decide(change_id, "reject", "change.rejected", actor, reason, digest)

    def request_changes(self, change_id: str, *, actor: Actor, reason: str, digest: str | None = None) -> Change:
        """Hand it back to its author as a draft; approvals are void."""
        return self._decide(change_id, "request changes", "change.returned", actor, reason, digest)

    def _decide(self, change_id: str, verb: str, kind: str, actor: Actor, reason: str, digest: str | None) -> Change:
        if actor.is_agent:
            raise NotYours("Only people decide about changes.", effect="The change stays as it is.")
        with self.store.begin() as connection:
            change = store.get(connection, change_id, for_update=True)
            state = next_state(change.state, verb, change.id)
            check_digest(change, digest)
            store.void_approvals(connection, change_id, reason[:200] or verb)
            said = reason.strip()[:COMMENT_MAX]
            if said:
                store.comment(connection, change_id, actor, said)
            change = store.save(connection, change, state=state, reason=said[:1000], approved_at=None, expires_at=None)
            self._tell(connection, change, kind, actor, reason=said[:500])
        return change

    def withdraw(self, change_id: str, *, actor: Actor, reason: str = "", any_author: bool = False) -> Change:
        """Take it back; its author or somebody standing behind them, or a reviewer (`any_author`)."""
        with self.store.begin() as connection:
            change = store.get(connection, change_id, for_update=True)
            state = next_state(change.state, "withdraw", change.id)
            if not any_author and not actor.principals() & change.author.principals():
                raise NotYours(
                    f"Change {change.id} is {change.author.name}'s.",
                    effect="It was not withdrawn.",
                    next_step="Ask its author, or reject it as a reviewer.",
                )
            store.void_approvals(connection, change_id, "withdrawn")
            change = store.save(connection, change, state=state, reason=reason.strip()[:1000], expires_at=None)
            self._tell(connection, change, "change.withdrawn", actor, reason=reason.strip()[:500])
        return change

    def expire(self) -> list[Change]:
        """Let lapse what waited too long: unused approvals back to submitted, old submissions withdrawn."""
        now, clock, lapsed = self.now(), system("scheduler"), []
        with self.store.connect() as connection:
            waiting = store.listed(connection, states=(ChangeState.SUBMITTED, ChangeState.APPROVED), limit=EXPIRY_BATCH)
        for seen in waiting:
            if seen.expires_at is None or seen.expires_at > now:
                continue
            with self.store.begin() as connection:
                change = store.get(connection, seen.id, for_update=True)
                if change.version != seen.version:
                    continue
                lapsed.append(self._lapse(connection, change, clock, now))
        return lapsed

    def _lapse(self, connection: Connection, change: Change, clock: Actor, now: datetime) -> Change:
        verb = "lapse" if change.state is ChangeState.APPROVED else "expire"
        state = next_state(change.state, verb, change.id)
        store.void_approvals(connection, change.id, "expired")
        expires = now + timedelta(days=self.rules().expiry.submitted_days) if verb == "lapse" else None
        reason = "its approval was not used in time" if verb == "lapse" else "nobody decided about it in time"
        change = store.save(connection, change, state=state, approved_at=None, expires_at=expires, reason=reason)
        self._tell(connection, change, "change.expired", clock, reason=reason)
        return change

    def _tell(self, connection: Connection, change: Change, kind: str, actor: Actor, **data: Any) -> None:
        store.event(connection, change, kind, actor, **data)
        self.audit.append(
            AuditEvent(
                actor,
                kind,
                target=change.id,
                tenant=change.tenant_name,
                details={"state": change.state.value, "digest": change.digest, **data},
            )
        )
