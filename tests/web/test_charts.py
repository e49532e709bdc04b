"""Charts say themselves in words, survive hostile labels and are well-formed SVG."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web import charts

POINTS = st.lists(
    st.builds(
        charts.Point,
        label=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")),
        value=st.floats(0, 1e9, allow_nan=False),
        is_bad=st.booleans(),
    ),
    min_size=1,
    max_size=50,
)


@pytest.mark.parametrize("draw", [charts.line, charts.bars, charts.ranked])
@given(points=POINTS)
def test_any_chart_is_well_formed(draw: object, points: list[charts.Point]) -> None:
    drawn = draw("Swap <gap>", points, unit=" ms")  # type: ignore[operator]
    root = ElementTree.fromstring(drawn)  # inside a page it needs no name space, so it has none
    assert root.get("role") == "img"
    title, described = (root.find(name) for name in ("title", "desc"))
    assert title is not None and title.text == "Swap <gap>"
    assert described is not None and "highest" in (described.text or "")


def test_no_values_are_said_and_not_drawn() -> None:
    assert "No values yet" in charts.line("Gaps", [])


def test_a_bad_value_carries_its_own_class() -> None:
    assert 'class="bar bad"' in charts.bars("Refreshes", [charts.Point("a", 1, is_bad=True)])


def test_a_picture_is_a_table_too() -> None:
    points = [charts.Point("no rule", 7, limit=10), charts.Point("\u202eevil", 2)]
    made = charts.picture(charts.ranked, "Denials", points, about="", head="Rule", unit=" times")
    assert made.heads == ("Rule", "Denials") and made.rows[0] == ("no rule", "7 times")
    assert 'class="limit"' in made.svg and "\u202e" not in made.svg
