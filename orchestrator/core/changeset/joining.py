"""Turns the leftover rows of two sides into changes: joins by key, and keeps a changed key one update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

from orchestrator.core.changeset.rows import Cell, Key, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName, TableShape

TextCells = tuple[str | None, ...]


def join_rows(
    shape: TableShape, names: Sequence[str], old_rows: Iterable[TextCells], new_rows: Iterable[TextCells]
) -> list[RowChange]:
    """Pair the rows that are only on one side; rows equal on both cancel out.

    `names` are the columns of every row's cells. Without a key every row stands for itself (duplicates repeated).
    """
    if not shape.has_key:
        return _keyless(shape.table, names, old_rows, new_rows)
    key_of = _key_reader(shape, names)
    old_by_key = {key_of(row): row for row in old_rows}
    changes: list[RowChange] = []
    inserted: dict[Key, TextCells] = {}
    for row in new_rows:
        key = key_of(row)
        old = old_by_key.pop(key, None)
        if old is None:
            inserted[key] = row
        elif old != row:
            changes.append(_update(shape.table, names, key, old, row))
    moved = _moved_keys(shape, names, old_by_key, inserted)
    for old_key, new_key in moved.items():
        changes.append(_update(shape.table, names, old_key, old_by_key.pop(old_key), inserted.pop(new_key)))
    table = shape.table
    for key, row in old_by_key.items():
        changes.append(RowChange(table, RowKind.DELETE, key, dict(zip(names, row, strict=True)), None))
    for key, row in inserted.items():
        changes.append(RowChange(table, RowKind.INSERT, key, None, dict(zip(names, row, strict=True))))
    return changes


def _key_reader(shape: TableShape, names: Sequence[str]) -> Callable[[TextCells], Key]:
    positions = [names.index(column) for column in shape.primary_key]
    if len(positions) == 1:
        only = positions[0]
        return lambda row: (row[only],)
    return itemgetter(*positions)


def _update(table: TableName, names: Sequence[str], key: Key, old: TextCells, new: TextCells) -> RowChange:
    """The new row uses the old one's text where it is equal: an update costs the memory of its changed cells only."""
    before: dict[str, Cell] = dict(zip(names, old, strict=True))
    after = before.copy()
    for name, old_cell, new_cell in zip(names, old, new, strict=True):
        if old_cell != new_cell:
            after[name] = new_cell
    return RowChange(table, RowKind.UPDATE, key, before, after)


def _moved_keys(
    shape: TableShape, names: Sequence[str], deleted: Mapping[Key, TextCells], inserted: Mapping[Key, TextCells]
) -> dict[Key, Key]:
    """Deleted keys → inserted keys that are the same row under another key.

    Two states cannot prove it, so the evidence must be plain: every cell outside the key equal, at least one of them
    not NULL, and nobody else on either side with the same content. A key that production assigns is never taken for
    moved: there, equal content means the row was made anew.
    """
    if not deleted or not inserted or any(shape.column(name).is_assigned for name in shape.primary_key):
        return {}
    content = [
        position
        for position, name in enumerate(names)
        if name not in shape.primary_key and not shape.column(name).is_computed
    ]
    old_by_content = _unique_content(content, deleted)
    new_by_content = _unique_content(content, inserted)
    return {key: new_by_content[cells] for cells, key in old_by_content.items() if cells in new_by_content}


def _unique_content(content: Sequence[int], rows: Mapping[Key, TextCells]) -> dict[TextCells, Key]:
    contents = {key: tuple(row[position] for position in content) for key, row in rows.items()}
    counts = Counter(contents.values())
    return {
        cells: key for key, cells in contents.items() if counts[cells] == 1 and any(cell is not None for cell in cells)
    }


def _keyless(
    table: TableName, names: Sequence[str], old_rows: Iterable[TextCells], new_rows: Iterable[TextCells]
) -> list[RowChange]:
    old_counts, new_counts = Counter(old_rows), Counter(new_rows)
    gone, come = (old_counts - new_counts).elements(), (new_counts - old_counts).elements()
    return [
        *(RowChange(table, RowKind.DELETE, (), dict(zip(names, cells, strict=True)), None) for cells in gone),
        *(RowChange(table, RowKind.INSERT, (), None, dict(zip(names, cells, strict=True))) for cells in come),
    ]
