"""Approvals: bound to exactly what was asked for, one use, expiring, given by another person. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.texts import shown, shown_argv
from orchestrator.errors import Conflict, Denied, NotFound


class ApprovalMissing(NotFound):
    code = "not_found.approval"


class ApprovalSettled(Conflict):
    """Decided already, used, or expired."""

    code = "conflict.approval_settled"


class ApprovalUnfit(Denied):
    """The approval is not for this command: another argv, place, tenant, input, policy version; or used, or expired."""

    code = "denied.approval_unfit"


class ApproverUnfit(Denied):
    """Agents never approve, and nobody approves what they or their agent asked for."""

    code = "denied.approver"


class ApprovalKind(StrEnum):
    COMMAND = "command"
    RULE = "rule"  # a denied command somebody wants a rule for


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"


@dataclass(frozen=True)
class Approval:
    """One request in the inbox. `environment` and `argv` are exact; `shown` is what a person may look at."""

    id: str
    kind: ApprovalKind
    tenant_id: str
    tenant: str
    requester: Actor
    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    place: str
    network: str
    stdin_bytes: int
    stdin_digest: str
    binding: str
    policy_version: int
    rule: str
    reason: str
    state: ApprovalState
    decided_by_id: str | None
    decided_by: str | None
    decision_reason: str
    used_by_command: str | None
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    used_at: datetime | None

    def has_expired(self, now: datetime) -> bool:
        return self.state in (ApprovalState.PENDING, ApprovalState.APPROVED) and now >= self.expires_at

    @property
    def shown_command(self) -> str:
        return shown_argv(self.argv)

    @property
    def shown_environment(self) -> str:
        return " ".join(f"{shown(name)}={shown(value)}" for name, value in sorted(self.environment.items()))


def stdin_digest(text: str) -> str:
    """SHA-256 of the input, empty for none."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""


def binding(request: CommandRequest, *, tenant_id: str, policy_version: int) -> str:
    """A digest of everything an approval is bound to: one byte changed anywhere is another command."""
    values = [
        tenant_id,
        policy_version,
        list(request.argv),
        request.cwd,
        sorted(request.environment.items()),
        request.place,
        request.network,
        request.timeout_s,
        stdin_digest(request.stdin),
    ]
    return hashlib.sha256(json.dumps(values, ensure_ascii=True).encode()).hexdigest()


def check_approver(approval: Approval, approver: Actor) -> None:
    """Raises ApproverUnfit unless `approver` is a person who does not stand behind the request."""
    if approver.kind is not ActorKind.PERSON:
        raise ApproverUnfit("Only a person may decide on this.", effect="The request still waits.")
    if approver.principals() & approval.requester.principals():
        raise ApproverUnfit(
            "You or your agent asked for this, so another person has to decide.",
            effect="The request still waits.",
            next_step="Ask another reviewer or admin.",
        )


def check_open(approval: Approval, now: datetime) -> None:
    """Raises ApprovalSettled unless it still waits for a decision."""
    if approval.state is not ApprovalState.PENDING:
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        raise ApprovalSettled(f"This request is {approval.state.value}{by} already.")
    if approval.has_expired(now):
        raise ApprovalSettled("This request has expired.", next_step="The requester can ask again.")
