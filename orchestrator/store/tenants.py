"""Tenants in the control database, and the journal of what is being done to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from orchestrator.core.names import new_id
from orchestrator.core.tenants import (
    PoolMode,
    RefreshPolicy,
    StepState,
    Tenant,
    TenantExists,
    TenantMissing,
    TenantsMax,
    TenantState,
)
from orchestrator.store import outbox
from orchestrator.store.session import lock_key
from orchestrator.store.statement import Statement
from orchestrator.store.tables.tenants import STEPS, TENANTS

PRESENT = tuple(state for state in TenantState if state is not TenantState.REMOVED)
_COLUMNS = [
    TENANTS.c[name]
    for name in (
        "id",
        "name",
        "number",
        "profile",
        "image",
        "state",
        "scope",
        "snapshot_profile",
        "refresh_policy",
        "pool_mode",
        "created_at",
        "reason",
    )
]


@dataclass(frozen=True)
class Step:
    """One journaled step of an operation on a tenant."""

    operation: str
    operation_id: str
    step: str
    state: StepState
    begun_at: datetime
    ended_at: datetime | None
    spent_s: float | None
    error: str | None


@dataclass(frozen=True)
class Trouble:
    """How often bringing a tenant back has failed, and when to try again."""

    attempts: int
    next_try_at: datetime | None


def _tenant(row: Any) -> Tenant:
    values = row._asdict()
    values["state"] = TenantState(values["state"])
    values["refresh_policy"] = RefreshPolicy(values["refresh_policy"])
    values["pool_mode"] = PoolMode(values["pool_mode"])
    return Tenant(**values)


def add(
    engine: Engine,
    name: str,
    *,
    profile: str,
    image: str,
    scope: str | None,
    snapshot_profile: str,
    refresh_policy: RefreshPolicy,
    pool_mode: PoolMode,
    tenants_max: int,
) -> Tenant:
    """Record a tenant that is about to be launched, in the lowest free slot. Raises TenantExists or TenantsMax."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": lock_key("tenant slots")})
        taken = set(connection.scalars(select(TENANTS.c.number).where(TENANTS.c.state != TenantState.REMOVED)))
        if len(taken) >= tenants_max:
            raise TenantsMax(
                f"There are {len(taken)} tenants already; this installation allows {tenants_max}.",
                effect="No tenant was launched.",
                next_step="Remove one, or raise tenants.tenants_max in configs/orchestrator.yaml.",
            )
        values = {
            "id": new_id("t"),
            "name": name,
            "number": next(number for number in range(len(taken) + 1) if number not in taken),
            "profile": profile,
            "image": image,
            "state": TenantState.LAUNCHING,
            "scope": scope,
            "snapshot_profile": snapshot_profile,
            "refresh_policy": refresh_policy,
            "pool_mode": pool_mode,
        }
        try:
            return _tenant(connection.execute(insert(TENANTS).values(**values).returning(*_COLUMNS)).one())
        except IntegrityError as error:
            raise TenantExists(
                f"There is a tenant called {name} already.",
                effect="Nothing was changed.",
                next_step=f"Choose another name, or remove it first: `orchestrator tenant remove {name}`.",
            ) from error


def get(engine: Engine, tenant_id: str) -> Tenant:
    """Raises TenantMissing, also for one that was removed."""
    return _one(engine, "id", tenant_id)


def named(engine: Engine, name: str) -> Tenant:
    """The tenant that has this name now. Raises TenantMissing."""
    return _one(engine, "name", name)


def _finding(column: str) -> Select[Any]:
    is_wanted = TENANTS.c[column] == bindparam("wanted")
    return select(*_COLUMNS).where(is_wanted, TENANTS.c.state != TenantState.REMOVED)


_FIND = {column: Statement(_finding(column)) for column in ("id", "name")}


def _one(engine: Engine, column: str, shown: str) -> Tenant:
    row = _FIND[column].one(engine, {"wanted": shown})
    if row is None:
        raise TenantMissing(
            f"There is no tenant {ascii(shown)[:60]}.", next_step="`orchestrator tenant list` shows those there are."
        )
    return _tenant(row)


def listed(engine: Engine, *, states: Iterable[TenantState] = PRESENT) -> list[Tenant]:
    """By name."""
    query = select(*_COLUMNS).where(TENANTS.c.state.in_(list(states))).order_by(TENANTS.c.name)
    with engine.connect() as connection:
        return [_tenant(row) for row in connection.execute(query)]


def names(engine: Engine) -> dict[str, str]:
    """The name of every tenant there ever was, by id."""
    with engine.connect() as connection:
        return {row.id: row.name for row in connection.execute(select(TENANTS.c.id, TENANTS.c.name))}


def set_state(engine: Engine, tenant_id: str, state: TenantState, *, reason: str = "") -> None:
    """Also forgets earlier attempts: a new state is a new beginning."""
    with engine.begin() as connection:
        connection.execute(
            update(TENANTS)
            .where(TENANTS.c.id == tenant_id)
            .values(state=state, reason=reason[:1000], changed_at=func.now(), attempts=0, next_try_at=None)
        )
        if state is TenantState.FAILED:
            data = {"reason": reason}
            outbox.put(
                connection, "tenant.failed", subject=tenant_id, actor="reconcile", tenant_id=tenant_id, data=data
            )


def trouble(engine: Engine, tenant_id: str) -> Trouble:
    with engine.connect() as connection:
        row = connection.execute(
            select(TENANTS.c.attempts, TENANTS.c.next_try_at).where(TENANTS.c.id == tenant_id)
        ).one_or_none()
    return Trouble(0, None) if row is None else Trouble(row.attempts, row.next_try_at)


def note_trouble(engine: Engine, tenant_id: str, reason: str, *, pause_s: float) -> int:
    """Bringing it back failed: count it, and do not try again for `pause_s`. Returns how often it has failed."""
    with engine.begin() as connection:
        attempts = connection.scalar(
            update(TENANTS)
            .where(TENANTS.c.id == tenant_id)
            .values(
                attempts=TENANTS.c.attempts + 1,
                next_try_at=func.now() + text("make_interval(secs => :pause)").bindparams(pause=pause_s),
                reason=reason[:1000],
            )
            .returning(TENANTS.c.attempts)
        )
    return int(attempts or 0)


def begin_step(engine: Engine, tenant_id: str, operation: str, operation_id: str, step: str) -> int:
    """Write the intent before the step is taken; returns its number."""
    with engine.begin() as connection:
        number: int = connection.execute(
            insert(STEPS)
            .values(
                tenant_id=tenant_id, operation=operation, operation_id=operation_id, step=step, state=StepState.BEGUN
            )
            .returning(STEPS.c.number)
        ).scalar_one()
        return number


def end_step(engine: Engine, number: int, state: StepState, *, spent_s: float, error: str | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(STEPS)
            .where(STEPS.c.number == number)
            .values(state=state, ended_at=func.clock_timestamp(), spent_s=spent_s, error=error and error[:2000])
        )


def undo_steps(connection: Connection, tenant_id: str) -> None:
    """Everything that was made for the tenant is gone again."""
    connection.execute(
        update(STEPS)
        .where(STEPS.c.tenant_id == tenant_id, STEPS.c.state.in_([StepState.BEGUN, StepState.DONE]))
        .values(state=StepState.UNDONE, ended_at=func.coalesce(STEPS.c.ended_at, func.clock_timestamp()))
    )


def steps(engine: Engine, tenant_id: str, *, limit: int = 100) -> list[Step]:
    """The newest operation's steps last."""
    columns = [STEPS.c[name] for name in Step.__dataclass_fields__]
    query = select(*columns).where(STEPS.c.tenant_id == tenant_id).order_by(STEPS.c.number.desc()).limit(limit)
    with engine.connect() as connection:
        rows = [Step(**{**row._mapping, "state": StepState(row.state)}) for row in connection.execute(query)]
    return rows[::-1]
