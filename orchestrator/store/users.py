"""People who sign in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from orchestrator.core.access import InvalidUser, Role, User, UserExists, UserMissing
from orchestrator.core.names import new_id
from orchestrator.store.secrets import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, hash_password
from orchestrator.store.session import single
from orchestrator.store.tables.sessions import SESSIONS
from orchestrator.store.tables.users import SIGN_IN_FAILURES, USER_TENANTS, USERS

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?")

FOREIGN = "!"  # stands where no hash begins: whoever has it cannot sign in by password


def check_name(name: str) -> str:
    """Raises InvalidUser."""
    if not NAME.fullmatch(name):
        raise InvalidUser(
            f"{ascii(name)[:80]} cannot be a user name.",
            next_step="Use lower-case letters, digits and . _ @ + - (an e-mail address will do).",
        )
    return name


def check_password(password: str) -> str:
    """Raises InvalidUser; the password is never repeated."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise InvalidUser(f"A password has {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters.")
    return password


def add(engine: Engine, name: str, role: Role, password: str, *, tenant_ids: Iterable[str] = ()) -> User:
    """Raises InvalidUser or UserExists."""
    values = {
        "id": new_id("u"),
        "name": check_name(name),
        "role": role,
        "password_hash": hash_password(check_password(password)),
    }
    try:
        with engine.begin() as connection:
            connection.execute(insert(USERS).values(**values))
            _belong(connection, values["id"], tenant_ids)
    except IntegrityError as error:
        if "ux_users_name" in str(error.orig):
            raise UserExists(f"There is a user called {name} already.") from error
        raise InvalidUser("One of the tenants does not exist.") from error
    return get(engine, values["id"])


def add_foreign(engine: Engine, name: str, role: Role, mark: str) -> User:
    """A user whom an identity provider vouches for: no password, only the `mark`. Raises InvalidUser or UserExists."""
    values = {"id": new_id("u"), "name": check_name(name), "role": role, "password_hash": FOREIGN + mark}
    try:
        with engine.begin() as connection:
            connection.execute(insert(USERS).values(**values))
    except IntegrityError as error:
        raise UserExists(f"There is a user called {name} already.") from error
    return get(engine, values["id"])


def foreign(engine: Engine, mark: str) -> User | None:
    """The user with this mark of an identity provider."""
    with engine.connect() as connection:
        row = connection.execute(_query().where(USERS.c.password_hash == FOREIGN + mark)).one_or_none()
    return None if row is None else of_row(row)


def get(engine: Engine, user_id: str) -> User:
    """Raises UserMissing."""
    return _one(engine, USERS.c.id == user_id, user_id)


def named(engine: Engine, name: str) -> User:
    """Raises UserMissing."""
    return _one(engine, USERS.c.name == name, name)


def listed(engine: Engine) -> list[User]:
    with engine.connect() as connection:
        return [of_row(row) for row in connection.execute(_query().order_by(USERS.c.name))]


def set_password(engine: Engine, user_id: str, password: str) -> None:
    """Also ends every session of theirs. Raises InvalidUser or UserMissing."""
    hashed = hash_password(check_password(password))
    with engine.begin() as connection:
        _update(connection, user_id, password_hash=hashed)
        connection.execute(delete(SESSIONS).where(SESSIONS.c.user_id == user_id))


def set_disabled(engine: Engine, user_id: str, is_disabled: bool) -> None:
    """Also ends every session of theirs. Raises UserMissing."""
    with engine.begin() as connection:
        _update(connection, user_id, is_disabled=is_disabled)
        if is_disabled:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.user_id == user_id))


def set_role(engine: Engine, user_id: str, role: Role) -> None:
    """Raises UserMissing."""
    with engine.begin() as connection:
        _update(connection, user_id, role=role)


def belong(engine: Engine, user_id: str, tenant_ids: Iterable[str]) -> None:
    """Add the user to tenants."""
    with engine.begin() as connection:
        _belong(connection, user_id, tenant_ids)


def leave(engine: Engine, user_id: str, tenant_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            delete(USER_TENANTS).where(USER_TENANTS.c.user_id == user_id, USER_TENANTS.c.tenant_id == tenant_id)
        )


def password_hash(engine: Engine, name: str) -> tuple[str, str] | None:
    """(id, hash) of a user who may sign in by password; None for an unknown, disabled or foreign one."""
    has_password = ~USERS.c.password_hash.startswith(FOREIGN)
    query = select(USERS.c.id, USERS.c.password_hash).where(USERS.c.name == name, ~USERS.c.is_disabled, has_password)
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.password_hash)


def failures(engine: Engine, name: str, *, window_s: float) -> int:
    """How often signing in as `name` failed within the window."""
    query = select(SIGN_IN_FAILURES.c.failures).where(
        SIGN_IN_FAILURES.c.name == name, SIGN_IN_FAILURES.c.since > func.now() - _span(window_s)
    )
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def note_failure(engine: Engine, name: str, *, window_s: float) -> None:
    is_old = SIGN_IN_FAILURES.c.since <= func.now() - _span(window_s)
    fresh = upsert(SIGN_IN_FAILURES).values(name=name, failures=1, since=func.now())
    with engine.begin() as connection:
        connection.execute(delete(SIGN_IN_FAILURES).where(is_old))
        connection.execute(
            fresh.on_conflict_do_update(
                index_elements=["name"], set_={"failures": SIGN_IN_FAILURES.c.failures + 1, "since": func.now()}
            )
        )


def note_success(engine: Engine, user_id: str, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(delete(SIGN_IN_FAILURES).where(SIGN_IN_FAILURES.c.name == name))
        _update(connection, user_id, last_seen_at=func.now())


def _span(seconds: float) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def columns() -> list[Any]:
    """What `of_row` makes a user from, named so that other tables' columns can stand beside them."""
    tenants = select(func.array_agg(USER_TENANTS.c.tenant_id)).where(USER_TENANTS.c.user_id == USERS.c.id)
    names = ("id", "name", "role", "is_disabled", "created_at", "last_seen_at")
    labelled = [USERS.c[name].label(f"holder_{name}") for name in names]
    return [*labelled, tenants.scalar_subquery().label("holder_tenant_ids")]


def of_row(row: Any) -> User:
    """The user in a row that holds `columns()`."""
    return User(
        id=row.holder_id,
        name=row.holder_name,
        role=Role(row.holder_role),
        tenant_ids=frozenset(row.holder_tenant_ids or ()),
        is_disabled=row.holder_is_disabled,
        created_at=row.holder_created_at,
        last_seen_at=row.holder_last_seen_at,
    )


def _query() -> Any:
    return select(*columns())


def _one(engine: Engine, condition: Any, shown: str) -> User:
    with single(engine) as connection:
        row = connection.execute(_query().where(condition)).one_or_none()
    if row is None:
        raise UserMissing(f"There is no user {ascii(shown)[:60]}.", next_step="`orchestrator user list` shows them.")
    return of_row(row)


def _update(connection: Connection, user_id: str, **values: Any) -> None:
    if connection.execute(update(USERS).where(USERS.c.id == user_id).values(**values)).rowcount != 1:
        raise UserMissing(f"There is no user {ascii(user_id)[:60]}.")


def _belong(connection: Connection, user_id: str, tenant_ids: Iterable[str]) -> None:
    for tenant_id in tenant_ids:
        connection.execute(upsert(USER_TENANTS).values(user_id=user_id, tenant_id=tenant_id).on_conflict_do_nothing())
