"""The JSON form of a changeset: written by us, read back strictly, described by a published schema."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.core.changeset.canonical import FORMAT, change_json, name_json, shape_json
from orchestrator.core.changeset.changeset import Changeset, SchemaChange, SchemaChangeKind
from orchestrator.core.changeset.rows import Cell, ProvisionalKey, RowChange, RowKind
from orchestrator.core.changeset.shape import (
    Column,
    ForeignKey,
    Generated,
    KeyKind,
    TableName,
    TableShape,
    TypeKind,
    UniqueKey,
)
from orchestrator.errors import InvalidInput


class InvalidChangeset(InvalidInput):
    code = "invalid.changeset"


def to_json(changeset: Changeset) -> dict[str, Any]:
    """A document of plain JSON values, `digest` included."""
    return {
        "format": FORMAT,
        "base_snapshot": changeset.base_snapshot_id,
        "digest": changeset.digest(),
        "tables": [shape_json(shape) for shape in changeset.tables],
        "schema_changes": [
            {"table": name_json(change.table), "kind": str(change.kind), "detail": change.detail}
            for change in changeset.schema_changes
        ],
        "rows": [change_json(row) for row in changeset.rows],
        "notes": list(changeset.notes),
    }


def dump(changeset: Changeset) -> str:
    """JSON text in ASCII, fit for any column, file or response."""
    return json.dumps(to_json(changeset), separators=(",", ":"), ensure_ascii=True)


def load(text: str | bytes) -> Changeset:
    """Raises InvalidChangeset."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _invalid("it is not JSON") from error
    return from_json(document)


def from_json(document: object) -> Changeset:
    """Read a document back. Raises InvalidChangeset for another format, a wrong shape or a digest that differs."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise _invalid(f"its format is not {FORMAT}")
    try:
        tables = tuple(_shape(item) for item in document["tables"])
        shapes = {shape.table: shape for shape in tables}
        changeset = Changeset.build(
            _text(document["base_snapshot"]),
            shapes,
            [_change(item, shapes) for item in document["rows"]],
            [
                SchemaChange(_name(item["table"]), SchemaChangeKind(item["kind"]), _text(item["detail"]))
                for item in document["schema_changes"]
            ],
            [_text(note) for note in document.get("notes", ())],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(f"a part is missing or malformed ({type(error).__name__}: {error})"[:200]) from error
    if document.get("digest") != changeset.digest():
        raise _invalid("its digest does not match its content")
    return changeset


def _invalid(why: str) -> InvalidChangeset:
    return InvalidChangeset(
        f"This is no changeset: {why}.", effect="Nothing was taken from it.", next_step="Take the difference again."
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("a list expected")
    return tuple(_text(value) for value in values)


def _name(value: object) -> TableName:
    schema, name = _texts(value)
    return TableName(schema, name)


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"new"}:
        schema, table, column, text = _texts(value["new"])
        return ProvisionalKey(TableName(schema, table), column, text)
    if isinstance(value, Mapping) and set(value) == {"base64"}:
        return base64.b64decode(_text(value["base64"]), validate=True).decode("utf-8", "surrogateescape")
    raise TypeError("a cell is null, text, {new} or {base64}")


def _row(value: object) -> dict[str, Cell]:
    if not isinstance(value, Mapping):
        raise TypeError("a row is an object")
    return {_text(name): _cell(cell) for name, cell in value.items()}


def _change(item: Mapping[str, Any], shapes: Mapping[TableName, TableShape]) -> RowChange:
    table = _name(item["table"])
    known = set(shapes[table].column_names)
    kind = RowKind(item["kind"])
    old = _row(item["old"]) if "old" in item else None
    new = _row(item["new"]) if "new" in item else None
    if not known.issuperset({*(old or {}), *(new or {})}):
        raise ValueError(f"a row of {table} has an unknown column")
    if kind is RowKind.UPDATE and old is not None and new is not None:
        new = {**old, **new}
    key = item["key"]
    if not isinstance(key, list) or len(key) != len(shapes[table].primary_key):
        raise ValueError(f"a row of {table} has the wrong key")
    return RowChange(table, kind, tuple(_cell(cell) for cell in key), old, new)


def _shape(item: Mapping[str, Any]) -> TableShape:
    return TableShape(
        _name(item["table"]),
        tuple(_column(column) for column in item["columns"]),
        _texts(item["primary_key"]),
        tuple(
            UniqueKey(**{**key, "kind": KeyKind(key["kind"]), "columns": _texts(key["columns"])})
            for key in item["unique_keys"]
        ),
        tuple(
            ForeignKey(
                **{
                    **key,
                    "columns": _texts(key["columns"]),
                    "references": _name(key["references"]),
                    "referenced_columns": _texts(key["referenced_columns"]),
                }
            )
            for key in item["foreign_keys"]
        ),
        bool(item["partitioned"]),
    )


def _column(item: Mapping[str, Any]) -> Column:
    return Column(
        **{
            **item,
            "kind": TypeKind(item["kind"]),
            "generated": Generated(item["generated"]),
            "sequence": None if item["sequence"] is None else _name(item["sequence"]),
            "labels": _texts(item["labels"]),
        }
    )
