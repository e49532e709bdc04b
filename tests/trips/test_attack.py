"""An attacker inside a sandbox, with every port let through by the kernel gate: the network itself says no."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import psycopg
import pytest

from orchestrator.core.names import TenantNames, new_id
from orchestrator.core.ports.sandboxd import (
    Access,
    CommandExited,
    CommandLimits,
    CommandOutput,
    PathGrant,
    SandboxCommand,
)
from orchestrator.core.tenants import Tenant
from orchestrator.store import tenants
from orchestrator.wiring.drivers import PROXY_API_PORT, WEB_PORT
from tests.support.installation import Running

pytestmark = [pytest.mark.engine, pytest.mark.trip]
PYTHON = "/usr/bin/python3"
SSH, POSTGRES, ENGINE = 22, 5432, 2375
CONNECT = """
import json, socket, sys, threading
found = {}
def reach(key, host, port):
    try:
        with socket.create_connection((host, port), timeout=2):
            found[key] = "connected"
    except OSError as error:
        found[key] = type(error).__name__ + ": " + str(error)
threads = [threading.Thread(target=reach, args=one) for one in json.load(sys.stdin)]
for thread in threads: thread.start()
for thread in threads: thread.join()
json.dump(found, sys.stdout)
"""


def inside(
    installation: Running, tenant: Tenant, script: str, *, stdin: str = "", ports: tuple[int, ...] = ()
) -> tuple[str, CommandExited]:
    """Run Python as the tenant, with its app's environment and `ports` let through by the kernel gate."""
    sandbox = installation.services.launch.tenancy.sandbox
    said, ended = bytearray(), None
    command = SandboxCommand(
        id=new_id("c"),
        program=PYTHON,
        argv=(PYTHON, "-c", script),
        cwd="/workspace",
        environment=dict(sandbox.app_spec(tenant).environment),
        stdin=stdin.encode(),
        limits=CommandLimits(wall_s=90),
        grants=(PathGrant("/workspace", Access.WRITE), PathGrant("/run/postgresql", Access.LIST)),
        tcp_connect=ports,
    )
    for event in sandbox.connect(tenant).run(command):
        if isinstance(event, CommandOutput):
            said.extend(event.data)
        elif isinstance(event, CommandExited):
            ended = event
    assert ended is not None
    return said.decode(errors="replace"), ended


@pytest.fixture
def tenant(installation: Running) -> Tenant:
    return tenants.named(installation.services.store, "harbour")


def other_tenants(installation: Running) -> Iterator[Tenant]:
    for name in ("riverside", "hillside"):
        yield tenants.named(installation.services.store, name)


def test_no_door_of_the_host_the_proxy_or_a_neighbour_opens(installation: Running, tenant: Tenant) -> None:
    settings, network = installation.settings, installation.services.launch.tenancy.network
    own = network.addresses(tenant)
    control = (settings.api.port, settings.api.edge_port, settings.proxy.port, SSH, ENGINE, POSTGRES)
    wanted = [("own", own.sandbox, 8000)]
    for host in (settings.networks.edge_gateway, "172.17.0.1", str(own.subnet[1]), "host.docker.internal"):
        wanted += [(f"host {host}:{port}", host, port) for port in control]
    for host in (own.proxy, settings.networks.edge_proxy):
        wanted += [(f"proxy {host}:{port}", host, port) for port in (WEB_PORT, PROXY_API_PORT, 80)]
    for one in other_tenants(installation):
        where = network.addresses(one)
        wanted += [(f"{one.name} {where.sandbox}:{port}", where.sandbox, port) for port in (8000, POSTGRES)]
        wanted.append((f"{one.name}'s door", where.proxy, WEB_PORT))
    wanted += [("metadata", "169.254.169.254", 80), ("outside", "1.1.1.1", 443), ("a name", "example.com", 443)]
    ports = tuple(sorted({port for _, _, port in wanted}))
    said, ended = inside(installation, tenant, CONNECT, stdin=json.dumps(wanted), ports=ports)
    assert ended.exit_code == 0, said
    found = json.loads(said)
    assert found.pop("own") == "connected", "without it nothing would be proved"
    assert len(found) == len(wanted) - 1
    assert not [key for key, answer in found.items() if answer == "connected"], found


def test_packets_cannot_be_made_and_names_are_asked_of_nobody(installation: Running, tenant: Tenant) -> None:
    edge = installation.settings.networks.edge_gateway
    script = (
        "import socket\n"
        "for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):\n"
        "    try:\n"
        "        socket.socket(family, kind, 1).close(); print('made')\n"
        "    except OSError as error: print('refused')\n"
        f"for host in ('127.0.0.11', '8.8.8.8', {edge!r}):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:\n"
        "        asking.settimeout(2)\n"
        "        question = b'\\1\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\3com\\0\\0\\1\\0\\1'\n"
        "        try:\n"
        "            asking.sendto(question, (host, 53)); answer = asking.recv(512)\n"
        "            print('answered' if answer[7] else 'refused')\n"
        "        except OSError: print('refused')\n"
    )
    said, ended = inside(installation, tenant, script, ports=(53,))
    assert ended.exit_code == 0 and said.split() == ["refused"] * 5, said


def test_no_secret_of_the_installation_is_in_reach(installation: Running, tenant: Tenant) -> None:
    places = installation.settings.places
    hidden = [places.var, places.secrets, places.audit, "/var/run/docker.sock", "/run/docker.sock"]
    hidden += [places.pool_sockets(one.id) for one in other_tenants(installation)]
    hidden += [places.databases(one.id) for one in (tenant, *other_tenants(installation))]
    script = (
        "import json, os, sys\n"
        "there = [path for path in json.load(sys.stdin) if os.path.exists(path)]\n"
        "sockets = sorted(os.listdir('/run/postgresql'))\n"
        "os.symlink('/', '/workspace/.way-out')\n"
        "try: root = os.listdir('/workspace/.way-out')\n"
        "except PermissionError: root = []\n"
        "os.unlink('/workspace/.way-out')\n"
        "print(json.dumps([there, sockets, root]))\n"
    )
    said, ended = inside(installation, tenant, script, stdin=json.dumps([str(path) for path in hidden]))
    assert ended.exit_code == 0, said
    there, sockets, root = json.loads(said)
    assert there == []
    assert [name for name in sockets if not name.startswith(".s.PGSQL.")] == []
    assert root == [], "a link leads nowhere the kernel does not allow"


def test_another_tenants_name_and_password_open_nothing_here(installation: Running, tenant: Tenant) -> None:
    neighbour = next(other_tenants(installation))
    names = TenantNames(installation.settings.instance, neighbour.id, neighbour.name)
    password = installation.services.launch.tenancy.pools.password(neighbour)
    script = (
        "import psycopg, sys\n"
        "user, password = sys.stdin.read().split()\n"
        "for user, password in ((user, password), ('postgres', ''), ('pgbouncer', 'pgbouncer')):\n"
        "    try:\n"
        "        with psycopg.connect(user=user, password=password): print('let in', user)\n"
        "    except psycopg.Error: print('refused')\n"
    )
    said, ended = inside(installation, tenant, script, stdin=f"{names.role} {password}")
    assert ended.exit_code == 0 and said.split() == ["refused"] * 3, said


def test_connections_processor_time_and_memory_are_bounded(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    profile = installation.settings.limits.profile(tenant.profile)
    engine = installation.services.installation.drivers.engine
    names = TenantNames(installation.settings.instance, tenant.id, tenant.name)
    live_id = installation.services.launch.tenancy.pools.live_id(tenant.id)
    for container, limits in (
        (names.sandbox, profile.sandbox_limits),
        (names.database(str(live_id)), profile.database_limits.container),
    ):
        host = engine.connection.api.inspect_container(container)["HostConfig"]
        assert host["NanoCpus"] == int(limits.cpus * 1e9) or host["CpuQuota"] == int(limits.cpus * host["CpuPeriod"])
        assert (host["Memory"], host["PidsLimit"]) == (limits.memory_bytes, limits.pids)
        assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"] and not host["Privileged"]
        assert not host["PortBindings"]
    flood = (
        "import os, psycopg, signal\n"
        "held = []\n"
        "def enough(*_):\n"
        "    print(len(held), flush=True)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGALRM, enough)\n"
        "signal.alarm(60)\n"
        "try:\n"
        "    for _ in range(2000):\n"
        "        one = psycopg.connect(prepare_threshold=None)\n"
        "        one.execute('SELECT 1'); held.append(one)\n"
        "        signal.alarm(5)\n"  # one too many waits for its turn
        "except psycopg.Error: pass\n"
        "enough()\n"
    )
    said, ended = inside(installation, tenant, flood)
    assert ended.exit_code == 0, said
    assert 0 < int(said) <= profile.database.connections
    sockets = installation.settings.places.database_sockets(tenant.id, str(live_id))
    dsn = installation.services.installation.drivers.servers.dsn(sockets)
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", [names.role]).fetchone()
    assert found == (profile.database.connections,)
    again, _ = inside(installation, tenant, "import psycopg; psycopg.connect().close(); print('in')")
    assert again.strip() == "in", "the next visitor is served"
