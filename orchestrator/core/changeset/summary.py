"""How much of what a changeset does, in numbers and in one sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.shape import TableName


@dataclass(frozen=True)
class TableSummary:
    table: TableName
    inserted: int
    updated: int
    deleted: int
    changed_columns: tuple[tuple[str, int], ...]  # of updated rows, most often changed first
    has_key: bool

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass(frozen=True)
class Summary:
    tables: tuple[TableSummary, ...]
    schema_changes: int

    @property
    def inserted(self) -> int:
        return sum(table.inserted for table in self.tables)

    @property
    def updated(self) -> int:
        return sum(table.updated for table in self.tables)

    @property
    def deleted(self) -> int:
        return sum(table.deleted for table in self.tables)

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted

    def __str__(self) -> str:
        """3 rows in 2 tables: 1 new, 2 changed."""
        if not self.total:
            sentence = "No row differs"
        else:
            counts = (("new", self.inserted), ("changed", self.updated), ("deleted", self.deleted))
            parts = ", ".join(f"{count:,} {word}" for word, count in counts if count)
            sentence = f"{_many(self.total, 'row')} in {_many(len(self.tables), 'table')}: {parts}"
        if self.schema_changes:
            sentence += f"; the schema differs in {_many(self.schema_changes, 'place')}"
        return sentence + "."


def summarize(changeset: Changeset) -> Summary:
    return Summary(tuple(_table(changeset, shape.table) for shape in changeset.tables), len(changeset.schema_changes))


def _table(changeset: Changeset, table: TableName) -> TableSummary:
    counts = changeset.counts(table)
    columns: Counter[str] = Counter()
    for row in changeset.rows_of(table):
        if row.kind is RowKind.UPDATE:
            columns.update(row.changed_columns)
    return TableSummary(
        table,
        counts[RowKind.INSERT],
        counts[RowKind.UPDATE],
        counts[RowKind.DELETE],
        tuple(columns.most_common()),
        changeset.shapes[table].has_key,
    )


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
