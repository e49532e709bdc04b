"""The difference of a sandbox as its users hold it: rows with Python values, checks, and ways to show it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TextIO

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.json_form import to_json
from orchestrator.core.changeset.rendering import render, render_text
from orchestrator.core.changeset.rows import Cell, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableShape
from orchestrator.core.changeset.summary import Summary, summarize
from orchestrator.core.rowmodels import RowModels, RowViolation, validate_row
from orchestrator.core.rowmodels.values import Unreadable, to_python
from orchestrator.shadow.production import Scope


@dataclass(frozen=True)
class RowDifference:
    """One row that differs. `old` and `new` hold Python values; a key production will assign is a ProvisionalKey."""

    change: RowChange
    shape: TableShape
    scope: Scope
    models: RowModels | None = None

    @property
    def table(self) -> str:
        return self.change.table.name

    @property
    def kind(self) -> RowKind:
        return self.change.kind

    @property
    def key(self) -> dict[str, Any]:
        """Key column → value; the old key of a row whose key changed, {} in a table without one."""
        cells = zip(self.shape.primary_key, self.change.key, strict=False)
        return {name: _value(self.shape, name, cell) for name, cell in cells}

    @property
    def old(self) -> dict[str, Any] | None:
        return _values(self.shape, self.change.old)

    @property
    def new(self) -> dict[str, Any] | None:
        return _values(self.shape, self.change.new)

    @property
    def changed_columns(self) -> tuple[str, ...]:
        return self.change.changed_columns

    def validate(self) -> tuple[RowViolation, ...]:
        """Every rule this row breaks: schema, the company's models, the tenant's scope."""
        return (*validate_row(self.shape, self.change, self.models), *self._outside())

    def _outside(self) -> Iterator[RowViolation]:
        def violation(column: str, message: str) -> RowViolation:
            return RowViolation(self.change.id(), self.change.table, self.change.key, column, message, "scope")

        if not self.shape.has_key:
            yield violation("", "the table has no primary key, so its rows cannot be written back")
        column = self.scope.column
        if column is None:
            return
        if column not in self.shape.column_names:
            yield violation("", "a reference table is only read")
            return
        for side in (self.change.old, self.change.new):
            if side is not None and not _is_value(side.get(column), self.scope.value):
                yield violation(column, f"the row is outside the tenant's scope ({column} = {self.scope.value!r})")
                return


def _is_value(cell: Cell, value: Any) -> bool:
    if cell is None or isinstance(cell, ProvisionalKey):
        return False
    return cell == ({True: "t", False: "f"}[value] if isinstance(value, bool) else str(value))


def _values(shape: TableShape, row: Row | None) -> dict[str, Any] | None:
    return None if row is None else {name: _value(shape, name, cell) for name, cell in row.items()}


def _value(shape: TableShape, name: str, cell: Cell) -> Any:
    if cell is None or isinstance(cell, ProvisionalKey):
        return cell
    try:
        return to_python(shape.column(name), cell)
    except Unreadable:
        return cell


@dataclass(frozen=True)
class ShadowChangeset:
    """Immutable. What was looked at is what is committed: the digest names it."""

    content: Changeset
    scope: Scope
    models: RowModels | None = None

    @cached_property
    def rows(self) -> tuple[RowDifference, ...]:
        shapes = self.content.shapes
        return tuple(RowDifference(row, shapes[row.table], self.scope, self.models) for row in self.content.rows)

    def __iter__(self) -> Iterator[RowDifference]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.content)

    @property
    def is_empty(self) -> bool:
        return self.content.is_empty

    @property
    def is_valid(self) -> bool:
        return not self.validate_all()

    def validate_all(self) -> tuple[RowViolation, ...]:
        """Every rule broken by any row, in order."""
        return self._violations

    @cached_property
    def _violations(self) -> tuple[RowViolation, ...]:
        return tuple(violation for row in self.rows for violation in row.validate())

    @property
    def summary(self) -> Summary:
        return summarize(self.content)

    def digest(self) -> str:
        return self.content.digest()

    def by_table(self) -> Mapping[str, tuple[RowDifference, ...]]:
        found: dict[str, tuple[RowDifference, ...]] = {}
        for row in self.rows:
            found[row.table] = (*found.get(row.table, ()), row)
        return found

    def to_json(self) -> dict[str, Any]:
        """The published JSON form."""
        return to_json(self.content)

    def print(self, file: TextIO | None = None) -> None:
        """Write it to `file` (standard output): in colour on a terminal, plain otherwise."""
        target = sys.stdout if file is None else file
        target.write(render_text(self.content, colour=target.isatty()))

    def display(self) -> Any:
        """Something a notebook or a rich console shows."""
        return render(self.content)

    def __str__(self) -> str:
        return render_text(self.content)
