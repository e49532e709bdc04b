"""What `make demo` promises: a console, three people, three hostnames on private data, each alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core.actors import system
from orchestrator.core.networks import NetworkProfile
from orchestrator.core.tenants import Tenant
from orchestrator.flows.launch import LaunchRequest
from orchestrator.parts.sandbox import SandboxEnded
from orchestrator.store import tenants
from tests.support.installation import Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
TENANTS = ("harbour", "riverside", "hillside")


@pytest.mark.parametrize("name", TENANTS)
def test_a_hostname_answers_the_signed_in_manager_with_private_data(installation: Running, name: str) -> None:
    manager = installation.browser("manager")
    page = manager.get(installation.address(name))
    assert page.status == 200, page.text[:2000]
    assert "Harbour Hotels" in page.text
    assert page.url.startswith(installation.address(name))


@pytest.mark.parametrize("name", TENANTS)
def test_a_stranger_is_sent_to_the_console(installation: Running, name: str) -> None:
    stranger = installation.browser()
    answer = stranger.ask("GET", installation.address(name), headers={"Accept": "text/html"}, follow=False)
    assert answer.status == 303
    assert answer.headers["location"].startswith(installation.console)
    assert stranger.ask("GET", f"{installation.address(name)}/", follow=False).status == 401


def test_the_consoles_cookie_never_reaches_a_tenants_host(installation: Running) -> None:
    manager = installation.browser("manager")
    manager.get(installation.address("harbour"))
    console = set(manager.jar["console.localhost"].values())
    assert console
    assert not console & set(manager.jar["harbour.localhost"].values())
    assert "riverside.localhost" not in manager.jar


def test_a_tenants_cookie_opens_no_other_host(installation: Running) -> None:
    manager = installation.browser("manager")
    manager.get(installation.address("harbour"))
    thief = installation.browser()
    thief.jar["riverside.localhost"] = dict(manager.jar["harbour.localhost"])
    assert thief.ask("GET", installation.address("riverside"), follow=False).status == 401


def test_forged_headers_open_nothing(installation: Running) -> None:
    stranger = installation.browser()
    for name in ("X-Forwarded-Host", "X-Tenant-User", "X-Forwarded-Uri", "X-Orchestrator-Pass"):
        answer = stranger.ask("GET", installation.address("harbour"), headers={name: "harbour.localhost"}, follow=False)
        assert answer.status == 401, name


def test_signing_out_closes_the_tenants_hosts_too(installation: Running) -> None:
    manager = installation.browser("manager")
    assert manager.get(installation.address("harbour")).status == 200
    assert manager.send("DELETE", f"{installation.console}/api/v1/session", None).status == 204
    assert manager.ask("GET", installation.address("harbour"), follow=False).status == 401


def test_everything_runs_and_is_shown(installation: Running) -> None:
    rows = installation.json("status")
    assert {row["part"] for row in rows} >= {"control database", "production", "proxy", "serve", "schedule"}
    assert all(row["runs"] for row in rows if not row["part"].startswith("tenant trip-")), rows


def test_a_second_demo_changes_nothing_and_shows_the_same(installation: Running) -> None:
    assert installation.json("demo") == installation.demo


def test_a_tenant_stops_starts_and_goes(installation: Running, launched: Callable[..., Tenant]) -> None:
    tenant = launched()
    manager = installation.browser("admin")
    address = installation.address(tenant.name)
    assert manager.get(address).status == 200
    installation.run("tenant", "stop", tenant.name)
    assert manager.get(address).status == 404
    installation.run("tenant", "start", tenant.name)
    assert manager.get(address).status == 200
    installation.run("tenant", "stop", tenant.name)
    installation.run("tenant", "stop", tenant.name, expect=5)


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "../x", "é", "console", "a" * 41, "harbour"])
def test_hostile_and_taken_names_are_refused(installation: Running, name: str) -> None:
    admin = installation.browser("admin")
    answer = admin.send("POST", f"{installation.console}/api/v1/tenants", {"name": name})
    assert answer.status == (409 if name == "harbour" else 422), answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "Traceback" not in answer.text


def test_an_unknown_profile_is_named_with_the_ones_there_are(installation: Running) -> None:
    admin = installation.browser("admin")
    document = {"name": "fresh", "profile": "nothing"}
    answer = admin.send("POST", f"{installation.console}/api/v1/tenants", document)
    assert answer.status == 404
    assert "office" in answer.text


def test_limits_beyond_the_machine_are_refused_before_anything_is_made(installation: Running) -> None:
    admin = installation.browser("admin")
    answer = admin.send("POST", f"{installation.console}/api/v1/tenants", {"name": "huge", "profile": "giant"})
    assert (answer.status, answer.json()["code"]) == (422, "invalid.beyond_host"), answer.text
    assert "1048576 MiB" in answer.json()["detail"] and "configs/limits.yaml" in answer.text
    installation.run("tenant", "show", "huge", expect=4)


@pytest.mark.parametrize("image", ["nosuch/image:1", "Not an Image!"])
def test_an_image_nobody_has_is_refused_before_anything_is_made(installation: Running, image: str) -> None:
    admin = installation.browser("admin")
    document = {"name": "pictured", "image": image}
    answer = admin.send("POST", f"{installation.console}/api/v1/tenants", document)
    assert (answer.status, answer.json()["code"]) == (422, "invalid.tenant_image"), answer.text
    assert image in answer.json()["detail"] and answer.json()["effect"] and "docker pull" in answer.json()["next_step"]
    installation.run("tenant", "show", "pictured", expect=4)


def test_an_image_without_a_supervisor_fails_with_what_it_lacks(installation: Running) -> None:
    """An image that ends at once is not waited for; what was made for it is gone again."""
    services = installation.services
    request = LaunchRequest(
        "bare",
        image=services.installation.drivers.images.pool,
        snapshot_profile=installation.settings.tenants.snapshot_profile,
    )
    try:
        with pytest.raises(SandboxEnded, match="ended at once") as ended:
            services.launch.run(request, actor=system("tests"))
        assert "sandbox_image/Dockerfile" in ended.value.next_step
        tenant = tenants.named(services.store, "bare")
        assert services.installation.drivers.engine.containers(tenant_id=tenant.id) == []
    finally:
        installation.run("tenant", "remove", "bare", "--yes")


def test_a_tenants_way_out_goes_when_it_stops_and_when_it_is_removed(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    profile = NetworkProfile(reaches=("example.com:443",))
    egress = replace(installation.services.launch.tenancy.egress, profiles={"outside": profile})
    engine = installation.services.installation.drivers.engine

    def roles() -> set[str]:
        return {one.role for one in engine.containers(tenant_id=tenant.id)}

    assert egress.way(tenant, "outside") is not None
    assert "egress" in roles()
    installation.run("tenant", "stop", tenant.name)
    assert "egress" not in roles()
    installation.run("tenant", "start", tenant.name)
    assert egress.way(tenant, "outside") is not None
    installation.run("tenant", "remove", tenant.name, "--yes")
    assert roles() == set() and engine.networks(tenant_id=tenant.id) == []
