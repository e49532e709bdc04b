"""`orchestrator audit …`: what happened, and whether the record of it is whole."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, plain, say, show_one, show_rows, write
from orchestrator.core.audit import AuditRecord, Checkpoint, canonical
from orchestrator.core.ports.audit import AuditQuery, Verdict
from orchestrator.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="The audit trail: search it, export it, prove that it is whole.")
COLUMNS = ("seq", "time", "actor", "action", "tenant", "target", "decision", "rule", "result", "exit_code")
Since = Annotated[datetime | None, typer.Option(help="from this moment on")]
Until = Annotated[datetime | None, typer.Option(help="before this moment")]
Tenant = Annotated[str | None, typer.Option(help="a tenant's name")]
FOLLOW_S = 1.0


class UnknownCheckpoints(InvalidInput):
    code = "invalid.checkpoints"


@app.command()
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until interrupted")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """The newest records, oldest of them first."""
    with session.opened() as services:
        found = services.audit.search(AuditQuery(limit=lines))[::-1]
        show_rows([_row(record) for record in found], COLUMNS, form, empty="no records yet")
        last = found[-1].seq if found else 0
        while follow:
            time.sleep(FOLLOW_S)
            fresh = [one for one in services.audit.search(AuditQuery(limit=200)) if one.seq > last][::-1]
            for record in fresh:
                write(canonical(dict(record.values)).decode())
                last = record.seq


@app.command()
def search(
    contains: Annotated[str | None, typer.Argument(help="text anywhere in the record")] = None,
    tenant: Tenant = None,
    actor: Annotated[str | None, typer.Option(help="who, by id or name")] = None,
    action: Annotated[str | None, typer.Option(help="exact, or a prefix with a dot: tenant.")] = None,
    decision: Annotated[str | None, typer.Option(help="allow, approval or deny")] = None,
    result: Annotated[str | None, typer.Option(help="ok, failed, denied …")] = None,
    rule: Annotated[str | None, typer.Option(help="a rule's id")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    form: FormOption = Form.TABLE,
) -> None:
    """Records that match, newest first."""
    query = AuditQuery(
        tenant=tenant,
        actor=actor,
        action=action,
        decision=decision,
        result=result,
        rule=rule,
        contains=contains,
        since=_aware(since),
        until=_aware(until),
        limit=limit,
    )
    with session.opened() as services:
        found = services.audit.search(query)
    if form is Form.JSON:
        return show_rows([dict(record.values) for record in found], COLUMNS, form)
    show_rows([_row(record) for record in found], COLUMNS, form, empty="no record matches")


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="where to write; stdout if left out")] = None,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Records as JSON lines, oldest first."""
    query = AuditQuery(tenant=tenant, since=_aware(since), until=_aware(until))
    with session.opened() as services:
        target = file.open("wb") if file is not None else sys.stdout.buffer
        try:
            count = 0
            for record in services.audit.export(query):
                target.write(canonical(dict(record.values)) + b"\n")
                count += 1
            target.flush()
        finally:
            if file is not None:
                target.close()
    say(f"{count} records")


@app.command()
def verify(
    checkpoints: Annotated[Path | None, typer.Option(help="checkpoints kept on another machine")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Recompute the chain; exit code 1 when it is not intact."""
    with session.opened() as services:
        found = services.audit.verify(_checkpoints(checkpoints))
    summary = {**plain(found), "verdict": found.verdict.value}
    if form is Form.JSON:
        show_one(summary, form)
    else:
        show_one(summary, form, columns=("verdict", "records", "checkpoints", "head"))
        for finding in found.findings:
            say(f"{finding.verdict.value}: {finding.explanation} {finding.file}".rstrip())
    if found.verdict is not Verdict.INTACT:
        raise typer.Exit(1)


@app.command()
def checkpoint() -> None:
    """Sign the head of the chain now, as a line to be kept on another machine."""
    with session.opened() as services:
        write(services.audit.checkpoint().as_line().decode().rstrip())


def _checkpoints(file: Path | None) -> list[Checkpoint]:
    if file is None:
        return []
    try:
        return [Checkpoint.from_line(line) for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as problem:
        raise UnknownCheckpoints(f"{file} holds no checkpoints: {problem}.") from problem


def _aware(moment: datetime | None) -> datetime | None:
    return moment.astimezone() if moment is not None and moment.tzinfo is None else moment


def _row(record: AuditRecord) -> dict[str, object]:
    values = dict(record.values)
    actor = values.get("actor")
    if isinstance(actor, dict):
        values["actor"] = actor.get("name")
    return values
