"""From inside a tenant nothing else can be reached, and what it may use is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from orchestrator.core.names import new_id
from orchestrator.core.ports.sandboxd import CommandExited, CommandLimits, CommandOutput, SandboxCommand
from orchestrator.core.ports.servers import READER_ROLE
from orchestrator.core.probes import BOUNDARIES, Kind, Outcome
from orchestrator.core.tenants import Tenant
from orchestrator.store import tenants
from tests.support.installation import Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
PYTHON = "/usr/bin/python3"
PATIENCE_S = 90.0


def inside(installation: Running, tenant: Tenant, script: str, *, wall_s: float = 60.0) -> tuple[str, CommandExited]:
    """Run a Python script as the tenant would, with the environment of its app; standard output and its end."""
    sandbox = installation.services.launch.tenancy.sandbox
    said, ended = bytearray(), None
    command = SandboxCommand(
        id=new_id("c"),
        program=PYTHON,
        argv=(PYTHON, "-c", script),
        cwd="/workspace",
        environment=dict(sandbox.app_spec(tenant).environment),
        limits=CommandLimits(wall_s=wall_s),
    )
    for event in sandbox.connect(tenant).run(command):
        if isinstance(event, CommandOutput):
            said.extend(event.data)
        elif isinstance(event, CommandExited):
            ended = event
    assert ended is not None
    return said.decode(errors="replace"), ended


def demo_tenant(installation: Running, name: str) -> Tenant:
    return tenants.named(installation.services.store, name)


def test_every_enforced_boundary_holds_when_it_is_tried(installation: Running) -> None:
    found = {row["boundary"]: row for row in installation.json("tenant", "probe", "harbour")}
    for boundary in BOUNDARIES:
        row = found[boundary.id]
        if boundary.kind is Kind.ENFORCED:
            assert row["outcome"] == Outcome.HOLDS.value, row
            assert row["tried"] and row["evidence"], row
        else:
            assert row["outcome"] == Outcome.NOT_TRIED.value, row
    admin = installation.browser("admin")
    kept = admin.ask("GET", f"{installation.console}/api/v1/tenants/harbour/probe").json()
    assert kept["is_sound"] and len(kept["boundaries"]) == len(BOUNDARIES)


def test_a_query_that_asks_for_all_memory_takes_its_own_session_and_nothing_else(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    victim, neighbour = launched(), demo_tenant(installation, "riverside")
    tenancy = installation.services.launch.tenancy
    live_id = tenancy.pools.live_id(neighbour.id)
    assert live_id is not None
    sockets = tenancy.places.database_sockets(neighbour.id, live_id)
    with psycopg.connect(tenancy.generations.servers.dsn(sockets, user=READER_ROLE, database="app")) as beside:
        before = beside.execute("SELECT pg_postmaster_start_time(), pg_backend_pid()").fetchone()
        script = (
            "import psycopg\n"
            "with psycopg.connect(prepare_threshold=None, autocommit=True) as c:\n"
            "    c.execute(\"SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 900)\")\n"
        )
        said, ended = inside(installation, victim, script)
        assert ended.exit_code != 0, said
        assert beside.execute("SELECT pg_postmaster_start_time(), pg_backend_pid()").fetchone() == before
    again = (
        "import psycopg\nwith psycopg.connect(prepare_threshold=None) as c: print(c.execute('SELECT 42').fetchone())\n"
    )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        said, ended = inside(installation, victim, again)
        if ended.exit_code == 0 and "42" in said:
            break
        assert time.monotonic() < deadline, f"the database did not come back: {said}"
        time.sleep(0.5)


def test_a_flood_of_processes_ends_at_its_bound_and_the_app_still_answers(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    script = (
        "import os, signal\n"
        "made = []\n"
        "try:\n"
        "    for _ in range(5000):\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            signal.pause()\n"
        "        made.append(child)\n"
        "except OSError as error:\n"
        "    print(len(made), os.strerror(error.errno))\n"
    )
    said, _ = inside(installation, tenant, script)
    made, _, reason = said.strip().partition(" ")
    assert reason == "Resource temporarily unavailable", said
    assert int(made) < installation.settings.limits.profile(tenant.profile).sandbox.pids
    manager = installation.browser("admin")
    assert manager.get(installation.address(tenant.name)).status == 200


def test_memory_ends_at_its_bound_and_the_app_still_answers(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    script = "held = []\nwhile True:\n    held.append(bytearray(8 * 2**20))\n"
    _, ended = inside(installation, tenant, script)
    assert ended.exit_code != 0
    manager = installation.browser("admin")
    deadline = time.monotonic() + PATIENCE_S
    while manager.get(installation.address(tenant.name)).status != 200:
        assert time.monotonic() < deadline, "the app did not come back"
        time.sleep(0.5)


def test_the_role_has_its_bounds_and_its_own_data_alone(installation: Running) -> None:
    tenant = demo_tenant(installation, "harbour")
    script = (
        "import psycopg\n"
        "with psycopg.connect(prepare_threshold=None, autocommit=True) as c:\n"
        "    print(c.execute('SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user').fetchone()[0])\n"
        "    for text in ('COPY (SELECT 1) TO PROGRAM $$true$$', 'SELECT pg_read_file($$/etc/passwd$$)',\n"
        "                 'CREATE ROLE more', 'ALTER SYSTEM SET work_mem = $$1GB$$', 'CREATE DATABASE other'):\n"
        "        try:\n"
        "            c.execute(text.replace('$$', chr(39)))\n"
        "            print('done', text)\n"
        "        except psycopg.Error as error:\n"
        "            print(error.sqlstate)\n"
    )
    said, ended = inside(installation, tenant, script)
    assert ended.exit_code == 0, said
    limit, *refused = said.split()
    assert int(limit) == installation.settings.limits.profile(tenant.profile).database.connections
    assert len(refused) == 5 and set(refused) <= {"42501", "0A000"}, said  # not allowed, or switched off for all
