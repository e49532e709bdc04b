"""One set of rows has one order, one digest and one JSON form, whatever order it was found in."""

from __future__ import annotations

import json
import random
from pathlib import Path

import jsonschema_rs
import pytest

from orchestrator.core.changeset.changeset import Changeset, SchemaChange, SchemaChangeKind
from orchestrator.core.changeset.joining import join_rows
from orchestrator.core.changeset.json_form import InvalidChangeset, dump, from_json, load, to_json
from orchestrator.core.changeset.json_schema import changeset_schema
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rows import ProvisionalKey, RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.core.changeset.summary import summarize
from tests.core.changeset.made import (
    ADA,
    BOB,
    LOOSE,
    ORDERS,
    PEOPLE,
    SHAPES,
    changeset,
    delete,
    insert,
    people,
    update,
)


def sample() -> Changeset:
    rows = [
        update(PEOPLE, ADA, name="Äda\n\udcff"),
        delete(PEOPLE, **BOB),
        insert(PEOPLE, id="10", name="x\0y", role=None),
        insert(PEOPLE, id="9", name="Cyd", role="boss"),
        insert(ORDERS, id="5", person="10", total="NaN"),
        insert(LOOSE, a="same"),
        insert(LOOSE, a="same"),
    ]
    drift = [SchemaChange(LOOSE, SchemaChangeKind.COLUMN_ADDED, "b text")]
    return Changeset.build("s1", SHAPES, mark_provisional(SHAPES, rows), drift, ["a note"])


def test_the_digest_does_not_depend_on_the_order_rows_were_found_in() -> None:
    rows = list(sample().rows)
    random.Random(3).shuffle(rows)
    shuffled = Changeset.build("s1", SHAPES, rows, sample().schema_changes)
    assert shuffled.digest() == sample().digest()
    assert [row.key for row in shuffled.rows_of(PEOPLE)] == [row.key for row in sample().rows_of(PEOPLE)]


@pytest.mark.parametrize(
    "other",
    [
        changeset(update(PEOPLE, ADA, name="Eve")),
        changeset(update(PEOPLE, ADA, name="Ada "), base="s2"),
        changeset(update(PEOPLE, ADA, role=None)),
        changeset(update(PEOPLE, {**ADA, "role": "boss"}, name="Ada ")),
        changeset(),
    ],
)
def test_every_difference_changes_the_digest(other: Changeset) -> None:
    assert other.digest() != changeset(update(PEOPLE, ADA, name="Ada ")).digest()


def test_a_provisional_key_is_never_equal_to_a_real_one() -> None:
    real = changeset(insert(LOOSE, a="7"))
    provisional = changeset(insert(LOOSE, a=ProvisionalKey(PEOPLE, "id", "7")))
    assert real.digest() != provisional.digest()
    assert ProvisionalKey(PEOPLE, "id", "7") != "7"


def test_json_carries_everything_there_and_back() -> None:
    before = sample()
    after = load(dump(before))
    assert after == before
    assert after.digest() == before.digest()
    assert dump(before).isascii()


def test_the_json_form_fits_its_published_schema() -> None:
    schema = changeset_schema()
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.Draft202012Validator(schema).validate(json.loads(dump(sample())))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(format="other/1"),
        lambda d: d.update(digest="0" * 64),
        lambda d: d["rows"][0]["key"].append("x"),
        lambda d: d["rows"][0].pop("table"),
        lambda d: d["rows"][0].update(kind="upsert"),
        lambda d: d["rows"][1].update(new={"unknown": "x"}),
        lambda d: d["rows"][0].update(table=["public", "nowhere"]),
        lambda d: d["tables"][0]["columns"][0].update(surprise=1),
        lambda d: d.update(rows=None),
    ],
)
def test_a_damaged_document_is_refused(spoil: object) -> None:
    document = to_json(sample())
    spoil(document)  # type: ignore[operator]
    with pytest.raises(InvalidChangeset):
        from_json(document)


@pytest.mark.parametrize("text", ["", "[]", "null", b"\xff", "{"])
def test_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidChangeset):
        load(text)


def test_new_rows_and_all_that_refer_to_them_are_marked() -> None:
    rows = [
        insert(PEOPLE, id="77", name="New", role=None),
        insert(ORDERS, id="5", person="77", total=None),
        insert(ORDERS, id="77", person="1", total=None),
        update(ORDERS, {"id": "3", "person": "1", "total": None}, person="77"),
        update(ORDERS, {"id": "4", "person": "77", "total": None}, total="1.00"),
    ]
    marked = mark_provisional(SHAPES, rows)
    new = ProvisionalKey(PEOPLE, "id", "77")
    assert marked[0].key == (new,)
    assert marked[1].new == {"id": ProvisionalKey(ORDERS, "id", "5"), "person": new, "total": None}
    assert marked[2].new == {"id": ProvisionalKey(ORDERS, "id", "77"), "person": "1", "total": None}
    assert marked[3].new is not None and marked[3].new["person"] == new and marked[3].key == ("3",)
    assert marked[4] == rows[4], "an unchanged reference points at a base row"


def keyed(*columns: str) -> TableShape:
    return TableShape(TableName("public", "t"), tuple(Column(name, "text") for name in columns), ("k",))


def test_a_changed_key_stays_one_update() -> None:
    shape = keyed("k", "a", "b")
    (change,) = join_rows(shape, shape.column_names, [("1", "x", None)], [("2", "x", None)])
    assert (change.kind, change.key, change.changed_columns) == (RowKind.UPDATE, ("1",), ("k",))


def test_without_plain_evidence_it_is_a_delete_and_an_insert() -> None:
    shape = keyed("k", "a")
    ambiguous = join_rows(shape, shape.column_names, [("1", "x"), ("2", "x")], [("3", "x")])
    empty = join_rows(shape, shape.column_names, [("1", None)], [("2", None)])
    other = join_rows(shape, shape.column_names, [("1", "x")], [("2", "y")])
    assigned = join_rows(people, people.column_names, [("1", "x", None)], [("2", "x", None)])
    for changes in (ambiguous, empty, other, assigned):
        assert {change.kind for change in changes} == {RowKind.DELETE, RowKind.INSERT}


def test_a_row_keeps_its_id_and_keeping_rows_changes_the_digest() -> None:
    whole = changeset(update(PEOPLE, ADA, name="Eve"), delete(PEOPLE, **BOB))
    kept = whole.keep([whole.rows[0].id()])
    assert [row.id() for row in kept] == [whole.rows[0].id()]
    assert kept.digest() != whole.digest()


def test_the_summary_says_it_in_one_sentence() -> None:
    assert str(summarize(sample())) == (
        "7 rows in 3 tables: 5 new, 1 changed, 1 deleted; the schema differs in 1 place."
    )
    assert str(summarize(changeset())) == "No row differs."
    assert changeset().is_empty


def test_a_change_needs_the_sides_its_kind_has() -> None:
    with pytest.raises(ValueError, match="sides"):
        RowChange(PEOPLE, RowKind.DELETE, ("1",), ADA, ADA)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("orders", TableName("public", "orders")),
        ("sales.orders", TableName("sales", "orders")),
        ('"Odd ""Name"', TableName("public", 'Odd "Name')),
        ('"a.b"."c.d"', TableName("a.b", "c.d")),
    ],
)
def test_table_names_read_as_they_are_written(written: str, name: TableName) -> None:
    assert TableName.parse(written) == name
    assert TableName.parse(str(name)) == name


def test_the_published_schema_is_the_one_in_the_code() -> None:
    published = Path(__file__).parents[3] / "docs" / "changeset.schema.json"
    assert json.loads(published.read_text()) == changeset_schema(), "write docs/changeset.schema.json anew"
