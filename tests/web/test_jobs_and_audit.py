"""The pages of jobs and of the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.jobs import JobState
from orchestrator.store import jobs
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console

MIA = Actor(ActorKind.PERSON, "u1", "mia")


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    with console(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def ada(house: Console) -> Browser:
    return house.sign_in("ada", Role.ADMIN)


def test_jobs_are_listed_with_their_progress_and_look_again(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    assert "There is no such job" in ada.get("/jobs").text
    jobs.ask(house.store, "refresh", requested_by="mia", tenant_id=alpha.id, reason="<b>now</b>")
    claimed = jobs.claim(house.store, "w1", ["refresh"])
    assert claimed is not None
    jobs.set_progress(house.store, claimed, 0.4, "cloning")
    page = ada.get("/jobs").text
    assert "cloning" in page and "40 %" in page and "1 running" in page and "&lt;b&gt;now" in page
    piece = ada.get("/jobs", headers={"hx-request": "true"}).text
    assert 'id="jobs"' in piece and "<html" not in piece
    assert "cloning" not in ada.get("/jobs?state=queued").text
    assert "cloning" in ada.get("/jobs?tenant=alpha&kind=refresh").text
    assert ada.get("/jobs?tenant=nobody").status_code == 404


def test_jobs_page_towards_older_ones(house: Console, ada: Browser) -> None:
    for number in range(60):
        jobs.ask(house.store, "prune", requested_by="mia", arguments={"n": number}, reason=f"round {number:02}")
    first = ada.get("/jobs").text
    assert "round 59" in first and "round 05" not in first
    older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert "round 05" in ada.get(older).text
    assert len(jobs.find(house.store, state=JobState.QUEUED, limit=100)) == 60


def test_the_trail_is_searched_paged_and_shown_harmlessly(house: Console, ada: Browser) -> None:
    for number in range(120):
        house.audit.append(AuditEvent(MIA, "probe.run", target=f"<i>t{number}\u202e", tenant="alpha", result=Result.OK))
    page = ada.get("/audit?actor=mia").text
    assert "&lt;i&gt;t119" in page and "t15\\u202e" not in page and "\u202e" not in page
    older = page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    assert "&lt;i&gt;t15" in ada.get(older).text
    assert "No record is like that" in ada.get("/audit?action=nothing.done").text
    assert "No record is like that" in ada.get("/audit?since=2001-01-01&until=2001-01-02").text
    assert ada.get("/audit?since=yesterday").status_code == 422


def test_the_trail_is_taken_away_as_lines_and_as_a_table(house: Console, ada: Browser) -> None:
    house.audit.append(AuditEvent(MIA, "tenant.stop", target="=HYPERLINK(1)", tenant="alpha", result=Result.OK))
    lines = ada.get("/audit/export.jsonl?action=tenant.stop")
    assert json.loads(lines.text)["target"] == "=HYPERLINK(1)"
    table = ada.get("/audit/export.csv?action=tenant.stop")
    assert "'=HYPERLINK(1)" in table.text and "attachment" in table.headers["content-disposition"]
    assert table.text.splitlines()[0].startswith("seq,time,")


def test_the_chain_is_checked(house: Console, ada: Browser, tmp_path: Path) -> None:
    house.audit.append(AuditEvent(MIA, "tenant.stop", target="alpha", result=Result.OK))
    assert "intact" in ada.get("/audit/check?now=1").text
    file = next(path for path in sorted((tmp_path / "audit").rglob("*.jsonl")) if "tenant.stop" in path.read_text())
    file.write_text(file.read_text().replace("tenant.stop", "tenant.love"))
    page = ada.get("/audit/check?now=1").text
    assert "edited" in page and "intact" not in page


def test_managers_see_neither(house: Console) -> None:
    mia = house.sign_in("mia", Role.MANAGER, house.tenant("alpha"))
    for path in ("/jobs", "/audit", "/audit/check", "/audit/export.csv", "/audit/export.jsonl"):
        assert mia.get(path).status_code == 403
