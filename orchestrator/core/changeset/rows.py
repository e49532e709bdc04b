"""Cells and rows: one differing row of one table, as typed text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from orchestrator.core.changeset.shape import TableName


@dataclass(frozen=True, slots=True)
class ProvisionalKey:
    """A value the sandbox's own sequence handed out for a new row, and every reference to it.

    Production may have given the same number to another row since, so it is a type of its own: it never equals a
    plain cell, and promote replaces it everywhere by a value from production's sequence. `table` and `column` name
    where it was assigned; `text` is what stood in the sandbox.
    """

    table: TableName
    column: str
    text: str

    def __str__(self) -> str:
        return f"new {self.text}"


# The text PostgreSQL prints for the value (its output function under pinned settings), None for NULL.
# Bytes that are not UTF-8 (SQL_ASCII databases) are carried as lone surrogates, as Python's surrogateescape does.
Cell: TypeAlias = str | ProvisionalKey | None
Row: TypeAlias = Mapping[str, Cell]
Key: TypeAlias = tuple[Cell, ...]


class RowKind(StrEnum):
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that differs from the base snapshot.

    `key` holds the primary key's cells in the key's column order: the *old* key for updates and deletes (a changed key
    is still one update), the new one for inserts, and () in a table without a key. `old` and `new` hold every stored
    column of the row (virtual ones left out); an insert has no `old`, a delete no `new`.
    """

    table: TableName
    kind: RowKind
    key: Key
    old: Row | None = None
    new: Row | None = None

    def __post_init__(self) -> None:
        if (self.old is None) != (self.kind is RowKind.INSERT) or (self.new is None) != (self.kind is RowKind.DELETE):
            raise ValueError(f"a change of kind {self.kind} has the wrong sides")

    @property
    def changed_columns(self) -> tuple[str, ...]:
        """Columns whose cell differs; every column of an inserted or deleted row."""
        if self.old is None or self.new is None:
            return tuple(self.new or self.old or ())
        old = self.old
        return tuple(name for name, cell in self.new.items() if name not in old or old[name] != cell)

    def id(self) -> str:
        """Names this row within a changeset, stable over runs: 16 hexadecimal digits."""
        parts = [self.table.schema, self.table.name, self.kind, *map(_key_text, self.key)]
        if not self.key:
            side = self.new or self.old or {}
            parts += [f"{name}={_key_text(cell)}" for name, cell in sorted(side.items())]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _key_text(cell: Cell) -> str:
    if cell is None:
        return "n"
    return "p" + cell.text if isinstance(cell, ProvisionalKey) else "v" + cell
