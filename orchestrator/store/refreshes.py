"""The journal of refreshes: every step is written here before it is taken."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError

from orchestrator.core.names import new_id
from orchestrator.core.refresh import (
    PostponedAlready,
    PostponeLimit,
    Postponement,
    Refresh,
    RefreshKind,
    RefreshNotFound,
    RefreshState,
    RefreshStep,
)
from orchestrator.store import outbox
from orchestrator.store.session import TenantBusy
from orchestrator.store.tables.refreshes import POSTPONEMENTS, REFRESHES, SLOTS

NOW = func.clock_timestamp()
# Whichever of these the record names after a crash, the same is done: the live link alone decides.
ALIKE = frozenset({RefreshStep.CLONING, RefreshStep.STARTING, RefreshStep.CHECKING, RefreshStep.SWAPPING})
_COLUMNS = [REFRESHES.c[field.name] for field in fields(Refresh)]


def _refresh(row: Row[Any]) -> Refresh:
    values = dict(row._mapping)
    values["kind"] = RefreshKind(values["kind"])
    values["state"] = RefreshState(values["state"])
    values["step"] = RefreshStep(values["step"])
    return Refresh(**values)


def begin(
    engine: Engine,
    *,
    tenant_id: str,
    kind: RefreshKind,
    generation_id: str,
    previous_id: str | None,
    snapshot_id: str | None,
    requested_by: str,
    reason: str = "",
    job_id: str | None = None,
) -> Refresh:
    """Write the intent. Raises TenantBusy when an earlier one is still open."""
    statement = (
        insert(REFRESHES)
        .values(
            id=new_id("r"),
            tenant_id=tenant_id,
            kind=kind,
            generation_id=generation_id,
            previous_id=previous_id,
            snapshot_id=snapshot_id,
            requested_by=requested_by,
            reason=reason,
            job_id=job_id,
        )
        .returning(*_COLUMNS)
    )
    try:
        with engine.begin() as connection:
            return _refresh(connection.execute(statement).one())
    except IntegrityError as error:
        raise TenantBusy(
            "An earlier refresh of this tenant was interrupted and is being set right.",
            next_step="Try again in a minute.",
            tenant_id=tenant_id,
        ) from error


def unflushed(connection: Connection) -> None:
    """Commit without waiting for the disk: for what only a crash of the database itself could take back."""
    connection.execute(text("SET LOCAL synchronous_commit = off"))


def take(engine: Engine, refresh_id: str, step: RefreshStep, **values: Any) -> None:
    """Journal that `step` is about to be taken, with what is known by now (draft_id, timings, …)."""
    with engine.begin() as connection:
        if step in ALIKE and set(values) <= {"timings"}:
            unflushed(connection)
        connection.execute(
            update(REFRESHES)
            .where(REFRESHES.c.id == refresh_id, REFRESHES.c.state == RefreshState.RUNNING)
            .values(step=step, **values)
        )


def finish(engine: Engine, refresh_id: str, *, recovered: bool = False, **values: Any) -> Refresh:
    return _end(engine, refresh_id, state=RefreshState.DONE, step=RefreshStep.FINISHED, recovered=recovered, **values)


def fail(engine: Engine, refresh_id: str, *, code: str, message: str, recovered: bool = False) -> Refresh:
    """It failed at the step last journaled, and was undone."""
    return _end(
        engine, refresh_id, state=RefreshState.FAILED, error_code=code, error=message[:2000], recovered=recovered
    )


def _end(engine: Engine, refresh_id: str, **values: Any) -> Refresh:
    with engine.begin() as connection:
        ended = connection.execute(
            update(REFRESHES)
            .where(REFRESHES.c.id == refresh_id, REFRESHES.c.state == RefreshState.RUNNING)
            .values(finished_at=NOW, **values)
        )
        found = _refresh(connection.execute(select(*_COLUMNS).where(REFRESHES.c.id == refresh_id)).one())
        if ended.rowcount and found.state is RefreshState.FAILED:
            data = {"code": found.error_code, "error": found.error, "step": found.step.value, "reason": found.reason}
            who = found.requested_by
            outbox.put(connection, "refresh.failed", subject=found.id, actor=who, tenant_id=found.tenant_id, data=data)
        return found


def get(engine: Engine, refresh_id: str) -> Refresh:
    """Raises RefreshNotFound."""
    with engine.connect() as connection:
        row = connection.execute(select(*_COLUMNS).where(REFRESHES.c.id == refresh_id)).one_or_none()
    if row is None:
        raise RefreshNotFound(f"There is no refresh {ascii(refresh_id)[:40]}.")
    return _refresh(row)


def unfinished(engine: Engine, tenant_id: str | None = None) -> list[Refresh]:
    """Open ones: under way, or left by a process that died. Whoever asks must hold the tenant's lock to tell."""
    query = select(*_COLUMNS).where(REFRESHES.c.state == RefreshState.RUNNING).order_by(REFRESHES.c.started_at)
    if tenant_id is not None:
        query = query.where(REFRESHES.c.tenant_id == tenant_id)
    with engine.connect() as connection:
        return [_refresh(row) for row in connection.execute(query)]


def history(
    engine: Engine,
    *,
    tenant_id: str | None = None,
    before: datetime | None = None,
    limit: int = 50,
    tenant_ids: Collection[str] | None = None,
) -> list[Refresh]:
    """The newest first. `before` pages on by start time; with `tenant_ids` only those tenants' refreshes."""
    query = (
        select(*_COLUMNS).order_by(REFRESHES.c.started_at.desc(), REFRESHES.c.id.desc()).limit(min(max(limit, 1), 500))
    )
    if tenant_id is not None:
        query = query.where(REFRESHES.c.tenant_id == tenant_id)
    if before is not None:
        query = query.where(REFRESHES.c.started_at < before)
    if tenant_ids is not None:
        query = query.where(REFRESHES.c.tenant_id.in_(list(tenant_ids)))
    with engine.connect() as connection:
        return [_refresh(row) for row in connection.execute(query)]


def newest(engine: Engine, tenant_ids: Collection[str]) -> dict[str, Refresh]:
    """The last one of each of those tenants, however it ended."""
    query = (
        select(*_COLUMNS)
        .ext(distinct_on(REFRESHES.c.tenant_id))
        .where(REFRESHES.c.tenant_id.in_(list(tenant_ids)))
        .order_by(REFRESHES.c.tenant_id, REFRESHES.c.started_at.desc(), REFRESHES.c.id.desc())
    )
    with engine.connect() as connection:
        return {row.tenant_id: _refresh(row) for row in connection.execute(query)}


def last_done(engine: Engine) -> dict[str, Refresh]:
    """The newest successful one of every tenant."""
    query = (
        select(*_COLUMNS)
        .where(REFRESHES.c.state == RefreshState.DONE)
        .ext(distinct_on(REFRESHES.c.tenant_id))
        .order_by(REFRESHES.c.tenant_id, REFRESHES.c.started_at.desc())
    )
    with engine.connect() as connection:
        return {row.tenant_id: _refresh(row) for row in connection.execute(query)}


def totals(engine: Engine) -> list[tuple[str, str, str, str, int]]:
    """How many there are by tenant, kind, state and, for failed ones, the step they failed at."""
    step = func.coalesce(func.nullif(REFRESHES.c.step, RefreshStep.FINISHED), "")
    query = select(REFRESHES.c.tenant_id, REFRESHES.c.kind, REFRESHES.c.state, step, func.count()).group_by(
        REFRESHES.c.tenant_id, REFRESHES.c.kind, REFRESHES.c.state, step
    )
    with engine.connect() as connection:
        return [(a, b, c, d, int(n)) for a, b, c, d, n in connection.execute(query)]


def postpone(engine: Engine, tenant_id: str, *, requested_by: str, reason: str = "", in_a_row_max: int) -> Postponement:
    """Put the tenant's next scheduled refresh off, once.

    Raises PostponedAlready, and PostponeLimit when the last `in_a_row_max` refreshes were put off already.
    """
    with engine.begin() as connection:
        recent = connection.scalars(
            select(SLOTS.c.outcome)
            .where(SLOTS.c.kind == "refresh", SLOTS.c.target == tenant_id)
            .order_by(SLOTS.c.due_at.desc())
            .limit(in_a_row_max)
        ).all()
        if len(recent) == in_a_row_max and all(outcome == "postponed" for outcome in recent):
            raise PostponeLimit(
                f"{in_a_row_max} refresh{'es' if in_a_row_max != 1 else ''} in a row have been put off already.",
                effect="The next refresh takes place as scheduled.",
                next_step="Propose your changes, or let them be saved as a draft: the refresh keeps drafts.",
            )
        try:
            row = connection.execute(
                insert(POSTPONEMENTS)
                .values(tenant_id=tenant_id, requested_by=requested_by, reason=reason)
                .returning(POSTPONEMENTS)
            ).one()
        except IntegrityError as error:
            raise PostponedAlready("The next refresh is put off already.") from error
        return Postponement(**row._mapping)


def postponement(engine: Engine, tenant_id: str) -> Postponement | None:
    with engine.connect() as connection:
        row = connection.execute(select(POSTPONEMENTS).where(POSTPONEMENTS.c.tenant_id == tenant_id)).one_or_none()
    return None if row is None else Postponement(**row._mapping)


def postponements(engine: Engine, tenant_ids: Collection[str]) -> dict[str, Postponement]:
    """Those of the tenants named, by tenant."""
    query = select(POSTPONEMENTS).where(POSTPONEMENTS.c.tenant_id.in_(list(tenant_ids)))
    with engine.connect() as connection:
        return {row.tenant_id: Postponement(**row._mapping) for row in connection.execute(query)}


def keep_date(engine: Engine, tenant_id: str) -> bool:
    """Take a postponement back; returns whether there was one."""
    with engine.begin() as connection:
        return connection.execute(delete(POSTPONEMENTS).where(POSTPONEMENTS.c.tenant_id == tenant_id)).rowcount == 1
