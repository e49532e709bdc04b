"""`orchestrator change …`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import session
from orchestrator.cli.output import (
    Form,
    FormOption,
    YesOption,
    cell,
    confirm,
    plain,
    say,
    show_one,
    show_rows,
    table,
    write,
    write_json,
)
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.core.changes import Change
    from orchestrator.core.changeset.shape import TableName
    from orchestrator.core.tenants import Tenant
    from orchestrator.wiring.services import Services

app = typer.Typer(no_args_is_help=True, help="Propose, review, promote and revert changes.")
Name = Annotated[str, typer.Argument(help="the tenant's name")]
Id = Annotated[str, typer.Argument(help="the change's id")]
TablesOption = Annotated[list[str] | None, typer.Option("--table", help="only this table; may be given again")]
RowsOption = Annotated[list[str] | None, typer.Option("--row", help="only this row, by its id; may be given again")]
DigestOption = Annotated[str | None, typer.Option(help="refuse unless the change still has this digest")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="why; kept as a comment")]
COLUMNS = ("id", "tenant_name", "state", "title", "author", "rows", "approvals_needed", "created_at")
FINDINGS_SHOWN = 50
FINDINGS = ("check", "code", "table", "key", "column", "was", "wanted", "now", "message")


class Stage(StrEnum):
    COPY = "copy"
    PRODUCTION = "production"


class BadTableName(InvalidInput):
    code = "invalid.table_name"


@app.command(epilog="Example: orchestrator change diff north-region")
def diff(
    name: Name,
    rows: Annotated[int, typer.Option(help="rows shown of each table")] = 50,
    form: FormOption = Form.TABLE,
) -> None:
    """What differs between a tenant's database and its snapshot, and what the rules say about it."""
    import sys

    from orchestrator.core.changeset import json_form
    from orchestrator.core.changeset.rendering import render_text
    from orchestrator.store import tenants

    with session.opened() as services:
        preview = services.changes.changes.diff(tenants.named(services.store, name))
    if form is Form.JSON:
        findings = [finding.document() for finding in preview.examined.findings]
        return write_json({"changeset": json_form.to_json(preview.result.changeset), "findings": findings})
    colour = sys.stdout.isatty()
    write(render_text(preview.result.changeset, preview.risks, colour=colour, rows_shown=rows).rstrip())
    _show_findings({"rules": {"findings": [finding.document() for finding in preview.examined.findings]}})


@app.command(epilog='Example: orchestrator change submit north-region --title "Winter prices"')
def submit(
    name: Name,
    title: Annotated[str, typer.Option("--title", "-t", help="what it is about, in one line")],
    description: Annotated[str, typer.Option(help="why, in as many words as it takes")] = "",
    tables: TablesOption = None,
    rows: RowsOption = None,
    code: Annotated[bool, typer.Option(help="also propose the branch's published head")] = True,
    draft: Annotated[bool, typer.Option("--draft", help="only keep it as a draft")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Propose what differs in a tenant's sandbox: a draft, checked, and handed to the reviewers."""
    from orchestrator.store import tenants

    actor = session.principal().actor
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        made = services.changes.changes.draft(
            tenant,
            actor=actor,
            title=title,
            description=description,
            tables=_tables(tables),
            rows=rows or (),
            code=code,
        )
        say(f"  draft {made.id}")
        if not draft:
            made = services.changes.changes.submit(made.id, tenant, actor=actor)
        show_one(_row(made), form, columns=("id", "state", "rows", "approvals_needed", "digest", "expires_at"))


@app.command("resubmit")
def resubmit(change_id: Id, form: FormOption = Form.TABLE) -> None:
    """Hand an existing draft to the reviewers."""
    with session.opened() as services:
        tenant = _tenant(services, change_id)
        made = services.changes.changes.submit(change_id, tenant, actor=session.principal().actor)
        show_one(_row(made), form, columns=("id", "state", "rows", "approvals_needed", "digest", "expires_at"))


@app.command(epilog='Example: orchestrator change edit c3h5 --title "Winter prices" --leave-out 5f2a9c0d1e3b4a67')
def edit(
    change_id: Id,
    title: Annotated[str | None, typer.Option("--title", "-t", help="another title")] = None,
    description: Annotated[str | None, typer.Option(help="another reason")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="a row to let go of, by its id; repeatable")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Change what a draft says, or leave rows out of it; they stay in the tenant's database."""
    if title is None and description is None and not leave_out:
        raise InvalidInput("Say what is to change.", next_step="Use --title, --description or --leave-out.")
    from orchestrator.store import changes

    with session.opened() as services:
        flow, actor = services.changes.changes, session.principal().actor
        if leave_out:
            flow.leave_out(change_id, actor=actor, rows=leave_out)
        with services.store.connect() as connection:
            made = changes.get(connection, change_id)
        if title is not None or description is not None:
            kept = (made.title if title is None else title, made.description if description is None else description)
            made = flow.describe(change_id, actor=actor, title=kept[0], description=kept[1])
    show_one(_row(made), form, columns=("id", "state", "title", "rows", "digest"))


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="only this tenant's")] = None,
    state: Annotated[list[str] | None, typer.Option(help="only in this state; may be given again")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    form: FormOption = Form.TABLE,
) -> None:
    """Changes, the newest first."""
    from orchestrator.core.changes import ChangeState
    from orchestrator.store import changes, tenants

    known = {item.value for item in ChangeState}
    unknown = sorted(set(state or ()) - known)
    if unknown:
        raise InvalidInput(f"{unknown[0]} is no state.", next_step=f"Use one of {', '.join(sorted(known))}.")
    with session.opened() as services:
        tenant_id = tenants.named(services.store, name).id if name else None
        with services.store.connect() as connection:
            found = changes.listed(
                connection, tenant_id=tenant_id, states=[ChangeState(item) for item in state or ()], limit=limit
            )
    show_rows([_row(item) for item in found], COLUMNS, form, empty="no changes yet: orchestrator change submit NAME")


@app.command()
def show(
    change_id: Id,
    rows: Annotated[int, typer.Option(help="rows shown of each table")] = 20,
    form: FormOption = Form.TABLE,
) -> None:
    """One change: its rows, checks, approvals, comments and what happened to it."""
    import sys

    from orchestrator.core.changeset import json_form
    from orchestrator.core.changeset.rendering import render_text
    from orchestrator.store import changes, promotions

    with session.opened() as services, services.store.connect() as connection:
        change = changes.get(connection, change_id)
        changeset = changes.changeset(connection, change_id)
        parts: dict[str, list[Any]] = {
            "comments": changes.comments(connection, change_id),
            "approvals": changes.approvals(connection, change_id),
            "promotions": promotions.of_change(connection, change_id),
            "events": changes.events(connection, change_id=change_id),
        }
    if form is Form.JSON:
        return write_json({**_row(change), "changeset": json_form.to_json(changeset), **parts})
    show_one(_row(change), form, columns=(*COLUMNS, "digest", "expires_at", "reason"))
    write(render_text(changeset, colour=sys.stdout.isatty(), rows_shown=rows).rstrip())
    _show_findings(change.checks)
    for title, columns in (
        ("approvals", ("actor", "at", "expires_at", "void_reason")),
        ("comments", ("author", "at", "row", "text")),
        ("promotions", ("id", "kind", "state", "step", "inserted", "updated", "deleted", "error")),
    ):
        if parts[title]:
            write(f"\n{title}")
            show_rows([_named(item) for item in parts[title]], columns, form)


@app.command()
def check(change_id: Id, form: FormOption = Form.TABLE) -> None:
    """Make every check again, beside production as it is now."""
    with session.opened() as services:
        tenant = _tenant(services, change_id)
        checked = services.changes.changes.check(change_id, tenant, actor=session.principal().actor)
    if form is Form.JSON:
        return write_json(_row(checked))
    write("nothing stands in the way" if not checked.blocking else f"{checked.blocking} findings in the way")
    _show_findings(checked.checks)


@app.command()
def comment(
    change_id: Id, text: Annotated[str, typer.Argument()], row: str = "", form: FormOption = Form.TABLE
) -> None:
    """Say something about a change, or about one of its rows."""
    with session.opened() as services:
        said = services.changes.review.comment(change_id, actor=session.principal().actor, text=text, row=row)
    show_one(_named(said), form, columns=("id", "author", "at", "text"))


@app.command()
def approve(change_id: Id, digest: DigestOption = None, note: str = "", form: FormOption = Form.TABLE) -> None:
    """Agree to exactly what the change holds now. Neither its author nor an agent may."""
    with session.opened() as services:
        change = services.changes.review.approve(change_id, actor=session.principal().actor, digest=digest, note=note)
    show_one(_row(change), form, columns=("id", "state", "approvals_needed", "digest", "expires_at"))


@app.command()
def reject(change_id: Id, reason: ReasonOption, digest: DigestOption = None, form: FormOption = Form.TABLE) -> None:
    """Say no."""
    with session.opened() as services:
        change = services.changes.review.reject(
            change_id, actor=session.principal().actor, reason=reason, digest=digest
        )
    show_one(_row(change), form, columns=("id", "state", "reason"))


@app.command("return")
def return_(change_id: Id, reason: ReasonOption, form: FormOption = Form.TABLE) -> None:
    """Ask for changes: hand it back to its author as a draft."""
    with session.opened() as services:
        change = services.changes.review.request_changes(change_id, actor=session.principal().actor, reason=reason)
    show_one(_row(change), form, columns=("id", "state", "reason"))


@app.command()
def withdraw(change_id: Id, reason: ReasonOption = "", form: FormOption = Form.TABLE) -> None:
    """Take a change back before it is promoted."""
    with session.opened() as services:
        change = services.changes.review.withdraw(
            change_id, actor=session.principal().actor, reason=reason, any_author=True
        )
    show_one(_row(change), form, columns=("id", "state", "reason"))


@app.command()
def rebase(change_id: Id, form: FormOption = Form.TABLE) -> None:
    """Move a change onto the newest snapshot; rows that conflict there are named and left out."""
    with session.opened() as services:
        tenant = _tenant(services, change_id)
        moved = services.changes.changes.rebase(change_id, tenant, actor=session.principal().actor)
    if form is Form.JSON:
        return write_json({**_row(moved.change), "done": moved.done, "conflicts": moved.change.checks})
    show_one(_row(moved.change), form, columns=("id", "state", "rows", "base_snapshot_id"))
    _show_findings(moved.change.checks)


@app.command(epilog="Example: orchestrator change promote c123 --rehearse production")
def promote(
    change_id: Id,
    stage: Annotated[Stage, typer.Argument(help="where to rehearse")] = Stage.COPY,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="only try it out; nothing stays")] = False,
    digest: DigestOption = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Write an approved change to production, its rows and its code together."""
    actor = session.principal().actor
    with session.opened() as services:
        tenant = _tenant(services, change_id)
        if rehearse:
            from orchestrator.flows.rehearse import Stage as Where

            found = services.changes.rehearse.run(change_id, tenant, actor=actor, stage=Where(stage.value))
            return _show_rehearsal(found, form)
        with _conflicts_shown():
            done = services.changes.promote.run(change_id, tenant, actor=actor, digest=digest)
    columns = ("id", "state", "inserted", "updated", "deleted", "unchanged", "code_after", "duration_s")
    show_one(_named(done), form, columns=columns)


@app.command()
def revert(change_id: Id, reason: ReasonOption = "", yes: YesOption = False, form: FormOption = Form.TABLE) -> None:
    """Undo a promoted change's rows, unless production changed them since."""
    with session.opened() as services:
        tenant = _tenant(services, change_id)
        confirm(f"Undo change {change_id} in production?", yes)
        with _conflicts_shown():
            done = services.changes.revert.run(change_id, tenant, actor=session.principal().actor, reason=reason)
    columns = ("id", "state", "inserted", "updated", "deleted", "unchanged", "duration_s")
    show_one(_named(done), form, columns=columns)


@app.command()
def export(change_id: Id, file: Annotated[Path, typer.Argument(help="where to write its rows as JSON")]) -> None:
    """Write a change's rows to a file, in their published JSON form."""
    from orchestrator.core.changeset import json_form
    from orchestrator.store import changes

    with session.opened() as services, services.store.connect() as connection:
        file.write_text(json_form.dump(changes.changeset(connection, change_id)) + "\n")
    say(f"  wrote {file}")


@app.command()
def declare(
    change_id: Id,
    reason: ReasonOption,
    written: Annotated[bool, typer.Option("--written/--not-written", help="what you found in production")],
    yes: YesOption = False,
) -> None:
    """Say how a promote ended whose commit was never answered and that production has forgotten since."""
    confirm(f"Record that the rows of {change_id} are {'' if written else 'not '}in production?", yes)
    with session.opened() as services:
        actor = session.principal().actor
        services.changes.promote.declare(change_id, actor=actor, is_written=written, reason=reason)
    say("  recorded")


@app.command()
def credential(form: FormOption = Form.TABLE) -> None:
    """Check that the promote credential can do what it must, and not much more."""
    with session.opened() as services:
        found = services.changes.credential.run()
    show_rows(found, ("code", "table", "fatal", "message", "next_step"), form, empty="the credential has what it needs")
    if any(one.fatal for one in found):
        raise typer.Exit(1)


def _tenant(services: Services, change_id: str) -> Tenant:
    from orchestrator.store import changes, tenants

    with services.store.connect() as connection:
        return tenants.get(services.store, changes.get(connection, change_id).tenant_id)


def _tables(names: Iterable[str] | None) -> list[TableName]:
    from orchestrator.core.changeset.shape import TableName

    try:
        return [TableName.parse(name) for name in names or ()]
    except ValueError as error:
        raise BadTableName(f"{error}.", next_step="Write schema.table.") from error


def _row(change: Change) -> dict[str, Any]:
    from orchestrator.cli.output import plain

    values: dict[str, Any] = plain(change)
    counts = change.counts
    shown = f"+{counts.inserted} ~{counts.updated} -{counts.deleted}"
    return {**values, "author": change.author.name, "rows": shown, "blocking": change.blocking}


def _named(thing: object) -> dict[str, Any]:
    """Actors by their names."""
    from orchestrator.cli.output import plain

    values: dict[str, Any] = plain(thing)
    for name in ("actor", "author"):
        if isinstance(values.get(name), dict):
            values[name] = values[name]["name"]
    return values


def _show_findings(checks: Mapping[str, Any]) -> None:
    rows = [
        {**finding, "check": name + ("" if finding["blocks"] else " (note)")}
        for name, document in checks.items()
        for finding in document.get("findings", ())
    ]
    if rows:
        write("")
        show_rows(rows, FINDINGS, Form.TABLE)


@contextmanager
def _conflicts_shown() -> Iterator[None]:
    """Before the error: every cell in the way, as it was, as it was wanted and as production has it."""
    from orchestrator.core.ports.production import PromotionConflicted

    try:
        yield
    except PromotionConflicted as conflict:
        found = [plain(finding) for finding in conflict.findings[:FINDINGS_SHOWN]]
        columns = FINDINGS[2:]
        say(table([[cell(one.get(name)) for name in columns] for one in found], columns))
        raise


def _show_rehearsal(found: Mapping[str, Any], form: Form) -> None:
    if form is Form.JSON:
        return write_json(found)
    show_one(found, form, columns=("where", "blocking", "written", "side_effects", "duration_s"))
    _show_findings({"rehearsal": found})
