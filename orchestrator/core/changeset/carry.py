"""Carries a draft from its old base to a newer one: which rows still apply, which are done, which conflict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName


class ConflictKind(StrEnum):
    CELL_MOVED = "cell_moved"  # the same cell got another value there
    ROW_GONE = "row_gone"
    ROW_MOVED = "row_moved"  # a row to be deleted was changed there
    KEY_TAKEN = "key_taken"
    NO_KEY = "no_key"


@dataclass(frozen=True)
class CellConflict:
    """One cell three ways: as it was in the base, as proposed, as it is now."""

    column: str
    base: Cell
    proposed: Cell
    now: Cell


@dataclass(frozen=True)
class RowConflict:
    row: RowChange
    kind: ConflictKind
    cells: tuple[CellConflict, ...] = ()

    def __str__(self) -> str:
        said = {
            ConflictKind.CELL_MOVED: "the same cells were changed there",
            ConflictKind.ROW_GONE: "the row is gone there",
            ConflictKind.ROW_MOVED: "the row to be deleted was changed there",
            ConflictKind.KEY_TAKEN: "its key is taken there",
            ConflictKind.NO_KEY: "its table has no key to find it by",
        }
        return f"{self.row.table}: {said[self.kind]}"


@dataclass(frozen=True)
class Carried:
    """`changeset` stands on the new base and holds what applies; `done` is already so there."""

    changeset: Changeset
    done: tuple[RowChange, ...]
    conflicts: tuple[RowConflict, ...]

    @property
    def is_clean(self) -> bool:
        return not self.conflicts


def keys_needed(changeset: Changeset) -> dict[TableName, frozenset[Key]]:
    """The keys `carry` has to know the new base's rows for; provisional ones exist in no base."""
    found: dict[TableName, set[Key]] = {}
    for row in changeset.rows:
        wanted = found.setdefault(row.table, set())
        primary = changeset.shapes[row.table].primary_key
        keys = [row.key] if row.old is not None or row.kind is RowKind.INSERT else []
        if row.new is not None:
            keys.append(tuple(row.new[name] for name in primary))
        wanted.update(key for key in keys if key and not _is_provisional(key))
    return {table: frozenset(keys) for table, keys in found.items() if keys}


def carry(changeset: Changeset, now: Mapping[TableName, Mapping[Key, Row]], *, new_base_id: str) -> Carried:
    """Three-way, cell by cell. `now` holds the new base's rows under the keys of `keys_needed` that exist there."""
    applies: list[RowChange] = []
    done: list[RowChange] = []
    conflicts: list[RowConflict] = []
    leaving = {(row.table, row.key) for row in changeset.rows if row.kind is RowKind.DELETE or _moves(changeset, row)}
    for row in changeset.rows:
        outcome = _carry_row(changeset, row, now.get(row.table, {}), leaving)
        if isinstance(outcome, RowConflict):
            conflicts.append(outcome)
        elif outcome is None:
            done.append(row)
        else:
            applies.append(outcome)
    carried = Changeset.build(new_base_id, changeset.shapes, applies, changeset.schema_changes, changeset.notes)
    return Carried(carried, tuple(done), tuple(conflicts))


def _moves(changeset: Changeset, row: RowChange) -> bool:
    return row.kind is RowKind.UPDATE and changeset.changes_key(row)


def _is_provisional(key: Key) -> bool:
    return any(isinstance(cell, ProvisionalKey) for cell in key)


def _carry_row(
    changeset: Changeset, row: RowChange, now: Mapping[Key, Row], leaving: set[tuple[TableName, Key]]
) -> RowChange | RowConflict | None:
    """The row on the new base, its conflict, or None when it is already so."""
    if not row.key:
        return RowConflict(row, ConflictKind.NO_KEY)
    if row.kind is RowKind.INSERT:
        return _carry_insert(row, now, leaving)
    current = now.get(row.key)
    if row.kind is RowKind.DELETE:
        return _carry_delete(row, current)
    return _carry_update(changeset, row, now, current, leaving)


def _carry_insert(
    row: RowChange, now: Mapping[Key, Row], leaving: set[tuple[TableName, Key]]
) -> RowChange | RowConflict | None:
    there = None if _is_provisional(row.key) else now.get(row.key)
    if there is None or (row.table, row.key) in leaving:
        return row
    cells = _differences(row, there)
    return RowConflict(row, ConflictKind.KEY_TAKEN, cells) if cells else None


def _differences(row: RowChange, there: Row) -> tuple[CellConflict, ...]:
    new = row.new or {}
    return tuple(
        CellConflict(name, None, cell, there.get(name)) for name, cell in new.items() if there.get(name) != cell
    )


def _carry_delete(row: RowChange, current: Row | None) -> RowChange | RowConflict | None:
    if current is None:
        return None
    old = row.old or {}
    moved = tuple(
        CellConflict(name, cell, None, current.get(name)) for name, cell in old.items() if current.get(name) != cell
    )
    return RowConflict(row, ConflictKind.ROW_MOVED, moved) if moved else replace(row, old=dict(current))


def _carry_update(
    changeset: Changeset,
    row: RowChange,
    now: Mapping[Key, Row],
    current: Row | None,
    leaving: set[tuple[TableName, Key]],
) -> RowChange | RowConflict | None:
    old, new = row.old or {}, row.new or {}
    new_key = tuple(new[name] for name in changeset.shapes[row.table].primary_key)
    target = now.get(new_key) if new_key != row.key else None
    if current is None:
        arrived = target is not None and not _differences(row, target)
        return None if arrived else RowConflict(row, ConflictKind.ROW_GONE)
    if target is not None and (row.table, new_key) not in leaving:
        return RowConflict(row, ConflictKind.KEY_TAKEN, _differences(row, target))
    computed = {column.name for column in changeset.shapes[row.table].columns if column.is_computed}
    changed = [name for name in row.changed_columns if name not in computed]
    moved = tuple(
        CellConflict(name, old.get(name), new[name], current.get(name))
        for name in changed
        if current.get(name) not in (old.get(name), new[name])
    )
    if moved:
        return RowConflict(row, ConflictKind.CELL_MOVED, moved)
    if all(current.get(name) == new[name] for name in changed):
        return None
    carried = dict(current) | {name: new[name] for name in row.changed_columns}
    return replace(row, old=dict(current), new=carried)
