"""`orchestrator token …`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_one, show_rows
from orchestrator.core.access import Role, Scope, Token
from orchestrator.store import tenants, tokens, users

app = typer.Typer(no_args_is_help=True, help="API tokens: for programs, and for agents that act for a person.")
DAY_S = 86_400.0
COLUMNS = ("id", "name", "user", "role", "tenants", "expires_at", "last_used_at", "revoked_at")


@app.command(epilog="Example: orchestrator token create mia@example.com assistant --role agent --tenant harbour")
def create(
    user: Annotated[str, typer.Argument(help="whose token it is")],
    name: Annotated[str, typer.Argument(help="what it is for")],
    role: Annotated[Role | None, typer.Option(help="agent makes its bearer an agent of the user")] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="what it is good for; all its role may when left out")
    ] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="only these tenants; repeatable")] = None,
    days: Annotated[float, typer.Option(help="how long it lives")] = 30.0,
    form: FormOption = Form.TABLE,
) -> None:
    """Create a token; its secret is shown this once."""
    with session.opened() as services:
        secret, token = services.access.create_token(
            session.principal(),
            users.named(services.store, user),
            name,
            role=role,
            scopes=scope or (),
            tenant_ids=None if tenant is None else [tenants.named(services.store, one).id for one in tenant],
            lifetime_s=days * DAY_S,
        )
        row = _row(token, tenants.names(services.store)) | {"secret": secret}
    show_one(row, form, columns=("id", "name", "user", "role", "scopes", "tenants", "expires_at", "secret"))


@app.command("list")
def list_(form: FormOption = Form.TABLE) -> None:
    """Every token, without its secret."""
    with session.opened() as services:
        names = tenants.names(services.store)
        rows = [_row(token, names) for token in tokens.listed(services.store)]
    show_rows(rows, COLUMNS, form, empty="no tokens yet: orchestrator token create USER NAME")


@app.command()
def revoke(token_id: Annotated[str, typer.Argument(metavar="ID", help="from `token list`")]) -> None:
    """Revoke a token; it stops working at once."""
    with session.opened() as services:
        services.access.revoke_token(session.principal(), token_id)
    say(f"{token_id} is revoked")


def _row(token: Token, names: dict[str, str]) -> dict[str, object]:
    fields = ("id", "name", "role", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    row: dict[str, object] = {name: getattr(token, name) for name in fields}
    chosen = token.tenant_ids
    row["tenants"] = "all" if chosen is None else sorted(names.get(one, one) for one in chosen)
    return row | {"user": token.user_name}
