"""Reports of probes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from orchestrator.core.names import new_id
from orchestrator.core.probes import Outcome, Probe, ProbeReport
from orchestrator.store.tables.probes import PROBES

KEPT = 20


def add(engine: Engine, tenant_id: str, probes: Iterable[Probe]) -> ProbeReport:
    """Keep a report; a tenant's oldest make room."""
    made = tuple(probes)
    is_sound = all(probe.outcome is not Outcome.BROKEN for probe in made)
    values = {
        "id": new_id("b"),
        "tenant_id": tenant_id,
        "is_sound": is_sound,
        "probes": [asdict(probe) for probe in made],
    }
    newest = select(PROBES.c.id).where(PROBES.c.tenant_id == tenant_id).order_by(PROBES.c.at.desc()).limit(KEPT)
    with engine.begin() as connection:
        row = connection.execute(insert(PROBES).values(**values).returning(PROBES)).one()
        connection.execute(
            delete(PROBES).where(PROBES.c.tenant_id == tenant_id, PROBES.c.id.not_in(newest.scalar_subquery()))
        )
    return _report(row)


def latest(engine: Engine, tenant_id: str) -> ProbeReport | None:
    query = select(PROBES).where(PROBES.c.tenant_id == tenant_id).order_by(PROBES.c.at.desc()).limit(1)
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _report(row)


def newest(engine: Engine) -> dict[str, ProbeReport]:
    """The last report of every tenant, by tenant id."""
    query = select(PROBES).ext(distinct_on(PROBES.c.tenant_id)).order_by(PROBES.c.tenant_id, PROBES.c.at.desc())
    with engine.connect() as connection:
        return {row.tenant_id: _report(row) for row in connection.execute(query)}


def _report(row: Any) -> ProbeReport:
    probes = tuple(Probe(**{**one, "outcome": Outcome(one["outcome"])}) for one in row.probes)
    return ProbeReport(row.id, row.tenant_id, row.at, probes)
