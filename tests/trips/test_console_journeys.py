"""The five journeys of the console, by hand in a real browser, on a running installation behind its proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.changes import Change, ChangeState
from orchestrator.core.commands import Command
from orchestrator.core.refresh import Refresh, RefreshState
from orchestrator.core.tenants import Tenant, TenantMissing, TenantState
from orchestrator.demo import hotels
from orchestrator.parts.query import QueryArguments
from orchestrator.store import changes, commands, jobs, refreshes, tenants, users
from orchestrator.wiring import servers
from tests.support.installation import Running
from tests.support.pages import PATIENCE_S, Watched, chromium, until, watched

pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.browser, pytest.mark.timeout(1200)]
PASSWORD = "correct horse battery"
OPENED = re.compile("Harbour Hotels")


@dataclass
class Stage:
    """The installation, a browser, and a window for each person; `wrong` collects what was wrong with any page."""

    installation: Running
    browser: Browser
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def window(self, name: str, password: str = "") -> Iterator[Watched]:
        """Somebody's own window, signed in; what it complained about is kept at the end."""
        context, window = watched(self.browser, self.installation.console)
        try:
            window.sign_in(name, password or self.installation.password(name))
            yield window
            self.wrong += window.complaints
        finally:
            context.close()

    def look(self, window: Watched, name: str) -> None:
        self.wrong += window.look(f"journey-{name}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
def stage(installation: Running, browser: Browser) -> Iterator[Stage]:
    made = Stage(installation, browser)
    yield made
    assert made.wrong == []


@pytest.fixture
def mona(installation: Running, launched: Callable[..., Tenant]) -> tuple[Tenant, str]:
    """A tenant of this journey's own, and the name of its manager."""
    tenant = launched(scope="harbour")
    name = f"mona-{tenant.id}"
    users.add(installation.services.store, name, Role.MANAGER, PASSWORD, tenant_ids=[tenant.id])
    return tenant, name


def production(installation: Running, query: str) -> list[tuple[object, ...]]:
    sockets = servers.production(installation.services.settings).sockets
    dsn = installation.services.installation.drivers.servers.dsn(sockets, database=hotels.DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def rate(installation: Running, type_code: str) -> tuple[str, str]:
    """The condition of a rate no other journey changes in production, and its price."""
    where = f"property_id = 'harbour' AND type_code = '{type_code}'"
    ((day, price),) = production(
        installation,
        f"SELECT starts_on::text, price::text FROM hotel.rates WHERE {where} ORDER BY starts_on DESC LIMIT 1 OFFSET 1",
    )
    return f"{where} AND starts_on = '{day}'", str(price)


def change_titled(installation: Running, tenant: Tenant, title: str, state: ChangeState) -> Callable[[], Change | None]:
    def find() -> Change | None:
        with installation.services.store.connect() as connection:
            found = changes.listed(connection, tenant_id=tenant.id, states=[state])
        return next((one for one in found if one.title == title), None)

    return find


def arrives(page: Page, path: str) -> None:
    """The page goes there by itself, as soon as what was asked for is done."""
    page.wait_for_url(lambda url: urlsplit(url).path == path, timeout=PATIENCE_S * 1000)


def test_a_manager_works_sees_the_draft_and_submits(stage: Stage, mona: tuple[Tenant, str]) -> None:
    (tenant, name), installation = mona, stage.installation
    where, price = rate(installation, "DBL")
    wanted = f"{float(price) + 11:.2f}"
    with stage.window(name, PASSWORD) as window:
        page = window.page
        expect(page.get_by_role("heading", level=1)).to_contain_text(tenant.name)
        stage.look(window, "1-workspace")

        page.get_by_role("link", name="Open my app").click()
        expect(page.get_by_text(OPENED).first).to_be_visible()
        assert page.url.startswith(installation.address(tenant.name))
        stage.look(window, "1-app")
        page.goto(f"{installation.address(tenant.name)}/reservations?property=harbour&status=tentative")
        page.get_by_role("table").get_by_role("link").first.click()
        page.get_by_label("Status").select_option("cancelled")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved in this private copy")).to_be_visible()

        window.go(f"/workspaces/{tenant.name}/query")
        page.get_by_label("One SQL statement").fill(f"UPDATE hotel.rates SET price = {wanted} WHERE {where}")
        page.get_by_role("button", name="Run it", exact=True).click()
        expect(page.get_by_text("kept in your database")).to_be_visible()
        page.get_by_label("One SQL statement").fill(f"SELECT price, currency FROM hotel.rates WHERE {where}")
        page.get_by_role("button", name="Run it", exact=True).click()
        expect(page.get_by_role("cell", name=wanted)).to_be_visible()
        stage.look(window, "1-query")

        page.get_by_role("link", name="Changes", exact=True).click()
        page.get_by_role("link", name="See what I changed", exact=True).first.click()
        row = page.get_by_role("row").filter(has_text=wanted)
        expect(row).to_contain_text(price)
        expect(page.get_by_role("row").filter(has_text="cancelled")).to_contain_text("tentative")
        page.get_by_label("Title").fill("Dearer doubles")
        page.get_by_label("Why").fill("The fair is in town.")
        stage.look(window, "1-draft")
        page.get_by_role("button", name="Submit to the reviewers").click()
        change = until(change_titled(installation, tenant, "Dearer doubles", ChangeState.SUBMITTED))
        assert change.counts.total == 2
        arrives(page, f"/changes/{change.id}")
        expect(page.get_by_role("heading", level=1)).to_contain_text("submitted")
        expect(page.get_by_text("The fair is in town.").first).to_be_visible()
        stage.look(window, "1-submitted")
    assert rate(installation, "DBL") == (where, price), "production is as it was"


def test_a_reviewer_sees_before_and_after_approves_promotes_and_takes_back(
    stage: Stage, mona: tuple[Tenant, str]
) -> None:
    (tenant, name), installation = mona, stage.installation
    where, price = rate(installation, "TWN")
    wanted = f"{float(price) + 13:.2f}"
    _propose(installation, tenant, name, "Dearer twins", f"UPDATE hotel.rates SET price = {wanted} WHERE {where}")
    with stage.window("reviewer") as window:
        page = window.page
        page.on("dialog", lambda dialog: dialog.accept())
        expect(page.get_by_role("heading", level=1)).to_contain_text("Reviews")
        stage.look(window, "2-inbox")
        page.get_by_role("link", name="Dearer twins").first.click()
        row = page.get_by_role("row").filter(has_text=wanted)
        expect(row).to_contain_text(price)
        stage.look(window, "2-proposal")
        page.get_by_role("button", name="Approve", exact=True).click()
        change = until(change_titled(installation, tenant, "Dearer twins", ChangeState.APPROVED))
        assert rate(installation, "TWN") == (where, price), "nothing is written before somebody promotes it"
        arrives(page, f"/changes/{change.id}")
        page.get_by_role("button", name="Promote to production").click()
        until(change_titled(installation, tenant, "Dearer twins", ChangeState.PROMOTED))
        expect(page.get_by_role("heading", name="Result")).to_be_visible(timeout=PATIENCE_S * 1000)
        stage.look(window, "2-result")
        assert rate(installation, "TWN") == (where, wanted), "production shows it"

        page.get_by_text("Take it back", exact=True).click()
        page.get_by_label("Why").first.fill("The fair was cancelled.")
        page.get_by_role("button", name="Revert it in production").click()
        until(lambda: rate(installation, "TWN") == (where, price))
        expect(page.get_by_text("Reverted", exact=True).first).to_be_visible(timeout=PATIENCE_S * 1000)
        arrives(page, f"/changes/{change.id}")


def _propose(installation: Running, tenant: Tenant, name: str, title: str, statement: str) -> None:
    """What somebody's agent did before the reviewer comes."""
    services = installation.services
    actor = Actor(ActorKind.AGENT, "tok_journey", f"{name}/agent", on_behalf_of=users.named(services.store, name).id)
    _, result = services.commands.query(tenant, QueryArguments(statement, False, "json", 10), actor=actor)
    assert result.error is None, result.error
    draft = services.changes.changes.draft(tenant, actor=actor, title=title, code=False)
    made = services.changes.changes.submit(draft.id, tenant, actor=actor)
    assert made.blocking == 0, made.checks


def test_an_admin_edits_the_allowlist_and_the_next_command_obeys(stage: Stage, mona: tuple[Tenant, str]) -> None:
    (tenant, name), services = mona, stage.installation.services
    shipped = services.allowlist.in_force().allowlist.text
    without = shipped.replace("  - id: pwd\n", f"  - id: pwd\n    scope: tenant:{tenant.name}x\n")
    assert without != shipped
    try:
        with stage.window("admin") as window, stage.window(name, PASSWORD) as theirs:
            assert _runs(stage, theirs, tenant, "pwd").decision == "allow"
            page = window.page
            window.go("/allowlist").get_by_role("link", name=re.compile("^Edit")).click()
            page.get_by_role("textbox", name=re.compile("^Rules")).fill(without)
            page.get_by_label("Tenant").select_option(tenant.name)
            page.get_by_role("textbox", name=re.compile("^Command")).fill("pwd")
            page.get_by_role("button", name="Test", exact=True).click()
            expect(page.get_by_role("status").filter(has_text="no rule").first).to_be_visible()
            stage.look(window, "3-tested")
            page.get_by_role("button", name=re.compile("^See the consequences")).click()
            expect(page.get_by_role("heading", name="Consequences")).to_be_visible()
            page.get_by_role("textbox", name=re.compile("^Reason")).fill("Nobody needs it there.")
            stage.look(window, "3-consequences")
            page.get_by_role("button", name="Save as the next version").click()
            expect(page.get_by_text(re.compile("Version [0-9]+ is in force")).first).to_be_visible()
            stage.look(window, "3-saved")
            assert services.allowlist.in_force().version.reason == "Nobody needs it there."
            assert _runs(stage, theirs, tenant, "pwd").decision == "deny"
            stage.look(theirs, "3-denied")
    finally:
        services.allowlist.save(shipped, actor=Actor(ActorKind.PERSON, "u", "tests"), reason="Done.", expected=None)


def _runs(stage: Stage, window: Watched, tenant: Tenant, line: str) -> Command:
    """Type a command in the page; returns what became of it once that is decided."""
    store = stage.installation.services.store
    known = {one.id for one in commands.listed(store, tenant_ids=[tenant.id])}
    page = window.go(f"/workspaces/{tenant.name}/commands")
    page.get_by_role("textbox", name="Command").fill(line)
    page.get_by_role("button", name="Run it").click()

    def decided() -> Command | None:
        found = commands.listed(store, tenant_ids=[tenant.id])
        return next((one for one in found if one.id not in known and one.has_ended), None)

    return until(decided)


def test_an_admin_launches_a_tenant_opens_it_and_removes_it(stage: Stage) -> None:
    installation = stage.installation
    store, name = installation.services.store, "journey"
    address = installation.address(name)

    def state() -> TenantState | None:
        try:
            return tenants.named(store, name).state
        except TenantMissing:
            return None

    try:
        with stage.window("admin") as window:
            page = window.page
            page.get_by_role("link", name=re.compile("^Launch")).click()
            page.get_by_role("textbox", name=re.compile("^Name")).fill(name)
            page.get_by_label("Who works there").select_option("manager")
            page.get_by_label("Rows it may change").fill("harbour")
            stage.look(window, "4-form")
            page.get_by_role("button", name="Launch it").click()
            until(lambda: state() is TenantState.RUNNING)
            arrives(page, f"/fleet/{name}")  # by way of its progress, which goes on by itself
            stage.look(window, "4-launched")
            assert tenants.named(store, name).id in users.named(store, "manager").tenant_ids
            page.goto(address)
            expect(page.get_by_text(OPENED).first).to_be_visible()

            window.go(f"/fleet/{name}")
            confirm = page.get_by_label(re.compile("^Type .* to confirm"))
            confirm.fill("something else")
            page.get_by_role("button", name=f"Remove {name}").click()
            expect(page.get_by_text("Nothing was removed").first).to_be_visible()
            assert state() is TenantState.RUNNING
            window.go(f"/fleet/{name}")
            confirm.fill(name)
            page.get_by_role("button", name=f"Remove {name}").click()
            until(lambda: state() is None)
            arrives(page, "/fleet")
            expect(page.get_by_role("heading", level=1)).to_contain_text("Fleet")
            expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
            stage.look(window, "4-removed")
            answer = page.goto(address)
            assert answer is not None and answer.status == 404
    finally:
        if state() is not None:
            installation.run("tenant", "remove", name, "--yes")


def test_a_refresh_happens_while_the_manager_watches(stage: Stage, mona: tuple[Tenant, str]) -> None:
    (tenant, name), store = mona, stage.installation.services.store

    def done() -> Refresh | None:
        found = refreshes.history(store, tenant_id=tenant.id, limit=1)
        return found[0] if found and found[0].state is not RefreshState.RUNNING else None

    with stage.window(name, PASSWORD) as watching, stage.window(name, PASSWORD) as working:
        page = watching.page
        page.evaluate("window.stillTheSamePage = true")
        countdown = page.locator("[data-countdown]").first
        before = countdown.inner_text()
        expect(countdown).not_to_have_text(before)  # it counts by itself
        expect(page.get_by_text("Last refresh", exact=False)).to_have_count(0)
        working.go(f"/auth/enter?host={tenant.name}.{stage.installation.settings.proxy.domain}")
        expect(working.page.get_by_text(OPENED).first).to_be_visible()

        jobs.ask(store, "refresh", requested_by="scheduler", tenant_id=tenant.id, reason="It was due.")
        tries = 0
        while done() is None or tries < 3:
            answer = working.page.reload()
            assert answer is not None and answer.status == 200, "the app stays usable all the time"
            expect(working.page.get_by_text(OPENED).first).to_be_visible()
            tries += 1
            assert tries < 2000
        refresh = until(done)
        assert refresh.state is RefreshState.DONE, refresh
        expect(page.get_by_text("Last refresh").first).to_be_visible()
        assert page.evaluate("window.stillTheSamePage") is True, "the page was not loaded again"
        before = countdown.inner_text()
        expect(countdown).not_to_have_text(before)
        stage.look(watching, "5-refreshed")
