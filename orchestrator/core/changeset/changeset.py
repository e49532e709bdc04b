"""A changeset: every row in which a sandbox differs from its base snapshot, in a stable order, under one digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from orchestrator.core.changeset.canonical import canonical_parts, grouped, in_order
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import TableName, TableShape


class SchemaChangeKind(StrEnum):
    TABLE_CREATED = "table_created"
    TABLE_DROPPED = "table_dropped"
    TABLE_RENAMED = "table_renamed"
    COLUMN_ADDED = "column_added"
    COLUMN_DROPPED = "column_dropped"
    COLUMN_RENAMED = "column_renamed"
    COLUMN_CHANGED = "column_changed"  # type, nullability, default, generation or collation
    KEY_CHANGED = "key_changed"  # the primary key
    PARTITIONS_CHANGED = "partitions_changed"
    TYPE_CHANGED = "type_changed"  # an enum, domain, composite or range


@dataclass(frozen=True, slots=True, order=True)
class SchemaChange:
    """A difference rows cannot carry. Schema travels with the code, as a migration; such a table is never promoted."""

    table: TableName
    kind: SchemaChangeKind
    detail: str


@dataclass(frozen=True)
class Changeset:
    """`rows` are sorted by table, key and kind; `tables` holds the base's shape of every table with rows.

    `notes` are for people (what was compared in full and why) and are not part of the digest.
    """

    base_snapshot_id: str
    tables: tuple[TableShape, ...] = ()
    rows: tuple[RowChange, ...] = ()
    schema_changes: tuple[SchemaChange, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        base_snapshot_id: str,
        shapes: Mapping[TableName, TableShape],
        rows: Collection[RowChange],
        schema_changes: Collection[SchemaChange] = (),
        notes: Collection[str] = (),
    ) -> Changeset:
        """Sort everything and keep only the shapes the rows need. Raises KeyError for a row without a shape."""
        ordered = in_order(rows)
        used = sorted(grouped(ordered))
        return cls(
            base_snapshot_id,
            tuple(shapes[table] for table in used),
            tuple(ordered),
            tuple(sorted(schema_changes)),
            tuple(notes),
        )

    @property
    def is_empty(self) -> bool:
        """No row differs. Schema changes alone promote nothing."""
        return not self.rows

    @cached_property
    def shapes(self) -> Mapping[TableName, TableShape]:
        return {shape.table: shape for shape in self.tables}

    def rows_of(self, table: TableName) -> tuple[RowChange, ...]:
        return self.by_table.get(table, ())

    @cached_property
    def by_table(self) -> Mapping[TableName, tuple[RowChange, ...]]:
        return {table: tuple(rows) for table, rows in grouped(self.rows).items()}

    def __iter__(self) -> Iterator[RowChange]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self, table: TableName | None = None) -> Counter[RowKind]:
        return Counter(row.kind for row in (self.rows if table is None else self.rows_of(table)))

    def changes_key(self, row: RowChange) -> bool:
        """An update that moves its row to another primary key."""
        if row.old is None or row.new is None:
            return False
        return any(row.old[name] != row.new[name] for name in self.shapes[row.table].primary_key)

    def keep(self, row_ids: Collection[str]) -> Changeset:
        """Only the rows named by their ids; the digest changes with them."""
        wanted = frozenset(row_ids)
        rows = [row for row in self.rows if row.id() in wanted]
        return Changeset.build(self.base_snapshot_id, self.shapes, rows, self.schema_changes, self.notes)

    def without_notes(self) -> Changeset:
        return replace(self, notes=())

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256()
        for part in canonical_parts(self):
            hasher.update(part)
        return hasher.hexdigest()

    def digest(self) -> str:
        """SHA-256 over the canonical form: what a review is bound to. 64 hexadecimal digits."""
        return self._digest
