"""Times, sizes and hostile text in words."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.web import wording

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (20, "20 s ago"),
        (180, "3 min ago"),
        (7200, "2 h ago"),
        (-7200, "in 2 h"),
        (-4990, "in 1 h 23 min"),
        (3_000, "50 min ago"),
        (10_799, "3 h ago"),
        (14_000, "4 h ago"),
        (864000, "10 d ago"),
    ],
)
def test_relative_times(seconds: int, said: str) -> None:
    assert wording.relative(NOW - timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1536, "1.5 KiB"), (300 * 2**30, "300 GiB"), (None, "unknown")]
)
def test_sizes(count: float | None, said: str) -> None:
    assert wording.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.045, "45 ms"), (2.34, "2.3 s"), (60, "1 min"), (250, "4 min 10 s"), (14_400, "4 h"), (4980, "1 h 23 min")],
)
def test_durations_say_nothing_that_is_zero(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140 Safari/537.36",
            "Chrome on Linux",
        ),
        ("Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/140 Safari/537.36 Edg/140", "Edge on Windows"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1",
            "Safari on an iPhone",
        ),
        ("<b>my own</b>", "<b>my own</b>"),
    ],
)
def test_browsers_are_called_by_their_names(agent: str, said: str) -> None:
    assert wording.browser(agent) == said


def test_direction_changes_and_controls_are_shown_as_escapes() -> None:
    assert wording.visible("a\u202eb\x07") == "a\\u202eb\\u0007"


def test_long_text_says_how_long_it_was() -> None:
    assert wording.visible("x" * 5000, 10) == "xxxxxxxxxx… (5,000 characters)"
