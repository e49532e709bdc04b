"""`orchestrator command …` and `orchestrator query`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows, write, write_json
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import Command, CommandState, OutputChunk
from orchestrator.store import commands, tenants

app = typer.Typer(no_args_is_help=True, help="Run commands in a tenant's sandbox, as far as the allowlist lets them.")
Name = Annotated[str, typer.Argument(help="the tenant's name")]
Argv = Annotated[list[str], typer.Argument(help="the command behind --, argument by argument")]
CommandId = Annotated[str, typer.Argument(help="the command's id")]
Cwd = Annotated[str, typer.Option(help="where it runs")]
COLUMNS = ("id", "tenant", "actor", "argv", "decision", "rule", "state", "exit_code", "created_at")
AS_TYPED = {"ignore_unknown_options": True}


@app.command(context_settings=AS_TYPED, epilog="Example: orchestrator command run north -- git status --short")
def run(
    name: Name,
    argv: Argv,
    cwd: Cwd = "/workspace",
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="seconds")] = None,
    disposable: Annotated[bool, typer.Option("--disposable", help="on a copy of the workspace")] = False,
    network: Annotated[str, typer.Option(help="a profile of configs/networks.yaml")] = "none",
    stdin: Annotated[bool, typer.Option("--stdin", help="pass this terminal's input on")] = False,
    approval: Annotated[str | None, typer.Option(help="use exactly this approval")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Run a command; its output is printed, its exit code is this one's."""
    request = CommandRequest.asked(
        argv=tuple(argv),
        cwd=cwd,
        timeout_s=timeout_s,
        place="disposable" if disposable else "sandbox",
        network=network,
        stdin=sys.stdin.read() if stdin else "",
        approval=approval,
    )
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        begun = services.commands.start(tenant, request, actor=session.principal().actor)
        for chunk in services.commands.follow(begun.id):
            if chunk is not None and form is Form.TABLE:
                target = sys.stdout if chunk.stream == "stdout" else sys.stderr
                target.buffer.write(chunk.data)
                target.buffer.flush()
        ended = commands.get(services.store, begun.id)
        if form is Form.JSON:
            write_json(_full(ended, commands.output(services.store, begun.id)))
    if ended.state is not CommandState.FINISHED or ended.exit_code is None:
        say(f"{ended.state.value}: {ended.error or ended.stopped_by or 'it did not end by itself'}")
    if ended.changed_paths and disposable:
        say(f"changed {len(ended.changed_paths)} paths; keep them: orchestrator command apply {ended.id}")
    if ended.exit_code != 0:
        raise typer.Exit(ended.exit_code if ended.exit_code is not None else 1)


@app.command(context_settings=AS_TYPED)
def explain(name: Name, argv: Argv, cwd: Cwd = "/workspace", form: FormOption = Form.TABLE) -> None:
    """What would be decided, and why; nothing runs."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        found = services.commands.explain(tenant, CommandRequest.asked(argv=tuple(argv), cwd=cwd))
    show_one(found, form)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="only this tenant's")] = None,
    state: Annotated[CommandState | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    form: FormOption = Form.TABLE,
) -> None:
    """Commands, newest first."""
    with session.opened() as services:
        seen = frozenset({tenants.named(services.store, name).id}) if name else None
        found = commands.listed(services.store, tenant_ids=seen, state=state, limit=limit)
    show_rows([_row(command) for command in found], COLUMNS, form, empty="no commands yet")


@app.command()
def show(command_id: CommandId, form: FormOption = Form.TABLE) -> None:
    """One command with its output."""
    with session.opened() as services:
        command = commands.get(services.store, command_id)
        chunks = commands.output(services.store, command_id)
    if form is Form.JSON:
        return write_json(_full(command, chunks))
    show_one(_row(command), form)
    sys.stdout.buffer.write(b"".join(chunk.data for chunk in chunks))
    sys.stdout.buffer.flush()


@app.command()
def cancel(command_id: CommandId, form: FormOption = Form.TABLE) -> None:
    """Stop a running command and everything it started."""
    with session.opened() as services:
        command = commands.get(services.store, command_id)
        tenant = tenants.get(services.store, command.tenant_id)
        show_one(_row(services.commands.cancel(tenant, command_id, actor=session.principal().actor)), form)


@app.command()
def apply(command_id: CommandId, form: FormOption = Form.TABLE) -> None:
    """Bring what a disposable command changed into the workspace, once."""
    with session.opened() as services:
        command = commands.get(services.store, command_id)
        tenant = tenants.get(services.store, command.tenant_id)
        applied = services.commands.apply(tenant, command_id, actor=session.principal().actor)
        show_one(_row(applied), form, columns=("id", "tenant", "changed_paths", "applied_at"))


@app.command("query", epilog='Example: orchestrator command query north "select count(*) from rooms"')
def query(
    name: Name,
    statement: Annotated[str, typer.Argument(help="one SQL statement")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="real errors and counts, nothing kept")] = False,
    rows: Annotated[int, typer.Option(min=1, max=10_000)] = 1_000,
    form: FormOption = Form.TABLE,
) -> None:
    """Run one statement on the tenant's private database, as the tenant's role."""
    from orchestrator.parts.query import QueryArguments, printed, remarks

    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        arguments = QueryArguments(statement, dry_run, "table", rows)
        _, result = services.commands.query(tenant, arguments, actor=session.principal().actor)
    if form is Form.JSON:
        write_json(result)
    else:
        write(printed(result, "table").rstrip("\n"))
        if said := remarks(result).rstrip("\n"):
            say(said)
    if result.error is not None or result.stopped_by:
        raise typer.Exit(1)


def _row(command: Command) -> dict[str, object]:
    from orchestrator.cli.output import plain
    from orchestrator.core.allowlist.texts import shown_argv

    values: dict[str, object] = plain(command)
    return {**values, "actor": command.actor.name, "argv": shown_argv(command.argv)}


def _full(command: Command, chunks: list[OutputChunk]) -> dict[str, object]:
    texts = {
        stream: b"".join(one.data for one in chunks if one.stream == stream).decode("utf-8", "replace")
        for stream in ("stdout", "stderr")
    }
    return {**_row(command), "argv": list(command.argv), **texts}
