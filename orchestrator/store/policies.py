"""Versions of the allowlist in the control database; a number is given once and a version never changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, RowMapping, insert, select, text

from orchestrator.core.policies import PolicySource, PolicyVersion, PolicyVersionMissing
from orchestrator.store.session import lock_key
from orchestrator.store.tables.policies import POLICIES

_COLUMNS = [
    POLICIES.c.number,
    POLICIES.c.digest,
    POLICIES.c.author,
    POLICIES.c.reason,
    POLICIES.c.source,
    POLICIES.c.created_at,
    POLICIES.c.restored_from,
]
LOCK_TIMEOUT_MS = 10_000


def _version(row: RowMapping) -> PolicyVersion:
    values = {column.name: row[column.name] for column in _COLUMNS}
    return PolicyVersion(**{**values, "source": PolicySource(values["source"])})


@contextmanager
def changing(store: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else makes a version; waits at most ten seconds for its turn."""
    with store.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": lock_key("allowlist")})
        yield connection


def newest(connection: Connection) -> tuple[PolicyVersion, str] | None:
    """The newest version and its text, None before the first."""
    row = connection.execute(
        select(*_COLUMNS, POLICIES.c.content).order_by(POLICIES.c.number.desc()).limit(1)
    ).one_or_none()
    return None if row is None else (_version(row._mapping), str(row.content))


def get(connection: Connection, number: int) -> tuple[PolicyVersion, str]:
    """One version and its text. Raises PolicyVersionMissing."""
    row = connection.execute(select(*_COLUMNS, POLICIES.c.content).where(POLICIES.c.number == number)).one_or_none()
    if row is None:
        raise PolicyVersionMissing(f"There is no version {number} of the allowlist.")
    return _version(row._mapping), str(row.content)


def listed(connection: Connection, *, limit: int = 100, before: int | None = None) -> list[PolicyVersion]:
    """Newest first."""
    query = select(*_COLUMNS).order_by(POLICIES.c.number.desc()).limit(max(1, min(limit, 1_000)))
    if before is not None:
        query = query.where(POLICIES.c.number < before)
    return [_version(row) for row in connection.execute(query).mappings()]


def add(
    connection: Connection,
    *,
    number: int,
    digest: str,
    content: str,
    author: str,
    reason: str,
    source: PolicySource,
    restored_from: int | None = None,
) -> PolicyVersion:
    """Store a version; the caller holds `changing`."""
    row = connection.execute(
        insert(POLICIES)
        .values(
            number=number,
            digest=digest,
            content=content,
            author=author,
            reason=reason,
            source=source.value,
            restored_from=restored_from,
        )
        .returning(*_COLUMNS)
    ).one()
    return _version(row._mapping)
