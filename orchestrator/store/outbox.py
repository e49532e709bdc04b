"""Remembering what other programs are to be told, and how that went. A delivery is a job."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, Row, cast, delete, func, insert, select, text, update

from orchestrator.core.jobs import Job, JobState
from orchestrator.core.webhooks import JOB, Delivery, DeliveryMissing, Notice, harmless
from orchestrator.store import jobs
from orchestrator.store.tables.jobs import JOBS
from orchestrator.store.tables.outbox import OUTBOX

NOW = func.clock_timestamp()
_COLUMNS = [OUTBOX.c[field.name] for field in fields(Notice)]
PRIORITY = 200  # after everything people wait for


def put(
    connection: Connection,
    kind: str,
    *,
    subject: str,
    actor: str,
    tenant_id: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Notice:
    """Write the notice in the caller's transaction: it is told exactly if what it is about happened."""
    row = connection.execute(
        insert(OUTBOX)
        .values(kind=kind, subject=subject, actor=actor, tenant_id=tenant_id, data=harmless(data or {}))
        .returning(*_COLUMNS)
    ).one()
    return Notice(**row._mapping)


def waiting(connection: Connection, *, limit: int) -> list[Notice]:
    """The oldest that are not settled, locked until the transaction ends; another's are passed over."""
    query = select(*_COLUMNS).where(OUTBOX.c.settled_at.is_(None)).order_by(OUTBOX.c.number).limit(limit)
    return [Notice(**row._mapping) for row in connection.execute(query.with_for_update(skip_locked=True))]


def settle(connection: Connection, numbers: Collection[int]) -> None:
    """Their deliveries are jobs now, or nobody wanted them."""
    connection.execute(update(OUTBOX).where(OUTBOX.c.number.in_(list(numbers))).values(settled_at=NOW))


def get(engine: Engine, number: int) -> Notice:
    """Raises DeliveryMissing."""
    with engine.connect() as connection:
        row = connection.execute(select(*_COLUMNS).where(OUTBOX.c.number == number)).one_or_none()
    if row is None:
        raise DeliveryMissing(f"The notice {number} is no longer kept.")
    return Notice(**row._mapping)


def ask(connection: Connection, notice: Notice, target: str, *, attempts_max: int, again: str = "") -> Job:
    """The job that delivers `notice` to `target`; `again` is the id of the one that is repeated."""
    job, _ = jobs.add(
        connection,
        JOB,
        requested_by="webhooks",
        key=f"{JOB}:{notice.number}:{target}" + (f":{again}" if again else ""),
        arguments={"number": notice.number, "target": target},
        reason=notice.kind,
        priority=PRIORITY,
        attempts_max=attempts_max,
    )
    return job


def deliveries(
    engine: Engine, *, target: str | None = None, state: JobState | None = None, limit: int = 50
) -> list[Delivery]:
    """The newest first."""
    query = _deliveries().order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(min(limit, 500))
    if target is not None:
        query = query.where(JOBS.c.arguments["target"].astext == target)
    if state is not None:
        query = query.where(JOBS.c.state == state)
    with engine.connect() as connection:
        return [_delivery(row) for row in connection.execute(query)]


def delivery(engine: Engine, job_id: str) -> Delivery:
    """Raises DeliveryMissing."""
    with engine.connect() as connection:
        row = connection.execute(_deliveries().where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise DeliveryMissing(f"There is no delivery {ascii(job_id)[:40]}.")
    return _delivery(row)


def counts(engine: Engine) -> dict[str, dict[str, int]]:
    """How many deliveries there are by target and state."""
    target = JOBS.c.arguments["target"].astext
    query = select(target, JOBS.c.state, func.count()).where(JOBS.c.kind == JOB).group_by(target, JOBS.c.state)
    found: dict[str, dict[str, int]] = {}
    with engine.connect() as connection:
        for name, state, number in connection.execute(query):
            found.setdefault(str(name), {})[str(state)] = int(number)
    return found


def prune(engine: Engine, *, keep_days: int) -> int:
    """Delete settled notices older than `keep_days`; returns how many."""
    with engine.begin() as connection:
        old = OUTBOX.c.settled_at < NOW - text(f"interval '{int(keep_days)} days'")
        return connection.execute(delete(OUTBOX).where(old)).rowcount


def _deliveries() -> Any:
    number = cast(JOBS.c.arguments["number"].astext, BigInteger)
    return (
        select(JOBS, OUTBOX.c.subject, number.label("notice"))
        .outerjoin(OUTBOX, OUTBOX.c.number == number)
        .where(JOBS.c.kind == JOB)
    )


def _delivery(row: Row[Any]) -> Delivery:
    result = row.result or {}
    return Delivery(
        id=row.id,
        target=str(row.arguments.get("target", "")),
        kind=row.reason,
        number=int(row.notice),
        subject=row.subject or "",
        state=row.state,
        attempts=row.attempts,
        attempts_max=row.attempts_max,
        next_at=row.not_before if row.state == JobState.QUEUED else None,
        error=row.error if row.state != JobState.DONE else None,
        status=result.get("status"),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
