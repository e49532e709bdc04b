"""`orchestrator refresh …`."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Engine

from orchestrator.cli import session
from orchestrator.cli.exits import code_of
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows
from orchestrator.core.refresh import Refresh
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.store import jobs, refreshes, slots, tenants

app = typer.Typer(no_args_is_help=True, help="Rebuild tenants' databases from the newest snapshot, or go back.")
Name = Annotated[str, typer.Argument(help="the tenant's name")]
Reason = Annotated[str, typer.Option(help="why; it stands in the history and in the audit trail")]
COLUMNS = ("tenant", "kind", "state", "started_at", "spent_s", "gap_s", "snapshot_id", "reason", "carried", "error")


class WhichTenant(InvalidInput):
    code = "invalid.which_tenant"


@app.command(epilog="Example: orchestrator refresh run north-region --reason 'fresh figures'")
def run(
    name: Annotated[str | None, typer.Argument(help="the tenant's name; or give --all")] = None,
    every: Annotated[bool, typer.Option("--all", help="every running tenant, a few at once")] = False,
    snapshot: Annotated[str | None, typer.Option(help="a snapshot's id instead of the newest one")] = None,
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="with --all, for cron: leave out whom somebody put off")
    ] = False,
    wait: Annotated[bool, typer.Option(help="--no-wait leaves the work to the scheduler and shows the job")] = True,
    reason: Reason = "on demand",
    form: FormOption = Form.TABLE,
) -> None:
    """Rebuild a tenant's database and swap it in; clients notice nothing."""
    if (name is None) != every or (every and snapshot is not None) or (scheduled and not every):
        raise WhichTenant("Name one tenant, or say --all.", next_step="orchestrator refresh run NAME | --all")
    reason = "scheduled" if scheduled and reason == "on demand" else reason
    who = session.principal()
    with session.opened() as services:
        if every:
            wanted = tenants.listed(services.store, states=[TenantState.RUNNING])
            wanted = [one for one in wanted if not (scheduled and _is_put_off(services.store, one))]
        else:
            wanted = [tenants.named(services.store, str(name))]
        if not wait:
            arguments = {"snapshot_id": snapshot} if snapshot else {}
            asked = [
                jobs.ask(
                    services.store,
                    "refresh",
                    requested_by=who.name,
                    tenant_id=one.id,
                    reason=reason,
                    priority=50,
                    arguments=arguments,
                )
                for one in wanted
            ]
            return show_rows(asked, ("id", "kind", "state", "created_at"), form)
        if every:
            return _all(services.refresh.run_all(wanted, actor=who.actor, reason=reason, on_done=_told), wanted, form)
        done = services.refresh.run(
            wanted[0],
            actor=who.actor,
            reason=reason,
            snapshot_id=snapshot,
            on_step=lambda step: say(f"  {step}"),
        )
        show_one(_row(done, {wanted[0].id: wanted[0].name}), form, columns=COLUMNS[:-1])


def _is_put_off(store: Engine, tenant: Tenant) -> bool:
    by = slots.use_postponement(store, "refresh", tenant.id)
    if by is not None:
        say(f"  {tenant.name}: postponed by {by}")
    return by is not None


def _told(tenant: Tenant, result: Refresh | OrchestratorError) -> None:
    say(f"  {tenant.name}: {'refreshed' if isinstance(result, Refresh) else result.message}")


def _all(results: dict[str, Refresh | OrchestratorError], wanted: list[Tenant], form: Form) -> None:
    """One row a tenant; the exit code is that of the first failure."""
    names = {tenant.id: tenant.name for tenant in wanted}
    rows: list[dict[str, object]] = []
    failures = []
    for name, result in results.items():
        if isinstance(result, Refresh):
            rows.append(_row(result, names))
        else:
            failures.append(result)
            rows.append({"tenant": name, "kind": "refresh", "state": "failed", "error": result.message})
    show_rows(rows, COLUMNS, form, empty="no tenant runs")
    if failures:
        raise typer.Exit(code_of(failures[0]))


@app.command()
def undo(name: Name, reason: Reason = "on demand", form: FormOption = Form.TABLE) -> None:
    """Make a tenant's previous database live again. What is live now is kept, so an undo can be undone."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        done = services.refresh.undo(
            tenant, actor=session.principal().actor, reason=reason, on_step=lambda step: say(f"  {step}")
        )
        show_one(_row(done, {tenant.id: tenant.name}), form, columns=COLUMNS[:-1])


@app.command(epilog="Example: orchestrator refresh restore north-region c-7f3a")
def restore(
    name: Name,
    draft: Annotated[str, typer.Argument(help="the draft's id, as `change list` and `refresh history` name it")],
    form: FormOption = Form.TABLE,
) -> None:
    """Put the rows a refresh saved as a draft back into the tenant's database: all of them, or none and why."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        done = services.refresh.restore(tenant, draft, actor=session.principal().actor)
        show_one({"tenant": name, "draft": draft, "restored": done.is_applied}, form)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="only this tenant's")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    form: FormOption = Form.TABLE,
) -> None:
    """What was refreshed and undone, the newest first."""
    with session.opened() as services:
        tenant_id = tenants.named(services.store, name).id if name else None
        found = refreshes.history(services.store, tenant_id=tenant_id, limit=limit)
        names = tenants.names(services.store)
    show_rows([_row(one, names) for one in found], COLUMNS, form, empty="nothing was refreshed yet")


@app.command()
def schedule(form: FormOption = Form.TABLE) -> None:
    """When each tenant's data was and will be refreshed, and what the schedule last decided and why."""
    from orchestrator.flows.refresh.outlook import outlook
    from orchestrator.wiring.schedule import load

    with session.opened() as services:
        found = outlook(services.store, load(services.settings), tenants.listed(services.store))
    rows = [
        {
            "tenant": one.tenant_name,
            "data_as_of": one.data_as_of,
            "next_due_at": one.next_due_at,
            "postponed_by": one.postponed.requested_by if one.postponed else None,
            "last_outcome": one.last_slot.outcome if one.last_slot else None,
            "last_reason": one.last_slot.reason if one.last_slot else None,
            "last_state": one.last.state if one.last else None,
            "snapshot_id": one.snapshot_id,
        }
        for one in found
    ]
    columns = ("tenant", "data_as_of", "next_due_at", "postponed_by", "last_outcome", "last_reason", "last_state")
    show_rows(rows, columns, form, empty="no tenants yet: orchestrator tenant launch NAME")


@app.command()
def postpone(
    name: Name,
    reason: Reason = "",
    take_back: Annotated[bool, typer.Option("--take-back", help="keep the date after all")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Put a tenant's next scheduled refresh off, once."""
    from orchestrator.wiring.schedule import load

    actor = session.principal().actor
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        if take_back:
            was = services.refresh.keep_date(tenant, actor=actor)
            return show_one({"tenant": name, "postponed": False, "was_postponed": was}, form)
        done = services.refresh.postpone(
            tenant, actor=actor, reason=reason, in_a_row_max=load(services.settings).postpone_max
        )
        show_one({"tenant": name, "postponed": True, "by": done.requested_by, "reason": done.reason}, form)


def _row(refresh: Refresh, names: dict[str, str]) -> dict[str, object]:
    fields = ("id", "kind", "state", "step", "requested_by", "reason", "snapshot_id", "generation_id", "carried")
    more = ("gap_s", "ended_sessions", "timings", "error_code", "error", "recovered", "started_at", "finished_at")
    row: dict[str, object] = {name: getattr(refresh, name) for name in (*fields, *more)}
    spent = (refresh.finished_at - refresh.started_at).total_seconds() if refresh.finished_at else None
    return {"tenant": names.get(refresh.tenant_id, refresh.tenant_id), **row, "spent_s": spent}
