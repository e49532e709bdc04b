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


@pytest.mark.parametrize("draw", [charts.line, charts.bars])
@given(points=POINTS)
def test_any_chart_is_well_formed(draw: object, points: list[charts.Point]) -> None:
    drawn = draw("Swap <gap>", points, unit=" ms")  # type: ignore[operator]
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert "Swap <gap>" in (root.get("aria-label") or "")


def test_no_values_are_said_and_not_drawn() -> None:
    assert "No values yet" in charts.line("Gaps", [])


def test_a_bad_value_carries_its_own_class() -> None:
    assert 'class="bar bad"' in charts.bars("Refreshes", [charts.Point("a", 1, is_bad=True)])
