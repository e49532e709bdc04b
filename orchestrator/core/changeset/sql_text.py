"""A changeset as SQL for people to read: what each row comes to, with the values it must still have.

Promote sends all rows as one guarded statement with parameters; this text is never executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, ProvisionalKey, RowChange, RowKind
from orchestrator.core.changeset.shape import quoted


def statements(changeset: Changeset, rows: Iterable[RowChange] | None = None) -> Iterator[str]:
    """One statement a row, deletes before updates before inserts, in the changeset's order."""
    chosen = list(changeset.rows if rows is None else rows)
    for kind in (RowKind.DELETE, RowKind.UPDATE, RowKind.INSERT):
        for row in chosen:
            if row.kind is kind:
                yield _statement(changeset, row)


def _statement(changeset: Changeset, row: RowChange) -> str:
    table = str(row.table)
    shape = changeset.shapes[row.table]
    if row.kind is RowKind.INSERT:
        new = row.new or {}
        names = [name for name in shape.column_names if name in new and not shape.column(name).is_computed]
        return (
            f"INSERT INTO {table} ({', '.join(map(quoted, names))})\n"
            f"VALUES ({', '.join(literal(new[name]) for name in names)});"
        )
    where = [f"{quoted(name)} = {literal(cell)}" for name, cell in zip(shape.primary_key, row.key, strict=False)]
    old, new = row.old or {}, row.new or {}
    if row.kind is RowKind.DELETE:
        guards = [name for name in old if name not in shape.primary_key]
        return f"DELETE FROM {table}\nWHERE {' AND '.join(where + [_guard(name, old[name]) for name in guards])};"
    changed = [name for name in row.changed_columns if not shape.column(name).is_computed]
    sets = ", ".join(f"{quoted(name)} = {literal(new[name])}" for name in changed)
    guards = [name for name in changed if name not in shape.primary_key]
    return (
        f"UPDATE {table}\nSET {sets}\nWHERE {' AND '.join(where + [_guard(name, old.get(name)) for name in guards])};"
    )


def _guard(name: str, cell: Cell) -> str:
    return f"{quoted(name)} IS NULL" if cell is None else f"{quoted(name)} = {literal(cell)}"


def literal(cell: Cell) -> str:
    """A value as a literal; a key that production assigns is named, not guessed."""
    if cell is None:
        return "NULL"
    if isinstance(cell, ProvisionalKey):
        return f"/* new key of {cell.table} */ DEFAULT"
    text = cell.encode("utf-8", "backslashreplace").decode()
    return "'" + text.replace("'", "''") + "'"
