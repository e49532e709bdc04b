"""Generations in the control database. Functions take a connection: states change together with the journal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Row, insert, select, update

from orchestrator.core.generations import Generation, GenerationMissing, GenerationState
from orchestrator.store.tables.generations import GENERATIONS

_PRESENT = [state for state in GenerationState if state is not GenerationState.REMOVED]


def _record(row: Row[tuple[object, ...]]) -> Generation:
    values = dict(row._mapping)
    values["state"] = GenerationState(values["state"])
    return Generation(**values)


def add(connection: Connection, generation_id: str, tenant_id: str, snapshot_id: str, *, now: datetime) -> None:
    """Record the intent before anything is made."""
    connection.execute(
        insert(GENERATIONS).values(
            id=generation_id,
            tenant_id=tenant_id,
            snapshot_id=snapshot_id,
            state=GenerationState.CREATING,
            created_at=now,
        )
    )


def get(connection: Connection, generation_id: str) -> Generation:
    """Raises GenerationMissing."""
    row = connection.execute(select(GENERATIONS).where(GENERATIONS.c.id == generation_id)).one_or_none()
    if row is None:
        raise GenerationMissing(f"There is no generation {ascii(generation_id)[:60]}.")
    return _record(row)


def listed(
    connection: Connection, *, tenant_id: str | None = None, states: Iterable[GenerationState] = tuple(_PRESENT)
) -> list[Generation]:
    """Generations in `states` (by default all that may still have files), oldest first."""
    query = select(GENERATIONS).where(GENERATIONS.c.state.in_(list(states))).order_by(GENERATIONS.c.created_at)
    if tenant_id is not None:
        query = query.where(GENERATIONS.c.tenant_id == tenant_id)
    return [_record(row) for row in connection.execute(query)]


def live(connection: Connection, tenant_id: str) -> Generation | None:
    found = listed(connection, tenant_id=tenant_id, states=[GenerationState.LIVE])
    return found[0] if found else None


def previous(connection: Connection, tenant_id: str) -> Generation | None:
    """The newest generation kept for undo."""
    found = listed(connection, tenant_id=tenant_id, states=[GenerationState.PREVIOUS])
    return found[-1] if found else None


def set_state(connection: Connection, generation_id: str, state: GenerationState, *, now: datetime) -> None:
    """Raises GenerationMissing. Making one live needs the old one moved to `previous` first, in one transaction."""
    values: dict[str, object] = {"state": state}
    if state is GenerationState.LIVE:
        values |= {"live_at": now, "retired_at": None}
    elif state in (GenerationState.PREVIOUS, GenerationState.REMOVING, GenerationState.REMOVED):
        values["retired_at"] = now
    changed = connection.execute(update(GENERATIONS).where(GENERATIONS.c.id == generation_id).values(values))
    if changed.rowcount != 1:
        raise GenerationMissing(f"There is no generation {ascii(generation_id)[:60]}.")


def swap_states(connection: Connection, *, new: str, old: str | None, now: datetime) -> None:
    """In the caller's transaction: `old` becomes previous, then `new` becomes live."""
    if old is not None:
        set_state(connection, old, GenerationState.PREVIOUS, now=now)
    set_state(connection, new, GenerationState.LIVE, now=now)


def snapshots_in_use(connection: Connection) -> set[str]:
    """Snapshots that a generation with files refers to."""
    query = select(GENERATIONS.c.snapshot_id).where(GENERATIONS.c.state.in_(_PRESENT)).distinct()
    return set(connection.scalars(query))
