"""`orchestrator user …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, YesOption, confirm, say, show_one, show_rows
from orchestrator.core.access import Role, User
from orchestrator.store import tenants, users
from orchestrator.store.secrets import new_password

app = typer.Typer(no_args_is_help=True, help="People who sign in, their roles and their tenants.")
Name = Annotated[str, typer.Argument(help="the user's name")]
TenantOption = Annotated[list[str] | None, typer.Option("--tenant", "-t", help="a tenant they belong to; repeatable")]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="read the password from stdin")]
COLUMNS = ("name", "role", "tenants", "is_disabled", "created_at", "last_seen_at")
SESSION_COLUMNS = ("id", "created_at", "seen_at", "expires_at", "address", "agent")


@app.command(epilog="Example: orchestrator user create mia@example.com --role manager --tenant harbour")
def create(
    name: Name,
    role: Annotated[Role, typer.Option(help="what they may do")] = Role.MANAGER,
    tenant: TenantOption = None,
    password_stdin: StdinOption = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Create a user. Without --password-stdin a password is generated and shown this once."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else new_password()
    with session.opened() as services:
        ids = [tenants.named(services.store, one).id for one in tenant or ()]
        user = services.access.create_user(session.principal().actor, name, role, password, tenant_ids=ids)
        row = _row(user, tenants.names(services.store))
    shown = {} if password_stdin else {"password": password}
    show_one(row | shown, form, columns=("name", "role", "tenants", *shown))


@app.command("list")
def list_(form: FormOption = Form.TABLE) -> None:
    """Everybody who may sign in."""
    with session.opened() as services:
        names = tenants.names(services.store)
        rows = [_row(user, names) for user in users.listed(services.store)]
    show_rows(rows, COLUMNS, form, empty="nobody yet: orchestrator user create NAME --role admin")


@app.command(epilog="Example: orchestrator user change mia@example.com --join riverside")
def change(
    name: Name,
    role: Annotated[Role | None, typer.Option(help="another role")] = None,
    join: Annotated[list[str] | None, typer.Option(help="add them to a tenant; repeatable")] = None,
    leave: Annotated[list[str] | None, typer.Option(help="take them out of a tenant; repeatable")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="whether they may sign in")] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Change a user's role or tenants, or disable them, which ends their sessions."""
    with session.opened() as services:
        user = services.access.change_user(
            session.principal().actor,
            users.named(services.store, name),
            role=role,
            is_disabled=disable,
            join=[tenants.named(services.store, one).id for one in join or ()],
            leave=[tenants.named(services.store, one).id for one in leave or ()],
        )
        show_one(_row(user, tenants.names(services.store)), form, columns=COLUMNS[:4])


@app.command()
def password(name: Name, password_stdin: StdinOption = False, yes: YesOption = False) -> None:
    """Give a user a new password; their sessions end. Without --password-stdin it is generated and shown."""
    with session.opened() as services:
        user = users.named(services.store, name)
        confirm(f"End every session of {name} and replace their password?", yes or password_stdin)
        chosen = sys.stdin.readline().rstrip("\n") if password_stdin else new_password()
        services.access.change_user(session.principal().actor, user, password=chosen)
    if password_stdin:
        say("the password was replaced")
    else:
        show_one({"name": name, "password": chosen}, Form.TABLE)


@app.command(epilog="Example: orchestrator user sessions mia@example.com")
def sessions(name: Name, form: FormOption = Form.TABLE) -> None:
    """Where a user is signed in at the console."""
    with session.opened() as services:
        found = services.access.sessions_of(users.named(services.store, name))
    rows = [{field: getattr(one, field) for field in SESSION_COLUMNS} for one in found]
    show_rows(rows, SESSION_COLUMNS, form, empty=f"{name} is signed in nowhere")


@app.command("sign-out", epilog="Example: orchestrator user sign-out mia@example.com --session s4k2")
def sign_out(
    name: Name,
    session_id: Annotated[str | None, typer.Option("--session", help="only this one, from `user sessions`")] = None,
    yes: YesOption = False,
) -> None:
    """End one sign-in of a user, or all of them; their tokens go on working."""
    with session.opened() as services:
        user = users.named(services.store, name)
        if session_id is None:
            confirm(f"Sign {name} out everywhere?", yes)
        ended = services.access.end_sessions(session.principal(), user, session_id)
    say(f"{ended} session{'' if ended == 1 else 's'} of {name} ended")


def _row(user: User, names: dict[str, str]) -> dict[str, object]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "tenants": sorted(names.get(one, one) for one in user.tenant_ids),
        "is_disabled": user.is_disabled,
        "created_at": user.created_at,
        "last_seen_at": user.last_seen_at,
    }
