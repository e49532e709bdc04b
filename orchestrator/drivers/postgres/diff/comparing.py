"""Runs one plan: reads both sides of every table that may differ and turns the leftovers into changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection, sql

from orchestrator.core.changeset.joining import join_rows
from orchestrator.core.changeset.rows import RowChange
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.differ import DiffLimits, HowCompared, TableCost, TooManyChanges
from orchestrator.drivers.postgres.diff.blocks import BlockList, ChangedBlocks
from orchestrator.drivers.postgres.diff.catalog import Relation
from orchestrator.drivers.postgres.diff.copying import CopyLines, cells
from orchestrator.drivers.postgres.diff.matching import CountingMatcher, HeldTooMuch, Matcher
from orchestrator.drivers.postgres.diff.planning import PartPlan, TablePlan
from orchestrator.drivers.postgres.diff.session import identifier

# More ranges in one statement cost more to plan than they save.
RANGES_PER_STATEMENT = 300
# Neither side is read further ahead of the other: unmatched lines are what costs memory.
LINES_AHEAD_MAX = 20_000
Range = tuple[int, int | None]


@dataclass(frozen=True)
class PartWork:
    """What has to be read of one part. `ranges` None means all of it."""

    table: TablePlan
    part: PartPlan
    how: HowCompared
    why: str = ""
    ranges: tuple[Range, ...] | None = None
    blocks: int = 0


@dataclass
class Comparison:
    """Reads from both connections in turn; both servers work at the same time."""

    base: Connection[Any]
    live: Connection[Any]
    limits: DiffLimits
    deadline: float
    changes: list[RowChange] = field(default_factory=list)
    costs: list[TableCost] = field(default_factory=list)

    def compare(self, table: TablePlan, works: Sequence[PartWork]) -> None:
        """Compare one table from all its parts at once: a row may have moved from one partition to another.

        Raises TooManyChanges.
        """
        if not table.columns or all(work.how is HowCompared.UNCHANGED for work in works):
            self.costs += [TableCost(work.part.name, HowCompared.UNCHANGED) for work in works]
            return
        matcher = (Matcher if table.shape.has_key else CountingMatcher)(self.limits.bytes_max)
        try:
            for work in works:
                read = 0 if work.how is HowCompared.UNCHANGED else self._read(work, matcher)
                self.costs.append(TableCost(work.part.name, work.how, work.why, work.blocks, read))
            old_lines, new_lines = matcher.leftovers()
        except HeldTooMuch:
            raise self._too_many(table.shape.table) from None
        self.changes += join_rows(table.shape, table.base_columns, map(cells, old_lines), map(cells, new_lines))
        if len(self.changes) > self.limits.rows_max:
            raise self._too_many(table.shape.table)

    def _too_many(self, table: TableName) -> TooManyChanges:
        return TooManyChanges(
            f"{table} differs in more rows than a changeset may hold.",
            effect="No difference was produced.",
            next_step="Undo the mass change in the sandbox, or raise the limit for differences.",
            table=str(table),
            rows_max=self.limits.rows_max,
        )

    def _read(self, work: PartWork, matcher: Matcher | CountingMatcher) -> int:
        total = 0
        ranges = work.ranges
        batches: list[Sequence[Range] | None] = [None]
        if ranges is not None:
            batches = [ranges[at : at + RANGES_PER_STATEMENT] for at in range(0, len(ranges), RANGES_PER_STATEMENT)]
        for batch in batches:
            total += self._read_batch(work, batch, matcher)
        return total

    def _read_batch(self, work: PartWork, ranges: Sequence[Range] | None, matcher: Matcher | CountingMatcher) -> int:
        left_s = max(1.0, self.deadline - time.monotonic())
        order = () if work.part.same_files else work.table.shape.primary_key
        old = CopyLines(
            self.base,
            _query(self.base, work.part.base, work.table.base_columns, ranges, order),
            timeout_s=left_s,
        )
        names = dict(work.table.columns)
        new = CopyLines(
            self.live,
            _query(self.live, work.part.live, work.table.live_columns, ranges, [names[name] for name in order]),
            timeout_s=left_s,
        )
        while not (old.exhausted and new.exhausted):
            ahead = old.lines_read - new.lines_read
            old_batch = old.next_batch() if ahead <= LINES_AHEAD_MAX or new.exhausted else []
            new_batch = new.next_batch() if ahead >= -LINES_AHEAD_MAX or old.exhausted else []
            matcher.feed(old_batch, new_batch)
        return old.lines_read + new.lines_read


def decide(table: TablePlan, blocks: BlockList, limits: DiffLimits, sizes: dict[int, int]) -> list[PartWork]:
    """What to read of each part of a table. `sizes` holds the blocks of live files that have changed blocks."""
    return [_decide(table, part, blocks, limits, sizes) for part in table.parts]


def _decide(table: TablePlan, part: PartPlan, blocks: BlockList, limits: DiffLimits, sizes: dict[int, int]) -> PartWork:
    why = part.why or blocks.why
    if why:
        return PartWork(table, part, HowCompared.FULL, why)
    changed = blocks.files.get(part.live[0].file)
    if changed is None:
        return PartWork(table, part, HowCompared.UNCHANGED)
    size = sizes.get(part.live[0].oid, 0)
    count = changed.count(size)
    if count > limits.full_above_ratio * max(size, 1) and count > RANGES_PER_STATEMENT:
        return PartWork(table, part, HowCompared.FULL, "most of its blocks changed", blocks=count)
    return PartWork(table, part, HowCompared.BLOCKS, "", tuple(changed.ranges()), count)


def with_changes(table: TablePlan, blocks: BlockList) -> list[Relation]:
    """Live parts whose size matters for the decision."""
    return [
        part.live[0]
        for part in table.parts
        if not part.why and blocks.files.get(part.live[0].file, ChangedBlocks()) != ChangedBlocks()
    ]


def _query(
    connection: Connection[Any],
    relations: Sequence[Relation],
    columns: Sequence[str],
    ranges: Sequence[Range] | None,
    order: Sequence[str],
) -> bytes:
    """COPY of plain tables only (FROM ONLY), every column by name, no cast and no operator on a tenant's type."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    parts: list[sql.Composable] = []
    for relation in relations:
        select = sql.SQL("SELECT {} FROM ONLY {}").format(names, identifier(relation.name))
        parts += [select] if ranges is None else [select + _within(block_range) for block_range in ranges]
    if not parts:
        return sql.SQL("COPY (SELECT WHERE false) TO STDOUT").as_bytes(connection)
    body = sql.SQL(" UNION ALL ").join(parts)
    if order:
        keys = sql.SQL(", ").join(map(sql.Identifier, order))
        body = body + sql.SQL(" ORDER BY ") + keys
    return sql.SQL("COPY ({}) TO STDOUT").format(body).as_bytes(connection)


def _within(block_range: Range) -> sql.Composable:
    start, end = block_range
    condition = f" WHERE ctid >= '({start},0)'::pg_catalog.tid"
    if end is not None:
        condition += f" AND ctid < '({end},0)'::pg_catalog.tid"
    return sql.SQL(condition)  # whole numbers only
