"""Remembering publishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from orchestrator.core.names import new_id
from orchestrator.core.publishes import Publish, PublishNotFound, PublishState
from orchestrator.core.publishing import Finding, FindingKind
from orchestrator.store import outbox
from orchestrator.store.tables.publishes import PUBLISHES

NOW = func.clock_timestamp()
_COLUMNS = [PUBLISHES.c[field.name] for field in fields(Publish)]
OPEN = (PublishState.RUNNING, PublishState.PENDING)
RETRY_FIRST_S, RETRY_LAST_S = 60.0, 3600.0
TRIES_SEEN = 8


def _publish(row: Row[Any]) -> Publish:
    values = dict(row._mapping)
    values["state"] = PublishState(values["state"])
    values["findings"] = tuple(Finding(**{**one, "kind": FindingKind(one["kind"])}) for one in values["findings"])
    return Publish(**values)


def begin(engine: Engine, tenant_id: str, *, actor: str, reason: str, base_commit: str | None) -> Publish:
    """Write down that a publish starts; one a dead process left running is closed as failed."""
    with engine.begin() as connection:
        connection.execute(
            update(PUBLISHES)
            .where(PUBLISHES.c.tenant_id == tenant_id, PUBLISHES.c.state == PublishState.RUNNING)
            .values(state=PublishState.FAILED, error="It was cut off; the next publish took over.", finished_at=NOW)
        )
        row = connection.execute(
            insert(PUBLISHES)
            .values(
                id=new_id("p"),
                tenant_id=tenant_id,
                state=PublishState.RUNNING,
                actor=actor,
                reason=reason,
                base_commit=base_commit,
            )
            .returning(*_COLUMNS)
        ).one()
    return _publish(row)


def step(engine: Engine, publish_id: str, name: str, **values: Any) -> None:
    """Write the step about to be taken, before it is taken."""
    with engine.begin() as connection:
        connection.execute(update(PUBLISHES).where(PUBLISHES.c.id == publish_id).values(step=name, **values))


def finish(
    engine: Engine,
    publish_id: str,
    state: PublishState,
    *,
    error: str = "",
    findings: Iterable[Finding] = (),
    pushed: bool = False,
) -> Publish:
    """Write how it ended."""
    values: dict[str, Any] = {"state": state, "error": error, "finished_at": NOW}
    values["findings"] = [asdict(finding) for finding in findings]
    if pushed:
        values["pushed_at"] = NOW
    statement = update(PUBLISHES).where(PUBLISHES.c.id == publish_id).values(**values).returning(*_COLUMNS)
    with engine.begin() as connection:
        ended = _publish(connection.execute(statement).one())
        if ended.error:
            data = {"error": ended.error, "step": ended.step, "findings": ended.findings}
            kind, who = f"publish.{ended.state.value}", ended.actor
            outbox.put(connection, kind, subject=ended.id, actor=who, tenant_id=ended.tenant_id, data=data)
        return ended


def get(engine: Engine, publish_id: str) -> Publish:
    """Raises PublishNotFound."""
    with engine.connect() as connection:
        row = connection.execute(select(*_COLUMNS).where(PUBLISHES.c.id == publish_id)).one_or_none()
    if row is None:
        raise PublishNotFound(f"There is no publish {publish_id!a}.")
    return _publish(row)


def history(engine: Engine, tenant_id: str, *, limit: int = 50) -> list[Publish]:
    """The newest first."""
    statement = (
        select(*_COLUMNS)
        .where(PUBLISHES.c.tenant_id == tenant_id)
        .order_by(PUBLISHES.c.started_at.desc(), PUBLISHES.c.id)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [_publish(row) for row in connection.execute(statement)]


def latest(engine: Engine) -> dict[str, Publish]:
    """The newest publish of every tenant, by tenant id."""
    statement = (
        select(*_COLUMNS)
        .ext(distinct_on(PUBLISHES.c.tenant_id))
        .order_by(PUBLISHES.c.tenant_id, PUBLISHES.c.started_at.desc(), PUBLISHES.c.id)
    )
    with engine.connect() as connection:
        return {publish.tenant_id: publish for publish in map(_publish, connection.execute(statement))}


def last_pushed(engine: Engine) -> dict[str, datetime]:
    """When each tenant's work last was on the remote, by tenant id."""
    statement = select(PUBLISHES.c.tenant_id, func.max(PUBLISHES.c.pushed_at)).group_by(PUBLISHES.c.tenant_id)
    with engine.connect() as connection:
        return {tenant_id: at for tenant_id, at in connection.execute(statement) if at is not None}


def due_again(engine: Engine, *, tries: int = TRIES_SEEN) -> list[str]:
    """Tenants whose last push failed long enough ago to be tried again: after a minute, then two, four … an hour."""
    with engine.connect() as connection:
        now = connection.execute(select(NOW)).scalar_one()
    due = []
    for tenant_id, last in sorted(latest(engine).items()):
        if last.state is not PublishState.PENDING or last.finished_at is None:
            continue
        failed = 0
        for one in history(engine, tenant_id, limit=tries):
            if one.state is not PublishState.PENDING:
                break
            failed += 1
        wait_s = min(RETRY_FIRST_S * 2 ** (failed - 1), RETRY_LAST_S)
        if last.finished_at + timedelta(seconds=wait_s) <= now:
            due.append(tenant_id)
    return due
