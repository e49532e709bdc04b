"""Commands through API, audit and kernel gate: one round trip beside `docker exec`, and many at once.

Brings up an installation of its own, with the demo. COMMANDS_RUNS (100) and COMMANDS_TENANTS (10) set the size.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from benchmarks.numbers import emit, percentile, say
from orchestrator.core.access import Role
from orchestrator.core.actors import system
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.audit import AuditEvent
from orchestrator.core.commands import CommandState, Outcome
from orchestrator.core.names import TenantNames, new_id
from orchestrator.core.tenants import Tenant
from orchestrator.flows.launch import LaunchRequest
from orchestrator.store import commands, users
from tests.support.installation import Running, running

RUNS = int(os.environ.get("COMMANDS_RUNS", "100"))
TENANTS = int(os.environ.get("COMMANDS_TENANTS", "10"))
EACH = 20
IN_A_ROW = 10
PASSWORD = "a password for measuring"


@dataclass
class Api:
    """One client with a connection of its own, kept open."""

    port: int
    host: str
    cookie: str = ""

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def post(self, path: str, document: object) -> tuple[int, object]:
        headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin", "Host": self.host}
        if self.cookie:
            headers["Cookie"] = self.cookie
        self.connection.request("POST", path, json.dumps(document), headers)
        response = self.connection.getresponse()
        if found := response.getheader("Set-Cookie"):
            self.cookie = found.split(";", 1)[0]
        return response.status, json.loads(response.read() or b"null")

    def run(self, tenant: str, *argv: str) -> float:
        start = time.perf_counter()
        status, answer = self.post("/api/v1/commands", {"tenant": tenant, "argv": list(argv)})
        spent = time.perf_counter() - start
        if status != 201 or not isinstance(answer, dict) or answer["exit_code"] != 0:
            raise RuntimeError(f"the command did not succeed: {status} {answer}")
        return spent


def main() -> None:
    with running() as installation:
        users.add(installation.services.store, "bench", Role.ADMIN, PASSWORD)
        tenants = [_launch(installation, number) for number in range(TENANTS)]
        _round_trip(installation, tenants[0])
        _many(installation, tenants)


def _client(installation: Running, *, port: int | None = None) -> Api:
    """As a program outside: through the proxy, to the process that serves; with `port`, to that one itself."""
    api = Api(port or installation.settings.proxy.port, urlsplit(installation.console).netloc)
    status, answer = api.post("/api/v1/session", {"name": "bench", "password": PASSWORD})
    if status != 201:
        raise RuntimeError(f"signing in failed: {answer}")
    return api


def _launch(installation: Running, number: int) -> Tenant:
    request = LaunchRequest(f"bench-{number}", snapshot_profile=installation.settings.tenants.snapshot_profile)
    return installation.services.launch.run(request, actor=system("benchmark"))


def _round_trip(installation: Running, tenant: Tenant) -> None:
    """Ten of ours, ten of theirs, and so on: as an agent asks, one after the other, and both on the same machine."""
    api = _client(installation)
    direct = _client(installation, port=installation.settings.api.port)
    names = TenantNames(installation.settings.instance, tenant.id, tenant.name)
    for _ in range(5):
        api.run(tenant.name, "true")
    ours, theirs, without_proxy = [], [], []
    execute = ["docker", "exec", names.sandbox, "/usr/bin/true"]
    for _ in range(RUNS // IN_A_ROW):
        ours += [api.run(tenant.name, "true") for _ in range(IN_A_ROW)]
        without_proxy += [direct.run(tenant.name, "true") for _ in range(IN_A_ROW)]
        theirs += [_timed(lambda: subprocess.run(execute, check=True, capture_output=True)) for _ in range(IN_A_ROW)]
    # In turn with something else each of ours finds its pages and processes gone from the processor's caches.
    in_turn = []
    for _ in range(RUNS // 2):
        subprocess.run(execute, check=True, capture_output=True)
        in_turn.append(api.run(tenant.name, "true"))
    emit(
        "command_roundtrip_s",
        ours,
        "s",
        baseline=percentile(theirs, 0.5),
        without_proxy_s=round(percentile(without_proxy, 0.5), 6),
        in_turn_s=round(percentile(in_turn, 0.5), 6),
        p95=round(percentile(ours, 0.95), 6),
        **_parts(installation, tenant),
    )


def _parts(installation: Running, tenant: Tenant) -> dict[str, float]:
    """Where the time goes: the whole without HTTP, the sandbox alone, one flushed record alone; medians."""
    flow, audit = installation.services.commands, installation.services.audit
    gatekeeper, actor, request = flow.gatekeeper, system("benchmark"), CommandRequest(argv=("true",))
    runner = gatekeeper.runners["sandbox"]
    begun = gatekeeper.let_through(tenant, request, actor=actor, request_id="")
    works: dict[str, Callable[[], object]] = {
        "without_http_s": lambda: flow.run(tenant, request, actor=actor),
        "sandbox_s": lambda: runner.run(replace(begun.task, id=new_id("k"), held=None), lambda stream, data: None),
        "record_s": lambda: audit.append(AuditEvent(actor, "benchmark.record")),
    }
    if begun.task.held is not None:
        begun.task.held.close()
    commands.finish(installation.services.store, begun.command, Outcome(CommandState.FINISHED))
    return {name: round(percentile([_timed(work) for _ in range(RUNS)], 0.5), 6) for name, work in works.items()}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _many(installation: Running, tenants: list[Tenant]) -> None:
    """Twenty commands at once in one tenant, then as many in each of ten; signing in is not measured."""
    client = _client(installation)
    for count in sorted({1, len(tenants)}):
        some = tenants[:count]
        names = [tenant.name for tenant in some for _ in range(EACH)]
        clients = [replace(client, cookie=client.cookie) for _ in names]
        with ThreadPoolExecutor(len(names)) as pool:
            start = time.perf_counter()
            spent = list(pool.map(lambda api, name: api.run(name, "true"), clients, names))
            total = time.perf_counter() - start
        say(f"{len(spent)} commands at once in {len(some)} tenants: {len(spent) / total:.0f} a second")
        if count == len(tenants):
            emit("commands_200_s", spent, "s", value=total, per_second=round(len(spent) / total, 1))
