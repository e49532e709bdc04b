"""Checks every row of a changeset against the derived model and the company's, and lists every violation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName, TableShape
from orchestrator.core.rowmodels.derive import derived_model
from orchestrator.core.rowmodels.registry import REGISTRY, RowModel, RowModels
from orchestrator.core.rowmodels.values import Unreadable, to_python

MESSAGE_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True)
class RowViolation:
    """One rule broken by one row. `column` is empty when the whole row is meant; `model` names who objects."""

    row_id: str
    table: TableName
    key: Key
    column: str
    message: str
    model: str

    def __str__(self) -> str:
        key = ", ".join("NULL" if cell is None else str(cell) for cell in self.key) or "no key"
        where = f"{self.table} ({key})" + (f".{self.column}" if self.column else "")
        return f"{where}: {self.message}"


def validate_all(
    changeset: Changeset, models: RowModels | None = None, *, limit: int | None = None
) -> tuple[RowViolation, ...]:
    """Every violation in the changeset's order; `limit` stops early. Deleted rows are only shown to `check`."""
    found: list[RowViolation] = []
    for row in changeset.rows:
        found += validate_row(changeset.shapes[row.table], row, models)
        if limit is not None and len(found) >= limit:
            return tuple(found[:limit])
    return tuple(found)


def validate_row(shape: TableShape, row: RowChange, models: RowModels | None = None) -> tuple[RowViolation, ...]:
    """Every violation of one row: the derived model first, then the company's."""
    registry = REGISTRY if models is None else models
    company = registry.of(row.table)
    new, unreadable = _python_row(shape, row.new)
    broken = {column for column, _ in unreadable}
    changed = set(row.changed_columns)
    found = [_violation(row, column, message, "schema") for column, message in unreadable if column in changed]
    if row.kind is not RowKind.DELETE:
        # What production holds already and nobody touched is not this row's fault.
        skip = broken if row.kind is RowKind.INSERT else broken | (set(shape.column_names) - changed)
        found += _against(derived_model(shape), row, new, "schema", skip=skip)
    for model in company:
        found += _company(model, shape, row, new, broken)
    return tuple(found)


def _company(
    model: type[RowModel], shape: TableShape, row: RowChange, new: Mapping[str, Any], broken: set[str]
) -> list[RowViolation]:
    name = model.__name__
    columns = model.columns()
    found: list[RowViolation] = []
    unknown = sorted(columns.keys() - set(shape.column_names))
    if unknown:
        found += [
            _violation(row, column, "the model names a column the table does not have", name) for column in unknown
        ]
    if row.kind is not RowKind.DELETE:
        values = {column: new[column] for column in columns if column in new}
        found += _against(model, row, values, name, skip=broken.union(unknown))
    old, _ = _python_row(shape, row.old)
    objections = model.check(old if row.old is not None else None, new if row.new is not None else None)
    found += [_violation(row, "", str(objection), name) for objection in objections]
    return found


def _against(
    model: type[BaseModel], row: RowChange, values: Mapping[str, Any], name: str, *, skip: set[str]
) -> Iterator[RowViolation]:
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        seen: set[str] = set()
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            column = str(problem["loc"][0]) if problem["loc"] else ""
            if column in skip or (column and column in seen):
                continue  # a union reports once per member
            seen.add(column)
            yield _violation(row, column, problem["msg"], name)


def _python_row(shape: TableShape, row: Row | None) -> tuple[dict[str, Any], Sequence[tuple[str, str]]]:
    values: dict[str, Any] = {}
    unreadable: list[tuple[str, str]] = []
    columns = _columns(shape)
    for name, cell in (row or {}).items():
        text = _text(cell)
        column = columns.get(name)
        if text is None or column is None:
            values[name] = text
            continue
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            unreadable.append((name, "holds bytes that are not UTF-8"))
            continue
        try:
            values[name] = to_python(column, text)
        except Unreadable as error:
            unreadable.append((name, str(error)))
    return values, unreadable


def _columns(shape: TableShape) -> dict[str, Any]:
    return {column.name: column for column in shape.columns}


def _text(cell: Cell) -> str | None:
    return cell.text if isinstance(cell, ProvisionalKey) else cell


def _violation(row: RowChange, column: str, message: str, model: str) -> RowViolation:
    return RowViolation(row.id(), row.table, row.key, column, message[:MESSAGE_LENGTH_MAX], model)
