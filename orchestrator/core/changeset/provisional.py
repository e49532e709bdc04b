"""Marks the keys a sandbox's own sequences handed out, in the new rows and in every reference to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from orchestrator.core.changeset.canonical import grouped
from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, RowChange, RowKind
from orchestrator.core.changeset.shape import ForeignKey, TableName, TableShape

# A reference chain (new child of a new child of …) of composite keys needs one round per link.
_ROUNDS_MAX = 64


def mark_provisional(shapes: Mapping[TableName, TableShape], rows: Collection[RowChange]) -> list[RowChange]:
    """Replace assigned cells of inserted rows, and references to them, by ProvisionalKey; the order is kept.

    `rows` hold plain text. Within one sandbox a value names one row only, so a reference whose text equals an
    inserted row's key means that row. References of unchanged cells are left alone: they point at base rows.
    """
    assigned = {
        name: frozenset(column.name for column in shapes[name].columns if column.is_assigned) for name in grouped(rows)
    }
    if not any(assigned.values()):
        return list(rows)
    marked = [_mark_assigned(shapes, assigned[row.table], row) for row in rows]
    if all(new is old for new, old in zip(marked, rows, strict=True)):
        return marked
    links = _links(shapes, {row.table for row in marked})
    for _ in range(_ROUNDS_MAX):
        targets = _targets(links, marked)
        changed = False
        for position, row in enumerate(marked):
            better = _mark_references(shapes[row.table], row, targets)
            if better is not row:
                marked[position] = better
                changed = True
        if not changed:
            break
    return marked


def _mark_assigned(shapes: Mapping[TableName, TableShape], assigned: frozenset[str], row: RowChange) -> RowChange:
    if not assigned or row.kind is not RowKind.INSERT or row.new is None:
        return row
    new = {
        name: ProvisionalKey(row.table, name, cell) if name in assigned and isinstance(cell, str) else cell
        for name, cell in row.new.items()
    }
    return replace(row, new=new, key=tuple(new[name] for name in shapes[row.table].primary_key))


_Target = tuple[TableName, tuple[str, ...]]
_Targets = dict[_Target, dict[tuple[str, ...], Key]]


def _links(shapes: Mapping[TableName, TableShape], tables: Collection[TableName]) -> set[_Target]:
    """What foreign keys of these tables point at, as far as it is among them."""
    return {
        (key.references, key.referenced_columns)
        for table in tables
        for key in shapes[table].foreign_keys
        if key.references in tables
    }


def _targets(links: Collection[_Target], rows: Collection[RowChange]) -> _Targets:
    """Per referenced table and columns: text of the key of each inserted row with a provisional part → its cells."""
    by_table: dict[TableName, list[tuple[str, ...]]] = defaultdict(list)
    for table, columns in links:
        by_table[table].append(columns)
    found: _Targets = {link: {} for link in links}
    for row in rows:
        if row.kind is RowKind.DELETE or row.new is None:
            continue
        for columns in by_table.get(row.table, ()):
            cells = tuple(row.new.get(name) for name in columns)
            if any(isinstance(cell, ProvisionalKey) for cell in cells) and None not in cells:
                found[row.table, columns][tuple(_text(cell) for cell in cells)] = cells
    return found


def _mark_references(shape: TableShape, row: RowChange, targets: _Targets) -> RowChange:
    if row.new is None:
        return row
    new: dict[str, Cell] = dict(row.new)
    changed = False
    for key in shape.foreign_keys:
        cells = _referenced(key, row, new, targets)
        for name, cell in zip(key.columns, cells, strict=False):
            if isinstance(cell, ProvisionalKey) and new[name] != cell and not isinstance(new[name], ProvisionalKey):
                new[name] = cell
                changed = True
    if not changed:
        return row
    if row.kind is RowKind.INSERT:
        return replace(row, new=new, key=tuple(new[name] for name in shape.primary_key))
    return replace(row, new=new)


def _referenced(key: ForeignKey, row: RowChange, new: Mapping[str, Cell], targets: _Targets) -> Key:
    index = targets.get((key.references, key.referenced_columns))
    if not index or any(new.get(name) is None for name in key.columns):
        return ()
    if row.old is not None and all(row.old.get(name) == new[name] for name in key.columns):
        return ()
    return index.get(tuple(_text(new[name]) for name in key.columns), ())


def _text(cell: Cell) -> str:
    if cell is None:
        raise ValueError("a reference with NULL in it refers to nothing")
    return cell.text if isinstance(cell, ProvisionalKey) else cell
