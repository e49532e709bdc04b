"""What a person sees: coloured on a terminal, plain in a pipe, never steered by a cell's content."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.changeset.changeset import SchemaChange, SchemaChangeKind
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rendering import render_text
from orchestrator.core.changeset.risks import RiskContext, RiskKind, RiskRules, Severity, assess
from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.view import shown, view_table
from tests.core.changeset.made import ADA, BOB, LOOSE, ORDERS, PEOPLE, SHAPES, changeset, delete, insert, update


def test_old_and_new_stand_side_by_side_and_plain_text_has_no_escapes() -> None:
    text = render_text(changeset(update(PEOPLE, ADA, name="Eve"), delete(PEOPLE, **BOB)))
    assert "Ada → Eve" in text
    assert "1 changed, 1 deleted" in text
    assert "\x1b" not in text


def test_a_terminal_gets_colours() -> None:
    assert "\x1b[3" in render_text(changeset(update(PEOPLE, ADA, name="Eve")), colour=True)


def test_a_cell_cannot_steer_the_terminal() -> None:
    hostile = "\x1b]0;title\x07\x9b31m\r\u202egnp.exe[bold]x[/]\udcff"
    for colour in (False, True):
        text = render_text(changeset(update(PEOPLE, ADA, name=hostile)), colour=colour, width=400)
        assert "\x1b]" not in text and "\x07" not in text and "\x9b" not in text and "\u202e" not in text
        assert "[bold]x[/]" in text
    assert shown("\x00\n\udcff\U000e0001") == "\\x00\\n\\xff\\U000e0001"


def test_long_tables_and_cells_are_cut_and_say_so() -> None:
    rows = [insert(LOOSE, a=f"{number:05}" + "x" * 500) for number in range(120)]
    text = render_text(changeset(*rows))
    assert "and 70 more rows" in text
    page = view_table(changeset(*rows), LOOSE, offset=100, limit=50)
    assert (len(page.rows), page.total, page.more) == (20, 120, False)
    assert page.rows[0].cells[0].cut and len(page.rows[0].cells[0].new or "") == 201


def test_a_page_shows_the_key_and_the_columns_that_changed() -> None:
    page = view_table(changeset(update(PEOPLE, ADA, role=None)), PEOPLE)
    assert page.columns == ("id", "role")
    (cell,) = [cell for cell in page.rows[0].cells if cell.column == "role"]
    assert (cell.old, cell.new, cell.new_kind, cell.changed) == ("user", "NULL", "null", True)
    assert view_table(changeset(update(PEOPLE, ADA, role=None)), PEOPLE, kind=RowKind.DELETE).rows == ()


def test_a_provisional_key_is_shown_as_new() -> None:
    rows = mark_provisional(SHAPES, [insert(PEOPLE, id="9", name="New", role=None)])
    page = view_table(changeset(*rows), PEOPLE)
    assert page.rows[0].key == "new 9"
    assert page.rows[0].cells[0].new_kind == "provisional"


def test_flags_go_up_for_what_a_reviewer_must_see() -> None:
    drift = SchemaChange(LOOSE, SchemaChangeKind.TABLE_DROPPED, "the table is gone")
    order = {"id": "1", "person": "1", "total": "1.00"}
    whole = changeset(
        update(ORDERS, order, total="2.00"),
        update(PEOPLE, ADA, role="boss", name="X"),
        delete(PEOPLE, **BOB),
        insert(LOOSE, a="\udcff"),
        schema_changes=[drift],
    )
    context = RiskContext(timedelta(hours=20), {PEOPLE: frozenset({"name"})})
    risks = assess(whole, RiskRules(many_rows=2), context)
    assert {risk.kind for risk in risks} == set(RiskKind) - {RiskKind.KEY_CHANGE}
    assert risks[0].severity is Severity.BLOCKING
    assert assess(changeset()) == ()


def test_words_inside_other_words_are_no_flag() -> None:
    quiet = assess(changeset(update(PEOPLE, ADA, name="Eve")))
    assert quiet == ()
