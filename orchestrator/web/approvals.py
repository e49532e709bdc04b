"""The inbox of approvals: exactly what would run, who asks and why, and a decision by somebody else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.api.problems import reference_of
from orchestrator.core.access import Scope
from orchestrator.core.approvals import Approval, ApprovalMissing, ApprovalState
from orchestrator.core.tenants import TenantMissing
from orchestrator.store import tenants
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/approvals", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.APPROVALS_DECIDE)]
Decider = Annotated[Visit, acting(Scope.APPROVALS_DECIDE)]
SHOWN_MAX = 200


@router.get("")
def inbox(visit: Reader, state: Annotated[str, Query(max_length=20)] = "pending") -> Response:
    """What waits, or what was decided; newest first."""
    wanted = ApprovalState(state) if state in set(ApprovalState) else None
    found = visit.services.approvals.listed(state=wanted, tenant_ids=visit.who.tenant_ids, limit=SHOWN_MAX)
    return visit.show(
        "approvals/list.html",
        approvals=found,
        state=wanted.value if wanted else "",
        states=[one.value for one in ApprovalState],
        now=datetime.now(UTC),
        shown_max=SHOWN_MAX,
    )


@router.get("/{approval_id}")
def show(approval_id: str, visit: Reader) -> Response:
    """One request, with everything the approval would be bound to."""
    approval = _visible(visit, approval_id)
    now = datetime.now(UTC)
    return visit.show(
        "approvals/show.html",
        approval=approval,
        is_open=approval.state is ApprovalState.PENDING and not approval.has_expired(now),
        has_expired=approval.has_expired(now),
        is_own=bool(approval.requester.principals() & visit.who.actor.principals()),
        draft=_draft(visit, approval) if approval.kind == "rule" else "",
    )


def _draft(visit: Visit, approval: Approval) -> str:
    """The narrowest rule for it; empty when its tenant is gone."""
    try:
        return visit.services.approvals.rule_draft(approval.id, tenants.get(visit.services.store, approval.tenant_id))
    except TenantMissing:
        return ""


@router.post("/{approval_id}/approve")
def approve(approval_id: str, visit: Decider) -> Response:
    found = _visible(visit, approval_id)
    decided = visit.services.approvals.approve(
        found.id, actor=visit.who.actor, reason=_reason(visit), request_id=reference_of(visit.request)
    )
    if decided.kind == "rule":
        return visit.go(f"/approvals/{found.id}", "Marked as approved. Now put the rule into the allowlist.")
    return visit.go("/approvals", f"Approved: {decided.requester.name} may run exactly this, once.")


@router.post("/{approval_id}/deny")
def deny(approval_id: str, visit: Decider) -> Response:
    found = _visible(visit, approval_id)
    visit.services.approvals.deny(
        found.id, actor=visit.who.actor, reason=_reason(visit), request_id=reference_of(visit.request)
    )
    return visit.go("/approvals", "Denied. Nothing runs, and whoever asked sees your reason.")


def _reason(visit: Visit) -> str:
    return visit.text("reason", length_max=1000)


def _visible(visit: Visit, approval_id: str) -> Approval:
    """Raises ApprovalMissing, also for one of a tenant they may not see."""
    found = visit.services.approvals.get(approval_id)
    if not visit.who.may_see(found.tenant_id):
        raise ApprovalMissing(f"There is no approval {ascii(approval_id)[:60]}.")
    return found
