"""The container engine dies in the middle of a launch: nothing is lost, nothing half-made stays, all comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from orchestrator import config
from orchestrator.core.names import TenantNames
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.setup.root_image import ROOT
from orchestrator.store import tenants
from orchestrator.wiring.build import build
from orchestrator.wiring.services import Services
from tests.support.engine import SessionImages
from tests.support.installation import configured, free_slot
from tests.support.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.timeout(1800)]
PATIENCE_S = 600.0  # under a minute in all on a machine with nothing else to do
VISIT = """
import sys
from orchestrator import config
from orchestrator.store import tenants
from orchestrator.wiring.build import build
services = build(config.load())
services.launch.answers(tenants.named(services.store, sys.argv[1]))
"""
# Stands still in the middle, for as long as the file of its second argument is there.
LAUNCH = """
import sys, time
from pathlib import Path
from orchestrator import config
from orchestrator.core.actors import system
from orchestrator.errors import OrchestratorError
from orchestrator.flows.launch import LaunchRequest
from orchestrator.wiring.build import build
name, file = sys.argv[1], Path(sys.argv[2])
services = build(config.load())
def progress(step):
    if step == "sandbox":
        file.write_text("reached")
        while file.exists():
            time.sleep(0.05)
request = LaunchRequest(name, snapshot_profile=services.settings.tenants.snapshot_profile)
try:
    services.launch.run(request, actor=system("tests"), progress=progress)
except OrchestratorError as error:
    print(error.code)
"""
ASK = """
import http.client, json, sys
port, token, name = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=200)
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
connection.request("POST", "/api/v1/tenants", json.dumps({"name": name}), headers)
answer = connection.getresponse()
print(json.dumps([answer.status, answer.getheader("Content-Type"), json.load(answer)]))
"""


@dataclass(frozen=True)
class Site:
    """An installation on the second engine. Its programs run in the engine's network."""

    engine: SecondEngine
    directory: Path

    def started(self, *argv: str) -> subprocess.Popen[str]:
        environment = {**self.engine.environment, "ORCHESTRATOR_CONFIGS": str(self.directory)}
        return subprocess.Popen(
            self.engine.inside(sys.executable, *argv),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def run(self, *argv: str, expect: int = 0) -> str:
        process = self.started(*argv)
        said, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == expect, f"{argv}: {process.returncode}\n{said[-3000:]}\n{told[-3000:]}"
        return said

    def orchestrator(self, *argv: str, expect: int = 0) -> str:
        return self.run("-m", "orchestrator", *argv, expect=expect)

    def answers(self, name: str) -> bool:
        process = self.started("-c", VISIT, name)
        process.communicate(timeout=PATIENCE_S)
        return process.returncode == 0


@pytest.fixture
def site(images: SessionImages) -> Iterator[Site]:
    """One with the demo production and a snapshot, and no tenant yet."""
    wanted = replace(images.all(), egress=images.pool, control="")  # nothing here leaves its network
    names = {ROOT, images.base, *(name for name in vars(wanted).values() if name)}
    with free_slot("engine") as slot, second_engine(Path(f"/tmp/orchestrator-engine-{slot}"), names) as engine:
        directory = configured(engine.root / "site", f"second{slot}", plan="10.231.0.0/16")
        main = directory / "orchestrator.yaml"
        values = yaml.safe_load(main.read_text())
        values["images"] = {name: image for name, image in vars(wanted).items() if image}
        values["reconcile"] = {**values["reconcile"], "every": "1 s"}
        main.write_text(yaml.safe_dump(values))
        (directory.parent / "cron" / "schedule.yaml").write_text("snapshot: {every: 4h, enabled: false}\n")
        made = Site(engine, directory)
        try:
            made.run("-m", "orchestrator.setup")
            made.orchestrator("up")
            made.orchestrator("snapshot", "take")
            yield made
        finally:
            if not engine.is_up():
                engine.start()
            for argv in (("orchestrator", "down"), ("orchestrator.setup", "--remove", "--keep-images", "--yes")):
                made.started("-m", *argv).communicate(timeout=PATIENCE_S)


@pytest.fixture
def services(site: Site) -> Iterator[Services]:
    """To look on: records and databases are reached by their sockets."""
    made = build(config.load(site.directory, environment={}))
    yield made
    made.close()


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_everything_comes_back_after_the_engine_was_killed_in_a_launch(site: Site, services: Services) -> None:
    site.orchestrator("tenant", "launch", "north")
    north = tenants.named(services.store, "north")
    own = make_conninfo(
        host=str(services.settings.places.pool_sockets(north.id)),
        user=TenantNames("", north.id, north.name).role,
        dbname=APP_DATABASE,
        password=services.launch.tenancy.pools.password(north),
    )
    with psycopg.connect(own, autocommit=True, prepare_threshold=None) as connection:
        connection.execute("CREATE TABLE hotel.kept AS SELECT 42 AS answer")

    site.orchestrator("user", "create", "ada", "--role", "admin")
    token = json.loads(site.orchestrator("token", "create", "ada", "tests", "-o", "json"))["secret"]

    file = site.engine.root / "stand-still"
    file.touch()
    launching = site.started("-c", LAUNCH, "south", str(file))
    wait_until(lambda: file.read_text() == "reached", "the launch did not get there")
    site.engine.kill()
    file.unlink()
    said, told = launching.communicate(timeout=PATIENCE_S)
    assert said.splitlines()[-1:] == ["outside_failure.engine_unreachable"], said + told
    # While it is down, asking for more is answered, by the API and by the command line.
    port = str(services.settings.api.port)
    status, media_type, problem = json.loads(site.run("-c", ASK, port, token, "west"))
    code = "outside_failure.engine_unreachable"
    assert (status, media_type, problem["code"]) == (503, "application/problem+json", code), problem
    assert "Traceback" not in str(problem)
    refused = site.started("-m", "orchestrator", "tenant", "launch", "east")
    _, told = refused.communicate(timeout=PATIENCE_S)
    assert refused.returncode == 7 and "error: " in told and "Traceback" not in told, told
    site.engine.start()

    wait_until(lambda: is_back(own), "the tenant's own rows did not come back")
    wait_until(lambda: site.answers("north"), "its hostname did not answer again")
    assert tenants.get(services.store, north.id).state is TenantState.RUNNING
    looking = DockerEngine(services.settings.instance, Connection(address=site.engine.address))
    try:
        for name in ("south", "west", "east"):
            half = tenants.named(services.store, name)
            assert half.state is TenantState.FAILED and "engine" in half.reason
            wait_until(lambda half=half: nothing_is_left(services, looking, half), f"half of {name} stayed")  # type: ignore[misc]
    finally:
        looking.connection.close()
    for name in ("south", "west", "east"):
        site.orchestrator("tenant", "remove", name, "--yes")
    site.orchestrator("tenant", "launch", "south")
    assert all(row["runs"] for row in json.loads(site.orchestrator("status", "-o", "json")))


def nothing_is_left(services: Services, engine: DockerEngine, tenant: Tenant) -> bool:
    on_disk = services.launch.tenancy.generations.on_disk(tenant.id)
    return not (engine.containers(tenant_id=tenant.id) or engine.networks(tenant_id=tenant.id) or on_disk)


def is_back(own: str) -> bool:
    try:
        with psycopg.connect(own, prepare_threshold=None, connect_timeout=5) as connection:
            return connection.execute("SELECT answer FROM hotel.kept").fetchall() == [(42,)]
    except psycopg.Error:
        return False
