"""Approvals in the control database. Using one is a single statement, so it can happen only once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.approvals import (
    Approval,
    ApprovalKind,
    ApprovalMissing,
    ApprovalSettled,
    ApprovalState,
    stdin_digest,
)
from orchestrator.core.names import new_id
from orchestrator.core.tenants import Tenant
from orchestrator.store.tables.approvals import APPROVALS

NOW = func.clock_timestamp()
LISTED_MAX = 1_000


def _approval(row: RowMapping) -> Approval:
    values = dict(row)
    requester = Actor(
        ActorKind(values.pop("actor_kind")),
        values.pop("actor_id"),
        values.pop("actor_name"),
        values.pop("on_behalf_of"),
    )
    values["argv"] = tuple(values["argv"])
    values["kind"] = ApprovalKind(values["kind"])
    values["state"] = ApprovalState(values["state"])
    return Approval(requester=requester, **values)


def ask(
    connection: Connection,
    *,
    kind: ApprovalKind,
    tenant: Tenant,
    actor: Actor,
    request: CommandRequest,
    binding: str,
    policy_version: int,
    rule: str,
    reason: str,
    lifetime_s: float,
) -> tuple[Approval, bool]:
    """The open request for this by this requester, made if there is none; and whether it is new."""
    _settle_expired(connection, binding, actor)
    values: dict[str, Any] = {
        "id": new_id("p"),
        "kind": kind.value,
        "tenant_id": tenant.id,
        "tenant": tenant.name,
        "actor_kind": actor.kind.value,
        "actor_id": actor.id,
        "actor_name": actor.name,
        "on_behalf_of": actor.on_behalf_of,
        "argv": list(request.argv),
        "cwd": request.cwd,
        "environment": dict(request.environment),
        "place": request.place,
        "network": request.network,
        "stdin_bytes": len(request.stdin.encode("utf-8", "surrogatepass")),
        "stdin_digest": stdin_digest(request.stdin),
        "binding": binding,
        "policy_version": policy_version,
        "rule": rule,
        "reason": reason,
        "expires_at": NOW + timedelta(seconds=lifetime_s),
    }
    statement = (
        upsert(APPROVALS)
        .values(**values)
        .on_conflict_do_nothing(
            index_elements=["kind", "binding", "actor_id"], index_where=APPROVALS.c.state == "pending"
        )
        .returning(APPROVALS)
    )
    row = connection.execute(statement).mappings().one_or_none()
    if row is not None:
        return _approval(row), True
    found = select(APPROVALS).where(
        APPROVALS.c.kind == kind.value,
        APPROVALS.c.binding == binding,
        APPROVALS.c.actor_id == actor.id,
        APPROVALS.c.state == ApprovalState.PENDING.value,
    )
    return _approval(connection.execute(found).mappings().one()), False


def _settle_expired(connection: Connection, binding: str, actor: Actor) -> None:
    """An expired request must not stand in the way of asking again."""
    connection.execute(
        update(APPROVALS)
        .where(
            APPROVALS.c.binding == binding,
            APPROVALS.c.actor_id == actor.id,
            APPROVALS.c.state == ApprovalState.PENDING.value,
            APPROVALS.c.expires_at <= NOW,
        )
        .values(state=ApprovalState.DENIED.value, decided_by="expiry", decided_at=NOW, decision_reason="Expired.")
    )


def get(store: Engine, approval_id: str) -> Approval:
    """Raises ApprovalMissing."""
    with store.connect() as connection:
        row = connection.execute(select(APPROVALS).where(APPROVALS.c.id == approval_id)).mappings().one_or_none()
    if row is None:
        raise ApprovalMissing(f"There is no approval {ascii(approval_id)[:60]}.")
    return _approval(row)


def listed(
    store: Engine,
    *,
    state: ApprovalState | None = None,
    tenant_ids: frozenset[str] | None = None,
    limit: int = 200,
) -> list[Approval]:
    """Newest first; `state=PENDING` leaves out what has expired."""
    query = select(APPROVALS).order_by(APPROVALS.c.created_at.desc()).limit(max(1, min(limit, LISTED_MAX)))
    if state is not None:
        query = query.where(APPROVALS.c.state == state.value)
        if state is ApprovalState.PENDING:
            query = query.where(APPROVALS.c.expires_at > NOW)
    if tenant_ids is not None:
        query = query.where(APPROVALS.c.tenant_id.in_(tenant_ids))
    with store.connect() as connection:
        return [_approval(row) for row in connection.execute(query).mappings()]


def decide(
    connection: Connection, approval_id: str, *, state: ApprovalState, by: Actor, reason: str, lifetime_s: float
) -> Approval:
    """Settle a request that still waits; an approved one lives `lifetime_s` from now. Raises ApprovalSettled."""
    row = (
        connection.execute(
            update(APPROVALS)
            .where(
                APPROVALS.c.id == approval_id,
                APPROVALS.c.state == ApprovalState.PENDING.value,
                APPROVALS.c.expires_at > NOW,
            )
            .values(
                state=state.value,
                decided_by_id=by.id,
                decided_by=by.name,
                decision_reason=reason,
                decided_at=NOW,
                expires_at=NOW + timedelta(seconds=lifetime_s),
            )
            .returning(APPROVALS)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise ApprovalSettled("Somebody else decided on this meanwhile, or it has expired.")
    return _approval(row)


def use(
    store: Engine, *, binding: str, actor: Actor, command_id: str, approval_id: str | None = None
) -> Approval | None:
    """Take an approval for exactly this command; None when there is none that fits. Two callers never both get it."""
    candidates = (
        select(APPROVALS.c.id)
        .where(
            APPROVALS.c.kind == ApprovalKind.COMMAND.value,
            APPROVALS.c.state == ApprovalState.APPROVED.value,
            APPROVALS.c.binding == binding,
            APPROVALS.c.actor_id == actor.id,
            APPROVALS.c.expires_at > NOW,
        )
        .order_by(APPROVALS.c.decided_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if approval_id is not None:
        candidates = candidates.where(APPROVALS.c.id == approval_id)
    statement = (
        update(APPROVALS)
        .where(APPROVALS.c.id == candidates.scalar_subquery())
        .values(state=ApprovalState.USED.value, used_at=NOW, used_by_command=command_id)
        .returning(APPROVALS)
    )
    with store.begin() as connection:
        row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else _approval(row)


def pending_count(store: Engine, *, now: datetime | None = None) -> int:
    """How many requests wait for a decision."""
    query = select(func.count()).where(
        APPROVALS.c.state == ApprovalState.PENDING.value, APPROVALS.c.expires_at > (now or NOW)
    )
    with store.connect() as connection:
        return int(connection.scalar(query) or 0)
