"""One change: what it would do, what was found about it, what people said, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from orchestrator.core.access import Principal, Scope
from orchestrator.core.changes import Change, ChangeMissing, ChangeState
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.sql_text import statements
from orchestrator.core.changeset.view import key_text
from orchestrator.core.tenants import Tenant, TenantMissing
from orchestrator.errors import OrchestratorError
from orchestrator.store import changes, promotions, tenants
from orchestrator.web import sentences
from orchestrator.web.patch import PatchLine, patch_lines
from orchestrator.web.rows import Changesets, rows_of
from orchestrator.web.visit import Visit, reading

router = APIRouter(prefix="/changes/{change_id}", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.CHANGES_READ)]
SQL_ROWS = 200
PATCH_BYTES_MAX = 400_000


def visible(visit: Visit, change_id: str) -> tuple[Change, Tenant | None]:
    """A change and its tenant, if that is still there. Raises ChangeMissing, also for a foreign one."""
    with visit.services.store.connect() as connection:
        change = changes.get(connection, change_id[:60])
    if not visit.who.may_see(change.tenant_id):
        raise ChangeMissing(f"There is no change {ascii(change_id)[:60]}.")
    try:
        return change, tenants.get(visit.services.store, change.tenant_id)
    except TenantMissing:
        return change, None


def present(visit: Visit, change_id: str) -> tuple[Change, Tenant]:
    """Raises TenantMissing where the workspace was removed: its changes can be read, not moved."""
    change, tenant = visible(visit, change_id)
    if tenant is None:
        raise TenantMissing("The workspace this change came from was removed.", effect="Nothing was done.")
    return change, tenant


def content(visit: Visit, change: Change) -> Changeset:
    kept: Changesets = visit.request.app.state.changesets

    def load() -> Changeset:
        with visit.services.store.connect() as connection:
            return changes.changeset(connection, change.id)

    return kept.get(change.id, change.rows_digest, load)


@router.get("")
def show(change_id: str, visit: Reader) -> Response:
    """The whole proposal on one page."""
    change, tenant = visible(visit, change_id)
    changeset, checks = content(visit, change), sentences.checks(change)
    with visit.services.store.connect() as connection:
        events = changes.events(connection, change_id=change.id, limit=200)
        comments = changes.comments(connection, change.id)
        approvals = changes.approvals(connection, change.id)
        tries = promotions.of_change(connection, change.id)
    return visit.show(
        "proposal/show.html",
        tenant=tenant if not visit.who.has(Scope.CHANGES_REVIEW) else None,
        has_tenant=tenant is not None,
        change=change,
        sentence=sentences.of_change(change),
        rows=rows_of(changeset, f"/changes/{change.id}", dict(visit.request.query_params)),
        schema_changes=changeset.schema_changes[:50],
        sql="\n".join(statements(changeset, changeset.rows[:SQL_ROWS])),
        sql_left=max(0, len(changeset) - SQL_ROWS),
        timeline=sentences.timeline(events),
        comments=comments,
        approvals=approvals,
        tries=tries,
        done=next((one for one in tries if one.id == change.promotion_id), None),
        checks=checks,
        moved_on=any(one.name == "production" and one.blocking for one in checks),
        may=may(visit.who, change),
    )


def may(who: Principal, change: Change) -> dict[str, bool]:
    """Which actions to offer; the flows decide for themselves."""
    is_author = bool(who.actor.principals() & change.author.principals())
    state = change.state
    reviews, writes = who.has(Scope.CHANGES_REVIEW), who.has(Scope.CHANGES_WRITE)
    decidable = state in (ChangeState.SUBMITTED, ChangeState.APPROVED)
    return {
        "submit": writes and state is ChangeState.DRAFT,
        "edit": writes and state is ChangeState.DRAFT,
        "rebase": writes and state.is_open,
        "withdraw": state.is_open and (is_author or reviews) and writes,
        "approve": reviews and state is ChangeState.SUBMITTED and not is_author,
        "own": reviews and state is ChangeState.SUBMITTED and is_author,
        "decide": reviews and decidable,
        "check": (writes or reviews) and (decidable or state is ChangeState.DRAFT),
        "rehearse": reviews and state.is_open,
        "promote": who.has(Scope.CHANGES_PROMOTE) and state is ChangeState.APPROVED,
        "revert": who.has(Scope.CHANGES_PROMOTE) and state is ChangeState.PROMOTED and change.reverted_at is None,
        "is_author": is_author,
    }


@router.get("/rows/{row_id}")
def row(change_id: str, row_id: str, visit: Reader) -> Response:
    """One row with every column and every value in full."""
    change, tenant = visible(visit, change_id)
    changeset = content(visit, change)
    found = next((one for one in changeset.rows if one.id() == row_id), None)
    if found is None:
        raise ChangeMissing(f"Change {change.id} holds no row {ascii(row_id)[:40]}.")
    shape = changeset.shapes[found.table]
    with visit.services.store.connect() as connection:
        comments = [one for one in changes.comments(connection, change.id) if one.row == row_id]
    findings = [
        (name, finding)
        for name, check in change.checks.items()
        for finding in (check.get("findings") or [])
        if finding.get("row") == row_id
    ]
    cells = [
        (column, (found.old or {}).get(column.name), (found.new or {}).get(column.name)) for column in shape.columns
    ]
    return visit.show(
        "proposal/row.html",
        tenant=tenant if not visit.who.has(Scope.CHANGES_REVIEW) else None,
        change=change,
        row=found,
        row_id=row_id,
        key=key_text(found),
        cells=cells,
        changed=set(found.changed_columns),
        comments=comments,
        findings=findings,
    )


@router.get("/code")
def code(change_id: str, visit: Reader, path: Annotated[str, Query(max_length=1024)] = "") -> Response:
    """The difference in code, file by file, against production's branch as it was checked."""
    change, tenant = visible(visit, change_id)
    lines: list[PatchLine] = []
    problem: OrchestratorError | None = None
    files: list[dict[str, Any]] = []
    if change.code_head is not None:
        repository, production = visit.services.code.repository, visit.services.code.production
        try:
            base = repository.branch(production) or change.code_head
            checked = change.checks.get("code") or {}
            base = checked.get("merge_base") or base
            files = list(checked.get("files") or [])
            text = repository.patch(base, change.code_head, path=path or None, bytes_max=PATCH_BYTES_MAX)
            lines = patch_lines(text)
        except OrchestratorError as error:
            problem = error
    return visit.show(
        "proposal/code.html",
        tenant=tenant if not visit.who.has(Scope.CHANGES_REVIEW) else None,
        change=change,
        lines=lines,
        files=files,
        path=path,
        problem=problem,
    )


@router.get("/changes.sql")
def as_sql(change_id: str, visit: Reader) -> Response:
    """Every row as SQL to read."""
    change, _ = visible(visit, change_id)
    changeset = content(visit, change)

    def lines() -> Iterator[str]:
        yield f"-- {change.id}: to read, not to run. Promote sends these rows as one guarded statement.\n"
        for one in statements(changeset):
            yield one + "\n\n"

    headers = {"Content-Disposition": f'attachment; filename="{change.id}.sql"', "Cache-Control": "no-store"}
    return StreamingResponse(lines(), media_type="text/plain; charset=utf-8", headers=headers)
