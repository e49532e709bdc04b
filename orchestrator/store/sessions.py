"""Sessions and entry codes. Secrets go out once and come back; here only their digests are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Engine,
    Interval,
    Select,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from orchestrator.core.access import User
from orchestrator.core.names import new_id
from orchestrator.store import users
from orchestrator.store.secrets import digest, new_secret
from orchestrator.store.statement import Statement
from orchestrator.store.tables.sessions import ENTRY_CODES, SESSIONS
from orchestrator.store.tables.users import USERS

TOUCH_EVERY_S = 60.0
SESSIONS_PER_USER_MAX = 200


@dataclass(frozen=True)
class Session:
    """A sign-in that lasts. `hostname` is the console's or one tenant's: it is good for that host alone."""

    id: str
    user_id: str
    hostname: str
    parent_id: str | None
    address: str
    agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


_COLUMNS = [SESSIONS.c[name] for name in Session.__dataclass_fields__]


def begin(
    engine: Engine,
    user_id: str,
    hostname: str,
    *,
    lifetime_s: float,
    parent_id: str | None = None,
    address: str = "",
    agent: str = "",
) -> tuple[str, Session]:
    """A new session and its secret, which is nowhere else. A user's oldest make room beyond a bound."""
    secret = new_secret()
    values = {
        "id": new_id("s"),
        "digest": digest(secret),
        "user_id": user_id,
        "hostname": hostname,
        "parent_id": parent_id,
        "address": address[:64],
        "agent": agent[:200],
        "expires_at": func.now() + timedelta(seconds=lifetime_s),
    }
    newest = (
        select(SESSIONS.c.id)
        .where(SESSIONS.c.user_id == user_id)
        .order_by(SESSIONS.c.created_at.desc())
        .limit(SESSIONS_PER_USER_MAX)
    )
    with engine.begin() as connection:
        row = connection.execute(insert(SESSIONS).values(**values).returning(*_COLUMNS)).one()
        connection.execute(
            delete(SESSIONS).where(SESSIONS.c.user_id == user_id, SESSIONS.c.id.not_in(newest.scalar_subquery()))
        )
    return secret, Session(**row._mapping)


def _finding() -> Select[Any]:
    parent = SESSIONS.alias("parent")
    has_parent = select(parent.c.id).where(parent.c.id == SESSIONS.c.parent_id, parent.c.expires_at > func.now())
    is_stale = (SESSIONS.c.seen_at < func.now() - cast(timedelta(seconds=TOUCH_EVERY_S), Interval)).label("is_stale")
    return (
        select(*_COLUMNS, is_stale, *users.columns())
        .join(USERS, USERS.c.id == SESSIONS.c.user_id)
        .where(
            SESSIONS.c.digest == bindparam("digest"),
            SESSIONS.c.hostname == bindparam("hostname"),
            SESSIONS.c.expires_at > func.now(),
            SESSIONS.c.seen_at > func.now() - cast(bindparam("idle"), Interval),
            or_(SESSIONS.c.parent_id.is_(None), has_parent.exists()),
        )
    )


_FIND = Statement(_finding())


def find(engine: Engine, secret: str, hostname: str, *, idle_s: float) -> tuple[Session, User] | None:
    """The session this secret opens on this host, if it has neither expired nor been idle for too long, and whose.

    A host's session ends with the console's it came from.
    """
    row = _FIND.one(engine, {"digest": digest(secret), "hostname": hostname, "idle": timedelta(seconds=idle_s)})
    if row is None:
        return None
    if row.is_stale:
        _touch(engine, row.id, row.parent_id)
    return Session(**{name: getattr(row, name) for name in Session.__dataclass_fields__}), users.of_row(row)


def _touch(engine: Engine, session_id: str, parent_id: str | None) -> None:
    """Working on a tenant's host keeps the console's session alive too."""
    with engine.begin() as connection:
        ids = [one for one in (session_id, parent_id) if one is not None]
        connection.execute(update(SESSIONS).where(SESSIONS.c.id.in_(ids)).values(seen_at=func.now()))


def end(engine: Engine, session_id: str) -> None:
    """With every host session that came from it; one that has ended already is fine."""
    with engine.begin() as connection:
        connection.execute(delete(SESSIONS).where(SESSIONS.c.id == session_id))


def end_host(engine: Engine, hostname: str) -> None:
    """Every session of a host that is no more."""
    with engine.begin() as connection:
        connection.execute(delete(SESSIONS).where(SESSIONS.c.hostname == hostname))


def listed(engine: Engine, user_id: str) -> list[Session]:
    query = select(*_COLUMNS).where(SESSIONS.c.user_id == user_id).order_by(SESSIONS.c.seen_at.desc())
    with engine.connect() as connection:
        return [Session(**row._mapping) for row in connection.execute(query)]


def give_code(engine: Engine, session_id: str, hostname: str, *, lifetime_s: float) -> str:
    """A one-time code that carries this sign-in to one host."""
    code = new_secret()
    with engine.begin() as connection:
        connection.execute(delete(ENTRY_CODES).where(ENTRY_CODES.c.expires_at < func.now()))
        connection.execute(
            insert(ENTRY_CODES).values(
                digest=digest(code),
                session_id=session_id,
                hostname=hostname,
                expires_at=func.now() + timedelta(seconds=lifetime_s),
            )
        )
    return code


def take_code(engine: Engine, code: str, hostname: str) -> Session | None:
    """The console session the code came from, once; None for a used, foreign or expired one."""
    with engine.begin() as connection:
        session_id = connection.scalar(
            delete(ENTRY_CODES)
            .where(
                ENTRY_CODES.c.digest == digest(code),
                ENTRY_CODES.c.hostname == hostname,
                ENTRY_CODES.c.expires_at > func.now(),
            )
            .returning(ENTRY_CODES.c.session_id)
        )
        if session_id is None:
            return None
        row = connection.execute(
            select(*_COLUMNS).where(SESSIONS.c.id == session_id, SESSIONS.c.expires_at > func.now())
        ).one_or_none()
    return None if row is None else Session(**row._mapping)


def prune(engine: Engine, *, idle_s: float) -> int:
    """Delete sessions that have expired; returns how many."""
    is_over = or_(SESSIONS.c.expires_at < func.now(), SESSIONS.c.seen_at < func.now() - timedelta(seconds=idle_s))
    with engine.begin() as connection:
        return connection.execute(delete(SESSIONS).where(is_over)).rowcount
