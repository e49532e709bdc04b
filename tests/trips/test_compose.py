"""The one-host arrangement of docker-compose.yml, from `up` to a tenant at work, and through `down` and `up` again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestrator.drivers.docker.engine import DockerEngine
from tests.support.composing import Composed, composed
from tests.support.installation import Browser

pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.timeout(2400)]
WAIT_S = 240.0
NAME = "by-compose"


@pytest.fixture(scope="module")
def arrangement() -> Iterator[Composed]:
    with composed() as made:
        yield made


def test_it_serves_tenants_and_finds_everything_again(arrangement: Composed) -> None:
    shown = arrangement.json("demo")
    console, domain = str(shown["console"]), arrangement.settings.proxy.domain
    address = arrangement.settings.proxy.address(f"{NAME}.{domain}")
    assert arrangement.restarts() == {"control": 0, "orchestrator": 0, "scheduler": 0}, "somebody did not wait"

    admin = _signed_in(arrangement, console, {one["name"]: one["password"] for one in shown["sign_ins"]}["admin"])
    assert admin.get(f"{console}/").status == 200
    launched = admin.send("POST", f"{console}/api/v1/tenants", {"name": NAME, "scope": "harbour"})
    assert launched.status == 201, launched.text
    _answers(admin, address)

    assert arrangement.run("command", "run", NAME, "--", "echo", "hello") == "hello\n"
    (job,) = arrangement.json("refresh", "run", NAME, "--no-wait")
    done = arrangement.json("job", "wait", job["id"], "--timeout", "300")
    assert done["state"] == "done" and done["result"]["generation_id"], done
    _answers(admin, address)
    before = {row["name"]: row["id"] for row in arrangement.json("tenant", "list")}
    assert NAME in before and len(before) == 1 + len(shown["tenants"])

    arrangement.down()
    arrangement.up()
    # The sign-in of before is good still: the control database is the same one.
    _answers(admin, address)
    assert {row["name"]: row["id"] for row in arrangement.json("tenant", "list")} == before
    assert arrangement.run("command", "run", NAME, "--", "echo", "again") == "again\n"
    rows = arrangement.json("status")
    assert all(row["runs"] for row in rows), rows
    checks = arrangement.run("doctor")
    assert "FAIL" not in checks, checks

    # What compose keeps is not stopped behind its back.
    assert "compose" in arrangement.compose("ps")
    arrangement.run("down", expect=5)

    # The way it says instead: the control plane first, then everything it had started.
    arrangement.compose("stop", "orchestrator", "scheduler")
    arrangement.compose("run", "--rm", "--no-deps", "-T", "orchestrator", "down")
    engine = DockerEngine(arrangement.settings.instance)
    left = [one.name for one in engine.containers() if one.running]
    engine.connection.close()
    assert left == []


def _signed_in(arrangement: Composed, console: str, password: str) -> Browser:
    browser = arrangement.browser()
    answer = browser.send("POST", f"{console}/api/v1/session", {"name": "admin", "password": password})
    assert answer.status == 201, answer.text
    return browser


def _answers(browser: Browser, address: str) -> None:
    """The hostname shows the tenant's own data to who is signed in, soon."""
    deadline = time.monotonic() + WAIT_S
    last = ""
    while time.monotonic() < deadline:
        try:
            page = browser.get(address)
        except OSError as error:
            last = repr(error)
        else:
            if page.status == 200 and "Harbour Hotels" in page.text:
                return
            last = f"{page.status} {page.text[:500]}"
        time.sleep(0.25)
    raise AssertionError(f"{address} does not answer: {last}")
