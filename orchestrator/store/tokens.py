"""API tokens."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, Interval, bindparam, cast, func, insert, select, update

from orchestrator.core.access import Role, Scope, Token, TokenMissing, User
from orchestrator.core.names import new_id
from orchestrator.store import users
from orchestrator.store.secrets import digest, new_secret
from orchestrator.store.statement import Statement
from orchestrator.store.tables.tokens import TOKENS
from orchestrator.store.tables.users import USERS

PREFIX = "orc_"
USED_EVERY_S = 60.0


def add(
    engine: Engine,
    user_id: str,
    name: str,
    *,
    role: Role,
    scopes: Iterable[Scope],
    tenant_ids: Iterable[str] | None,
    lifetime_s: float,
) -> tuple[str, Token]:
    """A new token and its secret, which is shown this once."""
    secret = new_secret(PREFIX)
    token_id = new_id("k")
    with engine.begin() as connection:
        connection.execute(
            insert(TOKENS).values(
                id=token_id,
                digest=digest(secret),
                user_id=user_id,
                name=name,
                role=role,
                scopes=sorted(scopes),
                tenant_ids=None if tenant_ids is None else sorted(tenant_ids),
                expires_at=func.now() + timedelta(seconds=lifetime_s),
            )
        )
    return secret, get(engine, token_id)


def get(engine: Engine, token_id: str) -> Token:
    """Raises TokenMissing."""
    with engine.connect() as connection:
        row = connection.execute(_query().where(TOKENS.c.id == token_id)).one_or_none()
    if row is None:
        raise TokenMissing(f"There is no token {ascii(token_id)[:60]}.")
    return _token(row)


def _query() -> Any:
    names = ("id", "user_id", "name", "role", "scopes", "tenant_ids", "created_at", "expires_at", "last_used_at")
    stale = func.coalesce(TOKENS.c.last_used_at < func.now() - cast(timedelta(seconds=USED_EVERY_S), Interval), True)
    columns = [TOKENS.c[name] for name in (*names, "revoked_at")]
    return select(*columns, USERS.c.name.label("user_name"), stale.label("is_stale")).join(
        USERS, USERS.c.id == TOKENS.c.user_id
    )


def _finding() -> Any:
    is_valid = (TOKENS.c.revoked_at.is_(None)) & (TOKENS.c.expires_at > func.now()) & (~USERS.c.is_disabled)
    return _query().add_columns(*users.columns()).where(TOKENS.c.digest == bindparam("digest"), is_valid)


_FIND = Statement(_finding())


def find(engine: Engine, secret: str) -> tuple[Token, User] | None:
    """The valid token this secret belongs to, and whose it is; notes its use, at most once a minute."""
    row = _FIND.one(engine, {"digest": digest(secret)})
    if row is None:
        return None
    if row.is_stale:
        with engine.begin() as connection:
            connection.execute(update(TOKENS).where(TOKENS.c.id == row.id).values(last_used_at=func.now()))
    return _token(row), users.of_row(row)


def listed(engine: Engine, *, user_id: str | None = None) -> list[Token]:
    """Newest first, revoked and expired ones included."""
    query = _query().order_by(TOKENS.c.created_at.desc()).limit(1000)
    if user_id is not None:
        query = query.where(TOKENS.c.user_id == user_id)
    with engine.connect() as connection:
        return [_token(row) for row in connection.execute(query)]


def revoke(engine: Engine, token_id: str) -> None:
    """Again is fine. Raises TokenMissing."""
    with engine.begin() as connection:
        done = connection.execute(
            update(TOKENS)
            .where(TOKENS.c.id == token_id)
            .values(revoked_at=func.coalesce(TOKENS.c.revoked_at, func.now()))
        )
    if done.rowcount != 1:
        raise TokenMissing(f"There is no token {ascii(token_id)[:60]}.")


def _token(row: Any) -> Token:
    values = {name: getattr(row, name) for name in Token.__dataclass_fields__}
    values["role"] = Role(row.role)
    values["scopes"] = frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope))
    values["tenant_ids"] = None if row.tenant_ids is None else frozenset(row.tenant_ids)
    return Token(**values)
