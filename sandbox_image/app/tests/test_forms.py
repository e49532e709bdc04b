"""A form is taken only when every field makes sense, and says everything that is wrong at once."""

from datetime import date

import pytest
from backoffice import forms

GOOD = {"status": "confirmed", "arrival": "2026-11-03", "departure": "2026-11-05", "notes": " Late \r\n", "seen": "v1"}


def test_a_good_form_becomes_an_edit() -> None:
    edit = forms.edit_of(GOOD)
    assert edit == forms.Edit("confirmed", date(2026, 11, 3), date(2026, 11, 5), "Late", "v1")


def test_an_empty_note_is_no_note() -> None:
    assert forms.edit_of({**GOOD, "notes": "   "}).notes is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "gone"),
        ("arrival", "tomorrow"),
        ("departure", ""),
        ("departure", "2026-11-03"),
        ("departure", "2027-11-05"),
        ("notes", "x" * 2001),
        ("notes", "a\0b"),
    ],
)
def test_a_bad_field_is_named(field: str, value: str) -> None:
    with pytest.raises(forms.Refused) as refused:
        forms.edit_of({**GOOD, field: value})
    assert field in refused.value.problems


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(forms.Refused) as refused:
        forms.edit_of({})
    assert set(refused.value.problems) == {"status", "arrival", "departure"}


@pytest.mark.parametrize(("text", "page"), [(None, 1), ("7", 7), ("-3", 1), ("x", 1), ("99999999", 10_000)])
def test_a_page_number_stays_in_bounds(text: str | None, page: int) -> None:
    assert forms.whole(text, 1, 1, 10_000) == page
