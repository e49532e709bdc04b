"""Small shapes and changesets for tests."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.changeset.changeset import Changeset, SchemaChange
from orchestrator.core.changeset.rows import Cell, RowChange, RowKind
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

PEOPLE = TableName("public", "people")
ORDERS = TableName("public", "orders")
LOOSE = TableName("public", "loose")

people = TableShape(
    PEOPLE,
    (
        Column("id", "integer", '"pg_catalog"."int4"', "int4", nullable=False, generated=Generated.SEQUENCE),
        Column("name", "character varying(8)", '"pg_catalog"."varchar"', "varchar", typmod=12, nullable=False),
        Column("role", "public.mood", '"public"."mood"', "mood", TypeKind.ENUM, labels=("user", "boss")),
    ),
    ("id",),
    (UniqueKey("people_pkey", KeyKind.PRIMARY, ("id",)), UniqueKey("people_name", KeyKind.UNIQUE, ("name",))),
)
orders = TableShape(
    ORDERS,
    (
        Column("id", "integer", '"pg_catalog"."int4"', "int4", nullable=False, generated=Generated.IDENTITY_ALWAYS),
        Column("person", "integer", '"pg_catalog"."int4"', "int4"),
        Column("total", "numeric(8,2)", '"pg_catalog"."numeric"', "numeric", typmod=(8 << 16 | 2) + 4),
    ),
    ("id",),
    (UniqueKey("orders_pkey", KeyKind.PRIMARY, ("id",)),),
    (ForeignKey("orders_person", ("person",), PEOPLE, ("id",)),),
)
loose = TableShape(LOOSE, (Column("a", "text", '"pg_catalog"."text"', "text"),))
SHAPES = {PEOPLE: people, ORDERS: orders, LOOSE: loose}


def insert(table: TableName, **new: Cell) -> RowChange:
    return RowChange(table, RowKind.INSERT, tuple(new[name] for name in SHAPES[table].primary_key), None, new)


def delete(table: TableName, **old: Cell) -> RowChange:
    return RowChange(table, RowKind.DELETE, tuple(old[name] for name in SHAPES[table].primary_key), old, None)


def update(table: TableName, old: dict[str, Cell], **changed: Cell) -> RowChange:
    key = tuple(old[name] for name in SHAPES[table].primary_key)
    return RowChange(table, RowKind.UPDATE, key, old, {**old, **changed})


def changeset(*rows: RowChange, schema_changes: Sequence[SchemaChange] = (), base: str = "s1") -> Changeset:
    return Changeset.build(base, SHAPES, rows, schema_changes)


ADA: dict[str, Cell] = {"id": "1", "name": "Ada", "role": "user"}
BOB: dict[str, Cell] = {"id": "2", "name": "Bob", "role": None}
