"""A draft moves to a newer base cell by cell, and what cannot move is named with all three values."""

from __future__ import annotations

from orchestrator.core.changeset.carry import Carried, CellConflict, ConflictKind, carry, keys_needed
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rows import Row, RowChange
from tests.core.changeset.made import ADA, BOB, LOOSE, ORDERS, PEOPLE, SHAPES, changeset, delete, insert, update


def carried(row: RowChange, *now: Row) -> Carried:
    return carry(changeset(row), {row.table: {(there["id"],): there for there in now}}, new_base_id="s2")


def test_an_update_keeps_what_production_changed_elsewhere_in_the_row() -> None:
    result = carried(update(PEOPLE, ADA, name="Eve"), {**ADA, "role": "boss"})
    (row,) = result.changeset.rows
    assert row.old == {**ADA, "role": "boss"}
    assert row.new == {**ADA, "role": "boss", "name": "Eve"}
    assert result.changeset.base_snapshot_id == "s2"
    assert result.is_clean


def test_the_same_cell_changed_to_another_value_is_a_conflict_with_three_values() -> None:
    result = carried(update(PEOPLE, ADA, name="Eve"), {**ADA, "name": "Zoe"})
    (conflict,) = result.conflicts
    assert conflict.kind is ConflictKind.CELL_MOVED
    assert conflict.cells == (CellConflict("name", "Ada", "Eve", "Zoe"),)
    assert result.changeset.is_empty


def test_what_is_already_so_is_done() -> None:
    assert carried(update(PEOPLE, ADA, name="Eve"), {**ADA, "name": "Eve", "role": None}).done
    assert carried(delete(PEOPLE, **BOB)).done
    assert carried(insert(LOOSE, a="x")).conflicts[0].kind is ConflictKind.NO_KEY


def test_a_partly_done_update_carries_the_rest() -> None:
    result = carried(update(PEOPLE, ADA, name="Eve", role="boss"), {**ADA, "name": "Eve"})
    (row,) = result.changeset.rows
    assert row.changed_columns == ("role",)


def test_a_row_gone_or_changed_under_a_delete_is_a_conflict() -> None:
    assert carried(update(PEOPLE, ADA, name="Eve")).conflicts[0].kind is ConflictKind.ROW_GONE
    assert carried(delete(PEOPLE, **ADA), {**ADA, "role": None}).conflicts[0].kind is ConflictKind.ROW_MOVED
    assert carried(delete(PEOPLE, **ADA), ADA).is_clean


def test_new_rows_with_provisional_keys_always_apply() -> None:
    (row,) = mark_provisional(SHAPES, [insert(PEOPLE, id="2", name="New", role=None)])
    assert carried(row, BOB).is_clean
    assert keys_needed(changeset(row)) == {}


def test_a_taken_key_is_a_conflict_unless_its_row_leaves() -> None:
    plain = insert(ORDERS, id="7", person="1", total=None)
    there = {"id": "7", "person": "2", "total": None}
    assert carried(plain, there).conflicts[0].kind is ConflictKind.KEY_TAKEN
    assert carried(plain, dict(plain.new or {})).done
    moving = update(ORDERS, {"id": "1", "person": "1", "total": None}, id="7")
    leaving = delete(ORDERS, **there)
    now = {ORDERS: {("1",): moving.old or {}, ("7",): there}}
    assert carry(changeset(moving), now, new_base_id="s2").conflicts[0].kind is ConflictKind.KEY_TAKEN
    assert carry(changeset(moving, leaving), now, new_base_id="s2").is_clean
    assert keys_needed(changeset(moving)) == {ORDERS: frozenset({("1",), ("7",)})}
