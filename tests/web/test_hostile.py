"""Names, cells, files, output and errors written to do harm: every page shows them as words, and stays small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, update

from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.core.ports.engine import Container
from orchestrator.core.probes import BOUNDARIES, Outcome, Probe
from orchestrator.core.tenants import Tenant
from orchestrator.flows.containers import ContainersFlow
from orchestrator.store import changes, jobs, probes, tenants
from orchestrator.store.tables.approvals import APPROVALS
from orchestrator.store.tables.changes import CHANGES
from orchestrator.store.tables.commands import COMMAND_OUTPUTS, COMMANDS
from orchestrator.store.tables.generations import GENERATIONS
from orchestrator.store.tables.jobs import JOBS
from orchestrator.store.tables.publishes import PUBLISHES
from orchestrator.store.tables.refreshes import POSTPONEMENTS, REFRESHES
from orchestrator.store.tables.tenants import STEPS, TENANTS
from orchestrator.store.tables.tokens import TOKENS
from tests.support.cluster import Cluster
from tests.support.crowd import SOMEBODY, Crowd, crowd_in
from tests.support.routes import DOWNLOADS, PAGES

HARM = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'` {{ 7919*7 }} "
    "\u202egnp.exe\u2066\u200b\x1b[31;1mred\x1b[0m\x1b]8;;http://evil\x07\x08 \u0085\u2028"
)
TAGS = ("<script>alert", "<img src=x", "55433")
SIGNS = ("\u202e", "\u2066", "\x1b", "\x07", "\x08")
FILE = "<img src=x onerror=alert(3)>\u202egnp\x1b[31m.txt"
LONG = "very long " * 2000
PAGE_BYTES_MAX = 1_500_000


class Harmful:
    """One container that prints harm."""

    def containers(self, *, tenant_id: str | None = None) -> list[Container]:
        return [Container("1", "o-sandbox", "sandbox", tenant_id or "", "", True, None, None, HARM, 0, "demo:1")]

    def logs(self, name: str, *, lines: int = 200) -> str:
        return f"{HARM}\n" * lines


@pytest.fixture(scope="module")
def crowd(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    directory = tmp_path_factory.mktemp("harm")
    with crowd_in(cluster, directory) as made:
        made.house.services.containers = ContainersFlow(Harmful())  # type: ignore[arg-type]
        north = tenants.named(made.house.store, "north")
        _everywhere(made.house.store, north, made.known)
        (directory / "tree" / FILE).write_text(f"{HARM}\n{LONG}\n")
        for number in range(30):
            details = {"argv": [HARM, str(number)], "why": HARM}
            made.house.audit.append(
                AuditEvent(SOMEBODY, "command.run", tenant="north", target=HARM, result=Result.OK, details=details)
            )
        probes.add(made.house.store, north.id, [Probe(one.id, Outcome.BROKEN, HARM, HARM) for one in BOUNDARIES])
        yield made


def _large(rows: int = 10_000) -> Changeset:
    """A table with a name, columns and cells that mean harm."""
    names = ("id", HARM[:60], "note")
    shape = TableShape(
        TableName("public", HARM[:50]), tuple(Column(one, "text", base="text") for one in names), primary_key=("id",)
    )
    found = []
    for number in range(rows):
        old = {"id": f"{HARM} {number}", names[1]: HARM, "note": LONG if number < 50 else None}
        found.append(RowChange(shape.table, RowKind.UPDATE, (old["id"],), old, {**old, names[1]: f"new {HARM}"}))
    return Changeset.build("s1", {shape.table: shape}, found)


def _everywhere(store: Engine, north: Tenant, known: dict[str, str]) -> None:
    with store.begin() as connection:
        connection.execute(update(COMMANDS).values(argv=["ls", HARM, LONG], actor_name=HARM, reason=HARM, error=HARM))
        output = (HARM.encode() + b"\xff\xfe\n") * 20_000
        connection.execute(insert(COMMAND_OUTPUTS).values(command_id="k1", seq=0, stream="stderr", data=output))
        finding = {"code": "x", "message": HARM, "table": HARM, "column": HARM, "key": HARM, "was": HARM, "now": LONG}
        change = changes.get(connection, known["change_id"])
        held = changes.save_rows(connection, change, _large(), title=HARM[:190], description=f"{HARM} {LONG}"[:20_000])
        connection.execute(
            update(CHANGES)
            .where(CHANGES.c.id == held.id)
            .values(
                state="submitted",
                reason=HARM,
                author={"kind": "agent", "id": "x", "name": HARM, "on_behalf_of": "u"},
                checks={"rules": {"findings": [finding] * 90, "blocking": 90, "where": HARM, "skipped": HARM}},
                risks=[{"code": "x", "severity": "warning", "sentence": HARM}] * 60,
            )
        )
        for text in (HARM, LONG):
            changes.comment(connection, held.id, SOMEBODY, text)
        connection.execute(update(APPROVALS).values(argv=["rm", HARM], reason=HARM, actor_name=HARM))
        connection.execute(update(JOBS).values(reason=HARM, doing=HARM, requested_by=HARM, error=HARM, kind=HARM[:30]))
        connection.execute(update(REFRESHES).values(reason=HARM, requested_by=HARM, carried=HARM, error=HARM))
        connection.execute(insert(POSTPONEMENTS).values(tenant_id=north.id, requested_by=HARM, reason=HARM))
        connection.execute(
            insert(PUBLISHES).values(
                id="p1", tenant_id=north.id, state="refused", reason=HARM, actor=HARM, error=HARM, commit=HARM
            )
        )
        connection.execute(
            insert(STEPS).values(
                tenant_id=north.id, operation="launch", operation_id="o", step="sandbox", state="failed", error=HARM
            )
        )
        connection.execute(update(TENANTS).where(TENANTS.c.id == north.id).values(reason=HARM, scope=HARM, image=HARM))
        connection.execute(update(TOKENS).values(name=HARM))
        now = north.created_at
        connection.execute(
            insert(GENERATIONS).values(id=HARM, tenant_id=north.id, snapshot_id=HARM, state="removed", created_at=now)
        )
        known["row_id"] = _large(1).rows[0].id()
    jobs.add_line(store, known["job_id"], HARM)


def _pages(crowd: Crowd, caller: str) -> dict[str, str]:
    """Every page they may see that can be shown without containers."""
    letter = caller[0].upper()
    shown = {}
    for route, who in PAGES.items():
        if route.startswith("GET ") and route not in DOWNLOADS and letter in who.upper():
            answer = crowd.ask(caller, route, {"accept": "text/html"})
            if answer.status_code == 200:
                shown[route] = answer.text
    return shown


@pytest.mark.parametrize("caller", ["admin", "manager", "reviewer"])
def test_what_means_harm_is_shown_as_words(crowd: Crowd, caller: str) -> None:
    shown = _pages(crowd, caller)
    wrong = [f"{route}: {sign!r}" for route, page in shown.items() for sign in (*TAGS, *SIGNS) if sign in page]
    assert wrong == []
    large = {route: len(page) for route, page in shown.items() if len(page.encode()) > PAGE_BYTES_MAX}
    assert large == {}
    pages = {"GET /changes/{change_id}", "GET /commands/{command_id}", "GET /jobs/{job_id}", "GET /workspaces/{name}"}
    assert pages < set(shown)
    assert sum("&lt;script&gt;" in page for page in shown.values()) >= 8


def test_a_job_is_followed_without_harm(crowd: Crowd) -> None:
    events = crowd.ask("manager", "GET /jobs/{job_id}/events").text
    assert "<script>" not in events and "\u202e" not in events and "\x1b" not in events and "&lt;script&gt;" in events


def test_files_with_harm_in_their_names_and_text_are_only_text(crowd: Crowd, tmp_path: Path) -> None:
    listed = crowd.ask("manager", "GET /workspaces/{name}/files", {"accept": "text/html"}).text
    assert "<img" not in listed and "\u202e" not in listed and "\x1b" not in listed and "&lt;img" in listed


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
