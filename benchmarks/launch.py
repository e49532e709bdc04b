"""Launching: from the API call to the first 200 through the hostname, and what idle tenants and the control plane hold.

Sizes come from the environment: LAUNCH_TIMES (15), LAUNCH_FLEET (50).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.numbers import emit, say
from orchestrator.core.names import TenantNames
from orchestrator.core.ports.engine import Attachment
from orchestrator.core.tenants import Tenant
from orchestrator.setup import processes
from orchestrator.store import tenants
from tests.support.installation import Running, running

TIMES = int(os.environ.get("LAUNCH_TIMES", "15"))
FLEET = int(os.environ.get("LAUNCH_FLEET", "50"))
AT_ONCE = 2
SETTLE_S = 5.0
IDLE_S = 90.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    say("bringing up an installation with the demo")
    with running() as installation:
        _launches(installation)
        _fleet(installation)


def _launches(installation: Running) -> None:
    """One after the other, each removed again; beside each the same image started as a plain hardened container."""
    admin = installation.browser("admin")
    spent, plain = [], []
    for number in range(TIMES):
        name = f"bench-{number}"
        began = time.monotonic()
        answer = admin.send("POST", f"{installation.console}/api/v1/tenants", {"name": name})
        took = time.monotonic() - began
        if answer.status != 201:
            raise SystemExit(f"{name} was not launched: {answer.text}")
        spent.append(took)
        tenant = tenants.named(installation.services.store, name)
        plain.append(_plain_start(installation, tenant))
        say(f"  {took:.3f} s, plain container {plain[-1]:.3f} s")
        installation.run("tenant", "remove", name, "--yes")
    emit("launch_to_200_s", spent, "s", baseline=sorted(plain)[len(plain) // 2])


def _plain_start(installation: Running, tenant: Tenant) -> float:
    """The tenant's own image in an equally hardened container, without database, route or app; until it runs."""
    sandbox = installation.services.launch.tenancy.sandbox
    spec = sandbox.spec(tenant, Attachment("", ""))
    bare = replace(spec, name=f"{spec.name}-plain", networks=(), argv=(), role="aside")
    engine = installation.services.installation.drivers.engine
    began = time.monotonic()
    engine.start(bare)
    took = time.monotonic() - began
    engine.remove(bare.name)
    return took


def _fleet(installation: Running) -> None:
    """Many tenants on one machine: all answer; memory of an idle one, and of the control plane beside them."""
    admin = installation.browser("admin")
    names = [f"fleet-{number}" for number in range(FLEET)]

    def launch(name: str) -> int:
        answer = installation.browser("admin").send("POST", f"{installation.console}/api/v1/tenants", {"name": name})
        return answer.status

    say(f"{FLEET} tenants side by side")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(launch, names))
    answering = sum(admin.get(installation.address(name)).status == 200 for name in names)
    emit("fleet_answering", [float(answering)], "tenants", launched=statuses.count(201), wanted=FLEET)
    time.sleep(SETTLE_S)
    busy = _control_plane(installation)
    before, began = _processor_s(installation), time.monotonic()
    say(f"{IDLE_S:.0f} s in which nobody asks for anything")
    time.sleep(IDLE_S)
    spent_s, idle_s = _processor_s(installation) - before, time.monotonic() - began
    emit("control_plane_idle_cpu_percent", [100 * spent_s / idle_s], "percent of one processor", tenants=FLEET)
    emit("idle_tenant_memory_bytes", [float(_tenant_bytes(installation, name)) for name in names], "bytes")
    parts = _control_plane(installation)
    # Two states, two numbers: a median of both would be of neither.
    emit("control_plane_memory_bytes", [float(sum(parts.values()))], "bytes", tenants=FLEET, parts=parts)
    emit("control_plane_memory_after_launches_bytes", [float(sum(busy.values()))], "bytes", tenants=FLEET, parts=busy)
    began = time.monotonic()
    done = installation.services.reconcile.run()
    emit("reconcile_first_round_s", [time.monotonic() - began], "s", failed=len(done.failed))
    began = time.monotonic()
    installation.services.reconcile.run()
    emit("reconcile_round_s", [time.monotonic() - began], "s", tenants=FLEET)


def _tenant_bytes(installation: Running, name: str) -> int:
    """Sandbox, pool and database together, as their cgroups count."""
    services = installation.services
    tenant = tenants.named(services.store, name)
    names = TenantNames(installation.settings.instance, tenant.id, tenant.name)
    live_id = services.launch.tenancy.pools.live_id(tenant.id)
    engine = services.installation.drivers.engine
    containers = (names.sandbox, names.pool, names.database(str(live_id)))
    return sum(engine.stats(container).memory_bytes for container in containers)


def _control_plane(installation: Running) -> dict[str, int]:
    """The two processes, the proxy and the control database."""
    settings = installation.settings
    engine = installation.services.installation.drivers.engine
    installation.services.store.dispose()  # the benchmark's own connections are not the control plane's
    found = {name: _resident_bytes(processes.pid(settings.places, name) or 0) for name in processes.NAMES}
    for part in ("proxy", "control"):
        found[part] = engine.stats(f"{settings.instance}-{part}").memory_bytes
    return found


def _processor_s(installation: Running) -> float:
    """What the same four have spent so far."""
    settings, engine = installation.settings, installation.services.installation.drivers.engine
    spent = sum(engine.stats(f"{settings.instance}-{part}").cpu_seconds for part in ("proxy", "control"))
    for name in processes.NAMES:
        fields = Path(f"/proc/{processes.pid(settings.places, name)}/stat").read_text().rsplit(")", 1)[1].split()
        spent += sum(int(one) for one in fields[11:15]) / CLOCK_TICKS  # its own and its ended children's
    return spent


def _resident_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text() if pid else ""
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
