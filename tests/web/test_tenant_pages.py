"""One tenant's page for admins: what it shows, what it asks before something is deleted, who may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.access import Role
from orchestrator.core.actors import Actor
from orchestrator.core.ports.engine import Container
from orchestrator.core.probes import Outcome, Probe, ProbeReport
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.flows.containers import ContainersFlow
from orchestrator.flows.usage import Usage
from orchestrator.store import probes, refreshes, tenants
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console


class Engine:
    """The two calls the pages make."""

    def containers(self, *, tenant_id: str | None = None) -> list[Container]:
        name = f"o-{tenant_id}-sandbox"
        return [Container("1", name, "sandbox", tenant_id or "", "", True, None, None, "", 0, "demo:1")]

    def logs(self, name: str, *, lines: int = 200) -> str:
        return f"{lines} lines of {name}\n<script>alert(1)</script>\u202e\n"


class Flows:
    """Remembers what was asked for, and moves the record as the flow does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.house: Any = None

    def of(self, tenant: Tenant) -> Usage:
        return Usage(self.house.services.settings.limits.profile(tenant.profile), None, None, None, None)

    def stop(self, name: str, *, actor: Actor, progress: Callable[[str], None]) -> None:
        progress("sandbox")
        self._move("stop", name, actor, TenantState.STOPPED)

    def start(self, name: str, *, actor: Actor, progress: Callable[[str], None]) -> None:
        progress("app")
        self._move("start", name, actor, TenantState.RUNNING)

    def remove(self, name: str, *, actor: Actor, progress: Callable[[str], None]) -> None:
        progress("workspace")
        self._move("remove", name, actor, TenantState.REMOVED)

    def _move(self, verb: str, name: str, actor: Actor, state: TenantState) -> None:
        self.asked.append((verb, name, actor.name))
        tenants.set_state(self.house.store, tenants.named(self.house.store, name).id, state)

    def run(self, tenant: Tenant, *, actor: Actor) -> ProbeReport:
        self.asked.append(("probe", tenant.name, actor.name))
        return probes.add(self.house.store, tenant.id, [Probe("host", Outcome.BROKEN, "connect", "<b>it answered</b>")])


@pytest.fixture
def flows() -> Flows:
    return Flows()


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path, flows: Flows) -> Iterator[Console]:
    containers = ContainersFlow(Engine())  # type: ignore[arg-type]
    with console(cluster, tmp_path, usage=flows, tenants=flows, probe=flows, containers=containers) as made:
        flows.house = made
        yield made


@pytest.fixture
def ada(house: Console) -> Browser:
    return house.sign_in("ada", Role.ADMIN)


def test_the_page_shows_swaps_as_pictures_and_tables(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    house.sign_in("mia", Role.MANAGER, alpha)
    for number in range(3):
        begun = refreshes.begin(
            house.store,
            tenant_id=alpha.id,
            kind=RefreshKind.REFRESH,
            generation_id=f"g{number}",
            previous_id=None,
            snapshot_id=None,
            requested_by="scheduler",
        )
        refreshes.finish(house.store, begun.id, gap_s=0.021, ended_sessions=1)
    page = ada.get("/fleet/alpha")
    assert page.status_code == 200
    assert page.text.count("<svg") == 2 and "How long each swap held clients back" in page.text
    assert "21 ms" in page.text and 'href="/users/mia"' in page.text and "orchestrator tenant stop alpha" in page.text


def test_removing_asks_for_the_name(house: Console, ada: Browser, flows: Flows) -> None:
    house.tenant("alpha")
    refused = ada.post("/fleet/alpha/remove", confirm="alph")
    assert refused.status_code == 422 and "Nothing was removed" in refused.text
    assert flows.asked == []
    assert ada.post("/fleet/alpha/remove", confirm="alpha").headers["location"] == "/fleet"
    assert flows.asked == [("remove", "alpha", "ada")]
    assert "alpha is removed" in ada.get("/fleet").text
    assert ada.get("/fleet/alpha").status_code == 404


def test_stopping_and_starting_tell_their_result(house: Console, ada: Browser, flows: Flows) -> None:
    house.tenant("alpha")
    ada.post("/fleet/alpha/stop")
    page = ada.get("/fleet/alpha").text
    assert "alpha is stopped. Its files and data are kept." in page and "Start alpha" in page
    ada.post("/fleet/alpha/start")
    assert [verb for verb, _, _ in flows.asked] == ["stop", "start"]


def test_logs_are_shown_harmlessly_and_only_of_its_own_containers(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    page = ada.get(f"/fleet/alpha/containers?log=o-{alpha.id}-sandbox&lines=50").text
    assert "50 lines of" in page and "&lt;script&gt;" in page and "\u202e" not in page and "\\u202e" in page
    foreign = ada.get("/fleet/alpha/containers?log=o-control")
    assert foreign.status_code == 404 and "has no container" in foreign.text


def test_what_containers_use_comes_after_their_page(house: Console, ada: Browser, flows: Flows) -> None:
    """An engine may take a second to tell: the page does not wait for it, and says so when it does not come."""
    house.tenant("alpha")
    asked: list[str] = []
    told = flows.of
    flows.of = lambda tenant: (asked.append(tenant.name), told(tenant))[1]  # type: ignore[method-assign]
    page = ada.get("/fleet/alpha/containers").text
    assert asked == [] and 'hx-get="/fleet/alpha/containers/use"' in page and 'aria-busy="true"' in page
    piece = ada.get("/fleet/alpha/containers/use", headers={"accept": "*/*", "hx-request": "true"}).text
    assert asked == ["alpha"] and "Memory is used only while it runs" in piece and "<html" not in piece
    assert "<h1>" in ada.get("/fleet/alpha/containers/use").text
    missing = ada.get("/fleet/gamma/containers/use", headers={"accept": "*/*", "hx-request": "true"})
    assert missing.status_code == 404 and missing.headers["content-type"].startswith("text/html")
    assert "<html" not in missing.text and missing.headers["x-request-id"] in missing.text
    mia = house.visitor().get("/fleet/alpha/containers/use", headers={"accept": "*/*", "hx-request": "true"})
    assert (mia.status_code, mia.headers["hx-refresh"]) == (401, "true"), "the whole page asks to sign in"


def test_boundaries_are_shown_with_their_evidence(house: Console, ada: Browser) -> None:
    house.tenant("alpha")
    assert "not been probed yet" in ada.get("/fleet/alpha/boundaries").text
    ada.post("/fleet/alpha/probe")
    page = ada.get("/fleet/alpha/boundaries").text
    assert "1 of its boundaries did not hold" in page and "&lt;b&gt;it answered" in page and "conventional" in page


def test_reviewers_look_but_do_not_act_and_managers_do_not_look(house: Console, flows: Flows) -> None:
    alpha = house.tenant("alpha")
    rob = house.sign_in("rob", Role.REVIEWER)
    assert "Danger zone" not in rob.get("/fleet/alpha").text
    mia = house.sign_in("mia", Role.MANAGER, alpha)
    for path in ("", "/containers", "/boundaries", "/git"):
        assert mia.get(f"/fleet/alpha{path}").status_code == 403
    for browser, verb in ((rob, "stop"), (rob, "start"), (rob, "probe"), (rob, "remove"), (mia, "remove")):
        assert browser.post(f"/fleet/alpha/{verb}", confirm="alpha").status_code == 403
    assert flows.asked == []
