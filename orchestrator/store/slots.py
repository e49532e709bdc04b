"""The schedule's decisions: every slot is decided once, in one transaction with the job it asks for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.core.schedule import Slot, decide
from orchestrator.store import jobs
from orchestrator.store.tables.refreshes import POSTPONEMENTS, SLOTS

REQUESTED_BY = "scheduler"


@dataclass(frozen=True)
class Decided:
    """One decided slot, with what came of it."""

    kind: str
    target: str
    due_at: datetime
    outcome: str  # run, skipped, postponed
    reason: str
    job_id: str | None
    decided_at: datetime


def now(engine: Engine) -> datetime:
    """The database's clock, the only one the schedule goes by."""
    with engine.connect() as connection:
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment


def is_decided(engine: Engine, slot: Slot) -> bool:
    with engine.connect() as connection:
        return connection.execute(select(SLOTS.c.key).where(SLOTS.c.key == slot.key)).one_or_none() is not None


def decided(engine: Engine, slots: list[Slot]) -> set[str]:
    """Which of the slots' keys have been decided."""
    with engine.connect() as connection:
        return set(connection.scalars(select(SLOTS.c.key).where(SLOTS.c.key.in_([slot.key for slot in slots]))))


def settle(
    engine: Engine,
    slot: Slot,
    moment: datetime,
    *,
    fresh_since: datetime | None = None,
    hindrance: str | None = None,
) -> Decided | None:
    """Decide a slot and ask for its job, both or neither; None when somebody has decided it before."""
    tenant_id = slot.target or None
    with engine.begin() as connection:
        mark: dict[str, Any] = {"key": slot.key, "kind": slot.kind, "target": slot.target, "due_at": slot.due_at}
        is_new = connection.execute(
            upsert(SLOTS)
            .values(**mark, outcome="skipped", reason="")
            .on_conflict_do_nothing(index_elements=["key"])
            .returning(SLOTS.c.key)
        ).one_or_none()
        if is_new is None:
            return None
        postponed_by = None
        due = decide(slot, moment, fresh_since=fresh_since, hindrance=hindrance)
        if due.run and slot.kind == "refresh":
            postponed_by = connection.scalar(
                delete(POSTPONEMENTS)
                .where(POSTPONEMENTS.c.tenant_id == slot.target)
                .returning(POSTPONEMENTS.c.requested_by)
            )
            due = decide(slot, moment, postponed_by=postponed_by)
        outcome = "run" if due.run else "postponed" if postponed_by is not None else "skipped"
        job_id = None
        if due.run:
            job, _ = jobs.add(
                connection,
                slot.kind,
                requested_by=REQUESTED_BY,
                tenant_id=tenant_id,
                key=f"slot:{slot.key}",
                reason=due.reason,
            )
            job_id = job.id
        values = {"outcome": outcome, "reason": due.reason, "job_id": job_id}
        row = connection.execute(
            SLOTS.update().where(SLOTS.c.key == slot.key).values(**values).returning(SLOTS.c.decided_at)
        ).one()
    return Decided(slot.kind, slot.target, slot.due_at, outcome, due.reason, job_id, row.decided_at)


def use_postponement(engine: Engine, kind: str, target: str) -> str | None:
    """Where the system's cron keeps the time: use a postponement up and note the slot; returns who asked for it."""
    with engine.begin() as connection:
        asked_by: str | None = connection.scalar(
            delete(POSTPONEMENTS).where(POSTPONEMENTS.c.tenant_id == target).returning(POSTPONEMENTS.c.requested_by)
        )
        moment = connection.scalar(select(func.clock_timestamp()))
        mark = {"key": f"{kind}:{target}:cron:{moment:%Y%m%d%H%M%S%f}", "kind": kind, "target": target}
        outcome, reason = ("run", "scheduled") if asked_by is None else ("postponed", f"postponed by {asked_by}")
        connection.execute(SLOTS.insert().values(**mark, due_at=moment, outcome=outcome, reason=reason))
    return asked_by


def last(engine: Engine, kind: str, target: str = "") -> Decided | None:
    """The newest decision for a kind of job and a target."""
    columns = [SLOTS.c[name] for name in ("kind", "target", "due_at", "outcome", "reason", "job_id", "decided_at")]
    query = (
        select(*columns).where(SLOTS.c.kind == kind, SLOTS.c.target == target).order_by(SLOTS.c.due_at.desc()).limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else Decided(**row._mapping)


def lasts(engine: Engine, kind: str, targets: Collection[str]) -> dict[str, Decided]:
    """The newest decision for each of `targets` that has one."""
    columns = [SLOTS.c[name] for name in ("kind", "target", "due_at", "outcome", "reason", "job_id", "decided_at")]
    query = (
        select(*columns)
        .ext(distinct_on(SLOTS.c.target))
        .where(SLOTS.c.kind == kind, SLOTS.c.target.in_(list(targets)))
        .order_by(SLOTS.c.target, SLOTS.c.due_at.desc())
    )
    with engine.connect() as connection:
        return {row.target: Decided(**row._mapping) for row in connection.execute(query)}


def prune(engine: Engine, *, keep_days: int) -> int:
    """Forget decisions older than `keep_days`; the newest of every target stay, being younger than any slot."""
    with engine.begin() as connection:
        return connection.execute(
            delete(SLOTS).where(SLOTS.c.decided_at < func.clock_timestamp() - text(f"interval '{int(keep_days)} days'"))
        ).rowcount


def recent(engine: Engine, *, limit: int = 10, without: Collection[str] = ()) -> list[Decided]:
    """What was decided last, the newest first; kinds in `without` are left out."""
    columns = [SLOTS.c[name] for name in ("kind", "target", "due_at", "outcome", "reason", "job_id", "decided_at")]
    with engine.connect() as connection:
        rows = connection.execute(
            select(*columns)
            .where(SLOTS.c.kind.not_in(list(without)))
            .order_by(SLOTS.c.decided_at.desc())
            .limit(min(limit, 200))
        )
        return [Decided(**row._mapping) for row in rows]
