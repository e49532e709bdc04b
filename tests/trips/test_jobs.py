"""Long actions as jobs of the running scheduler: started at once, followed to their end, told in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.store import tenants
from tests.support.installation import Browser, Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
PATIENCE_S = 180


def _followed(browser: Browser, installation: Running, method: str, path: str) -> dict[str, Any]:
    """Ask for a job and wait until it has ended."""
    url = f"{installation.console}/api/v1{path}"
    asked = browser.ask(method, url, headers={"Prefer": "respond-async"})
    assert asked.status == 202, asked.text
    job: dict[str, Any] = asked.json()
    deadline = time.monotonic() + PATIENCE_S
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
        job = browser.get(f"{installation.console}{asked.headers['location']}").json()
    return job


def test_a_tenant_is_stopped_started_and_removed_by_jobs(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    admin = installation.browser("admin")
    for verb, state in (("stop", TenantState.STOPPED), ("start", TenantState.RUNNING)):
        done = _followed(admin, installation, "POST", f"/tenants/{tenant.name}/{verb}")
        assert (done["state"], done["requested_by"]) == ("done", "admin"), done
        assert tenants.get(installation.services.store, tenant.id).state is state
        page = admin.get(f"{installation.console}/jobs/{done['id']}").text
        assert f"{tenant.name} " in page and "Log" in page
    again = _followed(admin, installation, "POST", f"/tenants/{tenant.name}/start")
    assert again["state"] == "failed" and "is running" in again["error"] and again["effect"] and again["next_step"]
    removed = _followed(admin, installation, "DELETE", f"/tenants/{tenant.name}")
    assert removed["state"] == "done", removed
    assert admin.get(f"{installation.console}/jobs/{removed['id']}").status == 200


def test_health_is_told_by_the_parts_themselves(installation: Running) -> None:
    admin = installation.browser("admin")
    deadline = time.monotonic() + PATIENCE_S
    while "at work" not in (page := admin.get(f"{installation.console}/health").text):
        assert time.monotonic() < deadline, page
        time.sleep(1)
    checks = admin.get(f"{installation.console}/health/checks").text
    assert "routes confirmed by the proxy" in checks and "of our containers run" in checks
    assert "reflink volume" in checks and "kernel gate" in checks
