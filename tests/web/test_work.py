"""A manager's daily pages: the workspace, its files, commands, activity and queries. Only containers are missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.access import Role
from orchestrator.core.ports.drafts import CarriedDraft
from orchestrator.core.ports.queries import QueryResult
from orchestrator.core.tenants import Tenant
from orchestrator.store import commands, jobs
from orchestrator.web import query
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console
from tests.support.desk import furnish
from tests.support.gate import NotingRunner
from tests.support.refreshing import MemoryDrafts

HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@dataclass
class Desk:
    house: Console
    mia: Browser
    tenant: Tenant
    tree: Path
    runner: NotingRunner


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[Desk]:
    with console(cluster, tmp_path) as house:
        tree, runner = furnish(house, tmp_path, told=HOSTILE)
        tenant = house.tenant("harbour")
        yield Desk(house, house.sign_in("mia", Role.MANAGER, tenant), tenant, tree, runner)


def test_the_workspace_says_what_there_is_and_what_to_do(desk: Desk) -> None:
    page = desk.mia.get("/workspaces/harbour").text
    for said in ("Open my app", "Next refresh", "What waits for me", "Save to git now", "Same as command"):
        assert said in page
    assert "/auth/enter?host=harbour.localhost" in page


def test_a_refresh_is_asked_for_and_followed(desk: Desk) -> None:
    assert "What happens to my work" in desk.mia.get("/workspaces/harbour/refresh").text
    job = desk.mia.send("/workspaces/harbour/refresh", reason=HOSTILE).headers["location"].split("?")[0]
    page = desk.mia.get(job).text
    assert "Refresh of the data" in page and "Waits for its turn" in page and "<img src=x" not in page
    assert f'sse-connect="{job}/events"' in page
    assert desk.mia.post(f"{job}/cancel").status_code == 303
    assert "cancelled" in desk.mia.get(job).text
    followed = desk.mia.get(f"{job}/events").text
    assert "event: progress" in followed and "event: end\ndata: cancelled" in followed and "<img src=x" not in followed


def test_a_job_that_failed_says_why_what_follows_and_what_to_do(desk: Desk) -> None:
    page = desk.mia.post("/workspaces/harbour/stop")  # there is nothing here that could be stopped
    assert page.status_code == 200
    for said in ("What went wrong:", "Show an admin the reference", "Go on", 'href="/workspaces/harbour"'):
        assert said in page.text


def test_saved_rows_are_put_back_or_the_page_says_what_is_in_the_way(desk: Desk) -> None:
    drafts = MemoryDrafts()
    desk.house.services.refresh = replace(desk.house.services.refresh, drafts=drafts)
    done = desk.mia.send("/workspaces/harbour/refresh/restore", draft_id="c1")
    assert (done.status_code, done.headers["location"].split("?")[0]) == (303, "/workspaces/harbour")
    drafts.carried = CarriedDraft(False, 1, "guests 7 changed in production too")
    refused = desk.mia.send("/workspaces/harbour/refresh/restore", draft_id="c1")
    assert refused.status_code == 409 and "guests 7 changed in production too" in refused.text


def test_the_next_refresh_is_left_out_once_and_brought_back(desk: Desk) -> None:
    assert desk.mia.post("/workspaces/harbour/postpone").status_code == 303
    assert "The next refresh is left out" in desk.mia.get("/workspaces/harbour").text
    assert desk.mia.post("/workspaces/harbour/postpone").status_code == 409
    assert desk.mia.post("/workspaces/harbour/keep-date").status_code == 303
    assert "Do not leave it out" not in desk.mia.get("/workspaces/harbour").text


def test_files_are_browsed_edited_found_and_never_overwritten_blindly(desk: Desk) -> None:
    assert "reports" in desk.mia.get("/workspaces/harbour/files").text
    assert "prices.sql" in desk.mia.get("/workspaces/harbour/files?path=reports").text
    editor = desk.mia.get("/workspaces/harbour/files/edit?path=reports/prices.sql").text
    digest = re.search(r'name="digest" value="([0-9a-f]{64})"', editor)
    assert digest is not None and "select 1;" in editor
    saved = {"path": "reports/prices.sql", "digest": digest[1], "text": "select 2;\r\n"}
    assert desk.mia.post("/workspaces/harbour/files/edit", **saved).status_code == 303
    assert (desk.tree / "reports" / "prices.sql").read_text() == "select 2;\n"
    stale = desk.mia.post("/workspaces/harbour/files/edit", **{**saved, "text": "select 3;"})
    assert stale.status_code == 409 and "select 3;" in stale.text
    assert "prices.sql:1" in desk.mia.get("/workspaces/harbour/files?find=select").text


def test_a_new_file_does_not_replace_one_that_is_there(desk: Desk) -> None:
    new = {"path": "notes.txt", "digest": "", "text": "hello"}
    assert desk.mia.post("/workspaces/harbour/files/edit", **new).status_code == 303
    assert (desk.tree / "notes.txt").read_text() == "hello"
    assert desk.mia.post("/workspaces/harbour/files/edit", **new).status_code == 409


@pytest.mark.parametrize("path", ["../secrets", "/etc/passwd", "reports/../../x", "link/passwd"])
def test_no_path_leads_out_of_the_workspace(desk: Desk, path: str) -> None:
    (desk.tree / "link").symlink_to("/etc")
    answer = desk.mia.get(f"/workspaces/harbour/files/edit?path={path}")
    assert answer.status_code in (403, 422) and "root:" not in answer.text
    written = desk.mia.post("/workspaces/harbour/files/edit", path=path, digest="", text="x")
    assert written.status_code in (403, 409, 422)


def test_what_files_are_called_and_hold_does_nothing(desk: Desk) -> None:
    (desk.tree / HOSTILE).write_text(HOSTILE)
    (desk.tree / "blob").write_bytes(b"\xff\x00\xfe")
    page = desk.mia.get("/workspaces/harbour/files").text
    assert "<img src=x" not in page and "\u202e" not in page
    assert "no text" in desk.mia.get("/workspaces/harbour/files/edit?path=blob").text


def test_file_operations_are_recorded_and_deleting_needs_what_rm_needs(desk: Desk) -> None:
    desk.mia.get("/workspaces/harbour/files/edit?path=reports/prices.sql")
    refused = desk.mia.post("/workspaces/harbour/files/delete", path="reports/prices.sql")
    assert refused.status_code == 403 and "approval" in refused.text
    assert (desk.tree / "reports" / "prices.sql").exists()
    actions = [record.text("action") for record in desk.house.audit.export(_everything())]
    assert "file.read" in actions and "file.delete" in actions


def _everything() -> Any:
    from orchestrator.core.ports.audit import AuditQuery

    return AuditQuery()


def test_allowed_commands_are_forms_and_their_output_does_nothing(desk: Desk) -> None:
    page = desk.mia.get("/workspaces/harbour/commands?rule=ls").text
    assert "Allowed here" in page and 'name="rule" value="ls"' in page
    answer = desk.mia.post("/workspaces/harbour/commands", rule="ls", switch="-l", **{"value paths": "reports"})
    place = answer.headers["location"]
    events = desk.mia.get(f"{place}/output").text
    assert "event: done" in events and "<img" not in events and "\u202e" not in events
    assert [task.execution.argv[:2] for task in desk.runner.tasks] == [("ls", "-l")]
    page = desk.mia.get(place).text
    assert "&lt;img" in page and "<img src=x" not in page and "it worked" in page
    assert "looked at a directory" in desk.mia.get("/workspaces/harbour/activity").text


def test_a_denied_command_is_explained_and_can_be_asked_for(desk: Desk) -> None:
    denied = desk.mia.post("/workspaces/harbour/commands", line="curl http://example.com/")
    assert denied.status_code == 403 and "Ask an admin for a rule" in denied.text
    asked = desk.mia.post("/workspaces/harbour/commands/ask", line="curl http://example.com/", reason="news")
    assert asked.status_code == 303
    assert "waits for approval" in desk.mia.get("/workspaces/harbour").text
    assert "was not allowed" in desk.mia.get("/workspaces/harbour/activity").text


def test_what_is_no_single_statement_is_refused_before_anything_runs(desk: Desk) -> None:
    for sql in ("select 1; drop table x", "begin", "", "select '"):
        refused = desk.mia.post("/workspaces/harbour/query", sql=sql)
        assert refused.status_code == 422 and "Nothing was run" in refused.text
    linked = desk.mia.get("/workspaces/harbour/query?sql=%3C%2Ftextarea%3E%3Cscript%3E1").text
    assert "</textarea><script>" not in linked
    assert not commands.listed(desk.house.store)


def _result(columns: tuple[str, ...], *rows: tuple[str | None, ...]) -> QueryResult:
    return QueryResult(columns, rows, len(rows), False, "SELECT", True, False, 3)


def test_numbers_become_a_picture_and_other_rows_do_not() -> None:
    drawn = query.chart(_result(("kind", "house", "rooms"), ("sea <b>", "x", "4"), ("garden", None, "7")))
    assert drawn is not None and drawn.title == "rooms by kind"
    assert drawn.svg.startswith("<svg") and "<b>" not in drawn.svg
    assert query.chart(_result(("a", "b"), ("x", "y"), ("z", None))) is None
    assert query.chart(_result(("a", "b"), ("x", "-1"), ("y", "2"))) is None
    assert query.chart(_result(("a",), ("1",), ("2",))) is None


def test_a_downloaded_cell_is_no_formula() -> None:
    text = query.as_csv(_result(("=x",), ("=HYPERLINK(1)",), ("@a",), ("-1.5",), ("+49 30",), (None,)))
    assert text.split("\r\n")[:6] == ["'=x", "'=HYPERLINK(1)", "'@a", "-1.5", "'+49 30", '""'] or "'=HYPERLINK" in text
    assert "\r\n-1.5\r\n" in text


def test_a_manager_of_another_workspace_finds_none_of_it(desk: Desk) -> None:
    started = desk.mia.post("/workspaces/harbour/commands", line="ls").headers["location"]
    job = desk.mia.send("/workspaces/harbour/refresh").headers["location"].split("?")[0]
    stranger = desk.house.sign_in("sam", Role.MANAGER, desk.house.tenant("south"))
    places = ["", "/refresh", "/changes", "/activity", "/query", "/files", "/commands", "/usage"]
    for place in [*(f"/workspaces/harbour{one}" for one in places), started, f"{started}/output", job, f"{job}/events"]:
        assert stranger.get(place).status_code == 404, place
    for place in ("/refresh", "/postpone", "/publish", "/stop", "/commands", "/query", "/files/edit", "/changes"):
        assert stranger.post(f"/workspaces/harbour{place}", title="t", path="x", line="ls").status_code in (404, 422)
    assert stranger.post(f"{started}/cancel").status_code == 404
    assert stranger.post(f"{job}/cancel").status_code == 404


def test_a_page_that_is_open_hears_of_a_refresh(desk: Desk) -> None:
    jobs.ask(desk.house.store, "refresh", requested_by="scheduler", tenant_id=desk.tenant.id)
    piece = desk.mia.get("/workspaces/harbour", headers={"hx-request": "true"}).text
    assert "Refreshing the data" in piece and 'hx-swap-oob="true"' in piece and "<html" not in piece
    assert "Refreshing the data" in desk.mia.get("/workspaces/harbour").text


def test_a_piece_for_somebody_who_is_signed_out_loads_the_page_again(desk: Desk) -> None:
    headers = {"accept": "text/html", "hx-request": "true"}
    answer = desk.house.visitor().get("/workspaces/harbour", headers=headers, follow_redirects=False)
    assert answer.status_code == 401 and answer.headers["hx-refresh"] == "true" and answer.text == ""
