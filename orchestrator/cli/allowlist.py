"""`orchestrator allowlist …`: read, check, replay, set, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows, write, write_json
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.errors import OrchestratorError

app = typer.Typer(no_args_is_help=True, help="The finite set of commands that can run.")
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="an allowlist file")]
Reason = Annotated[str, typer.Option(help="why, for the history")]
VERSION_COLUMNS = ("number", "author", "reason", "source", "restored_from", "created_at")


@app.command()
def show(form: FormOption = Form.TABLE) -> None:
    """The version in force and its rules."""
    with session.opened() as services:
        found = services.allowlist.in_force()
    rules = [
        {
            "rule": rule.id,
            "command": " ".join([rule.model.program, *rule.model.subcommand]),
            "decision": rule.decision.value,
            "scope": rule.model.scope,
            "reason": rule.model.reason,
        }
        for rule in found.allowlist.rules
    ]
    if form is Form.JSON:
        return write_json({"version": found.version, "problem": found.problem, "rules": rules})
    say(f"version {found.version.number} by {found.version.author}: {found.version.reason}")
    if found.problem:
        say(f"the file on disk is not in force: {found.problem}")
    show_rows(rules, ("rule", "command", "decision", "scope", "reason"), form)


@app.command()
def check(file: File) -> None:
    """Read, lint and run every example of a file, and see what running tenants' images lack; nothing is saved."""
    found = load(file.read_text(encoding="utf-8"), source=str(file))
    say(f"ok: {len(found.rules)} rules, every example holds")
    try:
        with session.opened() as services:
            lacking = services.allowlist.lacking(found)
    except (OrchestratorError, SQLAlchemyError):
        return say("no running installation was asked whether its images have every program")
    for one in lacking:
        say(f"warning: {one.program} cannot start in the image {one.image}: {one.why}")


@app.command()
def replay(
    file: File,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many recent commands")] = 200,
    form: FormOption = Form.TABLE,
) -> None:
    """Decide recent commands again under a file: which decisions would change?"""
    with session.opened() as services:
        found = services.allowlist.replay(file.read_text(encoding="utf-8"), limit=limit)
    rows = [
        {
            "command": shown_argv(one.command.argv),
            "tenant": one.command.tenant,
            "before": one.before,
            "after": one.after,
            "rule_before": one.rule_before,
            "rule_after": one.rule_after,
        }
        for one in found.changes
    ]
    columns = ("tenant", "command", "before", "after", "rule_before", "rule_after")
    show_rows(rows, columns, form, empty=f"{found.replayed} commands replayed, every decision stays")


@app.command("set")
def set_(
    file: File,
    reason: Reason,
    expected: Annotated[int | None, typer.Option(help="the version you saw; refused when another is in force")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Put a file in force as the next version; the next command obeys it."""
    with session.opened() as services:
        text = file.read_text(encoding="utf-8")
        version = services.allowlist.save(text, actor=session.principal().actor, reason=reason, expected=expected)
    show_one(version, form, columns=VERSION_COLUMNS)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    diff: Annotated[int | None, typer.Option(help="show what this version changed")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Versions with author and reason, newest first."""
    with session.opened() as services:
        if diff is not None:
            return write(services.allowlist.diff(diff))
        found = services.allowlist.history(limit=limit)
    show_rows(found, VERSION_COLUMNS, form)


@app.command()
def restore(
    number: Annotated[int, typer.Argument(min=1, help="the version to put in force again")],
    reason: Reason,
    form: FormOption = Form.TABLE,
) -> None:
    """Put an old version in force again, as a new one."""
    with session.opened() as services:
        version = services.allowlist.restore(number, actor=session.principal().actor, reason=reason)
    show_one(version, form, columns=VERSION_COLUMNS)
