"""What requests about changes hold, and what they are answered with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from orchestrator.api.deps import Body, View
from orchestrator.core.actors import Actor
from orchestrator.core.changes import Change, ChangeApproval, ChangeEvent, Comment
from orchestrator.core.promotions import Promotion
from orchestrator.flows.rehearse import Stage


class SubmitBody(Body):
    """What differs in a tenant's sandbox becomes a change; with `draft` it is only kept."""

    tenant: str = Field(max_length=60)
    title: str = Field(min_length=1, max_length=200)
    description: str = Field("", max_length=20_000)
    tables: list[str] = Field(default_factory=list, max_length=500)
    rows: list[str] = Field(default_factory=list, max_length=100_000)
    code: bool = True
    draft: bool = False


class DecisionBody(Body):
    """A decision about exactly `digest` (at least its first twelve digits)."""

    digest: str | None = Field(None, min_length=12, max_length=64)
    note: str = Field("", max_length=10_000)


class EditBody(Body):
    """What a draft shall say and hold from now on; what is left out stays. `leave_out` names rows by their ids."""

    title: str | None = Field(None, min_length=1, max_length=200)
    description: str | None = Field(None, max_length=20_000)
    leave_out: list[Annotated[str, Field(max_length=40)]] = Field(default_factory=list, max_length=10_000)


class ReasonBody(Body):
    reason: str = Field("", max_length=10_000)
    digest: str | None = Field(None, min_length=12, max_length=64)


class CommentBody(Body):
    text: str = Field(min_length=1, max_length=10_000)
    row: str = Field("", max_length=40)


class RehearseBody(Body):
    stage: Stage = Field(Stage.COPY, strict=False)


class ActorView(View):
    kind: str
    id: str
    name: str

    @classmethod
    def of(cls, actor: Actor) -> ActorView:
        return cls(kind=actor.kind.value, id=actor.id, name=actor.name)


class ChangeView(View):
    """One change, without its rows."""

    id: str
    tenant: str
    title: str
    description: str
    state: str
    author: ActorView
    base_snapshot_id: str
    digest: str
    inserted: int
    updated: int
    deleted: int
    tables: list[str]
    code_head: str | None
    blocking: int
    risks: list[dict[str, Any]]
    approvals_needed: int
    created_at: datetime
    updated_at: datetime
    submitted_at: datetime | None
    approved_at: datetime | None
    expires_at: datetime | None
    promoted_at: datetime | None
    reverted_at: datetime | None
    reason: str

    @classmethod
    def of(cls, change: Change) -> ChangeView:
        own = {"tenant", "author", "inserted", "updated", "deleted", "tables", "risks", "state"}
        values = {name: getattr(change, name) for name in cls.model_fields if name not in own}
        return cls(
            tenant=change.tenant_name,
            author=ActorView.of(change.author),
            state=change.state.value,
            inserted=change.counts.inserted,
            updated=change.counts.updated,
            deleted=change.counts.deleted,
            tables=list(change.tables),
            risks=[dict(risk) for risk in change.risks],
            **values,
        )


class ApprovalView(View):
    actor: ActorView
    digest: str
    at: datetime
    expires_at: datetime
    void_reason: str

    @classmethod
    def of(cls, approval: ChangeApproval) -> ApprovalView:
        return cls(
            actor=ActorView.of(approval.actor),
            digest=approval.digest,
            at=approval.at,
            expires_at=approval.expires_at,
            void_reason=approval.void_reason,
        )


class CommentView(View):
    id: str
    author: ActorView
    at: datetime
    text: str
    row: str

    @classmethod
    def of(cls, said: Comment) -> CommentView:
        return cls(id=said.id, author=ActorView.of(said.author), at=said.at, text=said.text, row=said.row)


class EventView(View):
    number: int
    change_id: str
    kind: str
    actor: ActorView
    at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: ChangeEvent) -> EventView:
        return cls(
            number=event.number,
            change_id=event.change_id,
            kind=event.kind,
            actor=ActorView.of(event.actor),
            at=event.at,
            data=dict(event.data),
        )


class PromotionView(View):
    """One try to write a change to production, or to take it back."""

    id: str
    change_id: str
    kind: str
    state: str
    step: str
    actor: ActorView
    approvers: list[str]
    transaction_id: str | None
    code_before: str | None
    code_after: str | None
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    report: dict[str, Any]
    error_code: str | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, promotion: Promotion) -> PromotionView:
        values = {name: getattr(promotion, name) for name in cls.model_fields if name not in ("actor", "approvers")}
        values |= {name: values[name].value for name in ("kind", "state", "step")}
        return cls(actor=ActorView.of(promotion.actor), approvers=list(promotion.approvers), **values)


class ChangeDetail(ChangeView):
    """One change with its checks and everything people said and did."""

    checks: dict[str, Any]
    approvals: list[ApprovalView]
    comments: list[CommentView]
    promotions: list[PromotionView]


class PreviewView(View):
    """What a submission would hold now."""

    changeset: dict[str, Any]
    findings: list[dict[str, Any]]
    risks: list[str]


class RebasedView(View):
    change: ChangeView
    done: int
    conflicts: list[dict[str, Any]]


class RowsView(View):
    """One page of a table's rows."""

    table: str
    columns: list[str]
    total: int
    offset: int
    rows: list[dict[str, Any]]
