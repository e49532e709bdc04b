"""One workspace's changes: what differs now, what was proposed, and proposing it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.changes import ChangeState
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.tenants import Tenant
from orchestrator.errors import InvalidInput
from orchestrator.flows.refresh.outlook import outlook
from orchestrator.store import changes
from orchestrator.web.rows import rows_of
from orchestrator.web.visit import Visit, acting, reading
from orchestrator.wiring.schedule import load

router = APIRouter(prefix="/workspaces/{name}/changes", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.CHANGES_READ)]
Writer = Annotated[Visit, acting(Scope.CHANGES_WRITE)]
LISTED = 50


@router.get("")
def listed(name: str, visit: Reader, state: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Every proposal from this workspace, the newest first."""
    tenant = visit.tenant(name)
    states = [ChangeState(state)] if state in set(ChangeState) else []
    with visit.services.store.connect() as connection:
        found = changes.listed(connection, tenant_id=tenant.id, states=states, limit=LISTED)
    return visit.show("changes/list.html", tenant=tenant, changes=found, state=state, states=list(ChangeState))


@router.get("/new")
def new(name: str, visit: Reader, now: Annotated[bool, Query()] = False) -> Response:
    """What differs from production's snapshot now, row by row, with the form that proposes it.

    The databases are asked when the page stands already, or at once when somebody wants it in one piece.
    """
    tenant = visit.tenant(name)
    if visit.is_fragment:
        return visit.piece("changes/differs.html", **_differs(visit, tenant))
    values = _differs(visit, tenant) if now else {"tenant": tenant}
    query = visit.request.url.query
    here = visit.path + (f"?{query}" if query else "")
    return visit.show("changes/new.html", is_whole=now, here=here, **values)


def _differs(visit: Visit, tenant: Tenant) -> dict[str, Any]:
    preview = visit.services.changes.changes.diff(tenant)
    changeset = preview.examined.changeset
    as_of = outlook(visit.services.store, load(visit.services.settings), [tenant])[0].data_as_of
    with visit.services.store.connect() as connection:
        promoted = changes.listed(connection, tenant_id=tenant.id, states=[ChangeState.PROMOTED], limit=20)
    left_out = len(preview.result.changeset) - len(changeset)
    head = visit.services.code.head(tenant.name)
    return {
        "tenant": tenant,
        "rows": rows_of(changeset, visit.path, dict(visit.request.query_params)),
        "schema_changes": changeset.schema_changes[:50],
        "notes": changeset.notes[:20],
        "risks": preview.risks,
        "findings": [finding.document() for finding in preview.examined.findings[:100]],
        "head": head,
        "promoted": [one for one in promoted if as_of and one.promoted_at and one.promoted_at > as_of][:5],
        "left_out": left_out,
        "is_empty": changeset.is_empty and head is None,
    }


@router.post("")
def create(name: str, visit: Writer) -> Response:
    """Keep what differs as a draft, and hand it in unless it is only to be kept."""
    tenant = visit.tenant(name)
    title = visit.text("title", length_max=200)
    if not title:
        raise InvalidInput("A change needs a title.", effect="Nothing was proposed.", next_step="Say what it is about.")
    flow = visit.services.changes.changes
    made = flow.draft(
        tenant,
        actor=visit.who.actor,
        title=title,
        description=visit.text("description", length_max=20_000),
        tables=_tables(visit.values("table")),
        rows=visit.values("row"),
        code=visit.is_set("code"),
    )
    if visit.is_set("draft"):
        return visit.go(f"/changes/{made.id}", "Kept as a draft. Nobody else is asked until you submit it.")
    return visit.begin("submit", tenant, change_id=made.id)


def _tables(names: list[str]) -> list[TableName]:
    try:
        return [TableName.parse(one) for one in names]
    except ValueError as error:
        raise InvalidInput(f"{error}.", effect="Nothing was proposed.") from None
