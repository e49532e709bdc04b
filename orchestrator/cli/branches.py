"""`orchestrator branch show | publish | merge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows
from orchestrator.core.tenants import TenantState
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.store import tenants

if TYPE_CHECKING:
    from orchestrator.core.publishes import BranchView, Publish

app = typer.Typer(no_args_is_help=True, help="Tenants' code: their branches, publishes and merges.")
Name = Annotated[str, typer.Argument(help="the tenant's name")]
COLUMNS = ("tenant", "state", "commit", "scanned", "error")


@app.command(epilog="Example: orchestrator branch show north")
def show(name: Name, form: FormOption = Form.TABLE) -> None:
    """Where a tenant's branch stands beside production's."""
    with session.opened() as services:
        show_one(_branch(services.publish.view(tenants.named(services.store, name))), form)


@app.command(epilog="Example: orchestrator branch publish --all")
def publish(
    name: Annotated[str | None, typer.Argument(help="the tenant's name")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="every tenant, running or stopped")] = False,
    reason: Annotated[str, typer.Option("--reason", "-r", help="why, for the record")] = "on demand",
    form: FormOption = Form.TABLE,
) -> None:
    """Commit what is in the workspace, check it outside the container, and push the branch."""
    if (name is None) == (not everybody):
        raise InvalidInput("Name one tenant, or say --all.", effect="Nothing was published.")
    actor = session.principal().actor
    failed = False
    with session.opened() as services:
        if name is not None:
            done = services.publish.run(tenants.named(services.store, name), actor=actor, reason=reason)
            return show_rows([_publish(name, done)], COLUMNS, form)
        found = tenants.listed(services.store, states=(TenantState.RUNNING, TenantState.STOPPED))
        results = services.publish.run_all(found, actor=actor, reason=reason)
        failed = any(isinstance(one, OrchestratorError) for one in results.values())
        show_rows([_publish(tenant, one) for tenant, one in results.items()], COLUMNS, form)
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example: orchestrator branch merge north")
def merge(name: Name, form: FormOption = Form.TABLE) -> None:
    """Publish, then merge production's newest code into the tenant's branch; conflicts stand in the workspace."""
    actor = session.principal().actor
    with session.opened() as services:
        view = services.publish.bring_up_to_date(tenants.named(services.store, name), actor=actor)
    say(f"{name} holds production's newest code")
    show_one(_branch(view), form)


def _branch(view: BranchView) -> dict[str, object]:
    return {
        "branch": view.name,
        "head": view.head,
        "production": view.production,
        "ahead": view.ahead,
        "behind": view.behind,
        "conflicts": list(view.conflicts),
        "last_publish": view.last.state.value if view.last else None,
        "last_error": view.last.error if view.last else "",
    }


def _publish(tenant: str, result: Publish | OrchestratorError) -> dict[str, object]:
    if isinstance(result, OrchestratorError):
        return {"tenant": tenant, "state": "failed", "commit": None, "scanned": 0, "error": str(result)}
    return {
        "tenant": tenant,
        "state": result.state.value,
        "commit": result.commit,
        "scanned": result.files_count,
        "error": result.error,
    }
