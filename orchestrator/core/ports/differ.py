"""Comparing a tenant's live generation with its base snapshot, row by row, without running the tenant's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.shape import TableName, TableShape
from orchestrator.errors import Conflict, LimitReached, OutsideFailure


class DiffFailed(OutsideFailure):
    code = "outside_failure.diff"


class DatabaseBusy(Conflict):
    """The tenant kept changing its schema, or holds a lock that shuts readers out."""

    code = "conflict.database_busy"


class TooManyChanges(LimitReached):
    code = "limit_reached.changeset"


@dataclass(frozen=True)
class DiffSides:
    """What is compared. Data sources are libpq connection strings without secrets (peer over a Unix socket).

    `live_reader` and `base_reader` belong to the role `reader`: not a superuser, pg_read_all_data, BYPASSRLS.
    `live_admin` may CHECKPOINT and read WAL summaries; it never reads a tenant's table. Without it, or without
    `origin_lsn` (the checkpoint LSN in the snapshot's manifest), every table is compared in full.
    """

    snapshot_id: str
    live_reader: str
    base_reader: str
    live_admin: str | None = None
    origin_lsn: str | None = None


@dataclass(frozen=True)
class DiffLimits:
    rows_max: int = 1_000_000  # differing rows
    bytes_max: int = 512 * 1024 * 1024  # text held for rows not matched yet, both sides together
    timeout_s: float = 900.0
    wait_s: float = 10.0  # for the checkpoint to be summarized; then every table is compared in full
    full_above_ratio: float = 0.35  # of a table's blocks listed as changed


class HowCompared(StrEnum):
    UNCHANGED = "unchanged"  # no block of it changed
    BLOCKS = "blocks"
    FULL = "full"


@dataclass(frozen=True)
class TableCost:
    """How a stored table (a leaf, for partitioned ones) was compared, why in full if so, and what was read."""

    table: TableName
    how: HowCompared
    why: str = ""
    blocks: int = 0
    rows_read: int = 0


@dataclass(frozen=True)
class DiffResult:
    changeset: Changeset
    costs: tuple[TableCost, ...]
    target_lsn: str | None
    duration_s: float


class Differ(Protocol):
    def compare(self, sides: DiffSides, limits: DiffLimits | None = None) -> DiffResult:
        """The exact difference as of one snapshot of the live database.

        Raises DiffFailed, DatabaseBusy or TooManyChanges.
        """
        ...

    def shapes(self, dsn: str) -> Mapping[TableName, TableShape]:
        """Every table of a database that rows could be promoted to, by name. Raises DiffFailed."""
        ...
