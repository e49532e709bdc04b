"""`orchestrator webhook …`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, show_one, show_rows
from orchestrator.core.jobs import JobState
from orchestrator.store import outbox

app = typer.Typer(no_args_is_help=True, help="Who is told what happens, and whether it arrived.")
COLUMNS = ("id", "target", "kind", "subject", "state", "attempts", "next_at", "status", "error", "created_at")


@app.command("list")
def list_(form: FormOption = Form.TABLE) -> None:
    """The receivers of configs/orchestrator.yaml, without their addresses."""
    with session.opened() as services:
        counts = outbox.counts(services.store)
        rows = [
            {"name": target.name, "kinds": target.kinds, "deliveries": counts.get(target.name, {})}
            for target in services.notify.targets
        ]
    show_rows(rows, ("name", "kinds", "deliveries"), form, empty="no webhooks: see webhooks.targets")


@app.command()
def deliveries(
    target: Annotated[str | None, typer.Option(help="only to this receiver")] = None,
    state: Annotated[JobState | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    form: FormOption = Form.TABLE,
) -> None:
    """What was told to whom, the newest first."""
    with session.opened() as services:
        found = outbox.deliveries(services.store, target=target, state=state, limit=limit)
    show_rows(found, COLUMNS, form, empty="nothing was told to anybody")


@app.command("test")
def try_(name: Annotated[str, typer.Argument(help="the receiver's name")], form: FormOption = Form.TABLE) -> None:
    """Send a notice about nothing now, once, and show the answer."""
    with session.opened() as services:
        show_one(services.notify.test(name, actor=session.principal().actor), form)


@app.command()
def repeat(
    delivery_id: Annotated[str, typer.Argument(help="the delivery's id")], form: FormOption = Form.TABLE
) -> None:
    """Ask for a delivery that has ended once more."""
    with session.opened() as services:
        show_one(services.notify.repeat(delivery_id, actor=session.principal().actor), form)
