"""`orchestrator tenant …`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, YesOption, confirm, say, show_one, show_rows
from orchestrator.config import ProxySection
from orchestrator.core.probes import NotProbed
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant
from orchestrator.store import probes, tenants

app = typer.Typer(no_args_is_help=True, help="Launch, look at, stop, start and remove tenants.")
Name = Annotated[str, typer.Argument(help="the tenant's name, as in its hostname")]
COLUMNS = ("name", "state", "profile", "snapshot_profile", "address", "created_at", "reason")


@app.command(epilog="Example: orchestrator tenant launch north-region --profile office")
def launch(
    name: Name,
    profile: Annotated[str, typer.Option(help="limits, from configs/limits.yaml")] = "",
    image: Annotated[str, typer.Option(help="the company's own app image instead of the demo's")] = "",
    scope: Annotated[str | None, typer.Option(help="the value of the tenant column in configs/promotion.yaml")] = None,
    snapshot_profile: Annotated[str, typer.Option(help="which rows, from configs/masking.yaml")] = "",
    refresh_policy: Annotated[RefreshPolicy | None, typer.Option(help="what becomes of unproposed changes")] = None,
    pool_mode: Annotated[PoolMode | None, typer.Option(help="session for apps that need it")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Launch a tenant: database, container, route; returns when its hostname answers."""
    from orchestrator.flows.launch import LaunchRequest

    with session.opened() as services:
        defaults = services.settings.tenants
        request = LaunchRequest(
            name=name,
            profile=profile,
            image=image,
            scope=scope,
            snapshot_profile=snapshot_profile or defaults.snapshot_profile,
            refresh_policy=refresh_policy or RefreshPolicy(defaults.refresh_policy),
            pool_mode=pool_mode or PoolMode(defaults.pool_mode),
        )
        tenant = services.launch.run(request, actor=session.principal().actor, progress=lambda step: say(f"  {step}"))
        show_one(_row(tenant, services.settings.proxy), form, columns=COLUMNS[:-1])


@app.command("list")
def list_(form: FormOption = Form.TABLE) -> None:
    """Every tenant with its state and address."""
    with session.opened() as services:
        proxy = services.settings.proxy
        rows = [_row(tenant, proxy) for tenant in tenants.listed(services.store)]
    show_rows(rows, COLUMNS, form, empty="no tenants yet: orchestrator tenant launch NAME")


@app.command()
def show(name: Name, form: FormOption = Form.TABLE) -> None:
    """One tenant, and the steps of what was last done to it."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        steps = tenants.steps(services.store, tenant.id, limit=20)
        row = _row(tenant, services.settings.proxy)
    if form is Form.JSON:
        return show_one({**row, "steps": steps}, form)
    show_one(row, form)
    show_rows(steps, ("operation", "step", "state", "begun_at", "spent_s", "error"), form)


@app.command()
def stop(name: Name, form: FormOption = Form.TABLE) -> None:
    """Stop a tenant's containers; its data and files stay."""
    with session.opened() as services:
        tenant = services.tenants.stop(name, actor=session.principal().actor)
        show_one(_row(tenant, services.settings.proxy), form, columns=("name", "state"))


@app.command()
def start(name: Name, form: FormOption = Form.TABLE) -> None:
    """Start a stopped tenant; returns when its hostname answers."""
    with session.opened() as services:
        tenant = services.tenants.start(name, actor=session.principal().actor)
        show_one(_row(tenant, services.settings.proxy), form, columns=("name", "state", "address"))


@app.command(epilog="Example: orchestrator tenant probe harbour")
def probe(
    name: Name,
    last: Annotated[bool, typer.Option("--last", help="show what came of the last probe, try nothing")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Try every boundary of a running tenant, and say what answered. Exit code 1 when one was crossed."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        report = probes.latest(services.store, tenant.id) if last else None
        if last and report is None:
            raise NotProbed(f"{name} has not been probed yet.", next_step=f"orchestrator tenant probe {name}")
        report = report or services.probe.run(tenant, actor=session.principal().actor)
    show_rows(report.rows(), ("boundary", "kind", "outcome", "by", "evidence"), form)
    if not report.is_sound:
        raise typer.Exit(1)


@app.command()
def remove(name: Name, yes: YesOption = False, form: FormOption = Form.TABLE) -> None:
    """Delete a tenant's containers, databases and workspace. Its published branch and its records stay."""
    with session.opened() as services:
        tenants.named(services.store, name)
        confirm(f"Delete {name} with its databases and its workspace?", yes)
        tenant = services.tenants.remove(name, actor=session.principal().actor)
        show_one(_row(tenant, services.settings.proxy), form, columns=("name", "state"))


def _row(tenant: Tenant, proxy: ProxySection) -> dict[str, object]:
    names = ("id", "name", "state", "reason", "profile", "image", "scope", "snapshot_profile", "refresh_policy")
    row: dict[str, object] = {name: getattr(tenant, name) for name in (*names, "pool_mode", "created_at")}
    return row | {"address": proxy.address(f"{tenant.name}.{proxy.domain}")}
