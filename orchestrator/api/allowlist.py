"""/api/v1/allowlist: read, check, replay, save, restore."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from orchestrator.api.deps import Body, ServicesDep, View, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.policies import PolicyVersion

router = APIRouter(prefix="/allowlist", tags=["allowlist"])
Reader = Annotated[Principal, require(Scope.ALLOWLIST_READ)]
Writer = Annotated[Principal, require(Scope.ALLOWLIST_WRITE)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
TEXT_MAX = 1_048_576


class TextBody(Body):
    """A whole allowlist file."""

    text: str = Field(max_length=TEXT_MAX)


class SaveBody(TextBody):
    """`expected` is the version the editor saw: somebody else's edit in between is never overwritten."""

    reason: str = Field(min_length=3, max_length=1_000)
    expected: int = Field(ge=0, le=2**31 - 1)


class RestoreBody(Body):
    reason: str = Field(min_length=3, max_length=1_000)
    expected: int | None = Field(None, ge=0, le=2**31 - 1)


class VersionView(View):
    """One accepted version."""

    number: int
    digest: str
    author: str
    reason: str
    source: str
    restored_from: int | None
    created_at: datetime

    @classmethod
    def of(cls, version: PolicyVersion) -> VersionView:
        return cls(**{name: getattr(version, name) for name in cls.model_fields})


class InForceView(VersionView):
    """What decides now. `problem` says why the file on disk is not what is in force."""

    text: str
    problem: str


class DiffView(View):
    text: str
    diff: str


class LackingView(View):
    """A listed program that an image of running tenants cannot start."""

    image: str
    program: str
    why: str


class CheckView(View):
    """`lacking` are warnings: the list is good, but some image is not what it expects."""

    rules: int
    digest: str
    lacking: list[LackingView]


class ReplayedView(View):
    command_id: str
    tenant: str
    shown: str
    before: str
    after: str
    rule_before: str
    rule_after: str


class ReplayView(View):
    """Of `replayed` recent commands, those whose decision would change."""

    replayed: int
    changes: list[ReplayedView]


@router.get("")
def show(services: ServicesDep, who: Reader) -> InForceView:
    """The version in force with its text."""
    del who
    found = services.allowlist.in_force()
    return InForceView(**VersionView.of(found.version).model_dump(), text=found.allowlist.text, problem=found.problem)


@router.post("/check")
def check(body: TextBody, services: ServicesDep, who: Reader) -> CheckView:
    """Read, lint and run every example of a text; nothing is saved."""
    del who
    found = services.allowlist.check(body.text, source="the text")
    lacking = [LackingView.model_validate(one) for one in services.allowlist.lacking(found)]
    return CheckView(rules=len(found.rules), digest=found.digest, lacking=lacking)


@router.post("/replay")
def replay(
    body: TextBody, services: ServicesDep, who: Writer, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> ReplayView:
    """Decide recent commands again under a text; nothing is saved."""
    del who
    found = services.allowlist.replay(body.text, limit=limit)
    changes = [
        ReplayedView(
            command_id=one.command.id,
            tenant=one.command.tenant,
            shown=shown_argv(one.command.argv),
            before=one.before,
            after=one.after,
            rule_before=one.rule_before,
            rule_after=one.rule_after,
        )
        for one in found.changes
    ]
    return ReplayView(replayed=found.replayed, changes=changes)


@router.put("")
def save(body: SaveBody, services: ServicesDep, who: Writer) -> VersionView:
    """Put a text in force as the next version; the next command obeys it."""
    version = services.allowlist.save(body.text, actor=who.actor, reason=body.reason, expected=body.expected)
    return VersionView.of(version)


@router.get("/versions")
def history(
    services: ServicesDep,
    who: Reader,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> list[VersionView]:
    """Newest first."""
    del who
    return [VersionView.of(one) for one in services.allowlist.history(limit=limit, before=before)]


@router.get("/versions/{number}")
def version(number: Number, services: ServicesDep, who: Reader) -> DiffView:
    """One version's text and what it changed."""
    del who
    _, text = services.allowlist.version(number)
    return DiffView(text=text, diff=services.allowlist.diff(number))


@router.post("/versions/{number}/restore")
def restore(number: Number, body: RestoreBody, services: ServicesDep, who: Writer) -> VersionView:
    """Put an old version in force again, as a new one."""
    restored = services.allowlist.restore(number, actor=who.actor, reason=body.reason, expected=body.expected)
    return VersionView.of(restored)
