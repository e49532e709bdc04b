"""/api/v1/approvals: the inbox. People decide; agents ask and wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BeforeValidator, Field

from orchestrator.api.deps import Body, ServicesDep, View, require, visible_tenant
from orchestrator.api.problems import reference_of
from orchestrator.core.access import Principal, Scope
from orchestrator.core.allowlist.request import CommandRequest, check_argv
from orchestrator.core.approvals import Approval, ApprovalMissing, ApprovalState
from orchestrator.store import tenants
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/approvals", tags=["approvals"])
Reader = Annotated[Principal, require(Scope.APPROVALS_READ)]
Decider = Annotated[Principal, require(Scope.APPROVALS_DECIDE)]
Asker = Annotated[Principal, require(Scope.COMMANDS_RUN)]
Drafter = Annotated[Principal, require(Scope.ALLOWLIST_READ)]
ApprovalId = Annotated[str, Path(max_length=40)]


class AskBody(Body):
    """A denied command somebody wants a rule for."""

    tenant: str = Field(max_length=60)
    argv: Annotated[list[str], BeforeValidator(lambda value: list(check_argv(value))), Field(max_length=512)]
    cwd: str = Field("/workspace", max_length=4_096)
    reason: str = Field(min_length=3, max_length=1_000)


class DecideBody(Body):
    """Why, for whoever asked and for the record."""

    reason: str = Field("", max_length=1_000)


class ApprovalView(View):
    """One request. `shown` is safe to look at: every character that could mislead is written as its code."""

    id: str
    kind: str
    tenant: str
    requester: str
    requester_kind: str
    argv: list[str]
    shown: str
    shown_environment: str
    cwd: str
    place: str
    network: str
    stdin_bytes: int
    stdin_digest: str
    policy_version: int
    rule: str
    reason: str
    state: str
    expired: bool
    decided_by: str | None
    decision_reason: str
    used_by_command: str | None
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    used_at: datetime | None

    @classmethod
    def of(cls, approval: Approval) -> ApprovalView:
        own = ("requester", "requester_kind", "argv", "shown", "shown_environment", "expired")
        values = {name: getattr(approval, name) for name in cls.model_fields if name not in own}
        return cls(
            requester=approval.requester.name,
            requester_kind=approval.requester.kind.value,
            argv=list(approval.argv),
            shown=approval.shown_command,
            shown_environment=approval.shown_environment,
            expired=approval.has_expired(datetime.now(UTC)),
            **values,
        )


class DraftView(View):
    """YAML to be put into the allowlist by an admin."""

    rule: str


@router.get("")
def listed(
    services: ServicesDep,
    who: Reader,
    state: Literal["pending", "approved", "denied", "used"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[ApprovalView]:
    """Newest first; `state=pending` is the inbox."""
    wanted = ApprovalState(state) if state is not None else None
    found = services.approvals.listed(state=wanted, tenant_ids=who.tenant_ids, limit=limit)
    return [ApprovalView.of(one) for one in found]


@router.post("", status_code=201)
def ask(body: AskBody, request: Request, services: ServicesDep, who: Asker) -> ApprovalView:
    """Ask the admins for a rule that allows a denied command."""
    tenant = visible_tenant(services, who, body.tenant)
    asked = services.approvals.ask_rule(
        tenant,
        CommandRequest(argv=tuple(body.argv), cwd=body.cwd),
        actor=who.actor,
        reason=body.reason,
        request_id=reference_of(request),
    )
    return ApprovalView.of(asked)


@router.get("/{approval_id}")
def show(approval_id: ApprovalId, services: ServicesDep, who: Reader) -> ApprovalView:
    """One request."""
    return ApprovalView.of(_visible(services, who, approval_id))


@router.post("/{approval_id}/approve")
def approve(
    approval_id: ApprovalId, body: DecideBody, request: Request, services: ServicesDep, who: Decider
) -> ApprovalView:
    """Let the requester run exactly this once."""
    found = _visible(services, who, approval_id)
    decided = services.approvals.approve(
        found.id, actor=who.actor, reason=body.reason, request_id=reference_of(request)
    )
    return ApprovalView.of(decided)


@router.post("/{approval_id}/deny")
def deny(
    approval_id: ApprovalId, body: DecideBody, request: Request, services: ServicesDep, who: Decider
) -> ApprovalView:
    """Refuse it."""
    found = _visible(services, who, approval_id)
    decided = services.approvals.deny(found.id, actor=who.actor, reason=body.reason, request_id=reference_of(request))
    return ApprovalView.of(decided)


@router.get("/{approval_id}/draft")
def draft(approval_id: ApprovalId, services: ServicesDep, who: Drafter) -> DraftView:
    """The narrowest rule that would match what was asked for."""
    found = _visible(services, who, approval_id)
    return DraftView(rule=services.approvals.rule_draft(found.id, tenants.get(services.store, found.tenant_id)))


def _visible(services: Services, who: Principal, approval_id: str) -> Approval:
    """Raises ApprovalMissing, also for one of a tenant the caller may not see."""
    found = services.approvals.get(approval_id)
    if not who.may_see(found.tenant_id):
        raise ApprovalMissing(f"There is no approval {ascii(approval_id)[:60]}.")
    return found
