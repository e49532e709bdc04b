"""Every page of the console on a running installation: on a desk in the light and on a phone in the dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from playwright.sync_api import Browser

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.tenants import Tenant
from orchestrator.parts.query import QueryArguments
from orchestrator.store import changes, generations, jobs, users
from tests.support.installation import Running
from tests.support.pages import DESK, PHONE, Watched, chromium, until, watched
from tests.support.routes import DOWNLOADS, PAGES, filled

pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.browser, pytest.mark.timeout(1200)]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


def _used(installation: Running, tenant: Tenant) -> Mapping[str, str]:
    """Have everything happen once in the tenant; returns what addresses name."""
    services = installation.services
    store = services.store
    manager = users.add(store, f"noor-{tenant.id}", Role.MANAGER, PASSWORD, tenant_ids=[tenant.id])
    noor = Actor(ActorKind.PERSON, manager.id, manager.name)
    agent = Actor(ActorKind.AGENT, "tok_pages", f"{manager.name}/agent", on_behalf_of=manager.id)
    command = services.commands.run(tenant, CommandRequest(argv=("ls", "-la")), actor=agent)
    dearer = "UPDATE hotel.rates SET price = price + 1 WHERE property_id = 'harbour' AND type_code = 'TWN'"
    _, result = services.commands.query(tenant, QueryArguments(dearer, False, "json", 10), actor=agent)
    assert result.error is None, result.error
    flow = services.changes.changes
    change = flow.submit(flow.draft(tenant, actor=agent, title="Dearer", code=False).id, tenant, actor=agent)
    approval = services.approvals.ask_rule(tenant, CommandRequest(argv=("nmap",)), actor=agent, reason="to look")
    job = jobs.ask(store, "refresh", requested_by="scheduler", tenant_id=tenant.id, reason="It was due.")
    until(lambda: not jobs.get(store, job.id).state.is_open)
    services.probe.run(tenant, actor=noor)
    with store.connect() as connection:
        row = changes.changeset(connection, change.id).rows[0].id()
        live = generations.live(connection, tenant.id)
    assert live is not None
    return {
        "name": tenant.name,
        "user": manager.name,
        "command_id": command.id,
        "change_id": change.id,
        "row_id": row,
        "job_id": job.id,
        "approval_id": approval.id,
        "snapshot_id": live.snapshot_id,
        "number": str(services.allowlist.in_force().version.number),
    }


def test_every_page_is_usable_silent_and_fits_a_phone(
    installation: Running, browser: Browser, launched: Callable[..., Tenant]
) -> None:
    tenant = launched(scope="harbour")
    known = _used(installation, tenant)
    wrong: list[str] = []
    people = {
        "M": (known["user"], PASSWORD),
        "R": ("reviewer", installation.password("reviewer")),
        "A": ("admin", installation.password("admin")),
    }
    for letter, (name, password) in people.items():
        context, window = watched(browser, installation.console)
        window.sign_in(name, password)
        for route, who in PAGES.items():
            is_page = route.startswith("GET ") and route not in DOWNLOADS
            if is_page and _first(who.upper()) == letter:
                wrong += _looked_at(window, route, filled(route, known))
        wrong += window.complaints
        context.close()
    assert not wrong, "\n".join(wrong)


def _first(who: str) -> str:
    """The least of those who may see it: managers see most, admins alone what is left."""
    return next((letter for letter in "MRA" if letter in who), "M")


def _looked_at(window: Watched, route: str, path: str) -> list[str]:
    """Loaded once; looked at on a desk in the light and, turned into a phone, in the dark."""
    page = window.page
    name = route.removeprefix("GET ").strip("/") or "start"
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    answer = page.goto(window.address + path)
    if answer is None or answer.status >= 400:
        return [f"{path} answered {answer.status if answer else 'nothing'}"]
    wrong = window.look(f"desk-{name}")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    return wrong + window.look(f"phone-{name}")
