"""What should run runs: killed parts come back by themselves, half-made tenants are finished, strangers left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from orchestrator.core.actors import system
from orchestrator.core.names import TenantNames, new_id
from orchestrator.core.ports.engine import ContainerLimits, ContainerSpec
from orchestrator.core.refresh import RefreshKind, RefreshState, TenantNotRunning
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.setup import processes
from orchestrator.store import generations, refreshes, tenants
from orchestrator.store.session import TenantBusy
from tests.support.installation import Browser, Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
PATIENCE_S = 120.0

LAUNCH_AND_DIE = """
import os, sys
from orchestrator import config
from orchestrator.core.actors import system
from orchestrator.flows.launch import LaunchRequest
from orchestrator.wiring.build import build

name, last = sys.argv[1:]
services = build(config.load())
def progress(step):
    if step == last:
        os._exit(9)
profile = services.settings.tenants.snapshot_profile
services.launch.run(LaunchRequest(name, snapshot_profile=profile), actor=system("tests"), progress=progress)
"""


def answers(browser: Browser, address: str) -> bool:
    try:
        return browser.get(address).status == 200
    except OSError:
        return False


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.parametrize("part", ["sandbox", "pool", "database"])
def test_a_tenants_killed_container_comes_back(
    installation: Running, launched: Callable[..., Tenant], part: str
) -> None:
    tenant = launched()
    browser, address = installation.browser("admin"), installation.address(tenant.name)
    assert answers(browser, address)
    tenancy = installation.services.launch.tenancy
    names = TenantNames(installation.settings.instance, tenant.id, tenant.name)
    name = {"sandbox": names.sandbox, "pool": names.pool}.get(part)
    engine = installation.services.installation.drivers.engine
    engine.kill(name or names.database(str(tenancy.pools.live_id(tenant.id))))
    installation.services.reconcile.run()
    wait_until(lambda: answers(browser, address), f"after its {part} was killed the tenant did not answer again")
    assert tenants.get(installation.services.store, tenant.id).state is TenantState.RUNNING


@pytest.mark.parametrize("how", ["killed", "deleted"])
def test_the_proxy_comes_back_with_every_route(installation: Running, how: str) -> None:
    browser, address = installation.browser("admin"), installation.address("harbour")
    assert answers(browser, address)
    engine = installation.services.installation.drivers.engine
    proxy = f"{installation.settings.instance}-proxy"
    if how == "killed":
        engine.kill(proxy)
    else:
        engine.remove(proxy)
    installation.services.reconcile.run()
    for name in ("harbour", "riverside", "hillside"):
        wait_until(lambda name=name: answers(browser, installation.address(name)), f"{name} did not answer again")


def test_a_killed_control_plane_loses_nothing(installation: Running) -> None:
    browser, address = installation.browser("admin"), installation.address("harbour")
    assert answers(browser, address)
    for name in processes.NAMES:
        found = processes.pid(installation.settings.places, name)
        assert found
        os.kill(found, signal.SIGKILL)
        wait_until(lambda name=name: processes.pid(installation.settings.places, name) is None, f"{name} did not die")
    refused = browser.get(address).status
    assert refused >= 500, "without the sign-in check nobody may be let in"
    installation.run("up")
    wait_until(lambda: answers(browser, address), "the signed-in browser was not let in again")


def test_the_control_database_comes_back(installation: Running) -> None:
    browser, address = installation.browser("admin"), installation.address("harbour")
    assert answers(browser, address)
    installation.services.installation.drivers.engine.kill(f"{installation.settings.instance}-control")
    wait_until(lambda: answers(browser, address), "the control plane did not bring its database back")


@pytest.mark.parametrize("step", ["database", "sandbox", "answer"])
def test_a_launch_cut_off_is_finished(installation: Running, step: str) -> None:
    name, store = f"cut-off-{step}", installation.services.store
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH_AND_DIE, name, step],
        env={**os.environ, "ORCHESTRATOR_CONFIGS": str(installation.settings.directory)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd="/",
        check=False,
    )
    try:
        assert done.returncode == 9, done.stderr[-3000:]
        installation.services.reconcile.run()
        wait_until(lambda: tenants.named(store, name).state is TenantState.RUNNING, "the launch was not finished")
        assert answers(installation.browser("admin"), installation.address(name))
        tenant_id = tenants.named(store, name).id
    finally:
        installation.run("tenant", "remove", name, "--yes")
    engine = installation.services.installation.drivers.engine
    assert engine.containers(tenant_id=tenant_id) == [] and engine.networks(tenant_id=tenant_id) == []


def test_a_tenant_stopped_in_the_middle_of_a_refresh_is_set_right(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    """Stopped while one is under way it stops after it; what a process that died has left is cleared meanwhile."""
    tenant, services = launched(), installation.services
    stopping = threading.Thread(target=_stop, args=(installation, tenant))

    def stop_meanwhile(step: str) -> None:
        if step == "starting":
            stopping.start()

    done = dataclasses.replace(services.refresh, at=stop_meanwhile).run(tenant, actor=system("tests"))
    stopping.join(PATIENCE_S)
    assert done.state is RefreshState.DONE
    assert tenants.get(services.store, tenant.id).state is TenantState.STOPPED
    with pytest.raises(TenantNotRunning, match="stopped"):
        services.refresh.run(tenant, actor=system("tests"))

    left = new_id("g")
    refreshes.begin(
        services.store,
        tenant_id=tenant.id,
        kind=RefreshKind.REFRESH,
        generation_id=left,
        previous_id=done.generation_id,
        snapshot_id=done.snapshot_id,
        requested_by="tests",
    )
    with services.store.begin() as connection:
        generations.add(connection, left, tenant.id, str(done.snapshot_id), now=datetime.now(UTC))
    partial = services.settings.places.generation(tenant.id, f"{left}.partial")
    partial.mkdir()
    services.reconcile.run()
    wait_until(lambda: not refreshes.unfinished(services.store, tenant.id), "the refresh stayed open")
    wait_until(lambda: not partial.exists(), "its files stayed")
    assert not any(one.running for one in services.reconcile.engine.containers(tenant_id=tenant.id))
    installation.run("tenant", "start", tenant.name)
    assert answers(installation.browser("admin"), installation.address(tenant.name))


def _stop(installation: Running, tenant: Tenant) -> None:
    """Busy is an answer; asking again is how it is dealt with."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            installation.services.tenants.stop(tenant.name, actor=system("tests"))
            return
        except TenantBusy:
            assert time.monotonic() < deadline, "the refresh held the tenant"


def test_a_failed_launch_leaves_nothing_behind(installation: Running) -> None:
    admin = installation.browser("admin")
    # It exists, so the launch begins; a sandbox cannot be started from it.
    body = {"name": "unfit", "image": installation.services.installation.drivers.images.pool}
    answer = admin.send("POST", f"{installation.console}/api/v1/tenants", body)
    assert (answer.status, answer.json()["code"]) == (503, "outside_failure.sandbox_ended"), answer.text
    found = tenants.named(installation.services.store, "unfit")
    assert found.state is TenantState.FAILED and found.reason
    engine = installation.services.installation.drivers.engine
    assert engine.containers(tenant_id=found.id) == [] and engine.networks(tenant_id=found.id) == []
    assert not installation.services.launch.tenancy.generations.on_disk(found.id)
    installation.run("tenant", "remove", "unfit", "--yes")


def test_containers_that_are_not_ours_are_never_touched(installation: Running) -> None:
    drivers = installation.services.installation.drivers
    stranger = DockerEngine("stranger", Connection())
    spec = ContainerSpec(
        name=f"{installation.settings.instance}-tstranger-sandbox",
        image=drivers.images.postgres,
        argv=("sleep", "600"),
        uid=65534,
        gid=65534,
        limits=ContainerLimits(64 << 20, 0.5, 16),
        role="sandbox",
        tenant_id="tstranger",
    )
    try:
        stranger.start(spec)
        installation.services.reconcile.run()
        found = stranger.observe(spec.name)
        assert found is not None and found.running
    finally:
        stranger.remove(spec.name)
        stranger.connection.close()
