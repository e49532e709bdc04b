"""From an edit in a workspace to the production branch: shown, published by the schedule, reviewed, promoted."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.jobs import JobState
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.tenants import Tenant
from orchestrator.demo import hotels
from orchestrator.store import generations, jobs
from orchestrator.wiring import servers
from orchestrator.wiring.drivers import company_repository
from tests.support.installation import Answer, Browser, Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
LAYOUT = "backoffice/templates/layout.html"
MAIN = "backoffice/main.py"
PATIENCE_S = 120.0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def edit(installation: Running, tenant: Tenant, path: str, old: str, new: str) -> None:
    """Replace what stands once in a file; `old` is a pattern."""
    workspace, files = (
        installation.settings.places.workspace(tenant.id),
        installation.services.installation.drivers.files,
    )
    (found,) = re.findall(old, files.read(workspace, path).content.decode())
    files.edit(workspace, path, found, new, uid=tenant.uid)


def write(installation: Running, tenant: Tenant, path: str, content: str) -> None:
    workspace = installation.settings.places.workspace(tenant.id)
    installation.services.installation.drivers.files.write(workspace, path, content.encode(), uid=tenant.uid)


def remote(installation: Running, *arguments: str) -> str:
    """What the company's own repository says; empty where it has no such thing."""
    repository = company_repository(installation.settings.places)
    done = subprocess.run(["git", "--git-dir", str(repository), *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def published(installation: Running, tenant: Tenant) -> dict[str, Any]:
    """What the nightly job made of the workspace, done by the scheduler that runs."""
    store = installation.services.store
    job = jobs.ask(store, "publish", requested_by="tests", tenant_id=tenant.id, reason="nightly")
    wait_until(lambda: not jobs.get(store, job.id).state.is_open, f"the scheduler did not end the publish {job.id}")
    ended = jobs.get(store, job.id)
    assert ended.state is JobState.DONE, ended.error
    return dict(ended.result or {})


def production(installation: Running, query: str) -> list[tuple[Any, ...]]:
    services = installation.services
    sockets = servers.production(services.settings).sockets
    dsn = services.installation.drivers.servers.dsn(sockets, database=hotels.DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def work(installation: Running, tenant: Tenant, statement: str) -> None:
    """What the agent does in the sandbox's database."""
    services = installation.services
    with services.store.connect() as connection:
        live = generations.live(connection, tenant.id)
    assert live is not None
    sockets = services.settings.places.database_sockets(tenant.id, live.id)
    dsn = services.installation.drivers.servers.dsn(sockets, database=APP_DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def asked(browser: Browser, installation: Running, path: str, expect: int = 200, **document: Any) -> Answer:
    answer = browser.send("POST", f"{installation.console}/api/v1/changes{path}", document)
    assert answer.status == expect, answer.text
    return answer


def test_an_edit_is_shown_published_and_merged_with_its_rows_after_another_person_agreed(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant, browser = launched(scope="harbour"), installation.browser("admin")
    before, words = remote(installation, "rev-parse", "main"), f"the desk of {tenant.name}"
    edit(installation, tenant, LAYOUT, "<small>.+</small>", f"<small>{words}</small>")
    address = installation.address(tenant.name)
    wait_until(lambda: words in browser.get(address).text, "the edit was not shown")
    assert words not in browser.get(installation.address("riverside")).text

    done = published(installation, tenant)
    branch = f"tenant/{tenant.name}"
    assert remote(installation, "rev-parse", branch) == done["commit"]
    assert words in remote(installation, "show", f"{branch}:{LAYOUT}")
    assert f"Tenant: {tenant.name}" in remote(installation, "log", "-1", "--format=%B", branch)
    assert published(installation, tenant)["state"] == "unchanged"
    assert remote(installation, "rev-parse", "main") == before, "publishing alone never moves production"

    row = "property_id = 'harbour' AND type_code = 'DBL' AND starts_on = (SELECT max(starts_on) FROM hotel.rates)"
    ((price,),) = production(installation, f"SELECT price FROM hotel.rates WHERE {row}")
    work(installation, tenant, f"UPDATE hotel.rates SET price = price + 3 WHERE {row}")
    change = asked(browser, installation, "", 201, tenant=tenant.name, title="Desk and double rooms").json()
    assert (change["state"], change["updated"], change["inserted"], change["deleted"]) == ("submitted", 1, 0, 0)
    assert change["code_head"] == done["commit"]
    asked(browser, installation, f"/{change['id']}/approve", 403)
    asked(browser, installation, f"/{change['id']}/promote", 409)
    assert remote(installation, "rev-parse", "main") == before

    reviewer = installation.browser("reviewer")
    asked(reviewer, installation, f"/{change['id']}/approve", digest=change["digest"])
    promotion = asked(reviewer, installation, f"/{change['id']}/promote", digest=change["digest"]).json()
    assert promotion["state"] == "committed"
    after = remote(installation, "rev-parse", "main")
    assert after != before and words in remote(installation, "show", f"main:{LAYOUT}")
    assert production(installation, f"SELECT price FROM hotel.rates WHERE {row}") == [(price + 3,)]


def test_broken_code_shows_its_traceback_at_its_own_hostname_alone(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant, browser = launched(), installation.browser("admin")
    address = installation.address(tenant.name)
    assert browser.get(address).status == 200
    edit(installation, tenant, MAIN, r"app = make_app\(\)", 'raise RuntimeError("nobody tried this")')
    wait_until(lambda: "RuntimeError: nobody tried this" in browser.get(address).text, "no traceback was shown")
    assert browser.get(address).status == 500
    assert installation.browser().ask("GET", address, follow=False).status in (303, 401), "strangers see nothing of it"
    assert browser.get(installation.address("harbour")).status == 200
    edit(installation, tenant, MAIN, "raise RuntimeError.+", "app = make_app()")
    wait_until(lambda: browser.get(address).status == 200, "the mended app did not come back")


def test_a_secret_never_leaves_the_workspace(installation: Running, launched: Callable[..., Tenant]) -> None:
    tenant = launched()
    secret = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n"
    write(installation, tenant, "backoffice/key.pem", secret)
    store = installation.services.store
    job = jobs.ask(store, "publish", requested_by="tests", tenant_id=tenant.id, reason="nightly", attempts_max=1)
    wait_until(lambda: not jobs.get(store, job.id).state.is_open, "the scheduler did not end the publish")
    ended = jobs.get(store, job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "conflict.publish_refused")
    assert "backoffice/key.pem" in str(ended.error) and "MIIEpA" not in str(ended.error)
    assert remote(installation, "rev-parse", "--verify", "--quiet", f"refs/heads/tenant/{tenant.name}") == ""


def test_a_migration_in_the_branch_is_run_by_the_promote(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant, author = launched(), installation.browser("admin")
    index = f"guests_of_{tenant.id}"
    path = f"migrations/0001_{index}.sql"
    write(installation, tenant, path, f"CREATE INDEX {index} ON hotel.guests (vip) WHERE vip;\n")
    assert published(installation, tenant)["commit"] == remote(installation, "rev-parse", f"tenant/{tenant.name}")
    exists = f"SELECT count(*)::int FROM pg_indexes WHERE indexname = '{index}'"

    change = asked(author, installation, "", 201, tenant=tenant.name, title="Find important guests").json()
    assert (change["state"], change["approvals_needed"]) == ("submitted", 2)
    detail = author.ask("GET", f"{installation.console}/api/v1/changes/{change['id']}").json()
    assert [one["path"] for one in detail["checks"]["code"]["migrations"]] == [path]
    assert production(installation, exists) == [(0,)], "the rehearsal ran on a copy"

    reviewer, second = installation.browser("reviewer"), f"second-{tenant.id}"
    asked(reviewer, installation, f"/{change['id']}/approve", digest=change["digest"])
    asked(reviewer, installation, f"/{change['id']}/promote", 409)
    installation.services.changes.review.approve(change["id"], actor=Actor(ActorKind.PERSON, second, second))
    asked(reviewer, installation, f"/{change['id']}/promote", digest=change["digest"])
    assert production(installation, exists) == [(1,)]
    assert remote(installation, "show", f"main:{path}").startswith("CREATE INDEX")
