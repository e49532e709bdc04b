"""Names, cells, files, output and errors written to do harm: every page shows them as words, and stays small."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.cluster import Cluster
from tests.support.crowd import Crowd, crowd_in
from tests.support.harm import FILE, harm_everywhere
from tests.support.routes import API, DOORS, DOWNLOADS, PAGES, routes

TAGS = ("<script>alert", "<img src=x", "55433")
SIGNS = ("\u202e", "\u2066", "\x1b", "\x07", "\x08")
PAGE_BYTES_MAX = 1_500_000
# Pages that lead on to another one, and those that hold nothing anybody else has written.
LEAD_ON = {"GET /"}
OWN_WORDS = {
    "GET /login",
    "GET /allowlist/edit",
    "GET /audit/check",
    "GET /fleet/{name}/containers/use",
    "GET /fleet/{name}/usage",
    "GET /workspaces/{name}/commands",
    "GET /workspaces/{name}/files/difference",
    "GET /workspaces/{name}/files/edit",
    "GET /workspaces/{name}/usage",
}
PIECE = {"accept": "*/*", "hx-request": "true"}


@pytest.fixture(scope="module")
def crowd(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    directory = tmp_path_factory.mktemp("harm")
    with crowd_in(cluster, directory) as made:
        harm_everywhere(made, directory)
        yield made


def _pages(crowd: Crowd) -> list[str]:
    """Every page the application has: a new one is among them."""
    elsewhere = {*API, *DOORS, *DOWNLOADS, *LEAD_ON, "GET /api/v1/openapi.json"}
    return sorted(route for route in set(routes(crowd.house.app)) - elsewhere if route.startswith("GET "))


def _shown(crowd: Crowd, caller: str, route: str) -> str:
    """The page, and the piece of it that a browser fetches afterwards."""
    whole = crowd.ask(caller, route, {"accept": "text/html"})
    piece = crowd.ask(caller, route, PIECE)
    assert (whole.status_code, piece.status_code) == (200, 200), f"{route}: {whole.text} {piece.text}"
    return whole.text + piece.text


@pytest.mark.parametrize("caller", ["admin", "manager", "reviewer"])
def test_what_means_harm_is_shown_as_words(crowd: Crowd, caller: str) -> None:
    letter = caller[0].upper()
    shown = {one: _shown(crowd, caller, one) for one in _pages(crowd) if letter in PAGES[one].upper()}
    wrong = [f"{route}: {sign!r}" for route, page in shown.items() for sign in (*TAGS, *SIGNS) if sign in page]
    assert wrong == []
    large = {route: len(page) for route, page in shown.items() if len(page.encode()) > 2 * PAGE_BYTES_MAX}
    assert large == {}
    assert {route for route, page in shown.items() if "&lt;script&gt;" not in page} == OWN_WORDS & set(shown)


def test_a_job_is_followed_without_harm(crowd: Crowd) -> None:
    events = crowd.ask("manager", "GET /jobs/{job_id}/events").text
    assert "<script>" not in events and "\u202e" not in events and "\x1b" not in events and "&lt;script&gt;" in events


def test_files_with_harm_in_their_names_and_text_are_only_text(crowd: Crowd) -> None:
    for query in ("", "?find=very", "/edit?path=harm.txt", "/edit?path=" + quote(FILE)):
        page = crowd.ask("manager", f"GET /workspaces/{{name}}/files{query}", {"accept": "text/html"}).text
        said = page.split("<textarea")[0] + page.split("</textarea>")[-1]  # what is edited is as it is
        assert "<img" not in page and "<script>" not in page and "&lt;img" in page, query
        assert "\u202e" not in said and "\x1b" not in said, query


def test_ten_thousand_rows_are_paged_and_can_be_searched(crowd: Crowd) -> None:
    page = crowd.ask("reviewer", "GET /changes/{change_id}", {"accept": "text/html"}).text
    assert "10,000" in page and page.count("<tr") < 400
    for query in (
        "?page=100",
        "?page=99999999999",
        "?q=9999",
        "?kind=nonsense",
        "?q=" + "%F0" * 100,
        "?table=" + "x" * 9000,
    ):
        path = f"GET /changes/{{change_id}}{query}"
        answer = crowd.ask("reviewer", path, {"accept": "text/html"})
        assert answer.status_code == 200, query
        assert len(answer.text) < PAGE_BYTES_MAX
