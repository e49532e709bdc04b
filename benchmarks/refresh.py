"""Refreshing one tenant and fifty: how long it takes, what it costs on disk, what its clients notice.

The environment says how much; 0 leaves a part out:
    REFRESH_MB=1500          size of the database everything but the comparison of sizes is measured on
    REFRESH_TIMES=9          refreshes of one tenant, and of each size
    REFRESH_SWAPS=100        refreshes in a row under 16 writing clients
    REFRESH_FLEET=50         tenants refreshed from one snapshot while another one writes
    REFRESH_SIZES=100,10000  further sizes in MB whose refreshes are compared; empty for none
The volume needs room for the largest of them and as much again for sealing it, the disk below it likewise.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.support.engine import TEST_ROOT, SessionImages, directory_on, mounted_volume, running_engine
from tests.support.refreshing import ACTOR, BUILDER_LIMITS, DataPlane, data_plane

MB = int(os.environ.get("REFRESH_MB", "1500"))
TIMES = int(os.environ.get("REFRESH_TIMES", "9"))
SWAPS = int(os.environ.get("REFRESH_SWAPS", "100"))
FLEET = int(os.environ.get("REFRESH_FLEET", "50"))
SIZES = [int(size) for size in os.environ.get("REFRESH_SIZES", "100,10000").split(",") if size.strip()]
WRITERS = 16
AT_ONCE = 4
QUIET_S = 12.0  # writing without a swap, to compare with
AFTERWARDS_S = 0.5  # a swap's window ends so long after it: the last client has its answer by then
ROWS_PER_MB = 6_700  # of accounts, with its index
BALLAST_PER_MB = 128  # rows that fill a page each
ACCOUNTS_MB_MAX = 1_500
ROOM_FACTOR = 1.3
COUNTED = ("cloning", "starting", "checking", "swapping")


def main() -> None:
    medians: dict[int, float] = {}
    with _plane(MB) as plane:
        size_mb = max(MB, 16)
        snapshot_id = _snapshot(plane, size_mb)
        tenant = plane.launch(snapshot_id)
        if TIMES:
            baseline_s = _restore(plane, tenant)
            medians[size_mb] = _single(plane, tenant, size_mb, baseline_s)
            _disk(plane, tenant, snapshot_id)
        if SWAPS:
            _swaps(plane, tenant)
        if FLEET:
            _fleet(plane, tenant, snapshot_id)
    for size_mb in SIZES if TIMES else []:
        with _plane(size_mb) as plane:
            medians[size_mb] = _single(plane, plane.launch(_snapshot(plane, size_mb)), size_mb, None)
    if len(medians) > 1:
        spread = max(medians.values()) / min(medians.values())
        emit("refresh_size_factor", [spread], "ratio", medians_s={size: round(medians[size], 4) for size in medians})


@contextmanager
def _plane(size_mb: int) -> Iterator[DataPlane]:
    images = SessionImages()
    _check_room(size_mb)
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


def _check_room(size_mb: int) -> None:
    wanted = int(size_mb * ROOM_FACTOR) << 20
    for what, free in (
        ("volume", mounted_volume().free_bytes()),
        ("disk below the volume", shutil.disk_usage(TEST_ROOT).free),
    ):
        if free < wanted:
            raise SystemExit(f"The {what} has {free >> 20} MiB free; {size_mb} MB of data need {wanted >> 20}.")


def _snapshot(plane: DataPlane, size_mb: int) -> str:
    """Rows as an application has them, and from 1.5 GB on rows that fill a page each: they are written faster."""
    say(f"making a database of {size_mb} MB")
    accounts_mb = min(size_mb, ACCOUNTS_MB_MAX)
    rows = max(65536, accounts_mb * ROWS_PER_MB)
    statements = [
        "CREATE TABLE accounts (id integer, balance integer NOT NULL DEFAULT 0, filler char(84) NOT NULL DEFAULT '')",
        f"INSERT INTO accounts (id) SELECT generate_series(1, {rows})",
        "ALTER TABLE accounts ADD PRIMARY KEY (id)",
    ]
    if size_mb > accounts_mb:
        line = "$(head -c 7900 /dev/zero | tr '\\0' x)".replace("'", "''")
        statements.append(
            "BEGIN; CREATE TABLE ballast (filler text STORAGE PLAIN);"
            f" COPY ballast FROM PROGRAM 'yes \"{line}\" | head -n {(size_mb - accounts_mb) * BALLAST_PER_MB}'"
            " WITH (FREEZE); COMMIT"
        )
    return plane.take_snapshot(*statements)


def _single(plane: DataPlane, tenant: Tenant, size_mb: int, baseline_s: float | None) -> float:
    """From before the clone to after the swap, journal and all; returns the median."""
    say(f"{TIMES} refreshes of one tenant with {size_mb} MB")
    edges: dict[str, float] = {}
    flow = plane.flow(lambda step: edges.__setitem__(step, time.monotonic()))
    records: list[Refresh] = []
    spent: list[float] = []
    for _ in range(TIMES):
        records.append(flow.run(tenant, actor=ACTOR))
        spent.append(edges["settling"] - edges["cloning"])
    steps = {step: round(statistics.median(one.timings[step] for one in records), 4) for step in COUNTED}
    emit(f"refresh_{size_mb}mb_s", spent, "s", baseline=baseline_s, steps=steps)
    return statistics.median(spent)


def _disk(plane: DataPlane, tenant: Tenant, snapshot_id: str) -> None:
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
        began = time.time()
        time.sleep(QUIET_S)
        quiet = (began, time.time())
        watched = plane.flow(lambda step: edges.append(time.time()) if step in ("swapping", "settling") else None)
        for _ in range(SWAPS):
            edges.clear()
            record = watched.run(tenant, actor=ACTOR)
            windows.append((edges[0], edges[-1] + AFTERWARDS_S))
            gaps.append(record.gap_s or 0.0)
    stalls = _longest(clients, windows)
    length_s = statistics.median(end - begin for begin, end in windows)
    without = _longest(clients, _slices(*quiet, length_s))
    every = [spent for _, spent in clients.waits]
    emit(
        "swap_stall_p99_s",
        stalls,
        "s",
        value=percentile(stalls, 0.99),
        median_s=round(statistics.median(stalls), 4),
        gap_median_s=round(statistics.median(gaps), 4),
        gap_p99_s=round(percentile(gaps, 0.99), 4),
        without_a_swap_p99_s=round(percentile(without, 0.99), 4),
        without_a_swap_median_s=round(statistics.median(without), 4),
        transaction_p50_s=round(percentile(every, 0.5), 5),
        transaction_p999_s=round(percentile(every, 0.999), 5),
    )
    emit("swap_failed_transactions", [float(len(clients.failures))], "transactions", transactions=len(every))
    for failure in clients.failures[:3]:
        say(failure)


def _longest(clients: Clients, windows: list[tuple[float, float]]) -> list[float]:
    """The longest wait that ended within each of them."""
    return [
        max((spent for ended, spent in clients.waits if begin <= ended <= end), default=0.0) for begin, end in windows
    ]


def _slices(begin: float, end: float, length_s: float) -> list[tuple[float, float]]:
    return [(begin + n * length_s, begin + (n + 1) * length_s) for n in range(max(1, int((end - begin) / length_s)))]


def _fleet(plane: DataPlane, other: Tenant, snapshot_id: str) -> None:
    say(f"launching {FLEET} tenants")
    with ThreadPoolExecutor(AT_ONCE) as launching:
        fleet = list(launching.map(lambda _: plane.launch(snapshot_id), range(FLEET)))
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
        other_tenant_transactions=len(clients.waits),
        other_tenant_p99_s=round(percentile([spent for _, spent in clients.waits], 0.99), 4),
    )
