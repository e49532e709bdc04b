"""The published JSON Schema of a changeset (draft 2020-12)."""

from __future__ import annotations

from typing import Any

from orchestrator.core.changeset.canonical import FORMAT
from orchestrator.core.changeset.changeset import SchemaChangeKind
from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.shape import Generated, KeyKind, TypeKind

_TEXT: dict[str, Any] = {"type": "string"}
_TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
_FLAG: dict[str, Any] = {"type": "boolean"}
_NAMES: dict[str, Any] = {"type": "array", "items": _TEXT}
_TABLE: dict[str, Any] = {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}


def changeset_schema() -> dict[str, Any]:
    """Describes what `json_form.to_json` writes and `from_json` reads."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:" + FORMAT.replace("/", ":"),
        "title": "Changeset",
        "description": "The rows in which a sandbox differs from its base snapshot.",
        **_object(
            {
                "format": {"const": FORMAT},
                "base_snapshot": _TEXT,
                "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "tables": {"type": "array", "items": _shape()},
                "schema_changes": {
                    "type": "array",
                    "items": _object({"table": _TABLE, "kind": _one_of(SchemaChangeKind), "detail": _TEXT}),
                },
                "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
                "notes": _NAMES,
            }
        ),
        "$defs": {"cell": _cell(), "cells": _cells(), "row": _row()},
    }


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _one_of(enum: Any) -> dict[str, Any]:
    return {"enum": [str(member) for member in enum]}


def _cell() -> dict[str, Any]:
    provisional = {"type": "array", "items": _TEXT, "minItems": 4, "maxItems": 4}
    return {
        "description": "NULL; PostgreSQL's text of the value; a key production will assign (schema, table, column, "
        "text in the sandbox); or bytes that JSON cannot carry.",
        "oneOf": [
            {"type": "null"},
            _TEXT,
            _object({"new": provisional}),
            _object({"base64": {"type": "string", "contentEncoding": "base64"}}),
        ],
    }


def _cells() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"$ref": "#/$defs/cell"}}


def _row() -> dict[str, Any]:
    cells = {"$ref": "#/$defs/cells"}
    document = _object(
        {
            "table": _TABLE,
            "kind": _one_of(RowKind),
            "key": {"type": "array", "items": {"$ref": "#/$defs/cell"}},
            "old": {**cells, "description": "The whole row in the base; absent for an insert."},
            "new": {**cells, "description": "The whole new row, or an update's changed cells; absent for a delete."},
        },
        optional=("old", "new"),
    )
    return document


def _shape() -> dict[str, Any]:
    column = _object(
        {
            "name": _TEXT,
            "type": _TEXT,
            "cast": _TEXT,
            "base": _TEXT,
            "kind": _one_of(TypeKind),
            "typmod": {"type": "integer"},
            "nullable": _FLAG,
            "generated": _one_of(Generated),
            "default": _TEXT_OR_NULL,
            "sequence": {"oneOf": [{"type": "null"}, _TABLE]},
            "labels": _NAMES,
            "domain": _TEXT_OR_NULL,
            "collation": _TEXT_OR_NULL,
        }
    )
    unique = _object(
        {
            "name": _TEXT,
            "kind": _one_of(KeyKind),
            "columns": _NAMES,
            "definition": _TEXT,
            "is_partial": _FLAG,
            "has_expressions": _FLAG,
            "nulls_not_distinct": _FLAG,
            "deferrable": _FLAG,
            "initially_deferred": _FLAG,
        }
    )
    foreign = _object(
        {
            "name": _TEXT,
            "columns": _NAMES,
            "references": _TABLE,
            "referenced_columns": _NAMES,
            "on_update": _TEXT,
            "on_delete": _TEXT,
            "match": _TEXT,
            "deferrable": _FLAG,
            "initially_deferred": _FLAG,
            "enforced": _FLAG,
            "validated": _FLAG,
        }
    )
    return _object(
        {
            "table": _TABLE,
            "columns": {"type": "array", "items": column},
            "primary_key": _NAMES,
            "unique_keys": {"type": "array", "items": unique},
            "foreign_keys": {"type": "array", "items": foreign},
            "partitioned": _FLAG,
        }
    )
