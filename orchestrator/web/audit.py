"""The audit trail: search it, take it away, check that nobody touched it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse

from orchestrator.core.access import Scope
from orchestrator.core.audit import FIELDS, AuditRecord
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.web.visit import Visit, reading

router = APIRouter(prefix="/audit", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.AUDIT_READ)]
Text = Annotated[str, Query(max_length=300)]
Day = Annotated[str, Query(max_length=10, pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
PAGE = 100
CSV_FIELDS = tuple(name for name in FIELDS if name not in ("schema", "changed_paths", "details"))
# A spreadsheet would take a cell that begins so for a formula.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def asked(
    tenant: Text = "",
    actor: Text = "",
    action: Text = "",
    decision: Text = "",
    result: Text = "",
    rule: Text = "",
    request_id: Text = "",
    contains: Text = "",
    since: Day = "",
    until: Day = "",
) -> dict[str, str]:
    """What the form sends, as it stands."""
    return dict(locals())


Asked = Annotated[dict[str, str], Depends(asked)]


def _query(chosen: dict[str, str], *, before_seq: int | None = None, limit: int = PAGE) -> AuditQuery:
    texts = {name: value.strip() or None for name, value in chosen.items() if name not in ("since", "until")}
    until = _day(chosen["until"])
    return AuditQuery(
        **texts,
        since=_day(chosen["since"]),
        until=until + timedelta(days=1) if until else None,
        before_seq=before_seq,
        limit=limit,
    )


def _day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text + "T00:00:00+00:00") if text else None
    except ValueError:
        return None


@router.get("")
def search(visit: Reader, chosen: Asked, before_seq: Annotated[int | None, Query(ge=1)] = None) -> Response:
    """Newest first; `before_seq` pages towards older records."""
    found = visit.services.audit.search(_query(chosen, before_seq=before_seq, limit=PAGE + 1))
    kept = {name: value for name, value in chosen.items() if value}
    older = urlencode({**kept, "before_seq": found[PAGE - 1].seq}) if len(found) > PAGE else ""
    return visit.show(
        "audit/search.html",
        records=[_shown(record) for record in found[:PAGE]],
        chosen=chosen,
        is_narrowed=bool(kept),
        query=urlencode(kept),
        older=f"/audit?{older}" if older else "",
    )


def _shown(record: AuditRecord) -> dict[str, object]:
    values = dict(record.values)
    actor = values.get("actor")
    return {
        **values,
        "who": str(actor.get("name", "")) if isinstance(actor, dict) else str(actor),
        "who_kind": str(actor.get("kind", "")) if isinstance(actor, dict) else "",
        "at": datetime.fromisoformat(str(values["time"]).replace("Z", "+00:00")),
        "whole": json.dumps(values, indent=1, ensure_ascii=True, sort_keys=True),
    }


@router.get("/check")
def check(visit: Reader, now: Annotated[bool, Query()] = False) -> Response:
    """Recompute the whole chain and compare it with the signed checkpoints; the page asks for it by itself."""
    if visit.is_fragment:
        return visit.piece("audit/checked.html", found=visit.services.audit.verify())
    return visit.show("audit/check.html", found=visit.services.audit.verify() if now else None)


@router.get("/export.jsonl", response_class=StreamingResponse)
def export_lines(visit: Reader, chosen: Asked) -> StreamingResponse:
    """Oldest first, without a limit, one record a line, exactly as recorded."""
    records = visit.services.audit.export(_query(chosen))
    lines = (json.dumps(dict(record.values), ensure_ascii=True) + "\n" for record in records)
    return _download(lines, "application/jsonl", "audit.jsonl")


@router.get("/export.csv", response_class=StreamingResponse)
def export_table(visit: Reader, chosen: Asked) -> StreamingResponse:
    """Oldest first, without a limit, for a spreadsheet; cells that look like formulas are quoted."""
    return _download(_rows(visit.services.audit.export(_query(chosen))), "text/csv; charset=utf-8", "audit.csv")


def _rows(records: Iterator[AuditRecord]) -> Iterator[str]:
    yield _line(CSV_FIELDS)
    for record in records:
        yield _line([_cell(record.values.get(name)) for name in CSV_FIELDS])


def _line(cells: object) -> str:
    written = io.StringIO()
    csv.writer(written).writerow(cells)  # type: ignore[arg-type]
    return written.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return "'" + text if text.startswith(FORMULA_SIGNS) else text


def _download(lines: Iterator[str], kind: str, name: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(lines, media_type=kind, headers=headers)
