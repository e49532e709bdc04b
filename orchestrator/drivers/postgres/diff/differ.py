"""The exact row difference between a live generation and its base snapshot, at the cost of what changed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from itertools import groupby
from threading import Lock
from typing import Any

from psycopg import Connection

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.shape import TableName, TableShape
from orchestrator.core.ports.differ import DatabaseBusy, DiffLimits, DiffResult, DiffSides, HowCompared
from orchestrator.drivers.postgres.collector import without_collector
from orchestrator.drivers.postgres.diff.blocks import BlockList, list_blocks
from orchestrator.drivers.postgres.diff.catalog import Catalog, Relation, read_catalog
from orchestrator.drivers.postgres.diff.comparing import Comparison, PartWork, decide, with_changes
from orchestrator.drivers.postgres.diff.planning import Plan, make_plan
from orchestrator.drivers.postgres.diff.session import (
    SchemaMoved,
    administering,
    begin,
    check_names,
    database_errors,
    lock,
    reading,
)
from orchestrator.drivers.postgres.diff.shapes import table_shapes

ATTEMPTS_MAX = 4
BASE_CATALOGS_KEPT = 8


class PostgresDiffer:
    """Implements Differ. Threads may share it; it remembers the catalogs of a few snapshots, which never change."""

    def __init__(self) -> None:
        self._catalogs: OrderedDict[tuple[str, str], Catalog] = OrderedDict()
        self._guard = Lock()

    def compare(self, sides: DiffSides, limits: DiffLimits | None = None) -> DiffResult:
        limits = limits or DiffLimits()
        started = time.monotonic()
        moved = ""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with without_collector():
                    return self._compare_once(sides, limits, started)
            except SchemaMoved as error:
                moved = str(error.__cause__ or "").split("\n", 1)[0]
                if attempt == ATTEMPTS_MAX or time.monotonic() - started > limits.timeout_s:
                    break
        raise DatabaseBusy(
            "The sandbox's schema kept changing while it was compared.",
            effect="No difference could be taken.",
            next_step="Wait until the schema change has finished, then try again.",
            cause=moved,
        )

    def shapes(self, dsn: str) -> Mapping[TableName, TableShape]:
        with database_errors("database", seconds=60), reading(dsn, timeout_s=60, what="database") as connection:
            begin(connection)
            return table_shapes(read_catalog(connection))

    def _compare_once(self, sides: DiffSides, limits: DiffLimits, started: float) -> DiffResult:
        deadline = started + limits.timeout_s
        with (
            database_errors("sandbox or its base snapshot", seconds=limits.timeout_s),
            reading(sides.live_reader, timeout_s=limits.timeout_s, what="sandbox") as live,
            reading(sides.base_reader, timeout_s=limits.timeout_s, what="base snapshot") as base,
        ):
            begin(live)
            live_catalog = read_catalog(live)  # takes the snapshot, before the checkpoint
            begin(base)
            base_catalog = self._base_catalog(sides, base)
            blocks = _blocks(sides, live_catalog, limits)
            plan = make_plan(base_catalog, live_catalog)
            work = _work(live, plan, blocks, limits)
            touched = [
                relation for item in work if item.how is not HowCompared.UNCHANGED for relation in item.part.live
            ]
            lock(live, touched)
            comparison = Comparison(base, live, limits, deadline)
            for _, group in groupby(work, key=lambda item: id(item.table)):
                items = list(group)
                comparison.compare(items[0].table, items)
            check_names(live, touched)
            _check_labels(live, live_catalog)
        shapes = {table.shape.table: table.shape for table in plan.tables}
        changeset = Changeset.build(
            sides.snapshot_id,
            shapes,
            mark_provisional(shapes, comparison.changes),
            plan.schema_changes,
            _notes(work, plan, base_catalog, live_catalog),
        )
        return DiffResult(changeset, tuple(comparison.costs), blocks.target_lsn, time.monotonic() - started)

    def _base_catalog(self, sides: DiffSides, base: Connection[Any]) -> Catalog:
        key = (sides.snapshot_id, sides.base_reader)
        with self._guard:
            known = self._catalogs.get(key)
        if known is not None:
            return known
        catalog = read_catalog(base)
        with self._guard:
            self._catalogs[key] = catalog
            while len(self._catalogs) > BASE_CATALOGS_KEPT:
                self._catalogs.popitem(last=False)
        return catalog


def _blocks(sides: DiffSides, live: Catalog, limits: DiffLimits) -> BlockList:
    if sides.live_admin is None or sides.origin_lsn is None:
        return BlockList(why="the snapshot's position in the WAL is not known")
    with administering(sides.live_admin) as admin:
        return list_blocks(admin, live.database_oid, sides.origin_lsn, wait_s=limits.wait_s)


def _work(live: Connection[Any], plan: Plan, blocks: BlockList, limits: DiffLimits) -> list[PartWork]:
    wanted: list[Relation] = [relation for table in plan.tables for relation in with_changes(table, blocks)]
    sizes: dict[int, int] = {}
    if wanted:
        found = live.execute(
            b"SELECT o, pg_catalog.pg_relation_size(o) / pg_catalog.current_setting('block_size')::pg_catalog.int8"
            b" FROM pg_catalog.unnest(%s::pg_catalog.oid[]) u(o)",
            ([relation.oid for relation in wanted],),
        )
        sizes = {oid: size or 0 for oid, size in found}
    return [item for table in plan.tables for item in decide(table, blocks, limits, sizes)]


def _check_labels(live: Connection[Any], catalog: Catalog) -> None:
    """An enum's label may be renamed at any time and shows at once in every row. Raises SchemaMoved."""
    if not catalog.labels:
        return
    live.execute(b"COMMIT")
    found: dict[int, list[str]] = {}
    for oid, label in live.execute(
        b"SELECT enumtypid, enumlabel FROM pg_catalog.pg_enum ORDER BY enumtypid, enumsortorder"
    ):
        found.setdefault(oid, []).append(label)
    if any(tuple(found.get(oid, ())) != labels for oid, labels in catalog.labels.items()):
        raise SchemaMoved


def _notes(work: list[PartWork], plan: Plan, base: Catalog, live: Catalog) -> list[str]:
    notes = _full_notes(work)
    notes += [
        f"{table.shape.table} has no primary key: its rows are shown but cannot be promoted."
        for table in plan.tables
        if not table.shape.has_key
    ]
    if base.large_objects != live.large_objects:
        notes.append("Large objects differ; they are not compared and cannot be promoted.")
    return notes


def _full_notes(work: list[PartWork]) -> list[str]:
    """What was compared in full and why; a reason that all tables share is told once."""
    full = [item for item in work if item.how is HowCompared.FULL]
    if len(full) > 1 and len(full) == len(work) and len({item.why for item in full}) == 1:
        return [f"All {len(full)} tables were compared in full: {full[0].why}."]
    return [f"{item.part.name} was compared in full: {item.why}." for item in full]
