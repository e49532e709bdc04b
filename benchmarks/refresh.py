"""Refreshing one tenant and fifty: how long it takes, what it costs on disk, what its clients notice.

Sizes come from the environment: REFRESH_MB (1500), REFRESH_TIMES (9), REFRESH_SWAPS (100), REFRESH_FLEET (50).
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.numbers import emit, percentile, say
from benchmarks.writers import Clients
from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.ports.engine import Mount
from orchestrator.core.ports.servers import APP_DATABASE, ServerKind, ServerSpec
from orchestrator.core.refresh import Refresh
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.postgres.tools import ToolRun, run_tool
from orchestrator.errors import OrchestratorError
from orchestrator.parts.generation import SERVICE_UID
from tests.support.cluster import running_cluster
from tests.support.engine import SessionImages, directory_on, mounted_volume, running_engine
from tests.support.refreshing import ACTOR, BUILDER_LIMITS, DataPlane, data_plane

MB = int(os.environ.get("REFRESH_MB", "1500"))
TIMES = int(os.environ.get("REFRESH_TIMES", "9"))
SWAPS = int(os.environ.get("REFRESH_SWAPS", "100"))
FLEET = int(os.environ.get("REFRESH_FLEET", "50"))
WRITERS = 16
AT_ONCE = 4
ROWS_PER_MB = 6_700  # with its index, of the table below
COUNTED = ("cloning", "starting", "checking", "swapping")


def main() -> None:
    with _plane() as plane:
        size_mb = max(MB, 16)
        say(f"making a database of {size_mb} MB")
        snapshot_id = plane.take_snapshot(*_statements(size_mb))
        tenant = plane.launch(snapshot_id)
        baseline_s = _restore(plane, tenant)
        _single(plane, tenant, snapshot_id, size_mb, baseline_s)
        _swaps(plane, tenant)
        _fleet(plane, tenant, snapshot_id)


@contextmanager
def _plane() -> Iterator[DataPlane]:
    images = SessionImages()
    with running_engine() as engine, running_cluster(fsync="on") as cluster, cluster.database() as name:
        volume = mounted_volume()
        with directory_on(volume) as directory:
            plane = data_plane(
                engine,
                volume,
                store_url=cluster.url(name),
                directory=directory,
                postgres_image=images.postgres,
                pool_image=images.pool,
                # Not held back by its own share of the processor: what is measured is the swap.
                limits=DatabaseLimits(cpus=float(os.cpu_count() or 1), memory_bytes=768 << 20),
            )
            try:
                yield plane
            finally:
                plane.clean_up()


def _statements(size_mb: int) -> tuple[str, ...]:
    return (
        "CREATE TABLE accounts (id integer, balance integer NOT NULL DEFAULT 0, filler char(84) NOT NULL DEFAULT '')",
        f"INSERT INTO accounts (id) SELECT generate_series(1, {max(65536, size_mb * ROWS_PER_MB)})",
        "ALTER TABLE accounts ADD PRIMARY KEY (id)",
    )


def _spent(refresh: Refresh) -> float:
    return sum(refresh.timings[step] for step in COUNTED)


def _single(plane: DataPlane, tenant: Tenant, snapshot_id: str, size_mb: int, baseline_s: float) -> None:
    flow = plane.flow()
    say(f"{TIMES} refreshes of one tenant")
    records = [flow.run(tenant, actor=ACTOR) for _ in range(TIMES)]
    steps = {step: round(statistics.median(one.timings[step] for one in records), 4) for step in COUNTED}
    emit(f"refresh_{size_mb}mb_s", [_spent(one) for one in records], "s", baseline=baseline_s, steps=steps)
    snapshot_bytes = plane.volume.used_bytes(plane.places.snapshot(snapshot_id))
    extra = plane.volume.exclusive_bytes(plane.places.generation(tenant.id, plane.live(tenant).id))
    emit("clone_extra_disk_ratio", [extra / snapshot_bytes], "ratio", baseline=1.0)


def _restore(plane: DataPlane, tenant: Tenant) -> float:
    """The alternative: dump the same database and restore it into a fresh instance, two jobs each."""
    say("the alternative: dump and restore")
    live = plane.generations.spec(tenant, plane.live(tenant).id, plane.limits)
    work = plane.places.disk / "restore"
    work.mkdir(parents=True)
    work.chmod(0o777)
    target = ServerSpec(
        name=f"{plane.instance}-restore",
        data=work / "data",
        sockets=plane.places.server_sockets("restore"),
        uid=SERVICE_UID,
        limits=BUILDER_LIMITS,
        kind=ServerKind.BUILDER,
    )
    began = time.monotonic()
    _tool(plane, "pg_dump", live, work, "-Fd", "-j2", "-Z0", "-f", "/work/dump", "-U", "postgres", APP_DATABASE)
    plane.servers.create(target)
    plane.servers.start(target)
    with psycopg.connect(plane.servers.dsn(target.sockets), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {APP_DATABASE}")
    restore = ("-j2", "--no-owner", "--no-acl", "-U", "postgres", "-d", APP_DATABASE, "/work/dump")
    _tool(plane, "pg_restore", target, work, *restore)
    spent_s = time.monotonic() - began
    plane.servers.remove(target.name)
    shutil.rmtree(work)
    return spent_s


def _tool(plane: DataPlane, program: str, server: ServerSpec, work: Path, *arguments: str) -> None:
    """Run as ourselves: peer authentication lets the orchestrator's own uid in as postgres."""
    run = ToolRun(
        name=f"{plane.instance}-{program.replace('_', '-')}",
        program=program,
        arguments=("-h", "/sockets", *arguments),
        uid=os.geteuid(),
        mounts=(Mount(server.sockets, "/sockets"), Mount(work, "/work")),
        timeout_s=1800,
    )
    run_tool(plane.engine, plane.servers.binaries, run)


def _swaps(plane: DataPlane, tenant: Tenant) -> None:
    say(f"{SWAPS} refreshes in a row under {WRITERS} writing clients")
    windows: list[tuple[float, float]] = []
    gaps: list[float] = []
    edges: list[float] = []
    with Clients(plane.dsn(tenant), WRITERS) as clients:
        watched = plane.flow(lambda step: edges.append(time.time()) if step in ("swapping", "settling") else None)
        for _ in range(SWAPS):
            edges.clear()
            record = watched.run(tenant, actor=ACTOR)
            # Until the last client has its answer from the new database.
            windows.append((edges[0], edges[-1] + 0.5))
            gaps.append(record.gap_s or 0.0)
    stalls = [
        max((spent for ended, spent in clients.waits if begin <= ended <= end), default=0.0) for begin, end in windows
    ]
    every = [spent for _, spent in clients.waits]
    emit(
        "swap_stall_p99_s",
        stalls,
        "s",
        value=percentile(stalls, 0.99),
        median_s=round(statistics.median(stalls), 4),
        gap_median_s=round(statistics.median(gaps), 4),
        transaction_p50_s=round(percentile(every, 0.5), 5),
        transaction_p999_s=round(percentile(every, 0.999), 5),
    )
    emit("swap_failed_transactions", [float(len(clients.failures))], "transactions", transactions=len(every))
    for failure in clients.failures[:3]:
        say(failure)


def _fleet(plane: DataPlane, other: Tenant, snapshot_id: str) -> None:
    say(f"launching {FLEET} tenants")
    fleet = [plane.launch(snapshot_id) for _ in range(FLEET)]
    say(f"refreshing them, {AT_ONCE} at a time, while another one writes")
    with Clients(plane.dsn(other), 4) as clients:
        began = time.monotonic()
        results = plane.flow().run_all(fleet, actor=ACTOR, at_once=AT_ONCE)
        spent_s = time.monotonic() - began
    failed = [result for result in results.values() if isinstance(result, OrchestratorError)]
    for failure in failed[:3]:
        say(str(failure))
    emit(
        f"fleet_refresh_{FLEET}_s",
        [spent_s],
        "s",
        failed=len(failed),
        per_tenant_s=round(spent_s / FLEET, 4),
        other_tenant_failures=len(clients.failures),
        other_tenant_p99_s=round(percentile([spent for _, spent in clients.waits], 0.99), 4),
    )
