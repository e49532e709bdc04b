"""From what differs to production and back, by forms alone; people and agents write what they like into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.core.access import Role
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console
from tests.support.proposing import Company, Ground, company_on, ground

PIECE = {"hx-request": "true"}
HOSTILE = "<script>alert(1)</script> \u202egnp.exe & \"quoted'"


@dataclass
class Office:
    """A manager and a reviewer of one workspace."""

    house: Console
    company: Company
    mia: Browser
    ruth: Browser

    def proposed(self, *statements: str, title: str = "New prices") -> str:
        """The address of a change that mia submitted."""
        self.company.work(*statements)
        answer = self.mia.post("/workspaces/north/changes", title=title, description="Because.", code="")
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def digest(self, path: str) -> str:
        found = re.search(r'name="digest" value="([0-9a-f]{64})"', self.ruth.get(path).text)
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def databases(cluster: Cluster) -> Iterator[Ground]:
    with ground(cluster) as made:
        yield made


@pytest.fixture
def office(cluster: Cluster, databases: Ground, tmp_path: Path) -> Iterator[Office]:
    with console(cluster, tmp_path) as house:
        one = company_on(databases, house.store, tmp_path)
        one.tenant = house.tenant("north", scope="harbour")
        house.services.changes = SimpleNamespace(
            changes=one.changes, review=one.review, promote=one.promote, revert=one.revert, rehearse=one.rehearse
        )
        house.services.code = SimpleNamespace(head=lambda _: None)
        mia, ruth = house.sign_in("mia", Role.MANAGER, one.tenant), house.sign_in("ruth", Role.REVIEWER)
        yield Office(house, one, mia, ruth)


def test_a_manager_proposes_a_reviewer_approves_and_promotes_and_takes_it_back(office: Office) -> None:
    office.company.work("UPDATE rates SET price = 250 WHERE id = 1")
    preview = office.mia.get("/workspaces/north/changes/new", headers=PIECE).text
    assert "100.00" in preview and "250.00" in preview and "1 row in 1 table" in preview
    path = office.mia.post("/workspaces/north/changes", title="Dearer", description="Season").headers["location"]
    page = office.mia.get(path).text
    assert "Submitted. The reviewers see it now" in page and "Approve" not in page.split("What next?")[1]
    assert "Dearer" in office.ruth.get("/reviews").text
    digest = office.digest(path)
    approved = office.ruth.post(f"{path}/approve", digest=digest, note="fine")
    assert "Approved." in office.ruth.get(approved.headers["location"]).text
    assert office.company.ask("SELECT price::text FROM rates WHERE id = 1") == [("100.00",)]
    assert office.ruth.post(f"{path}/promote", digest=digest).status_code == 303
    result = office.ruth.get(path).text
    assert "1 row in production" in result and "Revert it in production" in result
    assert office.company.ask("SELECT price::text FROM rates WHERE id = 1") == [("250.00",)]
    assert office.ruth.post(f"{path}/revert", reason="wrong season").status_code == 303
    assert office.company.ask("SELECT price::text FROM rates WHERE id = 1") == [("100.00",)]
    assert "Reverted" in office.ruth.get(path).text


def test_nothing_changed_is_said_with_the_next_step(office: Office) -> None:
    assert "as production" in office.mia.get("/workspaces/north/changes/new?now=1").text


def test_what_i_changed_stands_at_once_and_compares_afterwards(office: Office) -> None:
    """Only the piece asks the databases; one page of its own is there for browsers without scripts."""
    office.company.work("UPDATE rates SET price = 250 WHERE id = 1")
    page = office.mia.get("/workspaces/north/changes/new?q=250&kind=update").text
    assert "250.00" not in page and 'hx-get="/workspaces/north/changes/new?q=250&amp;kind=update"' in page
    assert 'href="/workspaces/north/changes/new?q=250&amp;kind=update&amp;now=1"' in page
    found = office.mia.get("/workspaces/north/changes/new?q=999", headers=PIECE).text
    assert "No row matches" in found and 'name="title"' in found and "<html" not in found
    refused = office.ruth.post("/workspaces/north/changes", title="Not mine")
    assert refused.status_code == 403


def test_hostile_words_and_cells_are_shown_and_do_nothing(office: Office) -> None:
    literal = HOSTILE.replace("'", "''")
    path = office.proposed(f"UPDATE bookings SET guest = '{literal}' WHERE id = 1", title=HOSTILE)
    row = re.search(r'/rows/([0-9a-f]{16})"', office.ruth.get(path).text)
    assert row is not None
    pages = [path, f"{path}/rows/{row[1]}", f"{path}/code", "/reviews", "/workspaces/north/changes"]
    for page in (office.ruth.get(one).text for one in pages):
        assert "<script>alert" not in page and "\u202e" not in page
        assert "\\u202e" in page and "&lt;script&gt;" in page


def test_decisions_need_the_digest_that_was_shown(office: Office) -> None:
    path = office.proposed("UPDATE rates SET price = 250 WHERE id = 1")
    assert office.ruth.post(f"{path}/approve").status_code == 422
    stale = office.ruth.post(f"{path}/approve", digest="0" * 64)
    assert stale.status_code == 409 and "not the one that was looked at" in stale.text


def test_a_decision_against_it_says_why(office: Office) -> None:
    path = office.proposed("UPDATE rates SET price = 250 WHERE id = 1")
    digest = office.digest(path)
    assert office.ruth.post(f"{path}/return", digest=digest).status_code == 422
    assert office.ruth.post(f"{path}/return", digest=digest, reason="Too dear").status_code == 303
    assert "Too dear" in office.mia.get(path).text and "Handed back" in office.mia.get(path).text
    assert office.mia.post(f"{path}/submit").status_code == 303
    assert office.ruth.post(f"{path}/reject", digest=office.digest(path), reason="No").status_code == 303
    assert "Rejected" in office.mia.get(path).text


def test_production_that_moved_on_is_shown_row_by_row(office: Office) -> None:
    path = office.proposed("UPDATE rates SET price = 250 WHERE id = 1")
    digest = office.digest(path)
    office.ruth.post(f"{path}/approve", digest=digest)
    office.company.meanwhile("UPDATE rates SET price = 111 WHERE id = 1")
    answer = office.ruth.post(f"{path}/promote", digest=digest)
    assert "Production had moved on" in office.ruth.get(answer.headers["location"].split("#")[0]).text
    page = office.ruth.get(path).text
    assert "111.00" in page and "250.00" in page
    assert office.company.ask("SELECT price::text FROM rates WHERE id = 1") == [("111.00",)]


def test_a_blocked_change_stays_a_draft_with_its_findings(office: Office) -> None:
    path = office.proposed("UPDATE houses SET name = 'Mine' WHERE id = 'harbour'")
    page = office.mia.get(path).text
    assert "stays a draft" in page or "kept as a draft" in page
    assert "in the way" in page and "houses" in page


def test_rows_can_be_left_out_of_a_draft(office: Office) -> None:
    office.company.work("UPDATE rates SET price = price + 1 WHERE house = 'harbour'")
    path = office.mia.post("/workspaces/north/changes", title="All", draft="1").headers["location"]
    rows = re.findall(r'name="shown" value="([0-9a-f]{16})"', office.mia.get(path).text)
    assert len(rows) == 5
    assert office.mia.post(f"{path}/rows", shown=rows, drop=rows[:2]).status_code == 303
    assert "3 rows in 1 table" in office.mia.get(path).text


def test_rows_are_searched_and_paged(office: Office) -> None:
    office.company.work(
        "INSERT INTO bookings (house, guest) SELECT 'harbour', 'guest no ' || i FROM generate_series(1, 250) i"
    )
    path = office.proposed()
    first = office.ruth.get(path).text
    assert "1–20 of 250 rows" in first and f"{path}?table=public.bookings#rows" in first, "the decision stays near"
    assert "1–100 of 250 rows" in office.ruth.get(f"{path}?table=public.bookings").text
    assert "201–250 of 250 rows" in office.ruth.get(f"{path}?page=3").text
    found = office.ruth.get(f"{path}?q=no%20249").text
    assert "1–1 of 1 row" in found and "guest no 249" in found
    assert "No row matches" in office.ruth.get(f"{path}?q=nobody").text


def test_a_change_of_another_workspace_is_not_there(office: Office) -> None:
    path = office.proposed("UPDATE rates SET price = 250 WHERE id = 1")
    stranger = office.house.sign_in("sam", Role.MANAGER, office.house.tenant("south"))
    for method, place in (("get", path), ("get", f"{path}/changes.sql"), ("post", f"{path}/withdraw")):
        assert getattr(stranger, method)(place).status_code == 404


def test_the_author_is_told_why_they_cannot_approve(office: Office) -> None:
    office.company.work("UPDATE rates SET price = 250 WHERE id = 1")
    ada = office.house.sign_in("ada", Role.ADMIN)
    path = ada.post("/workspaces/north/changes", title="Mine").headers["location"]
    assert "Another person has to decide" in ada.get(path).text
    digest = office.digest(path)
    assert ada.post(f"{path}/approve", digest=digest).status_code == 403


def test_rows_are_read_as_sql_and_never_run(office: Office) -> None:
    path = office.proposed("UPDATE rates SET price = 250 WHERE id = 1", "DELETE FROM bookings WHERE id = 2")
    text = office.ruth.get(f"{path}/changes.sql").text
    assert "UPDATE public.rates" in text and "price = '250.00'" in text and "price = '100.00'" in text
    assert "DELETE FROM public.bookings" in text
