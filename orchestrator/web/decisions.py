"""What people do with a change: submit, talk, decide, try out, promote, take back. Each is one form."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from orchestrator.core.access import Role, Scope
from orchestrator.errors import InvalidInput
from orchestrator.flows.rehearse import Stage
from orchestrator.web.proposal import present, visible
from orchestrator.web.visit import Visit, acting
from orchestrator.web.wording import many

router = APIRouter(prefix="/changes/{change_id}", include_in_schema=False)
Reader = Annotated[Visit, acting(Scope.CHANGES_READ)]
Writer = Annotated[Visit, acting(Scope.CHANGES_WRITE)]
Reviewer = Annotated[Visit, acting(Scope.CHANGES_REVIEW)]
Promoter = Annotated[Visit, acting(Scope.CHANGES_PROMOTE)]


class ReasonNeeded(InvalidInput):
    code = "invalid.reason_needed"


def _at(change_id: str, place: str = "") -> str:
    return f"/changes/{change_id}{place}"


def _reason(visit: Visit, verb: str) -> str:
    reason = visit.text("reason", length_max=10_000)
    if not reason:
        raise ReasonNeeded(
            f"Say why you {verb}.", effect="Nothing was decided.", next_step="Its author needs to know what to do."
        )
    return reason


@router.post("/submit")
def submit(change_id: str, visit: Writer) -> Response:
    """Every check is made, then the reviewers see it."""
    change, tenant = present(visit, change_id)
    return visit.begin("submit", tenant, change_id=change.id)


@router.post("/describe")
def describe(change_id: str, visit: Writer) -> Response:
    change, _ = visible(visit, change_id)
    visit.services.changes.changes.describe(
        change.id,
        actor=visit.who.actor,
        title=visit.text("title", length_max=200),
        description=visit.text("description", length_max=20_000),
    )
    return visit.go(_at(change.id), "Title and reason are saved.")


@router.post("/rows")
def choose(change_id: str, visit: Writer) -> Response:
    """Leave the rows out that were ticked: a draft then holds the others."""
    change, _ = visible(visit, change_id)
    from_page = set(visit.values("shown"))
    dropped = from_page & set(visit.values("drop"))
    if not dropped:
        raise InvalidInput("No row was chosen.", effect="The draft stays as it is.", next_step="Tick rows first.")
    visit.services.changes.changes.leave_out(change.id, actor=visit.who.actor, rows=dropped)
    return visit.go(_at(change.id, "#rows"), f"{many(len(dropped), 'row')} left out. They stay in your database.")


@router.post("/rebase")
def rebase(change_id: str, visit: Writer) -> Response:
    """Onto the newest snapshot, as a draft."""
    change, tenant = present(visit, change_id)
    return visit.begin("rebase", tenant, change_id=change.id)


@router.post("/withdraw")
def withdraw(change_id: str, visit: Writer) -> Response:
    change, _ = visible(visit, change_id)
    any_author = visit.who.has(Scope.CHANGES_REVIEW) and visit.who.role is not Role.AGENT
    visit.services.changes.review.withdraw(
        change.id, actor=visit.who.actor, reason=visit.text("reason", length_max=1000), any_author=any_author
    )
    return visit.go(_at(change.id), "Withdrawn. Nothing of it reaches production; your database keeps the rows.")


@router.post("/comments")
def comment(change_id: str, visit: Reader) -> Response:
    change, _ = visible(visit, change_id)
    row = visit.text("row", length_max=40)
    visit.services.changes.review.comment(
        change.id, actor=visit.who.actor, text=visit.text("text", length_max=10_000), row=row
    )
    return visit.go(_at(change.id, f"/rows/{row}" if row.isalnum() else "#discussion"), "Your comment is there.")


@router.post("/check")
def check(change_id: str, visit: Reader) -> Response:
    """Every check again, beside production as it is now."""
    if not visit.who.has(Scope.CHANGES_REVIEW):
        visit.who.require(Scope.CHANGES_WRITE)
    change, tenant = present(visit, change_id)
    return visit.begin("check", tenant, change_id=change.id)


@router.post("/rehearse")
def rehearse(change_id: str, visit: Reviewer) -> Response:
    """On a throw-away copy, or on production inside a transaction that is rolled back."""
    change, tenant = present(visit, change_id)
    stage = Stage.PRODUCTION if visit.text("stage") == "production" else Stage.COPY
    return visit.begin("rehearse", tenant, change_id=change.id, stage=stage.value)


@router.post("/approve")
def approve(change_id: str, visit: Reviewer) -> Response:
    """Agree to exactly what was on the page."""
    change, _ = visible(visit, change_id)
    done = visit.services.changes.review.approve(
        change.id, actor=visit.who.actor, digest=_digest(visit), note=visit.text("note", length_max=10_000)
    )
    if done.state.value == "approved":
        return visit.go(_at(change.id), "Approved. It can be promoted now; nothing is in production yet.")
    return visit.go(_at(change.id), f"Your approval counts. {done.approvals_needed} are needed in all.")


@router.post("/return")
def request_changes(change_id: str, visit: Reviewer) -> Response:
    change, _ = visible(visit, change_id)
    reason = _reason(visit, "ask for changes")
    visit.services.changes.review.request_changes(
        change.id, actor=visit.who.actor, reason=reason, digest=_digest(visit)
    )
    return visit.go(_at(change.id), "Handed back. Its author finds it as a draft with your words.")


@router.post("/reject")
def reject(change_id: str, visit: Reviewer) -> Response:
    change, _ = visible(visit, change_id)
    reason = _reason(visit, "reject it")
    visit.services.changes.review.reject(change.id, actor=visit.who.actor, reason=reason, digest=_digest(visit))
    return visit.go(_at(change.id), "Rejected. Nothing of it reaches production.")


@router.post("/promote")
def promote(change_id: str, visit: Promoter) -> Response:
    """Write it to production: all of it, or nothing."""
    change, tenant = present(visit, change_id)
    return visit.begin("promote", tenant, change_id=change.id, digest=_digest(visit))


@router.post("/revert")
def revert(change_id: str, visit: Promoter) -> Response:
    """Take it back under the same guards."""
    change, tenant = present(visit, change_id)
    return visit.begin("revert", tenant, change_id=change.id, reason=visit.text("reason", length_max=1000))


def _digest(visit: Visit) -> str:
    """What the page showed: a decision without it would be about something nobody looked at."""
    digest = visit.text("digest", length_max=64)
    if len(digest) != 64:
        raise InvalidInput("The page did not say what it showed.", effect="Nothing was decided.")
    return digest
