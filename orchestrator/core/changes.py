"""A change: one proposal of rows, code or both, from draft to promoted. Pure: record, states, transitions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.promotion.order import Migration
from orchestrator.errors import Conflict, Denied, InvalidInput, NotFound


class ChangeMissing(NotFound):
    code = "not_found.change"


class ChangeStateConflict(Conflict):
    """The change is in a state that does not allow this."""

    code = "conflict.change_state"


class DigestMismatch(Conflict):
    """What was looked at is not what the change holds now."""

    code = "conflict.digest"


class EmptyChange(InvalidInput):
    """Neither a row nor a line of code differs."""

    code = "invalid.empty_change"


class ChangeBlocked(Conflict):
    """The checks found something that stands in the way."""

    code = "conflict.blocked"


class ApprovalRefused(Denied):
    """This person may not approve this change: its author, an agent, or somebody who approved already."""

    code = "denied.approval"


class ApprovalExpired(Conflict):
    code = "conflict.expired"


class ChangeState(StrEnum):
    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    CONFLICTED = "conflicted"
    WITHDRAWN = "withdrawn"

    @property
    def is_open(self) -> bool:
        return self in OPEN


OPEN = frozenset({ChangeState.DRAFT, ChangeState.SUBMITTED, ChangeState.APPROVED, ChangeState.CONFLICTED})

# What may be done in which state, and where it leads. Approving counts approvals first; a rebase makes a draft again.
TRANSITIONS: Mapping[str, Mapping[ChangeState, ChangeState]] = {
    "edit": {ChangeState.DRAFT: ChangeState.DRAFT},
    "submit": {ChangeState.DRAFT: ChangeState.SUBMITTED},
    "approve": {ChangeState.SUBMITTED: ChangeState.APPROVED},
    "reject": {ChangeState.SUBMITTED: ChangeState.REJECTED, ChangeState.APPROVED: ChangeState.REJECTED},
    "request changes": {ChangeState.SUBMITTED: ChangeState.DRAFT, ChangeState.APPROVED: ChangeState.DRAFT},
    "withdraw": {state: ChangeState.WITHDRAWN for state in OPEN},
    "rebase": {state: ChangeState.DRAFT for state in OPEN},
    "check": {ChangeState.SUBMITTED: ChangeState.SUBMITTED, ChangeState.APPROVED: ChangeState.APPROVED},
    "promote": {ChangeState.APPROVED: ChangeState.PROMOTED},
    "merge": {state: ChangeState.PROMOTED for state in OPEN},  # by a person, in the company's repository
    "conflict": {ChangeState.APPROVED: ChangeState.CONFLICTED},
    "lapse": {ChangeState.APPROVED: ChangeState.SUBMITTED},
    "expire": {ChangeState.SUBMITTED: ChangeState.WITHDRAWN},
    "revert": {ChangeState.PROMOTED: ChangeState.PROMOTED},
}


def next_state(state: ChangeState, verb: str, change_id: str) -> ChangeState:
    """Where `verb` leads from `state`. Raises ChangeStateConflict."""
    allowed = TRANSITIONS[verb]
    if state not in allowed:
        raise ChangeStateConflict(
            f"Change {change_id} is {state.value}.",
            effect=f"It cannot be done: {verb}.",
            next_step=f"This is possible while it is {' or '.join(one.value for one in allowed)}.",
            change=change_id,
            state=state.value,
        )
    return allowed[state]


@dataclass(frozen=True)
class Counts:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class Change:
    """One row of the changes table, without its changeset. `version` grows with every write and guards the next one.

    `digest` names everything a review is bound to: the rows' digest, the commit and the migrations.
    """

    id: str
    tenant_id: str
    tenant_name: str
    title: str
    description: str
    state: ChangeState
    author: Actor
    base_snapshot_id: str
    generation_id: str | None
    rows_digest: str
    digest: str
    counts: Counts
    tables: tuple[str, ...]
    code_head: str | None
    checks: Mapping[str, Any]
    risks: tuple[Mapping[str, Any], ...]
    approvals_needed: int
    version: int
    created_at: datetime
    updated_at: datetime
    submitted_at: datetime | None = None
    approved_at: datetime | None = None
    expires_at: datetime | None = None
    promoted_at: datetime | None = None
    promotion_id: str | None = None
    reverted_at: datetime | None = None
    reason: str = ""

    @property
    def blocking(self) -> int:
        """How many findings of the last checks stand in the way."""
        return sum(int(check.get("blocking", 0)) for check in self.checks.values() if isinstance(check, Mapping))

    @property
    def has_rows(self) -> bool:
        return self.counts.total > 0

    @property
    def has_code(self) -> bool:
        return self.code_head is not None


@dataclass(frozen=True)
class Comment:
    id: str
    change_id: str
    author: Actor
    at: datetime
    text: str
    row: str = ""


@dataclass(frozen=True)
class ChangeApproval:
    """One person's word on one digest. `void_reason` is set once the change is another one."""

    id: str
    change_id: str
    actor: Actor
    digest: str
    at: datetime
    expires_at: datetime
    void_reason: str = ""

    @property
    def is_void(self) -> bool:
        return bool(self.void_reason)


@dataclass(frozen=True)
class ChangeEvent:
    """What happened to a change, in order."""

    number: int
    change_id: str
    kind: str
    actor: Actor
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)


def review_digest(rows_digest: str, code_head: str | None, migrations: Sequence[Migration] = ()) -> str:
    """One name for everything a reviewer agrees to. 64 hexadecimal digits."""
    parts = ["change/1", rows_digest, code_head or ""]
    parts += [f"{item.path}\0{item.digest()}" for item in sorted(migrations, key=lambda item: item.path)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_digest(change: Change, seen: str | None) -> None:
    """Refuse a decision on something that was looked at in another form. Raises DigestMismatch.

    At least twelve digits of what was seen must be given, or None to decide without having looked.
    """
    if seen is None:
        return
    if len(seen) < 12 or not change.digest.startswith(seen):
        raise DigestMismatch(
            f"Change {change.id} is not the one that was looked at any more.",
            effect="Nothing was decided.",
            next_step="Look at it again, then decide.",
            digest=change.digest,
        )


def check_approver(change: Change, approver: Actor, given: Sequence[ChangeApproval]) -> None:
    """Four eyes: never an agent, never the author or whoever stands behind the author, never twice.

    Raises ApprovalRefused.
    """
    if approver.kind is not ActorKind.PERSON:
        raise _refused("Only people approve changes; agents and programs never do.")
    if approver.principals() & change.author.principals():
        raise _refused("Nobody approves a change of their own, nor one their agent made.")
    for approval in given:
        if not approval.is_void and approval.actor.principals() & approver.principals():
            raise _refused(f"{approver.name} has approved this already; another person is needed.")


def _refused(message: str) -> ApprovalRefused:
    return ApprovalRefused(message, effect="The change stays as it is.", next_step="Ask another reviewer.")


def standing_approvals(
    change: Change, approvals: Sequence[ChangeApproval], now: datetime
) -> tuple[ChangeApproval, ...]:
    """Approvals that count: for exactly this digest, not void, not expired, one per person."""
    found: list[ChangeApproval] = []
    for approval in approvals:
        if approval.is_void or approval.digest != change.digest or approval.expires_at <= now:
            continue
        if not any(approval.actor.principals() & other.actor.principals() for other in found):
            found.append(approval)
    return tuple(found)
