"""From an edit in a workspace to the production branch: shown, published by the schedule, reviewed, promoted."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from orchestrator.core.actors import Actor, ActorKind, system
from orchestrator.core.jobs import JobState
from orchestrator.core.names import new_id
from orchestrator.core.ports.sandboxd import Access, CommandExited, CommandOutput, PathGrant, SandboxCommand
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.publishes import PublishRefused
from orchestrator.core.tenants import Tenant
from orchestrator.demo import hotels
from orchestrator.store import generations, jobs, publishes
from orchestrator.wiring import servers
from orchestrator.wiring.drivers import company_repository, push_keys
from tests.support.installation import Answer, Browser, Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
LAYOUT = "backoffice/templates/layout.html"
MAIN = "backoffice/main.py"
PATIENCE_S = 120.0
ACTOR = system("tests")


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


def branch_of(browser: Browser, installation: Running, tenant: Tenant) -> dict[str, Any]:
    answer = browser.ask("GET", f"{installation.console}/api/v1/branches/{tenant.name}")
    assert answer.status == 200, answer.text
    return dict(answer.json())


def merged_by_review(installation: Running, tenant: Tenant) -> dict[str, Any]:
    """The tenant's published code, proposed by an admin and promoted by the reviewer."""
    author, reviewer = installation.browser("admin"), installation.browser("reviewer")
    change = asked(author, installation, "", 201, tenant=tenant.name, title=f"The work of {tenant.name}").json()
    asked(reviewer, installation, f"/{change['id']}/approve", digest=change["digest"])
    return dict(asked(reviewer, installation, f"/{change['id']}/promote", digest=change["digest"]).json())


def reconciled(installation: Running) -> None:
    store = installation.services.store
    job = jobs.ask(store, "reconcile", requested_by="tests")
    wait_until(lambda: not jobs.get(store, job.id).state.is_open, "the scheduler did not reconcile")


def test_production_moved_is_shown_and_comes_in_by_one_button_conflicts_and_all(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    first, second = launched(), launched()
    admin, places = installation.browser("admin"), installation.settings.places
    for tenant in (first, second):
        edit(installation, tenant, LAYOUT, "<small>.+</small>", f"<small>as {tenant.id} likes it</small>")
        installation.services.publish.run(tenant, actor=ACTOR)
    assert merged_by_review(installation, first)["state"] == "committed"

    page = f"{installation.console}/workspaces/{second.name}"
    assert "moved on" in admin.get(page).text
    assert "moved on" not in admin.get(f"{installation.console}/workspaces/{first.name}").text, "it is their own work"
    assert "Bring production" in admin.get(f"{page}/files").text
    seen = branch_of(admin, installation, second)
    assert seen["behind"] >= 1 and seen["conflicts"] == [LAYOUT]
    button = f"{installation.console}/api/v1/branches/{second.name}/merge"
    conflict = admin.send("POST", button, {})
    assert (conflict.status, conflict.json()["code"]) == (409, "conflict.merge"), conflict.text
    assert LAYOUT in conflict.json()["detail"] + conflict.text
    marked = (places.workspace(second.id) / LAYOUT).read_text()
    assert "<<<<<<<" in marked and first.id in marked and second.id in marked
    refused = admin.send("POST", f"{installation.console}/api/v1/branches/{second.name}/publish", {})
    assert (refused.status, refused.json()["code"]) == (409, "conflict.merge")

    both = re.sub(r"(?s)<<<<<<< .*>>>>>>> [^\n]*\n", f"<small>{first.id} and {second.id}</small>\n", marked)
    write(installation, second, LAYOUT, both)
    resolved = admin.send("POST", button, {})
    assert resolved.status == 200, resolved.text
    assert (resolved.json()["behind"], resolved.json()["conflicts"]) == (0, [])
    assert f"{first.id} and {second.id}" in remote(installation, "show", f"tenant/{second.name}:{LAYOUT}")
    assert "moved on" not in admin.get(page).text


def test_the_night_publishes_and_a_merge_on_the_companys_side_is_noticed(
    installation: Running, launched: Callable[..., Tenant], tmp_path: Path
) -> None:
    """By the schedule itself: nobody asks for the publish."""
    tenant, admin = launched(), installation.browser("admin")
    branch, words = f"tenant/{tenant.name}", f"by night, {tenant.id}"
    write(installation, tenant, f"notes/{tenant.id}.txt", f"{words}\n")
    noted, schedule = f"{branch}:notes/{tenant.id}.txt", installation.settings.file("schedule")
    before = schedule.read_text()
    nightly = f"tenants:\n  {tenant.name}:\n    publish: {{every: 5s}}\n"
    try:
        schedule.write_text(before.replace("tenants: {}\n", nightly))
        wait_until(lambda: words in remote(installation, "show", noted), "the night did not come")
    finally:
        schedule.write_text(before)
    store = installation.services.store
    wait_until(lambda: publishes.history(store, tenant.id)[-1].state == "published", "it was not recorded")
    assert publishes.history(store, tenant.id)[-1].actor == "scheduler"

    change = asked(admin, installation, "", 201, tenant=tenant.name, title="Night work").json()
    clone, keys = tmp_path / "developer", push_keys(installation.settings).files()
    origin = str(company_repository(installation.settings.places))

    def developer(*arguments: str, key: str = "merge") -> int:
        who = ["-c", "user.name=Dev", "-c", "user.email=dev@example.test", "-c", "safe.directory=*"]
        environment = {**os.environ, "ORCHESTRATOR_PUSH_KEY_FILE": str(keys[key])}
        return subprocess.run(["git", "-C", str(clone), *who, *arguments], env=environment, timeout=60).returncode

    clone.mkdir()
    assert (
        developer("clone", "--quiet", origin, ".")
        == developer("merge", "-q", "--no-ff", "-m", "By hand", f"origin/{branch}")
        == 0
    )
    assert developer("push", "--quiet", "origin", "HEAD:main", key="publish") != 0, "that key cannot move production"
    assert developer("push", "--quiet", "origin", "HEAD:main") == 0
    reconciled(installation)
    address = f"{installation.console}/api/v1/changes/{change['id']}"
    wait_until(lambda: admin.ask("GET", address).json()["state"] == "promoted", "the merge was not noticed")
    assert "not by a promote here" in admin.ask("GET", address).json()["reason"]
    assert "somebody merged it" in admin.get(f"{installation.console}/changes/{change['id']}").text


def test_a_remote_that_is_away_is_tried_again_and_a_stopped_tenants_work_is_published_too(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant, admin, store = launched(), installation.browser("admin"), installation.services.store
    branch, page = f"tenant/{tenant.name}", f"{installation.console}/workspaces/{tenant.name}"
    alarm = f'orchestrator_publish_last_failed{{how="push",tenant="{tenant.name}"}}'
    objects = company_repository(installation.settings.places) / "objects"
    write(installation, tenant, "notes.txt", f"while the remote was away, {tenant.id}\n")
    away = objects.rename(objects.with_name("objects.away"))
    try:
        assert published(installation, tenant)["state"] == "pending"
        assert "did not answer" in admin.get(page).text
        assert f"{alarm} 1.0" in admin.get(f"{installation.console}/metrics").text
    finally:
        away.rename(objects)
    with store.begin() as connection:
        statement = "UPDATE publishes SET finished_at = finished_at - interval '2 minutes' WHERE tenant_id = :id"
        connection.execute(text(statement), {"id": tenant.id})
    reconciled(installation)
    wait_until(lambda: remote(installation, "rev-parse", "-q", "--verify", branch) != "", "it was not pushed again")
    wait_until(lambda: f"{alarm} 0.0" in admin.get(f"{installation.console}/metrics").text, "the alarm did not end")
    assert "did not answer" not in admin.get(page).text

    installation.services.tenants.stop(tenant.name, actor=ACTOR)
    write(installation, tenant, "notes.txt", "while it was stopped\n")
    done = published(installation, tenant)
    assert done["state"] == "published"
    assert remote(installation, "show", f"{branch}:notes.txt") == "while it was stopped"
    engine = installation.services.installation.drivers.engine
    assert [one.name for one in engine.containers() if one.tenant_id == tenant.id and one.running] == []


def test_git_inside_cannot_touch_its_configuration_and_links_lead_nowhere(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    """With more than any program inside is given: Python with the repository writable."""
    tenant = launched()
    script = (
        "import os\n"
        "def attempt(what, act):\n"
        "    try:\n"
        "        act(); print(what)\n"
        "    except OSError: pass\n"
        "os.chdir('/repository')\n"
        "open('made', 'w').write('[core]\\n\\tfsmonitor = /workspace/x\\n')\n"
        "attempt('write', lambda: open('config', 'a'))\n"
        "attempt('replace', lambda: os.rename('made', 'config'))\n"
        "attempt('hooks', lambda: open('hooks/post-commit', 'w'))\n"
        "attempt('attributes', lambda: open('info/attributes', 'w'))\n"
        "os.unlink('made')\n"
        "os.symlink('/etc/passwd', '/workspace/passwd')\n"
        "os.symlink('/repository/config', '/workspace/config')\n"
    )
    command = SandboxCommand(
        id=new_id("c"),
        program="/usr/bin/python3",
        argv=("/usr/bin/python3", "-c", script),
        cwd="/workspace",
        grants=(PathGrant("/workspace", Access.WRITE), PathGrant("/repository", Access.WRITE)),
    )
    sandbox = installation.services.launch.tenancy.sandbox.connect(tenant)
    events = list(sandbox.run(command))
    said = b"".join(one.data for one in events if isinstance(one, CommandOutput)).decode()
    assert said == "", said
    assert [one.exit_code for one in events if isinstance(one, CommandExited)] == [0]
    with pytest.raises(PublishRefused) as caught:
        installation.services.publish.run(tenant, actor=ACTOR)
    assert "passwd: a link that leaves the workspace" in str(caught.value)
    answer = installation.browser("admin").ask(
        "GET", f"{installation.console}/api/v1/tenants/{tenant.name}/files/content?path=passwd"
    )
    assert (answer.status, answer.json()["code"]) in ((403, "denied.path"), (403, "denied.file"))
    assert "root:" not in answer.text
