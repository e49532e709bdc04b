"""Asking the private database: one statement, its rows as a table, a picture when they are numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.commands import ApprovalRequired, CommandDenied
from orchestrator.core.ports.queries import QueryResult
from orchestrator.core.statement import STATEMENT_BYTES_MAX, statement_problem
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.query import QueryArguments
from orchestrator.store import commands
from orchestrator.web import charts
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/workspaces/{name}/query", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.COMMANDS_RUN)]
Runner = Annotated[Visit, acting(Scope.COMMANDS_RUN)]
ROWS_SHOWN = 500
ROWS_DOWNLOADED = 10_000
RECENT = 8
CHART_ROWS = (2, 200)
# For whoever does not know yet what there is to ask.
BEGINNINGS = (
    (
        "Which tables are there, and how many rows has each?",
        "SELECT nspname || '.' || relname AS name, greatest(reltuples, 0)::bigint AS rows FROM pg_class"
        " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 2 DESC",
    ),
    (
        "Which columns has each table?",
        "SELECT table_schema || '.' || table_name AS name, string_agg(column_name, ', ' ORDER BY ordinal_position)"
        " AS columns FROM information_schema.columns"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') GROUP BY 1 ORDER BY 1",
    ),
)


@router.get("")
def form(name: str, visit: Reader, sql: Annotated[str, Query(max_length=8000)] = "") -> Response:
    """An empty field, or the statement of a link; nothing runs before somebody says so."""
    return _page(visit, visit.tenant(name), sql)


@router.post("")
def run(name: str, visit: Runner) -> Response:
    """Run it, or only try it: then everything it did is rolled back."""
    tenant = visit.tenant(name)
    sql = visit.text("sql", length_max=STATEMENT_BYTES_MAX)
    problem = statement_problem(sql)
    if problem is not None:
        return _page(visit, tenant, sql, trouble=f"The text {problem}.", status=422)
    arguments = QueryArguments(sql, dry_run=visit.is_set("dry"), rows=ROWS_SHOWN)
    try:
        command, result = visit.services.commands.query(tenant, arguments, actor=visit.who.actor)
    except (CommandDenied, ApprovalRequired) as error:
        return _page(visit, tenant, sql, trouble=f"{error.message} {error.next_step}", status=403)
    return _page(visit, tenant, sql, result=result, command_id=command.id, chart=chart(result))


@router.post("/csv")
def download(name: str, visit: Runner) -> Response:
    """The rows as a file. It is run as a trial, so that a statement that changes rows does not do so twice."""
    tenant = visit.tenant(name)
    sql = visit.text("sql", length_max=STATEMENT_BYTES_MAX)
    arguments = QueryArguments(sql, dry_run=True, format="csv", rows=ROWS_DOWNLOADED)
    try:
        _, result = visit.services.commands.query(tenant, arguments, actor=visit.who.actor)
    except (CommandDenied, ApprovalRequired) as error:
        return _page(visit, tenant, sql, trouble=f"{error.message} {error.next_step}", status=403)
    if result.error is not None or result.stopped_by:
        return _page(visit, tenant, sql, result=result)
    headers = {"Content-Disposition": f'attachment; filename="{tenant.name}.csv"', "Cache-Control": "no-store"}
    return Response(as_csv(result), media_type="text/csv; charset=utf-8", headers=headers)


def as_csv(result: QueryResult) -> str:
    """A cell that a spreadsheet would run as a formula is put behind a quote mark."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_inert(name) for name in result.columns])
    writer.writerows([["" if cell is None else _inert(cell) for cell in row] for row in result.rows])
    return out.getvalue()


def _inert(cell: str) -> str:
    if cell[:1] in ("=", "@", "\t", "\r") or (cell[:1] in ("+", "-") and _number(cell) is None):
        return "'" + cell
    return cell


def chart(result: QueryResult) -> charts.Picture | None:
    """The first column of numbers by the column of names, as a picture; None when there is nothing to draw."""
    low, high = CHART_ROWS
    if len(result.columns) < 2 or not low <= len(result.rows) <= high:
        return None
    found = next(_figures(result), None)
    if found is None:
        return None
    index, values = found
    labels = [row[0] for row in result.rows]
    points = [charts.Point(str(label)[:40], value) for label, value in zip(labels, values, strict=True)]
    ranked = charts.ranked if len(points) <= charts.RANKED_MAX else charts.bars
    draw = charts.line if _is_ordered(labels) else ranked
    name, title = result.columns[0], f"{result.columns[index]} by {result.columns[0]}"[:100]
    return charts.picture(draw, title, points, about="The same numbers as in the rows below.", head=name)


def _figures(result: QueryResult) -> Iterator[tuple[int, list[float]]]:
    """The columns after the first one that hold nothing but numbers from zero up."""
    for index in range(1, len(result.columns)):
        values = [_number(row[index]) for row in result.rows]
        known = [value for value in values if value is not None and value >= 0]
        if len(known) == len(values):
            yield index, known


def _is_ordered(labels: Sequence[str | None]) -> bool:
    """Dates and growing numbers make a line; names make bars."""
    known = [label for label in labels if label]
    return len(known) > 7 and known == sorted(known) and known[0][:1].isdigit()


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell) if cell is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e15 else None


def _page(visit: Visit, tenant: Tenant, sql: str, *, status: int = 200, **values: Any) -> Response:
    given: dict[str, Any] = {"result": None, "trouble": "", "command_id": "", "chart": None, **values}
    try:
        found = commands.listed(visit.services.store, tenant_ids=[tenant.id], limit=60)
    except OrchestratorError:
        found = []
    recent = [one.argv[-1] for one in found if one.argv and one.argv[0] == "query"]
    unique = list(dict.fromkeys(recent))[:RECENT]
    return visit.show(
        "query/show.html", status=status, tenant=tenant, sql=sql, recent=unique, beginnings=BEGINNINGS, **given
    )
