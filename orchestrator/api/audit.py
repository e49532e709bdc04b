"""/api/v1/audit: search, export, verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from orchestrator.api.deps import ServicesDep, View, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.audit import AuditRecord
from orchestrator.core.ports.audit import AuditQuery

router = APIRouter(prefix="/audit", tags=["audit"])
Reader = Annotated[Principal, require(Scope.AUDIT_READ)]
Text = Annotated[str | None, Query(max_length=300)]


class FindingView(View):
    verdict: str
    seq: int | None
    file: str
    explanation: str


class VerificationView(View):
    """`intact`, or what was done to the log."""

    verdict: str
    records: int
    head: str
    checkpoints: int
    findings: list[FindingView]


class CheckpointView(View):
    """To be kept on another machine."""

    time: str
    count: int
    head: str
    signature: str


def get_query(
    tenant: Text = None,
    actor: Text = None,
    action: Text = None,
    decision: Text = None,
    result: Text = None,
    rule: Text = None,
    request_id: Text = None,
    contains: Text = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before_seq: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditQuery:
    return AuditQuery(
        tenant=tenant,
        actor=actor,
        action=action,
        decision=decision,
        result=result,
        rule=rule,
        request_id=request_id,
        contains=contains,
        since=_aware(since),
        until=_aware(until),
        before_seq=before_seq,
        limit=limit,
    )


QueryDep = Annotated[AuditQuery, Depends(get_query)]


@router.get("")
def search(services: ServicesDep, who: Reader, query: QueryDep) -> list[dict[str, Any]]:
    """Newest first; `before_seq` pages towards older records."""
    del who
    return [dict(record.values) for record in services.audit.search(query)]


@router.get("/export", response_class=StreamingResponse)
def export(services: ServicesDep, who: Reader, query: QueryDep) -> StreamingResponse:
    """Oldest first, as JSON lines, without a limit."""
    del who
    return StreamingResponse(_lines(services.audit.export(query)), media_type="application/jsonl")


@router.get("/verify")
def verify(services: ServicesDep, who: Reader) -> VerificationView:
    """Recompute the chain and compare it with what is signed."""
    del who
    found = services.audit.verify()
    return VerificationView(
        verdict=found.verdict.value,
        records=found.records,
        head=found.head,
        checkpoints=found.checkpoints,
        findings=[
            FindingView(verdict=one.verdict.value, seq=one.seq, file=one.file, explanation=one.explanation)
            for one in found.findings
        ],
    )


@router.post("/checkpoints", status_code=201)
def checkpoint(services: ServicesDep, who: Annotated[Principal, require(Scope.SYSTEM_READ)]) -> CheckpointView:
    """Sign the head of the chain now, to be kept elsewhere."""
    who.require(Scope.AUDIT_READ)
    return CheckpointView.model_validate(services.audit.checkpoint(), from_attributes=True)


def _lines(records: Iterator[AuditRecord]) -> Iterator[str]:
    for record in records:
        yield json.dumps(dict(record.values), ensure_ascii=True) + "\n"


def _aware(moment: datetime | None) -> datetime | None:
    return moment.astimezone() if moment is not None and moment.tzinfo is None else moment
