"""Times, sizes and hostile text in words."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.web import wording

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "just now"), (20, "20 s ago"), (180, "3 min ago"), (7200, "2 h ago"), (-7200, "in 2 h"), (864000, "10 d ago")],
)
def test_relative_times(seconds: int, said: str) -> None:
    assert wording.relative(NOW - timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1536, "1.5 KiB"), (300 * 2**30, "300 GiB"), (None, "unknown")]
)
def test_sizes(count: float | None, said: str) -> None:
    assert wording.size(count) == said


def test_direction_changes_and_controls_are_shown_as_escapes() -> None:
    assert wording.visible("a\u202eb\x07") == "a\\u202eb\\u0007"


def test_long_text_says_how_long_it_was() -> None:
    assert wording.visible("x" * 5000, 10) == "xxxxxxxxxx… (5,000 characters)"
