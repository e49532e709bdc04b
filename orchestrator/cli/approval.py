"""`orchestrator approval …`: the inbox."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, plain, show_one, show_rows, write
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.approvals import Approval, ApprovalState
from orchestrator.store import tenants

app = typer.Typer(no_args_is_help=True, help="What waits for a person: single runs of commands, and wanted rules.")
ApprovalId = Annotated[str, typer.Argument(help="the request's id")]
Reason = Annotated[str, typer.Option(help="why")]
COLUMNS = ("id", "kind", "tenant", "requester", "command", "reason", "state", "created_at", "expires_at")


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="settled ones too")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    form: FormOption = Form.TABLE,
) -> None:
    """What waits for a decision, newest first."""
    with session.opened() as services:
        state = None if everything else ApprovalState.PENDING
        found = services.approvals.listed(state=state, limit=limit)
    show_rows([_row(one) for one in found], COLUMNS, form, empty="nothing waits for a decision")


@app.command()
def show(approval_id: ApprovalId, form: FormOption = Form.TABLE) -> None:
    """One request, as it would run."""
    with session.opened() as services:
        show_one(_row(services.approvals.get(approval_id)), form)


@app.command()
def approve(approval_id: ApprovalId, reason: Reason = "", form: FormOption = Form.TABLE) -> None:
    """Let the requester run exactly this once."""
    with session.opened() as services:
        decided = services.approvals.approve(approval_id, actor=session.principal().actor, reason=reason)
    show_one(_row(decided), form)


@app.command()
def deny(approval_id: ApprovalId, reason: Reason = "", form: FormOption = Form.TABLE) -> None:
    """Refuse it."""
    with session.opened() as services:
        decided = services.approvals.deny(approval_id, actor=session.principal().actor, reason=reason)
    show_one(_row(decided), form)


@app.command(context_settings={"ignore_unknown_options": True})
def ask(
    name: Annotated[str, typer.Argument(help="the tenant's name")],
    argv: Annotated[list[str], typer.Argument(help="the denied command behind --")],
    reason: Annotated[str, typer.Option(help="what it is needed for")],
    form: FormOption = Form.TABLE,
) -> None:
    """Ask the admins for a rule that allows a denied command."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        request = CommandRequest.asked(argv=tuple(argv))
        asked = services.approvals.ask_rule(tenant, request, actor=session.principal().actor, reason=reason)
    show_one(_row(asked), form)


@app.command()
def draft(approval_id: ApprovalId) -> None:
    """The narrowest rule for what was asked, to be put into the allowlist."""
    with session.opened() as services:
        tenant = tenants.get(services.store, services.approvals.get(approval_id).tenant_id)
        write(services.approvals.rule_draft(approval_id, tenant).rstrip())


def _row(approval: Approval) -> dict[str, object]:
    values: dict[str, object] = plain(approval)
    values["requester"] = approval.requester.name
    values["command"] = approval.shown_command
    values["environment"] = approval.shown_environment
    return values
