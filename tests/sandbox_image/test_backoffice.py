"""The demo app on a real database with the demo's own schema: reading, editing, refusing, a lost connection."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from tests.support.cluster import Cluster

PROJECT = Path(__file__).parents[2]
SCHEMA = PROJECT / "orchestrator/demo/hotel"
ROWS = """
INSERT INTO hotel.properties (id, name, city, stars, phone, opened_on)
    VALUES ('harbour', 'Harbour Hotel', 'Port Ellery', 5, '1', '1987-05-01');
INSERT INTO hotel.room_types (property_id, code, name, beds, base_price) VALUES ('harbour', 'DBL', 'Double', 2, 100);
INSERT INTO hotel.rooms (id, property_id, type_code, number, floor) VALUES (1, 'harbour', 'DBL', '101', 1);
INSERT INTO hotel.guests (id, first_name, last_name, email)
    VALUES (1, 'Anna', 'Quinlan', 'a@guestmail.example'), (2, '<b>Bold</b>', '100%', 'b@guestmail.example');
INSERT INTO hotel.reservations (id, property_id, guest_id, room_id, status, arrival, departure, total_amount, notes)
VALUES
    (1, 'harbour', 1, 1, 'checked_in', '2026-10-31', '2026-11-02', 200, 'Quiet room please'),
    (2, 'harbour', 2, 1, 'confirmed', '2026-11-02', '2026-11-04', 200, NULL),
    (3, 'harbour', 1, 1, 'confirmed', '2026-11-04', '2026-11-06', 200, NULL);
"""


@pytest.fixture(scope="module")
def hotel(cluster: Cluster) -> Iterator[str]:
    """The demo's tables, keys and triggers with a handful of rows."""
    with cluster.database() as name:
        with psycopg.connect(cluster.dsn(name)) as connection:
            connection.execute((SCHEMA / "1_schema.sql").read_bytes())
            connection.execute(ROWS)
            connection.execute((SCHEMA / "3_rules.sql").read_bytes())
        yield cluster.dsn(name)


@pytest.fixture
def ask(hotel: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ask the app over the hotel's database."""
    app_directory = PROJECT / "sandbox_image/app"
    monkeypatch.syspath_prepend(str(app_directory / "tests"))
    monkeypatch.syspath_prepend(str(app_directory))
    import asking
    from backoffice.database import Database
    from backoffice.main import make_app

    database = Database(hotel)
    app = make_app(database)
    yield lambda *arguments, **named: asking.ask(app, *arguments, **named)
    for connection in database._idle:
        connection.close()
    for name in [name for name in sys.modules if name == "asking" or name.split(".")[0] == "backoffice"]:
        del sys.modules[name]


def submit(ask: Any, number: int, **changes: str) -> Any:
    page = ask(f"/reservations/{number}").text
    seen = re.search(r'name="seen" value="(\w+)"', page)
    assert seen is not None
    form = {
        "seen": seen[1],
        "status": "confirmed",
        "arrival": "2026-11-02",
        "departure": "2026-11-04",
        "notes": "",
        **changes,
    }
    return ask(f"/reservations/{number}", method="POST", body=urlencode(form).encode())


def test_today_shows_the_houses_and_who_arrives(ask: Any) -> None:
    page = ask("/")
    assert page.status == 200
    assert "Harbour Hotel" in page.text
    assert "Sat 31 Oct 2026" in page.text
    assert "&lt;b&gt;Bold&lt;/b&gt;" in page.text
    assert "data as of" not in page.text


def test_the_age_of_the_data_is_shown_once_there_is_a_snapshot(ask: Any, hotel: str) -> None:
    with psycopg.connect(hotel, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA orchestrator_snapshot")
        connection.execute("CREATE TABLE orchestrator_snapshot.info (taken_at timestamptz, snapshot_id text)")
        connection.execute("INSERT INTO orchestrator_snapshot.info VALUES (now() - interval '3 hours', 's1')")
        try:
            assert "3 hours ago" in ask("/").text
        finally:
            connection.execute("DROP SCHEMA orchestrator_snapshot CASCADE")


@pytest.mark.parametrize(
    ("query", "found"),
    [("", {1, 2, 3}), ("q=quinlan", {1, 3}), ("q=quiet", {1}), ("q=2", {2}), ("q=101", {1, 2, 3}), ("q=100%25", {2}),
     ("q=%25", {2}), ("q=nobody", set()), ("status=checked_in", {1}), ("status=bogus&property=bogus", {1, 2, 3}),
     ("page=2", set())],
)  # fmt: skip
def test_search_finds_what_was_meant_literally(ask: Any, query: str, found: set[int]) -> None:
    page = ask(f"/reservations?{query}")
    assert page.status == 200
    assert {int(number) for number in re.findall(r'href="/reservations/(\d+)"', page.text)} == found


def test_an_edit_is_kept_and_shown(ask: Any) -> None:
    answer = submit(ask, 2, notes="Arrives at 23:00 <late>")
    assert (answer.status, answer.headers["location"]) == (303, "/reservations/2?saved=1")
    assert "Arrives at 23:00 &lt;late&gt;" in ask("/reservations/2?saved=1").text


def test_a_change_of_status_appears_in_the_history(ask: Any) -> None:
    submit(ask, 3, status="cancelled", arrival="2026-11-04", departure="2026-11-06")
    assert "<b>cancelled</b>" in ask("/reservations/3").text


def test_a_double_booking_is_refused_in_words_and_what_was_typed_stays(ask: Any) -> None:
    answer = submit(ask, 2, arrival="2026-11-01", notes="typed")
    assert answer.status == 409
    assert "already taken" in answer.text
    assert "typed" in answer.text
    assert 'value="2026-11-01"' in answer.text


def test_a_row_that_moved_meanwhile_is_not_overwritten(ask: Any) -> None:
    answer = submit(ask, 2, seen="0" * 32, notes="lost")
    assert answer.status == 409
    assert "Somebody changed" in answer.text
    assert "lost" not in ask("/reservations/2").text


def test_a_bad_form_says_what_is_wrong(ask: Any) -> None:
    answer = submit(ask, 2, departure="2026-11-01")
    assert answer.status == 422
    assert "after arrival" in answer.text


def test_a_reservation_that_does_not_exist_is_not_found(ask: Any) -> None:
    assert ask("/reservations/999").status == 404


def test_a_lost_connection_is_not_noticed_by_a_visitor(ask: Any, hotel: str) -> None:
    assert ask("/healthz").status == 200
    with psycopg.connect(hotel, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert ask("/").status == 200
