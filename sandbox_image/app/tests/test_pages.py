"""What a visitor sees when something is wrong, and that nothing typed is ever trusted."""

from collections import namedtuple
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from asking import ask
from backoffice.database import Database
from backoffice.main import make_app
from backoffice.pages import Pages, age_in_words
from starlette.applications import Starlette


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    """The app over a database that is not there."""
    return make_app(Database(f"host={tmp_path} user=nobody dbname=none"))


@pytest.mark.parametrize("path", ["/", "/reservations", "/reservations?q=x&page=2", "/reservations/7"])
def test_without_a_database_every_page_says_so_calmly(app: Starlette, path: str) -> None:
    answer = ask(app, path)
    assert answer.status == 503
    assert "Nothing was lost" in answer.text
    assert "Traceback" not in answer.text


def test_the_health_check_fails_without_a_database(app: Starlette) -> None:
    assert ask(app, "/healthz").status == 503


def test_an_unknown_page_leads_back(app: Starlette) -> None:
    answer = ask(app, "/nowhere")
    assert answer.status == 404
    assert 'href="/"' in answer.text


def test_the_style_sheet_is_served(app: Starlette) -> None:
    assert ask(app, "/static/style.css").status == 200


def test_a_form_from_another_site_is_refused(app: Starlette) -> None:
    answer = ask(app, "/reservations/7", method="POST", body=b"a=b", headers={"origin": "http://south.localhost"})
    assert answer.status == 403


def test_a_huge_form_is_refused(app: Starlette) -> None:
    assert ask(app, "/reservations/7", method="POST", body=b"n=" + b"x" * 70_000).status == 413


def test_a_name_with_markup_is_shown_as_text(tmp_path: Path) -> None:
    row = namedtuple("row", "id status arrival departure nights notes guest vip property room")(
        7, "confirmed", date(2026, 11, 2), date(2026, 11, 4), 2, "<b>x</b>", "<script>alert(1)</script>", True, "H", "1"
    )
    data = namedtuple("data", "taken_at snapshot_id age")(datetime(2026, 11, 1, tzinfo=UTC), "s1", timedelta(hours=3))
    page = Pages(Database())._render("dashboard.html", day=date(2026, 11, 1), houses=[], arriving=[row], data=data)
    text = bytes(page.body).decode()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "data as of" in text
    assert "3 hours ago" in text


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (-5, "just now"),
        (0, "just now"),
        (1, "1 minute ago"),
        (59, "59 minutes ago"),
        (60, "1 hour ago"),
        (3000, "2 days ago"),
    ],
)
def test_ages_are_said_in_words(minutes: int, said: str) -> None:
    assert age_in_words(timedelta(minutes=minutes)) == said
