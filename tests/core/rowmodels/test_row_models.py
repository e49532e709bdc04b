"""A row is refused for what it is, in every place at once, before anybody reviews it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import Field

from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape, TypeKind
from orchestrator.core.rowmodels import RowModel, RowModels, validate_all, validate_row
from orchestrator.core.rowmodels.registry import InvalidRowModel
from tests.core.changeset.made import ADA, BOB, ORDERS, PEOPLE, SHAPES, changeset, delete, insert, people, update

T = TableName("public", "t")
NUMERIC_4_2 = (4 << 16 | 2) + 4


def problems(column: Column, text: str | None) -> list[str]:
    shape = TableShape(T, (Column("k", "text", base="text"), column), ("k",))
    row = RowChange(T, RowKind.INSERT, ("1",), None, {"k": "1", column.name: text})
    return [violation.message for violation in validate_row(shape, row, RowModels())]


ACCEPTED = [
    ("int2", -1, "32767"),
    ("int8", -1, "-9223372036854775808"),
    ("numeric", NUMERIC_4_2, "99.99"),
    ("numeric", NUMERIC_4_2, "NaN"),
    ("numeric", NUMERIC_4_2, "10.00000"),
    ("numeric", -1, "Infinity"),
    ("numeric", -1, "1e400"),
    ("numeric", (2 << 16 | 0x7FD) + 4, "12000"),
    ("float8", -1, "NaN"),
    ("float8", -1, "-Infinity"),
    ("varchar", 7, "abc"),
    ("bpchar", 7, "abc     "),
    ("text", -1, ""),
    ("bool", -1, "t"),
    ("bytea", -1, "\\x00ff"),
    ("uuid", -1, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", -1, "infinity"),
    ("date", -1, "0044-03-15 BC"),
    ("date", -1, "12024-01-01"),
    ("timestamptz", -1, "2026-01-02 03:04:05.123456+00"),
    ("time", -1, "24:00:00"),
    ("json", -1, '{"a": 1.00000000000000000001}'),
    ("interval", -1, "1 mon"),
    ("bit", 2, "01"),
]
REFUSED = [
    ("int2", -1, "32768", "32767"),
    ("int4", -1, "1.0", "not a value"),
    ("numeric", NUMERIC_4_2, "1.001", "after the point"),
    ("numeric", NUMERIC_4_2, "100.00", "before the point"),
    ("numeric", NUMERIC_4_2, "Infinity", "infinity"),
    ("varchar", 7, "abcd", "longer than 3"),
    ("varchar", 7, "abc ", "longer than 3"),
    ("bool", -1, "maybe", "not a value"),
    ("bytea", -1, "00ff", "not a value"),
    ("date", -1, "2026-02-30", "not a value"),
    ("json", -1, "{", "not a value"),
    ("bit", 2, "011", "at most 2"),
    ("text", -1, "\udcff", "UTF-8"),
]


@pytest.mark.parametrize(("base", "typmod", "text"), ACCEPTED)
def test_what_the_schema_can_hold_is_accepted(base: str, typmod: int, text: str) -> None:
    assert problems(Column("v", base, base=base, typmod=typmod), text) == []


@pytest.mark.parametrize(("base", "typmod", "text", "why"), REFUSED)
def test_what_the_schema_cannot_hold_is_refused(base: str, typmod: int, text: str, why: str) -> None:
    (message,) = problems(Column("v", base, base=base, typmod=typmod), text)
    assert why in message


def test_null_needs_a_nullable_column_and_a_label_must_exist() -> None:
    assert problems(Column("v", "text", base="text", nullable=False), None)
    assert not problems(Column("v", "text", base="text"), None)
    mood = Column("v", "mood", base="mood", kind=TypeKind.ENUM, labels=("calm", "cross"))
    assert not problems(mood, "calm")
    assert "calm" in problems(mood, "angry")[0]


def test_unknown_and_missing_fields_are_refused() -> None:
    shape = TableShape(T, (Column("k", "text", base="text"),), ("k",))
    extra = RowChange(T, RowKind.INSERT, ("1",), None, {"k": "1", "x": "2"})
    assert "Extra inputs" in validate_row(shape, extra, RowModels())[0].message
    missing = RowChange(T, RowKind.INSERT, ("1",), None, {})
    assert "required" in validate_row(shape, missing, RowModels())[0].message


@pytest.mark.parametrize("name", ["model_config", "class", "_x", "Weird col", "column_0", "schema"])
def test_any_column_name_may_be_a_field(name: str) -> None:
    assert not problems(Column(name, "text", base="text"), "x")


def test_a_company_model_is_registered_by_naming_its_table() -> None:
    models = RowModels()

    class Order(RowModel, table="orders", registry=models):
        total: Decimal = Field(ge=0, le=1000)

        @classmethod
        def check(cls, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterable[str]:
            if new is None:
                yield "orders are never deleted"
            elif old is not None and new["total"] > 2 * old["total"]:
                yield "a total may at most double"

    order = {"id": "1", "person": "1", "total": "10.00"}
    whole = changeset(
        update(ORDERS, order, total="-1.00"),
        update(ORDERS, {**order, "id": "2"}, total="25.00"),
        delete(ORDERS, **{**order, "id": "3"}),
        update(ORDERS, {**order, "id": "4"}, total="20.00"),
    )
    assert models.tables() == (ORDERS,)
    found = [(violation.key, violation.column, violation.model) for violation in validate_all(whole, models)]
    assert found == [(("1",), "total", "Order"), (("2",), "", "Order"), (("3",), "", "Order")]
    assert str(validate_all(whole, models)[0]) == (
        "public.orders (1).total: Input should be greater than or equal to 0"
    )


def test_a_model_that_names_a_missing_column_objects_to_every_row() -> None:
    models = RowModels()

    class Person(RowModel, table="public.people", registry=models):
        nickname: str = ""

    (violation,) = validate_all(changeset(update(PEOPLE, ADA, name="Eve")), models)
    assert "does not have" in violation.message
    assert Person.table_name == PEOPLE


def test_models_are_strict_and_the_newest_definition_counts() -> None:
    models = RowModels()

    def define(allowed: Any) -> type[RowModel]:
        class Person(RowModel, table="people", registry=models):
            role: Literal["user"] | None
            id: allowed

        return Person

    define(str)
    latest = define(int)
    assert models.of(PEOPLE) == (latest,)
    assert [v.column for v in validate_all(changeset(update(PEOPLE, ADA, role="boss")), models)] == ["role"]
    with pytest.raises(InvalidRowModel):

        class Nowhere(RowModel, table='"'):
            pass


def test_every_violation_of_every_row_is_listed() -> None:
    whole = changeset(
        update(PEOPLE, ADA, name="far too long a name", role="nobody"), insert(PEOPLE, id="x", name=None, role=None)
    )
    found = validate_all(whole, RowModels())
    assert [(violation.key, violation.column) for violation in found] == [
        (("1",), "name"),
        (("1",), "role"),
        (("x",), "id"),
        (("x",), "name"),
    ]
    assert len(validate_all(whole, RowModels(), limit=2)) == 2


def test_provisional_keys_are_values_of_their_type() -> None:
    rows = mark_provisional(SHAPES, [insert(PEOPLE, id="9", name="New", role=None), delete(PEOPLE, **BOB)])
    assert [validate_row(people, row, RowModels()) for row in rows] == [(), ()]
