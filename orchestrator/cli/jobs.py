"""`orchestrator job …`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows
from orchestrator.core.jobs import Job, JobState
from orchestrator.store import jobs, tenants

app = typer.Typer(no_args_is_help=True, help="What the scheduler does, has done and will do.")
JobId = Annotated[str, typer.Argument(help="the job's id")]
COLUMNS = ("id", "kind", "tenant", "state", "progress", "doing", "requested_by", "created_at", "reason", "error")
POLL_S = 0.5


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="only this tenant's")] = None,
    kind: Annotated[str | None, typer.Option(help="refresh, snapshot, publish, prune, reconcile")] = None,
    state: Annotated[JobState | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    form: FormOption = Form.TABLE,
) -> None:
    """The newest first."""
    with session.opened() as services:
        tenant_id = tenants.named(services.store, tenant).id if tenant else None
        found = jobs.find(services.store, tenant_id=tenant_id, kind=kind, state=state, limit=limit)
        names = tenants.names(services.store)
    show_rows([_row(job, names) for job in found], COLUMNS, form, empty="no jobs")


@app.command()
def show(job_id: JobId, form: FormOption = Form.TABLE) -> None:
    """One job with its log."""
    with session.opened() as services:
        row = _row(jobs.get(services.store, job_id), tenants.names(services.store))
        lines = jobs.lines(services.store, job_id)
    if form is Form.JSON:
        return show_one({**row, "lines": lines}, form)
    show_one(row, form)
    show_rows(lines, ("number", "at", "text"), form, empty="it logged nothing")


@app.command()
def wait(
    job_id: JobId,
    timeout: Annotated[float, typer.Option(help="give up after so many seconds", min=1, max=86_400)] = 600.0,
    form: FormOption = Form.TABLE,
) -> None:
    """Follow a job's log until it ends; exits with 1 when it did not end well."""
    deadline = time.monotonic() + timeout
    seen = 0
    with session.opened() as services:
        while True:
            job = jobs.get(services.store, job_id)
            for line in jobs.lines(services.store, job_id, after=seen):
                say(f"  {line.text}")
                seen = line.number
            if not job.state.is_open or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        show_one(_row(job, tenants.names(services.store)), form, columns=COLUMNS)
    if job.state is not JobState.DONE:
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, form: FormOption = Form.TABLE) -> None:
    """End a waiting job, or ask a running one to stop at its next safe point."""
    with session.opened() as services:
        job = jobs.cancel(services.store, job_id)
        show_one(_row(job, tenants.names(services.store)), form, columns=("id", "kind", "state", "cancel_requested"))


def _row(job: Job, names: dict[str, str]) -> dict[str, object]:
    left_out = ("arguments", "key", "worker", "lease_until", "busy")
    row = {name: getattr(job, name) for name in Job.__dataclass_fields__ if name not in left_out}
    return {**row, "tenant": names.get(job.tenant_id, job.tenant_id) if job.tenant_id else None}
