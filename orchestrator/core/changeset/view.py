"""A changeset for showing: plain values, long cells cut, control characters made visible; templates only loop."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName

CELL_LENGTH_MAX = 200
PAGE_ROWS = 100


@dataclass(frozen=True, slots=True)
class ViewCell:
    """`old` and `new` are texts fit for showing, None where that side has no such row; the kinds name their sort."""

    column: str
    old: str | None
    new: str | None
    changed: bool
    is_key: bool
    old_kind: str  # text, null, provisional, absent
    new_kind: str
    cut: bool  # something was left out; ask for the whole cell by row and column


@dataclass(frozen=True, slots=True)
class ViewRow:
    id: str
    kind: RowKind
    key: str
    moves_key: bool
    cells: tuple[ViewCell, ...]


@dataclass(frozen=True, slots=True)
class ViewTable:
    """One page of one table's rows. `columns` are those worth a place: the key, then whatever changed anywhere."""

    table: TableName
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    rows: tuple[ViewRow, ...]
    total: int
    offset: int

    @property
    def more(self) -> bool:
        return self.offset + len(self.rows) < self.total


def view_table(
    changeset: Changeset,
    table: TableName,
    *,
    offset: int = 0,
    limit: int = PAGE_ROWS,
    kind: RowKind | None = None,
    length_max: int = CELL_LENGTH_MAX,
) -> ViewTable:
    """A page of a table's rows, updates showing the columns that change somewhere on the page."""
    rows = changeset.rows_of(table)
    if kind is not None:
        rows = tuple(row for row in rows if row.kind is kind)
    page = rows[offset : offset + limit]
    shape = changeset.shapes[table]
    changed = {name for row in page for name in row.changed_columns}
    columns = [name for name in shape.column_names if name in shape.primary_key or name in changed]
    return ViewTable(
        table,
        tuple(columns),
        shape.primary_key,
        tuple(_row(changeset, row, columns, length_max) for row in page),
        len(rows),
        offset,
    )


def view_tables(changeset: Changeset, *, limit: int = PAGE_ROWS) -> tuple[ViewTable, ...]:
    """The first page of every table."""
    return tuple(view_table(changeset, shape.table, limit=limit) for shape in changeset.tables)


def _row(changeset: Changeset, row: RowChange, columns: Sequence[str], length_max: int) -> ViewRow:
    changed = set(row.changed_columns)
    primary = changeset.shapes[row.table].primary_key
    cells = tuple(_cell(row, name, name in changed, name in primary, length_max) for name in columns)
    return ViewRow(row.id(), row.kind, key_text(row), changeset.changes_key(row), cells)


def _cell(row: RowChange, name: str, changed: bool, is_key: bool, length_max: int) -> ViewCell:
    old, old_kind, old_cut = _side(row.old, name, length_max)
    new, new_kind, new_cut = _side(row.new, name, length_max)
    return ViewCell(name, old, new, changed, is_key, old_kind, new_kind, old_cut or new_cut)


def _side(row: Row | None, name: str, length_max: int) -> tuple[str | None, str, bool]:
    if row is None or name not in row:
        return None, "absent", False
    cell = row[name]
    if cell is None:
        return "NULL", "null", False
    kind = "provisional" if isinstance(cell, ProvisionalKey) else "text"
    text = str(cell)
    return shown(text, length_max), kind, len(text) > length_max


def key_text(row: RowChange) -> str:
    """The key in one line: 17, or (eu, 17)."""
    parts = ["NULL" if cell is None else shown(str(cell), 60) for cell in row.key]
    if not parts:
        return "no key"
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def shown(text: str, length_max: int = CELL_LENGTH_MAX) -> str:
    """Safe on any screen: control, bidirectional and unprintable characters become visible escapes, length is cut.

    A cell's content is the tenant's: raw, it could steer a terminal or turn the reading direction around.
    """
    cut = text[:length_max]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(letter if _is_harmless(letter) else _escaped(letter) for letter in cut)
    return cut + "…" if len(text) > length_max else cut


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() and unicodedata.category(letter) not in {"Cf", "Cs", "Co", "Cn"}


def _escaped(letter: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(letter)
    if named is not None:
        return named
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
