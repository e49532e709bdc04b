"""Remembering tenants: names and slots given once, every step written before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.core.names import check_tenant_name, new_id
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.errors import Conflict, LimitReached, NotFound
from orchestrator.store.tables.tenants import TENANT_STEPS, TENANTS

NOW = func.clock_timestamp()
_COLUMNS = [TENANTS.c[field.name] for field in fields(Tenant)]
SLOTS_TRIED_MAX = 50


class TenantNotFound(NotFound):
    code = "not_found.tenant"


class TenantExists(Conflict):
    code = "conflict.tenant_exists"


class WrongTenantState(Conflict):
    code = "conflict.tenant_state"


class TooManyTenants(LimitReached):
    code = "limit_reached.tenants"


@dataclass(frozen=True)
class TenantStep:
    """One step of a launch or removal, as it was written before being taken."""

    number: int
    trip: str
    step: str
    at: datetime
    detail: str


@dataclass(frozen=True)
class TenantStanding:
    """What the tenants table knows beyond the tenant itself."""

    tenant: Tenant
    step: str
    error_code: str
    error: str
    changed_at: datetime
    created_by: str


def _tenant(row: Row[Any]) -> Tenant:
    values = {field.name: row._mapping[field.name] for field in fields(Tenant)}
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
    created_by: str,
    snapshot_profile: str = "default",
    refresh_policy: RefreshPolicy = RefreshPolicy.SAVE,
    pool_mode: PoolMode = PoolMode.TRANSACTION,
    tenants_max: int = 200,
) -> Tenant:
    """Record a tenant as launching, with the lowest free slot.

    Raises InvalidTenantName, TenantExists or TooManyTenants.
    """
    check_tenant_name(name)
    for _ in range(SLOTS_TRIED_MAX):
        try:
            with engine.begin() as connection:
                used = set(connection.scalars(select(TENANTS.c.number).where(TENANTS.c.state != TenantState.REMOVED)))
                free = next((number for number in range(1, tenants_max + 1) if number not in used), None)
                if free is None:
                    raise TooManyTenants(
                        f"This installation holds at most {tenants_max} tenants.",
                        next_step="Remove one, or raise tenants.limit in configs/orchestrator.yaml.",
                    )
                row = connection.execute(
                    insert(TENANTS)
                    .values(
                        id=new_id("t"),
                        name=name,
                        number=free,
                        profile=profile,
                        image=image,
                        state=TenantState.LAUNCHING,
                        scope=scope,
                        snapshot_profile=snapshot_profile,
                        refresh_policy=refresh_policy,
                        pool_mode=pool_mode,
                        created_by=created_by,
                    )
                    .returning(*_COLUMNS)
                ).one()
                return _tenant(row)
        except IntegrityError as error:
            if "uq_tenants_number_open" in str(error.orig):
                continue  # somebody else took the slot between our look and our insert
            raise TenantExists(
                f"There is a tenant {name} already.",
                effect="Nothing was launched.",
                next_step=f"Choose another name, or remove it: orchestrator tenant remove {name}.",
            ) from error
    raise TooManyTenants("No free slot could be taken.", next_step="Try again.")


def get(engine: Engine, name_or_id: str) -> Tenant:
    """The tenant by name (not removed) or id. Raises TenantNotFound."""
    return standing(engine, name_or_id).tenant


def standing(engine: Engine, name_or_id: str) -> TenantStanding:
    """The tenant with what became of its last launch or removal. Raises TenantNotFound."""
    named = (TENANTS.c.name == name_or_id) & (TENANTS.c.state != TenantState.REMOVED)
    with engine.connect() as connection:
        row = connection.execute(select(TENANTS).where(named | (TENANTS.c.id == name_or_id))).first()
    if row is None:
        raise TenantNotFound(
            f"There is no tenant {ascii(name_or_id)[:80]}.",
            next_step="`orchestrator tenant list` shows the ones there are.",
        )
    return _standing(row)


def _standing(row: Row[Any]) -> TenantStanding:
    values = row._mapping
    return TenantStanding(
        _tenant(row), values["step"], values["error_code"], values["error"], values["changed_at"], values["created_by"]
    )


def standings(engine: Engine, *, states: Sequence[TenantState] | None = None) -> list[TenantStanding]:
    """Every tenant that is not removed (or those in `states`), by name."""
    wanted = TENANTS.c.state.in_(states) if states is not None else TENANTS.c.state != TenantState.REMOVED
    with engine.connect() as connection:
        return [_standing(row) for row in connection.execute(select(TENANTS).where(wanted).order_by(TENANTS.c.name))]


def every(engine: Engine, *, states: Sequence[TenantState] | None = None) -> list[Tenant]:
    """As `standings`, the tenants alone."""
    return [found.tenant for found in standings(engine, states=states)]


def set_state(
    engine: Engine,
    tenant_id: str,
    state: TenantState,
    *,
    expected: Sequence[TenantState],
    code: str = "",
    error: str = "",
) -> Tenant:
    """Move a tenant from one of `expected` to `state`. Raises WrongTenantState, or TenantNotFound."""
    with engine.begin() as connection:
        row = connection.execute(
            update(TENANTS)
            .where(TENANTS.c.id == tenant_id, TENANTS.c.state.in_(expected))
            .values(state=state, error_code=code, error=error[:2000], changed_at=NOW)
            .returning(*_COLUMNS)
        ).one_or_none()
    if row is None:
        found = get(engine, tenant_id)
        raise WrongTenantState(
            f"The tenant {found.name} is {found.state}.",
            effect="Nothing was changed.",
            next_step=f"This is possible when it is {' or '.join(expected)}.",
        )
    return _tenant(row)


def change(engine: Engine, tenant_id: str, **values: Any) -> Tenant:
    """Change a tenant's settings (profile, image, scope, refresh_policy, pool_mode, snapshot_profile)."""
    with engine.begin() as connection:
        row = connection.execute(
            update(TENANTS).where(TENANTS.c.id == tenant_id).values(**values, changed_at=NOW).returning(*_COLUMNS)
        ).one()
    return _tenant(row)


def write_step(engine: Engine, tenant_id: str, trip: str, step: str, detail: str = "") -> None:
    """Write the step about to be taken, before it is taken."""
    following = (
        select(func.coalesce(func.max(TENANT_STEPS.c.number), 0) + 1)
        .where(TENANT_STEPS.c.tenant_id == tenant_id)
        .scalar_subquery()
    )
    with engine.begin() as connection:
        connection.execute(
            insert(TENANT_STEPS).values(tenant_id=tenant_id, number=following, trip=trip, step=step, detail=detail)
        )
        connection.execute(
            update(TENANTS).where(TENANTS.c.id == tenant_id).values(step=f"{trip}.{step}", changed_at=NOW)
        )


def steps(engine: Engine, tenant_id: str, *, limit: int = 200) -> list[TenantStep]:
    """The newest steps, oldest first."""
    statement = (
        select(*[TENANT_STEPS.c[field.name] for field in fields(TenantStep)])
        .where(TENANT_STEPS.c.tenant_id == tenant_id)
        .order_by(TENANT_STEPS.c.number.desc())
        .limit(limit)
    )
    with engine.connect() as connection:
        return [TenantStep(*row) for row in reversed(connection.execute(statement).all())]
