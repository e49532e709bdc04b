"""/api/v1/changes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from orchestrator.api.asking import ACCEPTED, LaterDep
from orchestrator.api.change_views import (
    ApprovalView,
    ChangeDetail,
    ChangeView,
    CommentBody,
    CommentView,
    DecisionBody,
    EditBody,
    EventView,
    PreviewView,
    PromotionView,
    ReasonBody,
    RebasedView,
    RehearseBody,
    RowsView,
    SubmitBody,
)
from orchestrator.api.deps import OnceDep, PrincipalDep, ServicesDep, require, visible_tenant
from orchestrator.core.access import Principal, Role, Scope
from orchestrator.core.changes import Change, ChangeMissing, ChangeState
from orchestrator.core.changeset import json_form
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.changeset.view import view_table
from orchestrator.core.tenants import Tenant
from orchestrator.errors import InvalidInput
from orchestrator.flows.rehearse import Stage
from orchestrator.store import changes, promotions, tenants
from orchestrator.wiring.services import Services

router = APIRouter(prefix="/changes", tags=["changes"])
Reader = Annotated[Principal, require(Scope.CHANGES_READ)]
Writer = Annotated[Principal, require(Scope.CHANGES_WRITE)]
Reviewer = Annotated[Principal, require(Scope.CHANGES_REVIEW)]
Promoter = Annotated[Principal, require(Scope.CHANGES_PROMOTE)]
ChangeId = Annotated[str, Path(max_length=40)]
TableText = Annotated[str, Query(max_length=200, examples=["hotel.rates"])]


@router.get("")
def list_changes(
    services: ServicesDep,
    who: Reader,
    tenant: Annotated[str | None, Query(max_length=60)] = None,
    state: Annotated[list[ChangeState] | None, Query()] = None,
    before: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[ChangeView]:
    """The newest first, of the tenants the caller may see."""
    tenant_id = visible_tenant(services, who, tenant).id if tenant else None
    with services.store.connect() as connection:
        found = changes.listed(connection, tenant_id=tenant_id, states=state or (), before=before, limit=limit)
    return [ChangeView.of(change) for change in found if who.may_see(change.tenant_id)]


@router.get("/diff")
def show_diff(services: ServicesDep, who: Reader, tenant: Annotated[str, Query(max_length=60)]) -> PreviewView:
    """What differs between a tenant's database and its snapshot, with what the rules say. Nothing is kept."""
    preview = services.changes.changes.diff(visible_tenant(services, who, tenant))
    return PreviewView(
        changeset=json_form.to_json(preview.result.changeset),
        findings=[finding.document() for finding in preview.examined.findings],
        risks=[risk.sentence for risk in preview.risks],
    )


@router.get("/events")
def list_events(
    services: ServicesDep,
    who: Reader,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> list[EventView]:
    """What happened to changes after event number `after`, oldest first."""
    with services.store.connect() as connection:
        found = changes.events(connection, after=after, limit=limit)
        seen = {event.change_id: changes.get(connection, event.change_id).tenant_id for event in found}
    return [EventView.of(event) for event in found if who.may_see(seen[event.change_id])]


@router.post("", status_code=201, response_model=ChangeView)
def create_change(body: SubmitBody, services: ServicesDep, who: Writer, once: OnceDep) -> object:
    """Propose what differs now: a draft, checked and submitted. The findings of a blocked one stay with the draft."""
    tenant = visible_tenant(services, who, body.tenant)
    names = _tables(body.tables)

    def make() -> ChangeView:
        flow = services.changes.changes
        made = flow.draft(
            tenant,
            actor=who.actor,
            title=body.title,
            description=body.description,
            tables=names,
            rows=body.rows,
            code=body.code,
        )
        return ChangeView.of(made if body.draft else flow.submit(made.id, tenant, actor=who.actor))

    return once(make)


@router.get("/{change_id}")
def show_change(change_id: ChangeId, services: ServicesDep, who: Reader) -> ChangeDetail:
    """One change with its checks, approvals, comments and promotions."""
    change, _ = _visible(services, who, change_id)
    with services.store.connect() as connection:
        return ChangeDetail(
            **ChangeView.of(change).model_dump(),
            checks=dict(change.checks),
            approvals=[ApprovalView.of(item) for item in changes.approvals(connection, change_id)],
            comments=[CommentView.of(item) for item in changes.comments(connection, change_id)],
            promotions=[PromotionView.of(item) for item in promotions.of_change(connection, change_id)],
        )


@router.get("/{change_id}/changeset")
def show_changeset(change_id: ChangeId, services: ServicesDep, who: Reader) -> dict[str, Any]:
    """Its rows in their published JSON form."""
    _visible(services, who, change_id)
    with services.store.connect() as connection:
        return json_form.to_json(changes.changeset(connection, change_id))


@router.get("/{change_id}/rows")
def show_rows(
    change_id: ChangeId,
    services: ServicesDep,
    who: Reader,
    table: TableText,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> RowsView:
    """One page of one table's rows, before and after."""
    _visible(services, who, change_id)
    (name,) = _tables([table])
    with services.store.connect() as connection:
        changeset = changes.changeset(connection, change_id)
    if name not in changeset.shapes:
        raise ChangeMissing(f"Change {change_id} holds no row of {name}.")
    page = view_table(changeset, name, offset=offset, limit=limit)
    rows = [
        {
            "id": row.id,
            "kind": row.kind.value,
            "key": row.key,
            "cells": [
                {"column": cell.column, "old": cell.old, "new": cell.new, "changed": cell.changed} for cell in row.cells
            ],
        }
        for row in page.rows
    ]
    return RowsView(table=str(name), columns=list(page.columns), total=page.total, offset=offset, rows=rows)


@router.get("/{change_id}/events")
def show_events(change_id: ChangeId, services: ServicesDep, who: Reader) -> list[EventView]:
    """What happened to it, oldest first."""
    _visible(services, who, change_id)
    with services.store.connect() as connection:
        return [EventView.of(event) for event in changes.events(connection, change_id=change_id, limit=500)]


@router.post("/{change_id}/submit", response_model=ChangeView, responses=ACCEPTED)
def submit_change(change_id: ChangeId, services: ServicesDep, who: Writer, later: LaterDep) -> object:
    """Check a draft and hand it to the reviewers."""
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("submit", tenant, change_id=change_id)
    return ChangeView.of(services.changes.changes.submit(change_id, tenant, actor=who.actor))


@router.post("/{change_id}/check", response_model=ChangeView, responses=ACCEPTED)
def check_change(change_id: ChangeId, services: ServicesDep, who: Writer, later: LaterDep) -> object:
    """Make every check again."""
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("check", tenant, change_id=change_id)
    return ChangeView.of(services.changes.changes.check(change_id, tenant, actor=who.actor))


@router.patch("/{change_id}")
def edit_change(change_id: ChangeId, body: EditBody, services: ServicesDep, who: Writer) -> ChangeView:
    """Give a draft another title or reason, or leave rows out of it; they stay in the tenant's database."""
    change, _ = _visible(services, who, change_id)
    flow = services.changes.changes
    if body.leave_out:
        change = flow.leave_out(change_id, actor=who.actor, rows=body.leave_out)
    if body.title is not None or body.description is not None:
        title = change.title if body.title is None else body.title
        description = change.description if body.description is None else body.description
        change = flow.describe(change_id, actor=who.actor, title=title, description=description)
    return ChangeView.of(change)


@router.post("/{change_id}/rebase", response_model=RebasedView, responses=ACCEPTED)
def rebase_change(change_id: ChangeId, services: ServicesDep, who: Writer, later: LaterDep) -> object:
    """Move it onto the newest snapshot; rows that conflict there are named and left out."""
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("rebase", tenant, change_id=change_id)
    moved = services.changes.changes.rebase(change_id, tenant, actor=who.actor)
    found = moved.change.checks["rebase"]["findings"]
    return RebasedView(change=ChangeView.of(moved.change), done=moved.done, conflicts=found)


@router.post("/{change_id}/withdraw")
def withdraw_change(change_id: ChangeId, body: ReasonBody, services: ServicesDep, who: Writer) -> ChangeView:
    """Take it back: its author, or a reviewer."""
    _visible(services, who, change_id)
    is_reviewer = who.has(Scope.CHANGES_REVIEW) and who.role is not Role.AGENT
    done = services.changes.review.withdraw(change_id, actor=who.actor, reason=body.reason, any_author=is_reviewer)
    return ChangeView.of(done)


@router.post("/{change_id}/comments", status_code=201)
def comment_change(change_id: ChangeId, body: CommentBody, services: ServicesDep, who: Reader) -> CommentView:
    """Say something about it, or about one of its rows."""
    _visible(services, who, change_id)
    return CommentView.of(services.changes.review.comment(change_id, actor=who.actor, text=body.text, row=body.row))


@router.post("/{change_id}/approve")
def approve_change(change_id: ChangeId, body: DecisionBody, services: ServicesDep, who: Reviewer) -> ChangeView:
    """Agree to exactly this digest. Neither the author nor an agent may."""
    _visible(services, who, change_id)
    done = services.changes.review.approve(change_id, actor=who.actor, digest=body.digest, note=body.note)
    return ChangeView.of(done)


@router.post("/{change_id}/reject")
def reject_change(change_id: ChangeId, body: ReasonBody, services: ServicesDep, who: Reviewer) -> ChangeView:
    """Say no for good."""
    _visible(services, who, change_id)
    done = services.changes.review.reject(change_id, actor=who.actor, reason=body.reason, digest=body.digest)
    return ChangeView.of(done)


@router.post("/{change_id}/return")
def return_change(change_id: ChangeId, body: ReasonBody, services: ServicesDep, who: Reviewer) -> ChangeView:
    """Ask for changes: it becomes its author's draft again."""
    _visible(services, who, change_id)
    done = services.changes.review.request_changes(change_id, actor=who.actor, reason=body.reason, digest=body.digest)
    return ChangeView.of(done)


@router.post("/{change_id}/rehearse", response_model=dict[str, Any], responses=ACCEPTED)
def rehearse_change(
    change_id: ChangeId, body: RehearseBody, services: ServicesDep, who: Reader, later: LaterDep
) -> object:
    """Try it out: on a throw-away copy, or on production in a transaction that is rolled back."""
    if body.stage is Stage.PRODUCTION:
        who.require(Scope.CHANGES_PROMOTE)
    else:
        who.require(Scope.CHANGES_WRITE if not who.has(Scope.CHANGES_REVIEW) else Scope.CHANGES_REVIEW)
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("rehearse", tenant, change_id=change_id, stage=body.stage.value)
    return services.changes.rehearse.run(change_id, tenant, actor=who.actor, stage=body.stage)


@router.post("/{change_id}/promote", response_model=PromotionView, responses=ACCEPTED)
def promote_change(
    change_id: ChangeId, body: DecisionBody, services: ServicesDep, who: Promoter, later: LaterDep
) -> object:
    """Write an approved change to production, its rows and its code together."""
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("promote", tenant, change_id=change_id, digest=body.digest)
    done = services.changes.promote.run(change_id, tenant, actor=who.actor, digest=body.digest)
    return PromotionView.of(done)


@router.post("/{change_id}/revert", response_model=PromotionView, responses=ACCEPTED)
def revert_change(
    change_id: ChangeId, body: ReasonBody, services: ServicesDep, who: Promoter, later: LaterDep
) -> object:
    """Undo a promoted change's rows, unless production changed them since."""
    _, tenant = _visible(services, who, change_id)
    if later.is_wanted:
        return later("revert", tenant, change_id=change_id, reason=body.reason)
    return PromotionView.of(services.changes.revert.run(change_id, tenant, actor=who.actor, reason=body.reason))


def _visible(services: Services, who: PrincipalDep, change_id: str) -> tuple[Change, Tenant]:
    """Raises ChangeMissing, also for a change of a tenant the caller may not see."""
    with services.store.connect() as connection:
        change = changes.get(connection, change_id)
    if not who.may_see(change.tenant_id):
        raise ChangeMissing(f"There is no change {ascii(change_id)[:60]}.")
    return change, tenants.get(services.store, change.tenant_id)


def _tables(names: list[str]) -> list[TableName]:
    try:
        return [TableName.parse(name) for name in names]
    except ValueError as error:
        raise InvalidInput(f"{error}.", next_step="Write schema.table.") from error
