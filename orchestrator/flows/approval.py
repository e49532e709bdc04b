"""The inbox: requests for one run of a command, and requests for a rule. People decide, never about their own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor
from orchestrator.core.allowlist.draft import draft
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.core.approvals import Approval, ApprovalKind, ApprovalState, check_approver, check_open
from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Conflict
from orchestrator.parts.policy import PolicyPart
from orchestrator.store import approvals

LOG = logs.get("approval")


class NothingToAsk(Conflict):
    """The command is allowed already, or needs no rule but an approval."""

    code = "conflict.nothing_to_ask"


@dataclass(frozen=True)
class ApprovalFlow:
    """`lifetime_s` is how long a request waits, and how long an approval can be used."""

    store: Engine
    audit: AuditLog
    policies: PolicyPart
    lifetime_s: float = 86_400.0
    rule_lifetime_s: float = 30 * 86_400.0

    def listed(
        self, *, state: ApprovalState | None = None, tenant_ids: frozenset[str] | None = None, limit: int = 200
    ) -> list[Approval]:
        """Newest first; `tenant_ids` limits to those the caller may see."""
        return approvals.listed(self.store, state=state, tenant_ids=tenant_ids, limit=limit)

    def get(self, approval_id: str) -> Approval:
        """Raises ApprovalMissing."""
        return approvals.get(self.store, approval_id)

    def ask_rule(
        self, tenant: Tenant, request: CommandRequest, *, actor: Actor, reason: str, request_id: str = ""
    ) -> Approval:
        """Put a denied command before the admins. Raises NothingToAsk when it would not be denied."""
        policy = self.policies.in_force()
        decided = policy.gate(tenant).decide(request)
        if decided.decision is not Decision.DENY:
            raise NothingToAsk(
                f"This command is not denied: {decided.decision.value} by {decided.rule}.",
                next_step="Run it with `orchestrator command run`.",
            )
        with self.store.begin() as connection:
            asked, is_new = approvals.ask(
                connection,
                kind=ApprovalKind.RULE,
                tenant=tenant,
                actor=actor,
                request=request,
                binding=_rule_binding(tenant, request),
                policy_version=policy.version.number,
                rule=decided.rule,
                reason=reason,
                lifetime_s=self.rule_lifetime_s,
            )
            if is_new:
                self.audit.append(_event("approval.ask", asked, actor, request_id, reason))
        return asked

    def approve(self, approval_id: str, *, actor: Actor, reason: str = "", request_id: str = "") -> Approval:
        """Let the requester run exactly this once. Raises ApproverUnfit, ApprovalSettled.

        A request for a rule that is approved is only marked so; the rule itself is made by editing the allowlist.
        """
        return self._decide(approval_id, ApprovalState.APPROVED, actor, reason, request_id)

    def deny(self, approval_id: str, *, actor: Actor, reason: str = "", request_id: str = "") -> Approval:
        """Raises ApproverUnfit, ApprovalSettled."""
        return self._decide(approval_id, ApprovalState.DENIED, actor, reason, request_id)

    def rule_draft(self, approval_id: str, tenant: Tenant) -> str:
        """YAML of the narrowest rule for what was asked, to be put into the allowlist by an admin."""
        asked = approvals.get(self.store, approval_id)
        request = CommandRequest(argv=asked.argv, cwd=asked.cwd, environment=asked.environment)
        gate = self.policies.in_force().gate(tenant)
        return draft(gate, request, reason=asked.reason, tenant=tenant.name)

    def _decide(self, approval_id: str, state: ApprovalState, actor: Actor, reason: str, request_id: str) -> Approval:
        asked = approvals.get(self.store, approval_id)
        check_open(asked, datetime.now(UTC))
        check_approver(asked, actor)
        verb = "approve" if state is ApprovalState.APPROVED else "deny"
        with self.store.begin() as connection:
            decided = approvals.decide(
                connection, approval_id, state=state, by=actor, reason=reason, lifetime_s=self.lifetime_s
            )
            # Within the transaction: a decision that cannot be recorded is not made.
            self.audit.append(_event(f"approval.{verb}", decided, actor, request_id, reason))
        LOG.info("approval.decided", approval=approval_id, state=state.value, by=actor.name)
        return decided


def _rule_binding(tenant: Tenant, request: CommandRequest) -> str:
    return hashlib.sha256(json.dumps([tenant.id, list(request.argv), request.cwd]).encode()).hexdigest()


def _event(action: str, asked: Approval, actor: Actor, request_id: str, reason: str) -> AuditEvent:
    return AuditEvent(
        actor=actor,
        action=action,
        tenant=asked.tenant,
        target=asked.shown_command,
        request_id=request_id,
        rule=asked.rule,
        policy_version=asked.policy_version,
        approval=asked.id,
        approver=asked.decided_by or "",
        result=Result.OK,
        details={"kind": asked.kind.value, "reason": reason, "requester": asked.requester.id, "argv": list(asked.argv)},
    )
