"""Turns the leftover rows of two sides into changes: joins by key, and keeps a changed key one update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from orchestrator.core.changeset.rows import Cell, Key, RowChange, RowKind
from orchestrator.core.changeset.shape import COMPUTED, TableName, TableShape

TextRow = Mapping[str, str | None]


def join_rows(
    shape: TableShape,
    old_rows: Collection[TextRow],
    new_rows: Collection[TextRow],
    *,
    table: TableName | None = None,
) -> list[RowChange]:
    """Pair the rows that are only on one side. Without a key every row stands for itself (duplicates repeated).

    Rows equal on both sides cancel out. `table` overrides the shape's name.
    """
    name = table or shape.table
    if not shape.has_key:
        return _keyless(name, shape.column_names, old_rows, new_rows)
    old_by_key = {_key(shape, row): row for row in old_rows}
    changes: list[RowChange] = []
    inserted: dict[Key, TextRow] = {}
    for row in new_rows:
        key = _key(shape, row)
        old = old_by_key.pop(key, None)
        if old is None:
            inserted[key] = row
        elif old != row:
            changes.append(RowChange(name, RowKind.UPDATE, key, _shared(old), _sharing(old, row)))
    moved = _moved_keys(shape, old_by_key, inserted)
    for old_key, new_key in moved.items():
        old, new = old_by_key.pop(old_key), inserted.pop(new_key)
        changes.append(RowChange(name, RowKind.UPDATE, old_key, _shared(old), _sharing(old, new)))
    changes += [RowChange(name, RowKind.DELETE, key, dict(row), None) for key, row in old_by_key.items()]
    changes += [RowChange(name, RowKind.INSERT, key, None, dict(row)) for key, row in inserted.items()]
    return changes


def _key(shape: TableShape, row: TextRow) -> Key:
    return tuple(row[column] for column in shape.primary_key)


def _shared(old: TextRow) -> dict[str, Cell]:
    return dict(old)


def _sharing(old: TextRow, new: TextRow) -> dict[str, Cell]:
    """The new row, using the old row's text where it is equal: an update then costs its changed cells only."""
    return {name: old[name] if old.get(name) == cell and name in old else cell for name, cell in new.items()}


def _moved_keys(shape: TableShape, deleted: Mapping[Key, TextRow], inserted: Mapping[Key, TextRow]) -> dict[Key, Key]:
    """Deleted keys → inserted keys that are the same row under another key.

    Two states cannot prove it, so the evidence must be plain: every cell outside the key equal, at least one of them
    not NULL, and nobody else on either side with the same content. A key that production assigns is never taken for
    moved: there, equal content means the row was made anew.
    """
    if not deleted or not inserted or any(shape.column(name).is_assigned for name in shape.primary_key):
        return {}
    content = [
        column.name
        for column in shape.columns
        if column.name not in shape.primary_key and column.generated not in COMPUTED
    ]
    old_by_content = _unique_content(content, deleted)
    new_by_content = _unique_content(content, inserted)
    return {key: new_by_content[cells] for cells, key in old_by_content.items() if cells in new_by_content}


def _unique_content(content: Sequence[str], rows: Mapping[Key, TextRow]) -> dict[Key, Key]:
    counts = Counter(_content(content, row) for row in rows.values())
    return {
        cells: key
        for key, row in rows.items()
        if counts[cells := _content(content, row)] == 1 and any(cell is not None for cell in cells)
    }


def _content(content: Sequence[str], row: TextRow) -> Key:
    return tuple(row.get(name) for name in content)


def _keyless(
    table: TableName, columns: Sequence[str], old_rows: Collection[TextRow], new_rows: Collection[TextRow]
) -> list[RowChange]:
    old_counts = Counter(tuple(row.get(name) for name in columns) for row in old_rows)
    new_counts = Counter(tuple(row.get(name) for name in columns) for row in new_rows)
    gone = (old_counts - new_counts).elements()
    come = (new_counts - old_counts).elements()
    return [
        *(RowChange(table, RowKind.DELETE, (), dict(zip(columns, cells, strict=True)), None) for cells in gone),
        *(RowChange(table, RowKind.INSERT, (), None, dict(zip(columns, cells, strict=True))) for cells in come),
    ]
