"""Remembering what the installation looked like at regular moments: free disk, and what every tenant used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from orchestrator.store.tables.samples import DISK_SAMPLES, USAGE_SAMPLES

NOW = func.clock_timestamp()
READ_MAX = 5_000


@dataclass(frozen=True)
class DiskSample:
    at: datetime
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class UsageSample:
    """A running tenant's app and database together."""

    tenant_id: str
    at: datetime
    memory_bytes: int
    limit_bytes: int
    cpu_seconds: float


def add_disk(engine: Engine, *, free_bytes: int, total_bytes: int) -> None:
    with engine.begin() as connection:
        connection.execute(insert(DISK_SAMPLES).values(free_bytes=free_bytes, total_bytes=total_bytes))


def disk(engine: Engine, *, since: timedelta) -> list[DiskSample]:
    """The oldest first."""
    query = select(DISK_SAMPLES).where(DISK_SAMPLES.c.at > NOW - since).order_by(DISK_SAMPLES.c.at.desc())
    with engine.connect() as connection:
        return [DiskSample(**row._mapping) for row in connection.execute(query.limit(READ_MAX))][::-1]


def add_usage(engine: Engine, samples: Sequence[UsageSample]) -> None:
    """All at one moment."""
    if not samples:
        return
    with engine.begin() as connection:
        connection.execute(
            insert(USAGE_SAMPLES),
            [
                {
                    "tenant_id": one.tenant_id,
                    "at": one.at,
                    "memory_bytes": one.memory_bytes,
                    "limit_bytes": one.limit_bytes,
                    "cpu_seconds": one.cpu_seconds,
                }
                for one in samples
            ],
        )


def usage(engine: Engine, tenant_id: str, *, since: timedelta) -> list[UsageSample]:
    """One tenant's, the oldest first."""
    query = (
        select(USAGE_SAMPLES)
        .where(USAGE_SAMPLES.c.tenant_id == tenant_id, USAGE_SAMPLES.c.at > NOW - since)
        .order_by(USAGE_SAMPLES.c.at.desc())
        .limit(READ_MAX)
    )
    with engine.connect() as connection:
        return [UsageSample(**row._mapping) for row in connection.execute(query)][::-1]


def newest_usage(engine: Engine, *, since: timedelta, tenant_ids: Collection[str] | None = None) -> list[UsageSample]:
    """The last sample of every tenant that has one, who uses most memory first."""
    query = (
        select(USAGE_SAMPLES)
        .ext(distinct_on(USAGE_SAMPLES.c.tenant_id))
        .where(USAGE_SAMPLES.c.at > NOW - since)
        .order_by(USAGE_SAMPLES.c.tenant_id, USAGE_SAMPLES.c.at.desc())
    )
    if tenant_ids is not None:
        query = query.where(USAGE_SAMPLES.c.tenant_id.in_(list(tenant_ids)))
    with engine.connect() as connection:
        found = [UsageSample(**row._mapping) for row in connection.execute(query)]
    return sorted(found, key=lambda one: -one.memory_bytes)


def prune(engine: Engine, *, disk_days: int, usage_days: int) -> None:
    with engine.begin() as connection:
        connection.execute(delete(DISK_SAMPLES).where(DISK_SAMPLES.c.at < NOW - timedelta(days=disk_days)))
        connection.execute(delete(USAGE_SAMPLES).where(USAGE_SAMPLES.c.at < NOW - timedelta(days=usage_days)))
