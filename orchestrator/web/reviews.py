"""The reviewers' inbox: what waits for a decision, the oldest and the riskiest in sight."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.changes import Change, ChangeState
from orchestrator.store import changes, tenants
from orchestrator.web.visit import Visit, reading

router = APIRouter(prefix="/reviews", include_in_schema=False)
LISTED = 100
VIEWS = {
    "waiting": ("Waiting for a decision", (ChangeState.SUBMITTED,)),
    "approved": ("Approved, not promoted yet", (ChangeState.APPROVED,)),
    "conflicted": ("Conflicted", (ChangeState.CONFLICTED,)),
    "promoted": ("Promoted", (ChangeState.PROMOTED,)),
    "closed": ("Rejected or withdrawn", (ChangeState.REJECTED, ChangeState.WITHDRAWN)),
}
SEVERITIES = {"blocking": 0, "warning": 1, "notice": 2}


@router.get("")
def inbox(
    visit: Annotated[Visit, reading(Scope.CHANGES_REVIEW)],
    view: Annotated[str, Query(max_length=20)] = "waiting",
    tenant: Annotated[str, Query(max_length=60)] = "",
    author: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """One list at a time; filters are part of the address."""
    view = view if view in VIEWS else "waiting"
    chosen = visit.tenant(tenant).id if tenant else None
    with visit.services.store.connect() as connection:
        found = changes.listed(connection, tenant_id=chosen, states=VIEWS[view][1], limit=LISTED)
        counts = changes.counted(connection)
    if author in ("person", "agent"):
        found = [one for one in found if one.author.is_agent == (author == "agent")]
    if view == "waiting":
        found.sort(key=lambda one: one.submitted_at or one.created_at)
    return visit.show(
        "reviews/list.html",
        changes=[(one, worst(one)) for one in found],
        view=view,
        views={
            name: (title, sum(counts.get(state.value, 0) for state in states))
            for name, (title, states) in VIEWS.items()
        },
        chosen=tenant,
        author=author,
        names=[one.name for one in tenants.listed(visit.services.store)],
        limit=LISTED,
    )


def worst(change: Change) -> str:
    """The gravest flag's severity; empty when there is none."""
    found = sorted((str(risk.get("severity", "")) for risk in change.risks), key=lambda one: SEVERITIES.get(one, 3))
    return found[0] if found else ""
